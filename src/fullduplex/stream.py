"""Bytes over a real socket: plain, TLS or anything like a socket, with deadlines and wake-up.

A `Stream` is used by two threads at once, one that reads and one that writes; who they are is the business
of the roles above. What each may touch:

- the reader: `Stream.read`, `Stream.recv_into`, `Stream.pending`;
- the writer: `Stream.write`, `Stream.write_large`, `Stream.write_masked`, `Stream.try_write`, `Stream.flush`,
  `Stream.unsent`, `Stream.shutdown_write`, ``backlog`` and ``torn``;
- anybody, at any time: `Stream.abort`, which wakes both; `Stream.fileno`.

Deadlines are on the clock of ``time.monotonic()``: None waits for ever, 0.0 does not wait.

What a non-blocking write leaves over is the ``backlog``; it goes out before anything else. So a control frame is
written whole, though nobody waits for it. A blocking write that was given up in the midst of its data leaves ``torn``
set: what follows would be taken for the rest, so nothing may follow.

`FdStream` (Cython) does the same as `SocketStream` with system calls of its own, where the socket is a plain one on
POSIX. TLS runs over memory (`ssl.MemoryBIO`): ``_mutex`` guards the OpenSSL object, which two threads must not enter,
and is never held while waiting for the network. `DirectTLSStream` (Cython) is a `TLSStream` with fewer calls.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .codec import Decoder, Encoder
    from .typing import BytesLike

__all__ = ["SocketStream", "Stream", "TLSStream", "open_stream", "open_tls_stream"]

NOTHING: Final = -1
"""`Stream.read` came to its deadline."""

PIECE: Final = 262144
"""Bytes encrypted at once; what TLS holds in memory beside the message itself."""
CIPHERTEXT: Final = 32768
"""Bytes of ciphertext received at once."""
MASKED_PIECE: Final = 32768
"""Bytes masked at once on their way out, and encrypted while they are in the processor's cache."""
# Elsewhere a blocked wait may not notice shutdown() (macOS: cpython#154224), so it looks up now and then.
LONGEST: Final = 3600.0
"""Seconds of one wait at most: the system takes no more than some weeks, and no infinity."""
WAIT_SLICE: Final[float | None] = None if sys.platform.startswith("linux") else 0.25

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream:
    """Bytes in and out of one connected socket."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.aborted = False
        self.torn = False
        self.backlog = b""
        self.farewell = False  # below WebSocket, the peer has something to say at the end

    def fileno(self) -> int:
        """Give the file descriptor, or -1 if there is none (any more)."""
        try:
            return int(self.sock.fileno())
        except (AttributeError, OSError, ValueError):
            return -1

    def pending(self) -> bool:
        """Tell whether bytes to read are held in memory, so that the socket need not become readable."""
        return False

    def read(self, decoder: Decoder, deadline: float | None) -> int:
        """Read once into the decoder: the number of bytes, 0 at the end of the stream, or NOTHING in time."""
        came: list[int] = []
        view = decoder.get_buffer()
        try:
            self._receive_counted(view, deadline, came)
            view.release()
            count = came[0] if came else NOTHING
            if count > 0:
                decoder.buffer_updated(count)
                came.clear()
        except BaseException:
            view.release()
            if came:  # a signal's handler raised, or there is no memory
                with contextlib.suppress(ValueError):  # the decoder knows already
                    decoder.buffer_updated(came[0])
            raise
        return count

    def recv_into(self, view: memoryview, deadline: float | None) -> int:
        """Read once into ``view``; returns as `read` does."""
        came: list[int] = []
        self._receive_counted(view, deadline, came)
        return came[0] if came else NOTHING

    def _receive_counted(self, view: memoryview, deadline: float | None, came: list[int]) -> None:
        """Read once into ``view``, and append the number of bytes to ``came``, also when a signal's handler raises."""
        raise NotImplementedError

    def send_some(self, data: BytesLike) -> int:
        """Hand the network what it takes without waiting; returns how many bytes, perhaps 0."""
        raise NotImplementedError

    def _send_counted(self, data: BytesLike, sent: list[int]) -> None:
        """As `send_some`, but append the number to ``sent``, also when a signal's handler raises."""
        sent.append(self.send_some(data))

    def wait_writable(self, deadline: float | None) -> bool:
        """Wait until the network takes bytes again; False if the deadline came first."""
        raise NotImplementedError

    def write(self, data: BytesLike, deadline: float | None) -> bool:
        """Write all of ``data``; False if the deadline came first, and ``torn`` if that was in the midst of it."""
        if self.unsent() and not self.flush(deadline):
            return False
        return self._write_view(memoryview(data).cast("B"), deadline)

    def write_large(self, header: bytes, payload: BytesLike, deadline: float | None) -> bool:
        """Write a frame whose payload is not to be copied; returns as `write` does."""
        if not self.write(header, deadline):
            return False
        self.torn = True
        return self._write_view(memoryview(payload).cast("B"), deadline)

    def write_masked(
        self, header: bytes, encoder: Encoder, payload: BytesLike, deadline: float | None
    ) -> bool:
        """Write a frame whose ``header`` the encoder has just made, masking a piece at a time; returns as `write`."""
        size = memoryview(payload).nbytes
        scratch = bytearray(min(MASKED_PIECE, size))
        offset = encoder.mask_into(scratch, payload, 0)
        if not self.write_large(header, scratch, deadline):
            return False
        self.torn = offset < size
        while offset < size:
            count = encoder.mask_into(scratch, payload, offset)
            if not self.write(memoryview(scratch)[:count], deadline):
                return False
            offset += count
            self.torn = offset < size
        return True

    def _write_view(self, view: memoryview, deadline: float | None) -> bool:
        while True:
            sent: list[int] = []
            try:
                self._send_counted(view, sent)
                count = sent[0]
            except BaseException:
                self.torn = self.torn or (bool(sent) and sent[0] < len(view))
                raise
            if count == len(view):
                self.torn = False
                return True
            if count:
                self.torn = True
                view = view[count:]
            elif not self.wait_writable(deadline):
                return False

    def try_write(self, data: BytesLike) -> bool:
        """Write what goes without waiting and keep the rest as backlog; True if there is no rest."""
        self.backlog += bytes(data)
        return self.flush(0.0)

    def flush(self, deadline: float | None) -> bool:
        """Write the backlog; True if it is gone."""
        view = memoryview(data := self.backlog)
        total = 0
        sent: list[int] = []
        try:
            while total < len(view):
                self._send_counted(view[total:], sent)
                total, count, sent = total + sent[0], sent[0], []
                if count == 0 and not self.wait_writable(deadline):
                    return False
        finally:
            if total := total + (sent[0] if sent else 0):  # no calls here, so no signals' handlers
                # If there is no memory for the rest, nothing of what was sent may be sent again.
                torn, self.torn, self.backlog = self.torn, True, b""
                self.backlog = data[total:]
                self.torn = torn
        return True

    def unsent(self) -> bool:
        """Tell whether something waits to be flushed."""
        return bool(self.backlog)

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more follows; it can still send. Does nothing on a broken socket."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except (OSError, AttributeError):
            pass

    def abort(self) -> None:
        """Cut both directions and wake the threads that wait in them; idempotent."""
        self.aborted = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass

    def after_fork(self) -> None:
        """Be usable in a forked process, whatever other threads were at."""

    def close(self) -> None:
        """Give the file descriptor back; only when nobody reads or writes."""
        self.aborted = True
        self.backlog = b""
        try:
            self.sock.close()
        except OSError:
            pass


