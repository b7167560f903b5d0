"""Waiting for a condition where a signal's handler may be what changes it."""

from __future__ import annotations

import threading
from typing import Final

LOOK_AGAIN: Final = 0.5
"""Seconds after which somebody looks again at what a signal's handler may have kept from waking him.

Handlers run in the main thread: what it waits for itself, and what others wait for that it is to wake."""


def wait_for_change(changed: threading.Condition, timeout: float | None) -> None:
    """Wait until the condition, which is held, is notified; for ``timeout`` seconds at most, None for no limit.

    Returns now and then without either, in the main thread: a handler that ran there between its last look and this
    call, and changed what it waits for, could wake nobody.
    """
    if threading.current_thread() is threading.main_thread():
        timeout = LOOK_AGAIN if timeout is None else min(timeout, LOOK_AGAIN)
    changed.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
