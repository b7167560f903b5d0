"""Closing many connections at once: each is told to end before anybody waits for the first."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from ..frames import Close, CloseCode
from ..protocol import State
from .service import get_service

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["begin_close", "close_all", "close_dropped"]

OPEN: Final = State.OPEN
CLOSING: Final = State.CLOSING

DROPPED_TIME: Final = 10.0
"""Seconds for a peer to answer, if nobody waits for it and there is no ``close_timeout``."""


def close_all(connections: Collection[Connection], close: Close) -> None:
    """Close connections together, so that it takes as long as the slowest of them.

    Args:
        connections: open or closing ones; closed ones are left alone.
        close: a code and a reason that may be sent.
    """
    for connection in connections:
        begin_close(connection, close, None)
    for connection in connections:
        connection.close(close.code, close.reason)


def close_dropped(connection: Connection) -> None:
    """Close a connection that nobody uses any more; without waiting in the service thread.

    The cycle collector may come upon who used it in any thread, and all connections wait for that one.
    """
    service = get_service()
    if not service.is_current():
        connection.close()
        return
    until = time.monotonic() + DROPPED_TIME
    deadline = until if connection.close_timeout is None else None
    begin_close(connection, Close(CloseCode.NORMAL_CLOSURE, ""), deadline)
    service.keep(connection, connection._close_deadline or until)


def begin_close(connection: Connection, close: Close, deadline: float | None) -> None:
    """Begin the closing handshake without waiting; `Connection.close` goes on with it.

    Args:
        connection: the connection; nothing happens if its end is behind it.
        close: what to send, unless a Close frame was sent already.
        deadline: when to cut it at the latest, on the clock of ``time.monotonic()``; None for when its
            ``close_timeout`` says.
    """
    protocol = connection.protocol
    with connection._changed:
        if protocol.state is OPEN and protocol.outgoing:
            protocol.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
        elif protocol.state is OPEN:
            protocol.send_close(close.code, close.reason)
        elif protocol.state is not CLOSING:
            return
    connection._closing()
    due = connection._close_deadline
    if deadline is not None and (due is None or due > deadline):
        connection._close_deadline = deadline
        get_service().schedule(connection, deadline)
    connection._flush()