class SocketStream(Stream):
    """A stream over a socket or anything like it: a double, a patched socket, an `ssl.SSLSocket`.

    The socket is put in non-blocking mode, since its time-out would be shared by reader and writer. One without
    a file descriptor is used in blocking mode.
    """

    def __init__(self, sock: Any) -> None:
        Stream.__init__(self, sock)
        self.blocking = self.fileno() < 0
        sock.setblocking(self.blocking)
        # An SSLSocket must not be entered by two threads (cpython#143756); its calls don't wait here.
        self._mutex = threading.RLock() if isinstance(sock, ssl.SSLSocket) else None
        self.farewell = self._mutex is not None

    def pending(self) -> bool:
        if self._mutex is None:
            return False
        with self._mutex:
            return bool(self.sock.pending())

    def after_fork(self) -> None:
        if self._mutex is not None:
            self._mutex = threading.RLock()

    def _receive_counted(self, view: memoryview, deadline: float | None, came: list[int]) -> None:
        if self.blocking and deadline == 0.0:
            return  # there is no way to look without waiting
        ended = False
        while not ended:
            try:
                self._count(self.sock.recv_into, view, came)
                return
            except _WOULD_BLOCK:
                ended = self.aborted
            except ssl.SSLEOFError:
                ended = True
            if not ended and not self._wait(False, deadline):
                return
        came.append(0)

    def send_some(self, data: BytesLike) -> int:
        sent: list[int] = []
        self._send_counted(data, sent)
        return sent[0]

    def _send_counted(self, data: BytesLike, sent: list[int]) -> None:
        try:
            self._count(self.sock.send, data, sent)
        except _WOULD_BLOCK:
            sent.append(0)

    def _count(self, method: Callable[[Any], int], data: BytesLike, counts: list[int]) -> None:
        """Send or receive by one call that signals' handlers don't interrupt, so that no byte goes uncounted."""
        if self._mutex is None:
            counts.extend(map(method, (data,)))
            return
        with self._mutex:
            counts.extend(map(method, (data,)))

    def write_large(self, header: bytes, payload: BytesLike, deadline: float | None) -> bool:
        if self.unsent() and not self.flush(deadline):
            return False
        if self._mutex is not None or not hasattr(self.sock, "sendmsg"):
            return Stream.write_large(self, header, payload, deadline)
        torn, self.torn = self.torn, True  # a compressor may have set it
        try:
            count = int(self.sock.sendmsg([header, payload]))
        except _WOULD_BLOCK:
            count = 0
        if count < len(header):
            self.torn = torn or count > 0
            return Stream.write_large(self, header[count:], payload, deadline)
        return self._write_view(memoryview(payload).cast("B")[count - len(header) :], deadline)

    def wait_writable(self, deadline: float | None) -> bool:
        if self.aborted:
            raise BrokenPipeError("connection was aborted")
        return self.blocking or self._wait(True, deadline)

    def _wait(self, write: bool, deadline: float | None) -> bool:
        """Wait for the socket; True also when it was aborted, so that the caller looks."""
        left = WAIT_SLICE
        while not self.aborted:
            if deadline is not None:
                left = max(min(deadline - time.monotonic(), WAIT_SLICE or LONGEST), 0.0)
                # What makes an SSLSocket readable may be no data, again and again.
                if left == 0.0 and not (write and deadline):
                    return False
            if (ready := _ready(self.sock, write, left)) or left == 0.0:
                return ready
        return True


