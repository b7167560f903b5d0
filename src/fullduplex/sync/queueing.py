"""How much is buffered while nobody reads."""

from __future__ import annotations


def queue_limits(max_queue: int | tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Give the high and low marks of the inbox in frames; a high mark of 0 is no limit, one of 1 the least."""
    high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
    marks: tuple[object, ...] = (high, low)
    for mark in marks:
        if mark is not None and not isinstance(mark, int):
            raise TypeError(f"max_queue must be whole numbers, or None: {max_queue!r}")
    if high is None and low is not None:
        high = 4 * low
    if high is None:
        return 0, 0
    if low is None:
        low = high // 4
    if low < 0:
        raise ValueError(f"the low mark of max_queue must not be negative: {low}")
    if high < low:
        raise ValueError(f"the high mark of max_queue, {high}, is below the low mark, {low}")
    return max(high, 1), low
