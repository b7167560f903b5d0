"""The cells of the suite: what is measured, and in which unit."""

from __future__ import annotations

import dataclasses
import fnmatch


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One measurement, made with every peer."""

    name: str
    #: echo, receive, send, handshake, load, idle or broadcast
    kind: str
    title: str
    size: int = 32
    payload: str = "binary"
    transport: str = "plain"
    connections: int = 1
    #: Which of the measured values is the result; the others are kept beside it.
    metric: str = "wall_us"
    unit: str = "µs"
    higher_is_better: bool = False

    @property
    def same_core(self) -> bool:
        """Both ends on one core: the latency of waking another core would drown the rest."""
        return self.kind in ("echo", "handshake")

    @property
    def roles(self) -> tuple[str, ...]:
        """Which ends a peer provides; the other end is a floor program."""
        if self.kind in ("echo", "handshake"):
            return ("client", "server")
        return ("client",) if self.kind in ("receive", "send") else ("server",)


_SIZES = {32: "32", 100: "100", 256: "256", 1024: "1k", 8192: "8k", 65536: "64k", 102400: "100k"}
_SIZES[1 << 20] = "1m"
_HUMAN = {"k": " KiB", "m": " MiB"}


def _human(size: int) -> str:
    short = _SIZES[size]
    return short[:-1] + _HUMAN[short[-1]] if short[-1] in _HUMAN else f"{short} B"


def _round_trips() -> list[Cell]:
    sizes = (32, 256, 8192, 102400, 1 << 20)
    cells = [Cell(f"echo-{_SIZES[s]}", "echo", f"Round trip, {_human(s)}", s) for s in sizes]
    cells += [
        Cell(f"tls-{_SIZES[s]}", "echo", f"Round trip over TLS, {_human(s)}", s, transport="tls")
        for s in sizes
    ]
    return cells + [
        Cell(
            f"deflate-{_SIZES[s]}",
            "echo",
            f"Round trip with compression, {_human(s)} of JSON",
            s,
            payload="json",
            transport="deflate",
        )
        for s in (1024, 65536)
    ]


def _streams() -> list[Cell]:
    names = {"binary": "binary", "ascii": "ASCII text", "mixed": "mixed UTF-8 text"}
    return [
        Cell(
            f"{kind}-{_SIZES[size]}-{payload}",
            kind,
            f"{kind.capitalize()} {names[payload]}, {_human(size)}: CPU time a message",
            size,
            payload=payload,
            metric="client_cpu_us",
        )
        for kind in ("receive", "send")
        for size in (100, 8192, 1 << 20)
        for payload in names
    ]


def _servers() -> list[Cell]:
    cells = [
        Cell(
            f"load-{n}",
            "load",
            f"Server with {n} busy connection{'s' if n > 1 else ''}, 32 B ping-pong",
            connections=n,
            metric="rate",
            unit="messages/s",
            higher_is_better=True,
        )
        for n in (1, 10, 100, 500)
    ]
    cells += [
        Cell(
            f"idle-{n}",
            "idle",
            f"Server with {n:,} idle connections: resident memory each",
            connections=n,
            metric="kib",
            unit="KiB",
        )
        for n in (1000, 10000)
    ]
    cells.append(
        Cell(
            "broadcast-1000",
            "broadcast",
            "Broadcast of 256 B to 1,000 clients: CPU time a client",
            256,
            connections=1000,
            metric="server_cpu_us",
        )
    )
    return cells


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in [
        *_round_trips(),
        *_streams(),
        Cell("handshake", "handshake", "Opening and closing a connection"),
        Cell("tls-handshake", "handshake", "Opening and closing over TLS", transport="tls"),
        *_servers(),
    ]
}


def select(patterns: str) -> list[Cell]:
    """Return the cells that match comma-separated names or shell patterns, in the suite's order."""
    chosen: set[str] = set()
    for pattern in patterns.split(","):
        found = fnmatch.filter(CELLS, pattern.strip())
        if not found:
            raise ValueError(f"no cell matches {pattern.strip()!r}")
        chosen.update(found)
    return [cell for cell in CELLS.values() if cell.name in chosen]
