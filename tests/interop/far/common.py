"""What the far ends written in Python share. They talk to the tests in lines of JSON."""

from __future__ import annotations

import json
from typing import Any


def say(**facts: Any) -> None:
    """Tell the tests something: the port at first, then how each connection ended."""
    print(json.dumps(facts), flush=True)


def ended(code: int | None, reason: str | bytes | None) -> None:
    """Report what the close frame that came in said."""
    if isinstance(reason, bytes):
        reason = reason.decode()
    say(code=code, reason=reason or "")


def command(message: object) -> list[str]:
    """Give the words of a command, or none if it is a message to send back."""
    if isinstance(message, str) and message.startswith("do "):
        return message.split()[1:]
    return []
