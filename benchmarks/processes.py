"""Starting, pinning, commanding and watching the two ends of a connection."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from . import paths
from .cells import Cell
from .peers import Peer


class BenchmarkError(Exception):
    """A peer failed; the cell is reported as failed for it, and the run goes on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What the two processes of a measurement are started with."""

    cell: Cell
    payload_file: Path
    #: Directory with ``server.pem``, ``server.key`` and ``authority.pem``.
    certificates: Path
    python: str
    fullduplex_python: str
    server_core: int
    client_core: int


class Process:
    """A child that answers a line to a line."""

    def __init__(self, command: list[str], core: int, environment: dict[str, str]) -> None:
        self.command = ["taskset", "-c", str(core), *command]
        # In a file, so that a talkative peer neither blocks nor disturbs the progress bar.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.child = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=paths.ROOT,
            env=os.environ | environment,
            bufsize=0,
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.input, self.output = self.child.stdin, self.child.stdout
        self.pending = b""

    @property
    def pid(self) -> int:
        return self.child.pid

    def line(self, timeout: float) -> str:
        """Read the next line of output."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                raise BenchmarkError(f"no answer in {timeout:.0f} s")
            data = os.read(self.output.fileno(), 65536)
            if not data:
                raise self.ended()
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()

    def do(self, command: str, timeout: float = 60) -> int:
        """Give a command and return how many nanoseconds it took."""
        try:
            self.input.write(command.encode() + b"\n")
        except BrokenPipeError:
            raise self.ended() from None
        status, _, rest = self.line(timeout).partition(" ")
        if status != "ok":
            raise BenchmarkError(rest or status)
        return int(rest)

    def ended(self) -> BenchmarkError:
        """The error for a process that is no more, with the last thing that it said."""
        status = self.child.wait()
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        return BenchmarkError(words or f"the process ended with status {status}")

    def cpu_ns(self) -> int:
        """CPU time of all threads of the process, those that have ended included."""
        # The clock id of another process's CPU clock, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()
        self.errors.close()
        self.input.close()
        self.output.close()


def _floor(role: str, setting: Setting, port: int) -> list[str]:
    cell = setting.cell
    if role == "server":
        arguments = [str(paths.FLOOR_BUILD / "server"), _floor_mode(cell), str(cell.size)]
    elif cell.kind in ("load", "idle", "broadcast"):
        return [str(paths.FLOOR_BUILD / "load"), str(port), str(cell.size)]
    else:
        arguments = [str(paths.FLOOR_BUILD / "client"), str(port), str(cell.size)]
    kind = "binary" if cell.payload == "binary" else "text"
    return [*arguments, str(setting.payload_file), kind]


def _floor_mode(cell: Cell) -> str:
    return {
        "echo": "echo",
        "receive": "source",
        "send": "sink",
        "broadcast": "broadcast",
    }.get(cell.kind, "many")


def _options(role: str, setting: Setting, port: int) -> str:
    cell = setting.cell
    options: dict[str, object] = {
        "payload_file": str(setting.payload_file),
        "text": cell.payload != "binary",
        "mode": "broadcast" if cell.kind == "broadcast" else "echo",
        "port": port,
        "deflate": cell.transport == "deflate",
        "keepalive": cell.kind == "idle",
    }
    if cell.transport == "tls" and role == "server":
        options["certificate"] = str(setting.certificates / "server.pem")
        options["key"] = str(setting.certificates / "server.key")
    elif cell.transport == "tls":
        options["authority"] = str(setting.certificates / "authority.pem")
    return json.dumps(options)


def start(peer: Peer, role: str, setting: Setting, port: int = 0) -> Process:
    """Start one end."""
    core = setting.server_core if role == "server" else setting.client_core
    environment = dict(peer.environment)
    if peer.module == "floor":
        return Process(_floor(role, setting, port), core, environment)
    options = _options(role, setting, port)
    if peer.module == "node":
        return Process(["node", str(paths.NODE / "worker.mjs"), role, options], core, environment)
    python = setting.python
    if "fullduplex" in peer.distributions:
        python = setting.fullduplex_python
        if python != setting.python:
            source = str(paths.ROOT / "src")
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [source, os.environ.get("PYTHONPATH")])
            )
    command = [python, "-m", "benchmarks.worker", peer.name, role, options]
    return Process(command, core, environment)


class Ends:
    """A server and a client that are connected, or a load generator in the client's place."""

    def __init__(self, client: Peer, server: Peer, setting: Setting) -> None:
        self.server = start(server, "server", setting)
        try:
            word, _, port = self.server.line(30).partition(" ")
            if word != "ready":
                raise BenchmarkError(f"the server said {word!r}")
            self.client = start(client, "client", setting, int(port))
        except BaseException:
            self.server.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self.client.stop()
        self.server.stop()


def memory(pid: int) -> dict[str, int]:
    """Resident KiB of a process, the part in thread stacks apart, and its threads and fds."""
    total = stacks = 0
    guard_end = ""
    in_stack = False
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            first, _, rest = line.partition(" ")
            if "-" in first and not first.endswith(":"):
                start_address, end = first.split("-")
                permissions, _, _, inode, *_ = rest.split()
                # glibc puts a guard page below every thread's stack, and nothing else does.
                in_stack = start_address == guard_end and permissions == "rw-p" and inode == "0"
                is_guard = permissions == "---p" and int(end, 16) - int(start_address, 16) == 4096
                guard_end = end if is_guard else ""
            elif first == "Rss:":
                total += int(rest.split()[0])
                if in_stack:
                    stacks += int(rest.split()[0])
    return {
        "kib": total,
        "stack_kib": stacks,
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
    }


def cores(split: bool) -> tuple[int, int]:
    """The cores of server and client: the same one, or two where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    first = allowed[-1]
    if not split:
        return first, first
    if len(allowed) < 2:
        print("warning: only one core; load generator and server share it", file=sys.stderr)
    return first, allowed[0]
