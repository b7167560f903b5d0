"""Exceptions at each place in a call where those of signals' handlers may come, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def interrupted_at(place: int, call: Callable[..., object], *args: object) -> bool:
    """Call something, and raise KeyboardInterrupt at one of the places where handlers run; False if there are fewer.

    These places are the beginning of each function that is written in Python, and the end of each that is not.
    Only those in the library count.
    """
    left = place

    def look(frame: Any, event: str, arg: object) -> None:
        nonlocal left
        name = frame.f_globals.get("__name__", "")
        if event in ("call", "c_return") and name.startswith("fullduplex"):
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt
            left -= 1

    sys.setprofile(look)
    try:
        call(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False
