"""Listening sockets: made here, handed over by the caller, or inherited from systemd."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..typing import PathLike

__all__ = ["listen", "listen_unix", "remove_socket_file", "set_nodelay", "systemd_sockets"]

BACKLOG: Final = 1024
"""How many connections may wait to be accepted; the system has a limit of its own."""

_FIRST_FD: Final = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def listen(host: str | None, port: int | None, **kwargs: Any) -> socket.socket:
    """Listen on TCP.

    Args:
        host: address or name; None or an empty string for all interfaces, over IPv4.
        port: port; None or 0 for a free one.
        **kwargs: for `socket.create_server`: ``family``, ``backlog``, ``reuse_port``,
            ``dualstack_ipv6``.

    Raises:
        OSError: if that is not possible.
    """
    host = host or ""
    if ":" in host:
        kwargs.setdefault("family", socket.AF_INET6)
    kwargs.setdefault("backlog", BACKLOG)
    return socket.create_server((host, port or 0), **kwargs)


def listen_unix(path: PathLike, **kwargs: Any) -> socket.socket:
    """Listen on a Unix socket. The file of a server that is gone is replaced.

    Args:
        path: where to.
        **kwargs: for `socket.create_server`.

    Raises:
        OSError: if that is not possible; EADDRINUSE if another server listens there, or there is
            something else than a socket.
    """
    kwargs.setdefault("family", socket.AF_UNIX)
    kwargs.setdefault("backlog", BACKLOG)
    name: Any = os.fspath(path)
    try:
        return socket.create_server(name, **kwargs)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE or not _is_abandoned(name):
            raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
    return socket.create_server(name, **kwargs)


def _is_abandoned(path: str | bytes) -> bool:
    """Tell whether a file is a socket on which nobody listens."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server with a full queue must not hold us up: it is there
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def remove_socket_file(sock: Any, identity: tuple[int, int] | None) -> None:
    """Remove the file of a Unix socket, if it is still the one that has this identity."""
    if identity is None:
        return
    with contextlib.suppress(OSError):
        path = sock.getsockname()
        if socket_file_identity(sock) == identity:
            os.unlink(path)


def socket_file_identity(sock: Any) -> tuple[int, int] | None:
    """Tell which file a Unix socket is bound to, as device and inode; None if there is none."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        return None
    path = sock.getsockname()
    if not path or path[:1] in ("\0", b"\0"):  # not bound, or in Linux's abstract name space
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_nodelay(sock: Any) -> None:
    """Send small messages at once (TCP_NODELAY), if this is TCP."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


NODELAY_INHERITED: Final = sys.platform.startswith("linux")
"""Whether accepted sockets have TCP_NODELAY of the listening one."""


def systemd_sockets(name: str | None = None) -> Sequence[socket.socket]:
    """Give the listening sockets that systemd has opened for this process (sd_listen_fds(3)).

    For ``serve(handler, sock=systemd_sockets())``, in a service that a ``.socket`` unit starts.

    Args:
        name: give only sockets with this name (``FileDescriptorName=``); None for all.

    Returns:
        The sockets in their order; none if this process has not been started that way. To be called
        once, since each call makes new objects for the same descriptors.

    Raises:
        OSError: if a descriptor is no socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(os.environ.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    sockets = []
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(fd, False)  # not for the programs that we start
        if name is None or names[fd - _FIRST_FD] == name:
            sockets.append(socket.socket(fileno=fd))
    return sockets
