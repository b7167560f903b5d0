"""A pair of peers in one cell, over all starts of its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import measure, results
from .peers import Pair
from .processes import BenchmarkError, Ends, Setting


class Contender:
    """Starts its two ends as often as it is told, and keeps what was measured with each pair.

    Where a process happens to lie in memory decides on some of its speed, and that lasts as long as
    the process: no number of rounds shows it, only further starts do.
    """

    def __init__(self, pair: Pair, setting: Setting, seconds: float) -> None:
        self.pair = pair
        self.setting = setting
        #: Work of one measurement.
        self.seconds = seconds
        #: The ends that run now.
        self.ends: Ends | None = None
        #: How often a measurement repeats the cell's work. The first start finds it out for all of
        #: them, so that every measurement is of the same work.
        self.count: int | None = None
        self.rounds: list[measure.Values] = []
        #: For each of ``rounds``, the number of its start, from 1.
        self.starts: list[int] = []
        #: Why it failed. It then takes no further part: figures of some of the starts would be
        #: compared with those of all.
        self.error: str | None = None

    @property
    def name(self) -> str:
        return self.pair.name

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except BenchmarkError as error:
            self.error = str(error)
            # At once: what has failed may be busy, beside those who are still measured.
            self.stop()

    def start(self) -> None:
        """Start both ends and make them ready to be measured."""
        if self.error is not None:
            return
        cell = self.setting.cell
        with self._noting_failure():
            self.ends = Ends(self.pair.client, self.pair.server, self.setting)
            measure.prepare(cell, self.ends)
            count = measure.warm_up(cell, self.ends, self.pair.warm_up, self.seconds)
            if self.count is None:
                self.count = count

    def measure(self, start: int) -> None:
        """Measure one round with the ends of this start."""
        if self.error is not None:
            return
        assert self.ends is not None
        assert self.count is not None
        with self._noting_failure():
            self.rounds.append(measure.measure(self.setting.cell, self.ends, self.count))
            self.starts.append(start)

    def stop(self) -> None:
        """End the processes, if there are any."""
        ends, self.ends = self.ends, None
        if ends is not None:
            ends.stop()

    def outcome(self) -> dict[str, Any]:
        """What the result file says of this pair in this cell."""
        if self.error is not None:
            found: dict[str, Any] = {"error": self.error}
        else:
            found = results.summary(self.setting.cell, self.rounds, self.starts)
            found["count"] = self.count
        return found | {"client": self.pair.client.name, "server": self.pair.server.name}
