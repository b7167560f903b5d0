"""A far end on websocket-client, which has no server and no compression."""

from __future__ import annotations

import struct
import sys

import websocket
from common import command, ended, say
from websocket import ABNF


def ended_by(payload: bytes) -> None:
    """Report a close frame by its payload."""
    if payload:
        ended(struct.unpack("!H", payload[:2])[0], payload[2:])
    else:
        ended(1005, "")


def send_fragments(connection: websocket.WebSocket, words: list[str]) -> None:
    opcode = ABNF.OPCODE_TEXT
    for index, word in enumerate(words, 1):
        connection.send_frame(ABNF.create_frame(word, opcode, int(index == len(words))))
        opcode = ABNF.OPCODE_CONT


def converse(connection: websocket.WebSocket) -> None:
    while True:
        opcode, data = connection.recv_data(control_frame=True)
        if opcode == ABNF.OPCODE_CLOSE:
            return ended_by(data)
        elif opcode == ABNF.OPCODE_PONG:
            connection.send(f"pong {data.decode()}")
        elif opcode == ABNF.OPCODE_BINARY:
            connection.send_binary(data)
        elif opcode == ABNF.OPCODE_TEXT:
            text = data.decode()
            match command(text):
                case ["ping", word]:
                    connection.ping(word)
                case ["fragments", *words]:
                    send_fragments(connection, words)
                case ["close", code, word]:
                    connection.send_close(int(code), word.encode())
                    return ended_by(connection.recv_frame().data)
                case _:
                    connection.send(text)


say()
for line in sys.stdin:
    connection = websocket.create_connection(line.strip())
    try:
        converse(connection)
    finally:
        connection.shutdown()
