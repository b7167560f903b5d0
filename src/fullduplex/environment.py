"""Numbers from environment variables, which are read at import."""

from __future__ import annotations

import os

__all__ = ["read_limit", "read_number"]


def read_limit(name: str, default: int, least: int = 1) -> int:
    """Return a whole number from the environment.

    Args:
        name: The variable; unset or empty, it leaves the default.
        default: The default.
        least: The smallest number that makes sense.

    Raises:
        ValueError: If it is none, or a smaller one.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        kind = "a positive number" if least == 1 else f"a whole number from {least}"
        raise ValueError(f"environment variable {name} must be {kind}, not {text!r}")
    return int(text)


def read_number(name: str, default: float, least: float) -> float:
    """Return a number from the environment; as `read_limit`, but it may have a fraction."""
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < float("inf"):
        raise ValueError(
            f"environment variable {name} must be a number from {least:g}, not {text!r}"
        )
    return value
