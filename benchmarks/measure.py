"""One measurement of one cell with one pair; and how much work makes a measurement."""

from __future__ import annotations

import time

from .cells import Cell
from .processes import BenchmarkError, Ends, memory

#: Work of the first, unrecorded call, from which the rest is estimated.
_FIRST = {"echo": 20, "receive": 20, "send": 20, "handshake": 5, "load": 200, "broadcast": 1}
_COMMAND = {"load": "pingpong"}

#: Long enough for handlers to start, and for buffers to be given back before memory is looked at.
_SETTLE = 0.7

Values = dict[str, float]


def prepare(cell: Cell, ends: Ends) -> None:
    """Open the connections of the cell."""
    if cell.kind == "idle":
        return  # this cell opens them itself, once a round
    if cell.kind in ("load", "broadcast"):
        ends.client.do(f"open {cell.connections}")
        # The handlers of the last connections may still be on their way to the list of receivers.
        time.sleep(_SETTLE)
    else:
        ends.client.do("open")


def calibrate(cell: Cell, ends: Ends, seconds: float) -> int:
    """Return how often to repeat the cell's work so that it takes about ``seconds``."""
    if cell.kind == "idle":
        return 1
    command = _COMMAND.get(cell.kind, cell.kind)
    # A first call that pays for imports and caches, then a growing one until it can be timed.
    count = max(_FIRST[cell.kind], cell.connections if cell.kind == "load" else 1)
    elapsed = ends.client.do(f"{command} {count}")
    while True:
        elapsed = ends.client.do(f"{command} {count}")
        if elapsed > seconds * 1e9 / 20 or count > 10**7:
            return max(1, round(count * seconds * 1e9 / max(elapsed, 1)))
        count *= 4


def measure(cell: Cell, ends: Ends, count: int) -> Values:
    """Run the cell once and return its values, by name."""
    if cell.kind == "idle":
        return _idle(cell, ends)
    command = _COMMAND.get(cell.kind, cell.kind)
    before = ends.client.cpu_ns(), ends.server.cpu_ns()
    elapsed = ends.client.do(f"{command} {count}", timeout=120)
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
