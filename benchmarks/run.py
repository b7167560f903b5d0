"""``python -m benchmarks run``: cells × peers × rounds, interleaved."""

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

from . import measure, paths, payloads, results
from .cells import Cell, select
from .peers import PEERS, Pair, for_cell, pair
from .processes import BenchmarkError, Ends, Setting, cores
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
        self.rounds: int = arguments.rounds
        # The floor is always wanted: it stands in where a peer provides one end only.
        both = [peer for one in self.pairs for peer in (one.client, one.server)]
        peers = list({peer.name: peer for peer in [PEERS["floor"], *both]}.values())
        own = arguments.fullduplex_python or arguments.python
        self.versions = results.versions(peers, arguments.python, own)
        self.document: dict[str, Any] = {
            "format": results.FORMAT,
            "environment": results.environment(),
            "method": {"rounds": self.rounds, "seconds": self.seconds},
            "versions": self.versions,
            "missing": [peer.name for peer in peers if peer.name not in self.versions],
            "cells": {},
        }
        for name in self.document["missing"]:
            print(f"{name} is not installed; left out", file=sys.stderr)

    def rounds_of(self, cell: Cell) -> int:
        """Memory hardly varies, and 10,000 connections take a while to open."""
        return min(self.rounds, 3) if cell.kind == "idle" else self.rounds

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
        total = sum(len(self.contenders(c)) * (self.rounds_of(c) + 1) for c in self.cells)
        with Progress(total) as progress:
            for cell in self.cells:
                with exclusive(self.lock):
                    outcome = self.run_cell(cell, progress)
                self.document["cells"][cell.name] = outcome
                progress.result(cell, outcome["peers"], self.reference)
                if self.arguments.json:
                    results.save(self.arguments.json, self.document)

    def run_cell(self, cell: Cell, progress: Progress) -> dict[str, Any]:
        setting = self.setting(cell)
        contenders = self.contenders(cell)
        number_of_rounds = self.rounds_of(cell)
        rounds: dict[str, list[measure.Values]] = {one.name: [] for one in contenders}
        failures: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            ready: dict[str, tuple[Ends, int]] = {}
            for one in contenders:
                progress.step(f"{cell.name}: starting {one.name}")
                try:
                    ends = Ends(one.client, one.server, setting)
                    stack.enter_context(ends)
                    measure.prepare(cell, ends)
                    ready[one.name] = ends, measure.calibrate(cell, ends, self.seconds)
                except BenchmarkError as error:
                    failures[one.name] = str(error)
            for number in range(number_of_rounds):
                # Every other round goes the other way, so that nobody always follows the same peer.
                for one in contenders if number % 2 == 0 else contenders[::-1]:
                    progress.step(f"{cell.name}: round {number + 1}, {one.name}")
                    if one.name in failures:
                        continue
                    try:
                        if cell.kind == "idle":
                            self.restart(one, setting, ready, stack, number)
                        ends, count = ready[one.name]
                        rounds[one.name].append(measure.measure(cell, ends, count))
                        if cell.kind == "idle":
                            ends.stop()
                    except BenchmarkError as error:
                        failures[one.name] = str(error)
        peers: dict[str, Any] = {}
        for one in contenders:
            if one.name in failures:
                peers[one.name] = {"error": failures[one.name]}
            else:
                peers[one.name] = results.summary(cell, rounds[one.name])
                peers[one.name]["count"] = ready[one.name][1]
            peers[one.name]["client"] = one.client.name
            peers[one.name]["server"] = one.server.name
        return {
            "title": cell.title,
            "metric": cell.metric,
            "unit": cell.unit,
            "higher_is_better": cell.higher_is_better,
            "cores": [setting.server_core, setting.client_core],
            "peers": peers,
        }

    @staticmethod
    def restart(
        one: Pair,
        setting: Setting,
        ready: dict[str, tuple[Ends, int]],
        stack: contextlib.ExitStack,
        number: int,
    ) -> None:
        """Give every round of an idle cell a fresh server: memory once touched stays resident."""
        if number > 0:
            ends = Ends(one.client, one.server, setting)
            stack.enter_context(ends)
            ready[one.name] = ends, 1


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", default="*", help="names or patterns, comma-separated")
    parser.add_argument("--peers", default=ALL_PEERS, help="NAME or CLIENT+SERVER, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="work of one measurement")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.1 seconds")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result file")
    parser.add_argument("--list", action="store_true", help="list cells and peers, and stop")
    parser.add_argument("--python", default=paths.default_python(), help="interpreter of the peers")
    parser.add_argument(
        "--fullduplex-python",
        metavar="PYTHON",
        help="another interpreter for Fullduplex, which is then taken from src/",
    )
