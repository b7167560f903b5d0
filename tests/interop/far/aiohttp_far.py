"""A far end on aiohttp: aiohttp_far.py server|client deflate|plain."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web
from common import command, ended, say

role, compression = sys.argv[1:]
OPTIONS = {"max_msg_size": 0, "autoping": False}


async def converse(connection: Any) -> None:
    while True:
        message = await connection.receive()
        match message.type:
            case WSMsgType.BINARY:
                await connection.send_bytes(message.data)
            case WSMsgType.PING:
                await connection.pong(message.data)
            case WSMsgType.PONG:
                if message.data:
                    await connection.send_str(f"pong {message.data.decode()}")
            case WSMsgType.TEXT:
                match command(message.data):
                    case ["ping", word]:
                        await connection.ping(word.encode())
                    case ["close", code, word]:
                        await connection.close(code=int(code), message=word.encode())
                        return ended(connection.close_code, "")
                    case _:
                        await connection.send_str(message.data)
            case WSMsgType.CLOSE:
                return ended(message.data, message.extra)
            case _:
                return ended(connection.close_code, f"{message.type!r} {message.data!r}")


async def accept(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse(compress=compression == "deflate", **OPTIONS)
    await connection.prepare(request)
    await converse(connection)
    return connection


async def serve() -> None:
    application = web.Application()
    application.router.add_get("/", accept)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say(port=runner.addresses[0][1])
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def connect() -> None:
    options = {"compress": 15 if compression == "deflate" else 0, **OPTIONS}
    say()
    async with aiohttp.ClientSession() as session:
        while url := (await asyncio.to_thread(sys.stdin.readline)).strip():
            async with session.ws_connect(url, **options) as connection:
                await converse(connection)


asyncio.run(serve() if role == "server" else connect())
