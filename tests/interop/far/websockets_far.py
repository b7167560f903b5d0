"""A far end on websockets, or on a library with the same interface (picows.websockets).

websockets_far.py MODULE server|client deflate|plain
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

from common import command, ended, say

module, role, compression = sys.argv[1:]
OPTIONS = {"compression": "deflate" if compression == "deflate" else None, "max_size": None}


async def converse(connection: Any) -> None:
    try:
        async for message in connection:
            match command(message):
                case ["ping", word]:
                    await (await connection.ping(word))
                    await connection.send(f"pong {word}")
                case ["fragments", *words]:
                    await connection.send(words)
                case ["close", code, word]:
                    await connection.close(int(code), word)
                case _:
                    await connection.send(message)
    except exceptions.ConnectionClosed:
        pass
    await connection.wait_closed()
    ended(connection.close_code, connection.close_reason)


async def serve() -> None:
    server = importlib.import_module(f"{module}.asyncio.server")
    async with server.serve(converse, "127.0.0.1", 0, **OPTIONS) as listening:
        say(port=listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(sys.stdin.read)


async def connect() -> None:
    client = importlib.import_module(f"{module}.asyncio.client")
    say()
    while url := (await asyncio.to_thread(sys.stdin.readline)).strip():
        async with client.connect(url, proxy=None, **OPTIONS) as connection:
            await converse(connection)


exceptions = importlib.import_module(f"{module}.exceptions")
asyncio.run(serve() if role == "server" else connect())
