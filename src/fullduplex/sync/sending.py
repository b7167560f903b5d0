"""How a connection sends: whole frames under the writer role."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..exceptions import ConcurrencyError
from ..frames import CloseCode, Frame, Opcode
from ..machine import flat
from ..roles import FREE, SEND, release_mine
from . import keepalive

if TYPE_CHECKING:
    from ..typing import BytesLike, DataLike

TEXT: Final = int(Opcode.TEXT)
BINARY: Final = int(Opcode.BINARY)
CONT: Final = int(Opcode.CONT)

BYTES_LIKE: Final = (bytes, bytearray, memoryview)


class SendingConnection(keepalive.TimedConnection):
    """The sending half of `Connection`."""

    def send(
        self,
        message: DataLike | Iterable[DataLike],
        text: bool | None = None,
        *,
        timeout: float | None = None,
        compress: bool | None = None,
    ) -> None:
        """Send a message.

        A str is sent as a Text message, a bytes-like object as a Binary one. An iterable of either is sent as one
        message, each item in a frame of its own (RFC 6455 §5.4); an empty one sends nothing.

        Args:
            message: what to send.
            text: True sends bytes as Text, which the caller knows to be UTF-8; False sends a str as Binary.
            timeout: seconds that writing may take; None for no limit other than keepalive and `close`.
            compress: True or False to compress this message or not; None leaves it to permessage-deflate.

        Raises:
            ConnectionClosedOK: after a normal closure.
            ConnectionClosedError: after a protocol error or a network failure.
            TimeoutError: if ``timeout`` ran out. If that was before the first byte, nothing happened, and the
                call may be repeated; after it the message cannot be taken back, and the connection is failed:
                ``state`` tells. While the connection is being closed, nothing is sent in any case.
            ConcurrencyError: if another thread is in the midst of a fragmented message.
            TypeError: for another type, dict-like objects among them (if you mean the keys, call ``keys()``).
                An item of a wrong type in an iterable also closes the connection, with code 1011.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # Literals here: this is the hot path, and compiled code looks each global name up.
        if isinstance(message, str):
            self._send(2 if text is False else 1, message, deadline, compress)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            self._send(1 if text else 2, message, deadline, compress)
        elif isinstance(message, Mapping):
            raise TypeError("data is a dict-like object")
        elif isinstance(message, Iterable):
            self._send_fragments(message, text, deadline, compress)
        else:
            raise TypeError(
                f"a message is str, bytes-like or an iterable of these, not {type(message).__name__}"
            )

    def _send(self, opcode: int, data: Any, deadline: float | None, compress: bool | None) -> None:
        """Send a message in one frame."""
        protocol = self.protocol
        if self._writer.contended() or self._writer.try_acquire():
            self._enter_writer(deadline)
        sent = False
        try:
            if protocol.is_open:
                if protocol.outgoing:
                    raise ConcurrencyError(
                        "cannot call send while another thread is sending a fragmented message"
                    )
                self._write_frame(opcode, data, True, deadline, compress)
                sent = True
            # As _leave_writer(), which is called only if there is something to see to.
            self._writer.release()
            if self._due or protocol.is_closed:
                self._left_writer()
        except BaseException:
            try:
                if self._writer.mine:
                    self._leave_writer()
            except BaseException:  # a signal's handler
                release_mine(self._writer)
                raise
            raise
        if not sent:
            self._raise_closed(deadline)

    def _enter_writer(self, deadline: float | None) -> None:
        if self._writer.mine:
            raise ConcurrencyError("cannot call send in a signal handler that has interrupted send")
        left = None if deadline is None else deadline - time.monotonic()
        if not self._writer.acquire(SEND, left):
            raise TimeoutError("timed out while another thread was sending")

    def _raise_closed(self, deadline: float | None = None) -> NoReturn:
        """Wait for the end of a connection that is being closed, and raise what it ended with."""
        self._await_end(deadline)
        raise self.protocol.close_exc

    def _write_frame(
        self, opcode: int, data: Any, fin: bool, deadline: float | None, compress: bool | None
    ) -> None:
        """Write one data frame. Needs the writer role."""
        protocol = self.protocol
        stream = self._stream
        head = 0x80 | opcode if fin else opcode
        encoding = done = False
        lost = True
        try:
            if self._stream.torn:
                raise ConnectionAbortedError("sending was interrupted in the midst of a frame")
            if deadline is not None and not (
                stream.flush(deadline) and stream.wait_writable(deadline)
            ):
                raise TimeoutError("timed out before the message could be sent")
            if isinstance(data, memoryview):
                data = flat(data)
            if protocol._extensions:
                payload = data.encode() if isinstance(data, str) else data
                encoding = True
                head, data = self._encode(opcode, payload, fin, compress)
                encoding = False
            elif protocol.debug:
                payload = data.encode() if isinstance(data, str) else data
                protocol.logger.debug("> %s", Frame(Opcode(opcode), payload, fin))
            if len(data) <= self._large:
                done = stream.write(protocol.encoder.frame(head, data), deadline)
            else:
                done = self._write_large(head, data, deadline)
            lost = False
        except OSError as exc:
            if isinstance(exc, TimeoutError) and exc.errno is None and not stream.torn:
                raise  # ours, not the network's ETIMEDOUT
            self._lost(exc)
        except BaseException as exc:
            if not stream.torn:
                raise
            if not encoding or not isinstance(exc, Exception):
                self._give_up("sending was interrupted in the midst of a message")
                raise
            self._lost(exc)  # an extension failed, and the peer's could not follow it any more
        if lost:
            self._leave_lost(deadline)
        if not done:
            if stream.torn:
                self._give_up("sending timed out in the midst of a message")
            raise TimeoutError("timed out while sending a message")
        stream.torn = False

    def _encode(
        self, opcode: int, payload: BytesLike, fin: bool, compress: bool | None
    ) -> tuple[int, BytesLike]:
        """Have the extensions encode a frame. Needs the writer role.

        The compressors move on with it, so it must go out then: ``torn`` says so until it has. If this fails or is
        interrupted, they are to forget what the peer will not see.
        """
        stream = self._stream
        stream.torn = True
        try:
            return self.protocol.encode_data(opcode, payload, fin, compress)
        except BaseException:
            resets = [getattr(one, "reset", None) for one in self.protocol.extensions]
            if None not in resets:
                for reset in resets:
                    reset()  # type: ignore[misc]
                stream.torn = False
            raise

    def _leave_lost(self, deadline: float | None = None) -> NoReturn:
        """The connection ends under this writer: raise how."""
        self._leave_writer()
        try:
            self._await_end(deadline)
        finally:
            # Who called us leaves the role again.
            self._writer.acquire(SEND)
        raise self.protocol.close_exc

    def _give_up(self, why: str) -> None:
        """End the connection, since a frame cannot be finished."""
        self._lost(ConnectionAbortedError(why))

    def _write_large(self, head: int, data: Any, deadline: float | None) -> bool:
        """Write a large frame: as it is, or masked into memory of the stream's."""
        stream = self._stream
        encoder = self.protocol.encoder
        if isinstance(data, str):
            data = encoder.octets(data)
        header = encoder.header(head, len(data))
        if encoder.masked:
            return bool(stream.write_masked(header, encoder, data, deadline))
        return bool(stream.write_large(header, data, deadline))

    def _send_fragments(
        self, items: Iterable[Any], text: bool | None, deadline: float | None, compress: bool | None
    ) -> None:
        """Send a message of several frames: one for each item, and an empty one that ends it."""
        iterator = iter(items)
        try:
            item = next(iterator)
        except StopIteration:
            return
        is_str = isinstance(item, str)
        if not is_str and not isinstance(item, BYTES_LIKE):
            self._fail_fragments(deadline)
            raise TypeError(f"a fragment is str or bytes-like, not {type(item).__name__}")
        opcode = TEXT if (is_str if text is None else text) else BINARY
        self._begin_fragments(opcode, item, deadline, compress)
        try:
            for item in iterator:
                if isinstance(item, str) != is_str or not isinstance(item, (str, *BYTES_LIKE)):
                    raise TypeError("all fragments of a message must be str, or all bytes-like")
                self._write_fragment(item, False, deadline)
            self._write_fragment(b"", True, deadline)
        except BaseException:
            # Open it is also if the iterable raised that another connection is closed.
            if self.protocol.is_open:
                self._fail_fragments(deadline)
            raise

    def _begin_fragments(
        self, opcode: int, item: DataLike, deadline: float | None, compress: bool | None
    ) -> None:
        if self._writer.contended() or self._writer.try_acquire() != FREE:
            self._enter_writer(deadline)
        try:
            if self.protocol.is_open:
                if self.protocol.outgoing:
                    raise ConcurrencyError(
                        "cannot call send while another thread is sending a fragmented message"
                    )
                # From now on: a close() in the meantime has to say that the message is not whole.
                with self._mutex:
                    begun = self.protocol.outgoing = self.protocol.is_open
                if not begun:  # a close() came first
                    self._leave_lost(deadline)
                try:
                    self._write_frame(opcode, item, False, deadline, compress)
                except BaseException:
                    self.protocol.outgoing = False
                    raise
                return
        finally:
            self._leave_writer()
        self._raise_closed(deadline)

    def _write_fragment(self, item: DataLike, fin: bool, deadline: float | None) -> None:
        if self._writer.contended() or self._writer.try_acquire() != FREE:
            self._enter_writer(deadline)
        try:
            if self.protocol.is_open:
                self._write_frame(CONT, item, fin, deadline, None)
                self.protocol.outgoing = not fin
                return
        finally:
            self._leave_writer()
        self._raise_closed(deadline)

    def _fail_fragments(self, deadline: float | None) -> None:
        """A message cannot be finished: close with 1011 and wait for the end, until the deadline at most."""
        with self._mutex:
            if self.protocol.is_open:
                self.protocol.fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
        self._closing()
        self._flush()
        try:
            self._await_end(deadline)
        except (TimeoutError, ConcurrencyError):
            pass  # the service, or the recv() that this has interrupted, goes on with it
