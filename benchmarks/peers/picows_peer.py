"""picows on uvloop, with callbacks, which is its fastest way."""

from __future__ import annotations

import asyncio
from typing import Any

import picows
import uvloop

from .base import MAX_SIZE, Options, Ready, expect

TEXT, BINARY, CLOSE = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CLOSE


def _kind(message: str | bytes) -> picows.WSMsgType:
    return TEXT if isinstance(message, str) else BINARY


class Echo(picows.WSListener):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Server(picows.WSListener):
    """The other modes."""

    def __init__(self, options: Options, everybody: set[Any]) -> None:
        self.everybody = everybody
        self.mode = options.mode
        self.message = options.message
        self.kind = _kind(options.message)

    def on_ws_connected(self, transport: Any) -> None:
        self.everybody.add(transport)

    def on_ws_disconnected(self, transport: Any) -> None:
        self.everybody.discard(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == CLOSE:
            transport.disconnect()
        elif self.mode == "source":
            for _ in range(int(frame.get_payload_as_bytes())):
                transport.send(self.kind, self.message)
        elif self.mode == "sink":
            if frame.msg_type == TEXT and frame.get_payload_as_utf8_text() == "done":
                transport.send(TEXT, "ok")
        else:
            for other in self.everybody:
                other.send(self.kind, self.message)


def serve(options: Options, ready: Ready, root: str) -> None:
    everybody: set[Any] = set()

    async def main() -> None:
        server = await picows.ws_create_server(
            lambda request: Echo() if options.mode == "echo" else Server(options, everybody),
            "127.0.0.1",
            0,
            ssl=options.server_tls(),
            max_frame_size=MAX_SIZE,
            backlog=4096,
        )
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


class Listener(picows.WSListener):
    """Counts messages down, sending the next where there is one to send."""

    def __init__(self, options: Options) -> None:
        self.kind = _kind(options.message)
        self.message = options.message
        self.transport: Any = None
        self.left = 0
        self.echoing = False
        self.done: Any = None
        self.reply: Any = None
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: Any) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionError("disconnected"))

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == TEXT:
            self.reply = frame.get_payload_as_utf8_text()
        elif frame.msg_type == CLOSE:
            transport.disconnect()
            return
        else:
            self.reply = frame.get_payload_as_bytes()
        self.left -= 1
        if self.left == 0:
            self.done.set_result(None)
        elif self.echoing:
            transport.send(self.kind, self.message)


class PicowsClient:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.tls = options.client_tls()
        self.loop = uvloop.new_event_loop()
        self.listener: Any = None

    async def dial(self) -> Any:
        _, listener = await picows.ws_connect(
            lambda: Listener(self.options),
            self.options.url,
            ssl_context=self.tls,
            max_frame_size=MAX_SIZE,
        )
        return listener

    def open(self) -> None:
        self.listener = self.loop.run_until_complete(self.dial())

    def close(self) -> None:
        self.listener.transport.disconnect()

    def expecting(self, count: int, echoing: bool) -> Any:
        listener = self.listener
        listener.done = self.loop.create_future()
        listener.left = count
        listener.echoing = echoing
        return listener

    def echo(self, count: int) -> None:
        listener = self.expecting(count, True)
        listener.transport.send(listener.kind, listener.message)
        self.loop.run_until_complete(listener.done)
        expect(listener.reply, listener.message)

    def receive(self, count: int) -> None:
        listener = self.expecting(count, False)
        listener.transport.send(TEXT, str(count))
        self.loop.run_until_complete(listener.done)
        expect(listener.reply, listener.message)

    def send(self, count: int) -> None:
        listener = self.expecting(1, False)

        async def main() -> None:
            for _ in range(count):
                listener.transport.send(listener.kind, listener.message)
                if not listener.writable.is_set():
                    await listener.writable.wait()
            listener.transport.send(TEXT, "done")
            await listener.done

        self.loop.run_until_complete(main())
        expect(listener.reply, "ok")

    def handshake(self, count: int) -> None:
        async def main() -> None:
            for _ in range(count):
                transport = (await self.dial()).transport
                transport.send_close(picows.WSCloseCode.OK)
                await transport.wait_disconnected()

        self.loop.run_until_complete(main())


def client(options: Options, root: str) -> PicowsClient:
    return PicowsClient(options)
