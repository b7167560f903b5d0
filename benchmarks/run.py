"""``python -m benchmarks run``: cells × starts × rounds × peers, interleaved."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import paths, payloads, results
from .cells import Cell, select
from .contender import Contender
from .peers import PEERS, Pair, for_cell, pair
from .processes import Setting, cores
from .progress import Progress
from .setup import build_floor, make_certificates

#: Where two runs at once would spoil each other, they wait.
LOCK = Path(tempfile.gettempdir()) / "fullduplex-benchmarks.lock"

#: File descriptors wanted for a server of the greatest cell; websockets takes 4 a connection.
FILES = 65536

ALL_PEERS = ",".join(PEERS)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one measurement run at a time on this machine."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Run:
    """A whole run; ``document`` is what will be saved."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.arguments = arguments
        self.directory = directory
        self.lock = LOCK
        self.cells = select(arguments.cells)
        self.pairs = [pair(spec) for spec in arguments.peers.split(",")]
        names = [one.name for one in self.pairs]
        #: The peer that ratios are printed to.
        self.reference = "fullduplex" if "fullduplex" in names else names[-1]
        self.seconds: float = arguments.seconds
        self.starts: int = arguments.starts
        #: In each start.
        self.rounds: int = arguments.rounds
        # The floor is always wanted: it stands in where a peer provides one end only.
        both = [peer for one in self.pairs for peer in (one.client, one.server)]
        peers = list({peer.name: peer for peer in [PEERS["floor"], *both]}.values())
        own = arguments.fullduplex_python or arguments.python
        self.versions = results.versions(peers, arguments.python, own)
        self.document: dict[str, Any] = {
            "format": results.FORMAT,
            "environment": results.environment(),
            "method": {"starts": self.starts, "rounds": self.rounds, "seconds": self.seconds},
            "versions": self.versions,
            "missing": [peer.name for peer in peers if peer.name not in self.versions],
            "cells": {},
        }
        for name in self.document["missing"]:
            print(f"{name} is not installed; left out", file=sys.stderr)

    def rounds_of(self, cell: Cell) -> int:
        """Rounds in a start; one where memory counts, since what was once touched stays resident."""
        return 1 if cell.kind == "idle" else self.rounds

    def setting(self, cell: Cell) -> Setting:
        message = payloads.encoded(payloads.payload(cell.payload, cell.size))
        payload_file = self.directory / f"{cell.payload}-{cell.size}"
        payload_file.write_bytes(message)
        if cell.transport == "tls" and not (self.directory / "server.pem").exists():
            make_certificates(self.directory)
        server_core, client_core = cores(split=not cell.same_core)
        own = self.arguments.fullduplex_python or self.arguments.python
        return Setting(
            cell,
            payload_file,
            self.directory,
            self.arguments.python,
            own,
            server_core,
            client_core,
        )

    def contenders(self, cell: Cell) -> list[Pair]:
        found = [for_cell(one, cell) for one in self.pairs]
        return [
            one
            for one in found
            if one and one.client.name in self.versions and one.server.name in self.versions
        ]

    def run(self) -> None:
        steps = sum(len(self.contenders(c)) * (self.rounds_of(c) + 1) for c in self.cells)
        with Progress(self.starts * steps) as progress:
            for cell in self.cells:
                with exclusive(self.lock):
                    outcome = self.run_cell(cell, progress)
                self.document["cells"][cell.name] = outcome
                progress.result(cell, outcome["peers"], self.reference)
                if self.arguments.json:
                    results.save(self.arguments.json, self.document)

    def run_cell(self, cell: Cell, progress: Progress) -> dict[str, Any]:
        setting = self.setting(cell)
        contenders = [Contender(one, setting, self.seconds) for one in self.contenders(cell)]
        with contextlib.ExitStack() as stack:
            for one in contenders:
                stack.callback(one.stop)
            for start in range(1, self.starts + 1):
                self.run_start(start, cell, contenders, progress)
        return {
            "title": cell.title,
            "metric": cell.metric,
            "unit": cell.unit,
            "higher_is_better": cell.higher_is_better,
            "cores": [setting.server_core, setting.client_core],
            "peers": {one.name: one.outcome() for one in contenders},
        }

    def run_start(
        self, start: int, cell: Cell, contenders: list[Contender], progress: Progress
    ) -> None:
        """Start everybody's processes, measure them in turn for some rounds, and end them."""
        for one in contenders:
            progress.step(f"{cell.name}: start {start}, {one.name}")
            one.start()
        rounds = self.rounds_of(cell)
        for number in range(rounds):
            # Every other round goes the other way, so that nobody always follows the same peer;
            # counted over all starts, or with one round in each it would always be the same way.
            forward = ((start - 1) * rounds + number) % 2 == 0
            for one in contenders if forward else contenders[::-1]:
                progress.step(f"{cell.name}: start {start}, round {number + 1}, {one.name}")
                one.measure(start)
                if number == rounds - 1:
                    # Not when all are done: 10,000 connections each would not fit side by side.
                    one.stop()


def allow_many_files() -> None:
    """10,000 connections want more descriptors than a shell gives its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (OSError, ValueError):
            continue
        break


def main(arguments: argparse.Namespace) -> None:
    build_floor()
    allow_many_files()
    with tempfile.TemporaryDirectory(prefix="fullduplex-bench-") as directory:
        try:
            Run(arguments, Path(directory)).run()
        except ValueError as error:
            sys.exit(f"error: {error}")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", default="*", help="names or patterns, comma-separated")
    parser.add_argument("--peers", default=ALL_PEERS, help="NAME or CLIENT+SERVER, comma-separated")
    parser.add_argument(
        "--starts", type=_at_least_one, default=3, help="how often the processes are started"
    )
    parser.add_argument("--rounds", type=_at_least_one, default=3, help="rounds in each start")
    parser.add_argument("--seconds", type=float, default=0.15, help="work of one measurement")
    parser.add_argument(
        "--quick", action="store_true", help="one start with 3 rounds of 0.1 seconds"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result file")
    parser.add_argument("--list", action="store_true", help="list cells and peers, and stop")
    parser.add_argument("--python", default=paths.default_python(), help="interpreter of the peers")
    parser.add_argument(
        "--fullduplex-python",
        metavar="PYTHON",
        help="another interpreter for Fullduplex, which is then taken from src/",
    )
