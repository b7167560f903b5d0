"""aiohttp's client and server, on uvloop."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from .base import MAX_SIZE, Options, Ready, expect


async def _send(websocket: Any, message: str | bytes) -> None:
    if isinstance(message, str):
        await websocket.send_str(message)
    else:
        await websocket.send_bytes(message)


async def _receive(websocket: Any) -> Any:
    message = await websocket.receive()
    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise ConnectionError(message.type.name)
    return message.data


async def _handle(options: Options, everybody: set[Any], websocket: Any) -> None:
    async for item in websocket:
        if item.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return
        message = item.data
        if options.mode == "echo":
            await _send(websocket, message)
        elif options.mode == "source":
            for _ in range(int(message)):
                await _send(websocket, options.message)
        elif options.mode == "sink":
            if message == "done":
                await websocket.send_str("ok")
        else:
            for other in list(everybody):
                await _send(other, options.message)


def serve(options: Options, ready: Ready, root: str) -> None:
    everybody: set[Any] = set()

    async def connected(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=options.deflate, max_msg_size=MAX_SIZE)
        await websocket.prepare(request)
        everybody.add(websocket)
        try:
            await _handle(options, everybody, websocket)
        finally:
            everybody.discard(websocket)
        return websocket

    async def main() -> None:
        application = web.Application()
        application.router.add_get("/", connected)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        await web.SockSite(runner, listener, ssl_context=options.server_tls()).start()
        ready(listener.getsockname()[1])

    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    loop.run_forever()


class AiohttpClient:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.tls = options.client_tls()
        self.loop = uvloop.new_event_loop()
        self.session: Any = None
        self.websocket: Any = None

    async def dial(self) -> Any:
        if self.session is None:
            self.session = aiohttp.ClientSession()
        return await self.session.ws_connect(
            self.options.url,
            ssl=self.tls or True,
            compress=15 if self.options.deflate else 0,
            max_msg_size=MAX_SIZE,
        )

    def open(self) -> None:
        self.websocket = self.loop.run_until_complete(self.dial())

    def close(self) -> None:
        self.loop.run_until_complete(self.websocket.close())

    def echo(self, count: int) -> None:
        async def main() -> None:
            websocket, message = self.websocket, self.options.message
            reply = None
            for _ in range(count):
                await _send(websocket, message)
                reply = await _receive(websocket)
            expect(reply, message)

        self.loop.run_until_complete(main())

    def receive(self, count: int) -> None:
        async def main() -> None:
            websocket = self.websocket
            await websocket.send_str(str(count))
            reply = None
            for _ in range(count):
                reply = await _receive(websocket)
            expect(reply, self.options.message)

        self.loop.run_until_complete(main())

    def send(self, count: int) -> None:
        async def main() -> None:
            websocket, message = self.websocket, self.options.message
            for _ in range(count):
                await _send(websocket, message)
            await websocket.send_str("done")
            expect(await _receive(websocket), "ok")

        self.loop.run_until_complete(main())

    def handshake(self, count: int) -> None:
        async def main() -> None:
            for _ in range(count):
                await (await self.dial()).close()

        self.loop.run_until_complete(main())


def client(options: Options, root: str) -> AiohttpClient:
    return AiohttpClient(options)
