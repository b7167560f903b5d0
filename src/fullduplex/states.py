r"""The states of a connection, and the moves between them.

How a connection lives (RFC 6455 §4, §7)::

    CONNECTING --handshake done--> OPEN --first Close either way--> CLOSING --end of stream--> CLOSED
         \                           \__________end of stream, no Close__________________/
          \__handshake failed: stays CONNECTING, nothing is read or sent any more

``MOVES`` is that picture as a table. What is not in the table is not legal: sending in a state without
the move raises InvalidState. What the picture leaves out is kept beside it: which Close frames went over
the wire (``close_rcvd``, ``close_sent``) and whether input still counts (``discarding``). Input stops
counting with the peer's Close frame (nothing may follow it, §5.5.1) and with the first error (§7.1.7).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .exceptions import PayloadTooBig, ProtocolError, TooManyFragments
from .frames import CloseCode


class Side(IntEnum):
    """Which end of the connection this is."""

    SERVER = 0
    CLIENT = 1


class State(IntEnum):
    """Where the connection is in its life (RFC 6455 §4, §7)."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


SERVER: Final = Side.SERVER
CLIENT: Final = Side.CLIENT
CONNECTING: Final = State.CONNECTING
OPEN: Final = State.OPEN
CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED

MOVES: Final = {
    (OPEN, "send data"): OPEN,
    (OPEN, "send control"): OPEN,
    (CLOSING, "send control"): CLOSING,
    (OPEN, "send close"): CLOSING,
    (OPEN, "receive close"): CLOSING,
    (CLOSING, "receive close"): CLOSING,
    (OPEN, "end of stream"): CLOSED,
    (CLOSING, "end of stream"): CLOSED,
    (CLOSED, "end of stream"): CLOSED,
    (
        CLOSED,
        "receive close",
    ): CLOSED,  # it came, but was read only now: what was before it filled the inbox
    (CONNECTING, "open"): OPEN,
}


def error_close(exc: BaseException) -> tuple[int, str]:
    """Give the close code and reason that tell the peer about an error in what it sent (RFC 6455 §7.4.1)."""
    if isinstance(exc, ProtocolError):
        return CloseCode.PROTOCOL_ERROR, str(exc)
    if isinstance(exc, UnicodeDecodeError):
        return CloseCode.INVALID_DATA, exc.reason
    if isinstance(exc, (PayloadTooBig, TooManyFragments)):
        return CloseCode.MESSAGE_TOO_BIG, str(exc)
    return CloseCode.INTERNAL_ERROR, ""
