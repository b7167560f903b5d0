"""One measurement of one cell with one pair; and how much work makes a measurement."""

from __future__ import annotations

import time

from .cells import Cell
from .processes import BenchmarkError, Ends, memory

_COMMAND = {"load": "pingpong"}

#: Seconds of a call to warm up; long enough to be timed.
_PORTION = 0.03

#: Long enough for handlers to start, and for buffers to be given back before memory is looked at.
_SETTLE = 0.7

Values = dict[str, float]


def prepare(cell: Cell, ends: Ends) -> None:
    """Open the connections of the cell."""
    if cell.kind == "idle":
        return  # this cell opens them itself, when it is measured
    several = cell.kind in ("load", "broadcast")
    ends.client.do(f"open {cell.connections}" if several else "open")
    if cell.kind == "broadcast":
        # The handlers of the last connections may still be on their way to the list of receivers.
        # In the other cells the first answer, which is not measured, says that a handler is there.
        time.sleep(_SETTLE)


def warm_up(cell: Cell, ends: Ends, warm: float, seconds: float) -> int:
    """Let new processes work for ``warm`` seconds.

    Returns how often to repeat the cell's work so that it takes about ``seconds``.
    """
    if cell.kind == "idle":
        return 1
    # Fewer would leave some of the connections out.
    least = count = cell.connections if cell.kind == "load" else 1
    # The first call pays for imports and caches, so it says nothing of those after it.
    _work(cell, ends, count)
    costs: list[float] = []
    total = 0
    # With one call only, an interruption of the whole machine would be taken for the cost.
    while total < warm * 1e9 or len(costs) < 2:
        elapsed = max(_work(cell, ends, count), 1)
        total += elapsed
        costs.append(elapsed / count)
        # Carefully, and never much longer than wanted: a message may take a microsecond or a second.
        count = max(least, min(count * 4, round(_PORTION * 1e9 / min(costs))))
    return max(least, round(seconds * 1e9 / min(costs)))


def _work(cell: Cell, ends: Ends, count: int, timeout: float = 60) -> int:
    """Do the cell's work ``count`` times and return how many nanoseconds it took."""
    command = _COMMAND.get(cell.kind, cell.kind)
    return ends.client.do(f"{command} {count}", timeout)


def measure(cell: Cell, ends: Ends, count: int) -> Values:
    """Run the cell once and return its values, by name."""
    if cell.kind == "idle":
        return _idle(cell, ends)
    before = ends.client.cpu_ns(), ends.server.cpu_ns()
    elapsed = _work(cell, ends, count, timeout=120)
    after = ends.client.cpu_ns(), ends.server.cpu_ns()
    # Sent messages count once each; a broadcast, once for every client.
    messages = count * cell.connections if cell.kind == "broadcast" else count
    values = {
        "wall_us": elapsed / 1e3 / messages,
        "client_cpu_us": (after[0] - before[0]) / 1e3 / messages,
        "server_cpu_us": (after[1] - before[1]) / 1e3 / messages,
    }
    if cell.kind == "load":
        values["rate"] = messages / (elapsed / 1e9)
    return values


def _idle(cell: Cell, ends: Ends) -> Values:
    """What ``connections`` open connections cost the server that does nothing with them."""
    # The first connection pays for imports and the like, once for the process.
    ends.client.do("open 1")
    time.sleep(_SETTLE)
    before = memory(ends.server.pid)
    try:
        elapsed = ends.client.do(f"open {cell.connections}", timeout=120)
    except BenchmarkError as error:
        raise BenchmarkError(f"opening {cell.connections} connections: {error}") from None
    time.sleep(_SETTLE)
    after = memory(ends.server.pid)
    cpu = ends.server.cpu_ns()
    time.sleep(1)
    idle_cpu = ends.server.cpu_ns() - cpu
    values = {key: (after[key] - before[key]) / cell.connections for key in before}
    values["kib_beside_stack"] = values["kib"] - values["stack_kib"]
    values["open_us"] = elapsed / 1e3 / cell.connections
    values["idle_cpu_us_per_s"] = idle_cpu / 1e3
    return values