def _ready(sock: Any, write: bool, timeout: float | None) -> bool:
    """Wait for a socket once. Looked up at each call, so that patched modules are honoured."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))
    return any(select.select([] if write else [sock], [sock] if write else [], [], timeout))


class TLSStream(Stream):
    """TLS over another stream. Reads and writes overlap; only the cryptography takes turns.

    Args:
        raw: the stream for the ciphertext; its reader and writer are this one's.
        context: certificates and settings.
        server_side: which end of the TLS handshake this is.
        server_hostname: for SNI and the check of the certificate; a client's.
    """

    def __init__(
        self,
        raw: Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        Stream.__init__(self, raw.sock)
        self.farewell = True
        self.raw = raw
        # Guards the SSL object and both memory BIOs. Nothing is waited for while it is held. Re-entrant, as all of our
        # mutexes that a signal's handler may need: it runs in the midst of what its thread is at.
        self._mutex = threading.RLock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # Looked up once: these four calls are most of what a small message costs.
        inner: Any = self.ssl_object
        if type(inner) is ssl.SSLObject:  # which only passes them on
            inner = getattr(inner, "_sslobj", inner)
        self._encrypt = inner.write
        self._decrypt_into = inner.read
        self._take_ciphertext = self._outgoing.read
        self._give_ciphertext = self._incoming.write
        self._input = bytearray(CIPHERTEXT)
        self._input_view = memoryview(self._input)
        self._piece = PIECE
        self._unread = False  # decrypted or undecrypted bytes may be in memory
        self._gap = False  # bytes that came are lost, so what follows makes no sense

    def handshake(self, deadline: float | None) -> None:
        """Do the TLS handshake.

        Raises:
            TimeoutError: if the deadline comes first.
            ssl.SSLError: if it fails; the alert for the peer was sent.
        """
        while True:
            done = False
            try:
                self.ssl_object.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the peer is gone, and will not miss the alert
                    self.raw.try_write(self._outgoing.read())
                raise
            if self._outgoing.pending and not self.raw.write(self._outgoing.read(), deadline):
                raise TimeoutError("timed out during the TLS handshake")
            if done:
                self._unread = True
                return
            count = self._fetch(deadline)
            if count == NOTHING or self._is_late(deadline):
                raise TimeoutError("timed out during the TLS handshake")
            if count == 0:
                self._incoming.write_eof()

    def _fetch(self, deadline: float | None) -> int:
        """Receive ciphertext; returns as `read` does."""
        came: list[int] = []
        try:
            self.raw._receive_counted(self._input_view, deadline, came)
            count = came[0] if came else NOTHING
        except BaseException:
            self._gap = self._gap or bool(came)
            raise
        if count > 0:
            self._gap = True
            with self._mutex:
                self._give_ciphertext(self._input_view[:count])
                self._gap = False
                self._unread = True
        return count

    def _is_late(self, deadline: float | None) -> bool:
        """Tell whether to give up after a round that brought no data, such as key updates that come without a pause."""
        if self._outgoing.pending > 4 * PIECE:
            raise ConnectionAbortedError("the peer asks for answers of TLS, and for nothing else")
        return deadline is not None and time.monotonic() >= deadline and not self.raw.pending()

    def pending(self) -> bool:
        return self._unread or self.raw.pending()

    def _receive_counted(self, view: memoryview, deadline: float | None, came: list[int]) -> None:
        if self._gap:
            raise ConnectionAbortedError("reading was interrupted while TLS was being decrypted")
        if self._unread:
            self._decrypt(view, came)
        while not came:
            count = self._fetch(deadline)
            if count > 0:
                self._decrypt(view, came)
            elif count == 0:
                # Whether or not the peer said so (close_notify): WebSocket has Close frames against truncation.
                came.append(0)
            if not came and (count == NOTHING or self._is_late(deadline)):
                return

    def _decrypt(self, view: memoryview, came: list[int]) -> None:
        size = len(view)
        with self._mutex:
            try:
                # With a buffer to read into, it returns how many bytes it put there. One call, as in SocketStream.
                came.extend(map(self._decrypt_into, (size,), (view,)))
                # A read gives the rest of one record: more of it is left only if the view is full.
                self._unread = came[0] == size or self._incoming.pending > 0
            except ssl.SSLWantReadError:
                self._unread = False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                came.append(0)
            except BaseException:
                # A signal's handler may raise after OpenSSL gave the bytes, so that nobody knows how many.
                self._gap = not came
                raise

    def write(self, data: BytesLike, deadline: float | None) -> bool:
        if self.backlog or self.raw.backlog or len(data) > self._piece:
            return Stream.write(self, data, deadline)
        # Once encrypted, it cannot be taken back, the records are numbered: also not if a signal's handler raises.
        self.torn = True
        with self._mutex:
            self._encrypt(data)
            ciphertext = self._take_ciphertext()
        self.torn = not self.raw.write(ciphertext, deadline)
        return not self.torn

    def write_large(self, header: bytes, payload: BytesLike, deadline: float | None) -> bool:
        if self.unsent() and not self.flush(deadline):
            return False
        self.torn = True
        with self._mutex:
            self._encrypt(header)  # goes out with the payload's first piece
        return self._write_view(memoryview(payload).cast("B"), deadline)

    def write_masked(
        self, header: bytes, encoder: Encoder, payload: BytesLike, deadline: float | None
    ) -> bool:
        """As the inherited one, but the network gets many of the small pieces that are masked and encrypted at once."""
        if self.unsent() and not self.flush(deadline):
            return False
        size = memoryview(payload).nbytes
        scratch = bytearray(min(MASKED_PIECE, size))
        view = memoryview(scratch)
        offset = 0
        while offset < size:
            with self._mutex:
                while offset < size and self._outgoing.pending < PIECE:
                    count = encoder.mask_into(scratch, payload, offset)
                    if offset == 0:
                        self.torn = True
                        self._encrypt(header)
                    self._encrypt(view[:count])
                    offset += count
                ciphertext = self._take_ciphertext()
            if not self.raw.write(ciphertext, deadline):
                return False
        self.torn = False
        return True

    def _write_view(self, view: memoryview, deadline: float | None) -> bool:
        if Stream._write_view(self, view, deadline) and self.raw.flush(deadline):
            return True
        self.torn = self.torn or self.raw.unsent()
        return False

    def send_some(self, data: BytesLike) -> int:
        """Encrypt a piece and write it; what the network does not take is the raw stream's backlog."""
        if self.raw.backlog and not self.raw.flush(0.0):
            return 0
        torn, self.torn = self.torn, True  # as in write()
        with self._mutex:
            count = self.ssl_object.write(memoryview(data)[:PIECE])
            ciphertext = self._outgoing.read()
        self.raw.try_write(ciphertext)
        self.torn = torn
        return count

    def flush(self, deadline: float | None) -> bool:
        """Write the backlog, of plain bytes and of ciphertext; True if both are gone."""
        if self._outgoing.pending:  # what reading made TLS say: a key update, an alert
            if len(self.raw.backlog) > 4 * PIECE:
                raise ConnectionAbortedError("the peer asks for answers of TLS, and takes none")
            torn, self.torn = self.torn, True  # as in write()
            with self._mutex:
                ciphertext = self._outgoing.read()
            self.raw.try_write(ciphertext)
            self.torn = torn
        return Stream.flush(self, deadline) and self.raw.flush(deadline)

    def unsent(self) -> bool:
        return bool(self.backlog or self._outgoing.pending or self.raw.unsent())

    def wait_writable(self, deadline: float | None) -> bool:
        return self.raw.flush(deadline) and self.raw.wait_writable(deadline)

    def shutdown_write(self) -> None:
        with self._mutex:
            try:
                self.ssl_object.unwrap()
            except ssl.SSLError:
                pass  # the peer's close_notify did not come yet; ours is on its way
            ciphertext = self._outgoing.read()
        with contextlib.suppress(OSError):
            self.raw.try_write(ciphertext)
        self.raw.shutdown_write()

    def after_fork(self) -> None:
        self._mutex = threading.RLock()
        self.raw.after_fork()

    def abort(self) -> None:
        self.aborted = True
        self.raw.abort()

    def close(self) -> None:
        self.aborted = True
        self.backlog = b""
        self.raw.close()


def open_stream(sock: Any) -> Stream:
    """Make the stream for a connected socket: by its own system calls if that is possible."""
    # gevent and others put a class of their own in the place of socket.socket, whose waiting is theirs.
    if type(sock) is socket.socket and type(sock).__module__ == "socket":
        return _fd_stream()(sock)  # type: ignore[no-any-return]
    return SocketStream(sock)


@functools.cache
def _fd_stream() -> Any:
    """Give what makes an `FdStream`, whose module imports this one, or what there is without it."""
    try:
        from ._fdstream import open_fd_stream
    except ImportError:
        return SocketStream
    return open_fd_stream


def open_tls_stream(
    raw: Stream,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
) -> TLSStream:
    """Make a `TLSStream`: the one that goes straight into the compiled codec's memory if there is that."""
    kind: type[TLSStream] = _tls_stream()
    return kind(raw, context, server_side=server_side, server_hostname=server_hostname)


@functools.cache
def _tls_stream() -> Any:
    """Give `DirectTLSStream`, which imports this module too, or what there is without it."""
    try:
        from ._tlsstream import DirectTLSStream
    except ImportError:
        return TLSStream
    return DirectTLSStream
