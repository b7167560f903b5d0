"""A process that is one end of a connection: ``python -m benchmarks.worker PEER ROLE JSON``.

A server prints ``ready PORT`` and serves until its standard input ends. A client reads commands
there, one a line (``open``, ``echo N``, ``receive N``, ``send N``, ``handshake N``, ``close``),
and answers each with ``ok NANOSECONDS`` or ``error TEXT``. The C and Node peers speak the same.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .peers import PEERS
from .peers.base import Client, Options


def main() -> None:
    name, role, text = sys.argv[1:]
    peer = PEERS[name]
    settings = json.loads(text)
    data = Path(settings.pop("payload_file")).read_bytes()
    message = data.decode() if settings.pop("text") else data
    options = Options(message=message, **settings)
    module: Any = importlib.import_module(f"{__package__}.peers.{peer.module}")
    root = peer.distributions[0].replace("-", "_")
    if root == "fullduplex":
        _check_implementation(pure=bool(peer.environment))
    if role == "server":
        threading.Thread(target=_end_with_input, daemon=True).start()
        module.serve(options, _ready, root)
    else:
        _obey(module.client(options, root))


def _check_implementation(pure: bool) -> None:
    """A compiled column made without the compiled code would be worse than none."""
    implementation = importlib.import_module("fullduplex").IMPLEMENTATION
    wanted = "pure" if pure else "compiled"
    if implementation != wanted:
        sys.exit(f"fullduplex runs {implementation}, wanted {wanted}")


def _ready(port: int) -> None:
    print("ready", port, flush=True)


def _end_with_input() -> None:
    # os.read, not sys.stdin: its lock would be held here when the interpreter exits.
    while os.read(0, 4096):
        pass
    os._exit(0)


def _obey(client: Client) -> None:
    for line in iter(sys.stdin.readline, ""):
        command, *arguments = line.split()
        work = getattr(client, command)
        counts = [int(argument) for argument in arguments]
        start = time.perf_counter_ns()
        try:
            work(*counts)
        except Exception as error:
            print("error", f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        else:
            print("ok", time.perf_counter_ns() - start, flush=True)


if __name__ == "__main__":
    main()
