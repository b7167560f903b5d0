"""A progress bar where there is a terminal and rich, else nothing; and the results as they come."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from .cells import Cell


class Progress:
    def __init__(self, total: int) -> None:
        self.bar: Any = None
        if sys.stdout.isatty():
            try:
                import rich.progress as rich_progress
            except ImportError:
                return
            self.bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description:<40}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(),
                transient=True,
                # It is redrawn seldom, so that it takes no time from what is measured.
                refresh_per_second=1,
            )
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, description: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, description=description, advance=1)

    def print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def result(self, cell: Cell, peers: dict[str, Any], reference: str) -> None:
        """Print the table of a cell; the ratio is to ``reference``."""
        self.print(f"\n{cell.name}: {cell.title}, {cell.unit}")
        base = peers.get(reference, {}).get("median")
        for name, outcome in peers.items():
            if "error" in outcome:
                self.print(f"  {name:<22} failed: {outcome['error']}")
                continue
            low, high = outcome["quartiles"]
            ratio = f"{outcome['median'] / base:8.2f} x" if base else ""
            cpu = ""
            if "client_cpu_us" in outcome["medians"]:
                client, server = (
                    outcome["medians"][f"{end}_cpu_us"] for end in ("client", "server")
                )
                cpu = f"   cpu {client:.3g} + {server:.3g} µs"
            if "threads" in outcome["medians"]:
                more = outcome["medians"]
                cpu = (
                    f"   {more['stack_kib']:.1f} of it stack, {more['threads']:.2f} threads,"
                    f" {more['fds']:.2f} fds"
                )
            median = outcome["median"]
            digits = f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"
            self.print(f"  {name:<22} {digits:>10}  [{low:,.4g} to {high:,.4g}]{ratio}{cpu}")
