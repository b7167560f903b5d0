"""The result file: what was measured, where, with what, by which command."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import paths
from .cells import Cell
from .measure import Values
from .peers import Peer

#: 2: processes are started several times in a cell, and each round says in which start it was.
FORMAT = 2

_PROBE = """
import importlib.metadata, importlib.util, json, sys
found = {}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name == "fullduplex" and importlib.util.find_spec(name):
            import fullduplex
            found[name] = fullduplex.__version__
print(json.dumps([sys.version, found]))
"""


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and third quartile; the extremes where there are too few values for that."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def summary(cell: Cell, rounds: list[Values], starts: list[int]) -> dict[str, Any]:
    """Medians of all values, and the spread of the one that counts, over all rounds of all starts.

    ``starts`` has for each of ``rounds`` the number of its start.
    """
    main = [values[cell.metric] for values in rounds]
    low, high = quartiles(main)
    return {
        "median": statistics.median(main),
        "quartiles": [low, high],
        "best": max(main) if cell.higher_is_better else min(main),
        "medians": {key: statistics.median(v[key] for v in rounds) for key in rounds[0]},
        "rounds": rounds,
        "starts": starts,
    }


def _output(*command: str, directory: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=directory, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor()


def probe(python: str, distributions: list[str], source: bool) -> tuple[str, dict[str, str]]:
    """Return an interpreter's version and those of the distributions that it has."""
    environment = dict(os.environ)
    if source:
        environment["PYTHONPATH"] = str(paths.ROOT / "src")
    command = [python, "-c", _PROBE, json.dumps(distributions)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=paths.ROOT
    )
    version, found = json.loads(done.stdout)
    return str(version), dict(found)


def versions(peers: list[Peer], python: str, fullduplex_python: str) -> dict[str, dict[str, str]]:
    """Return for each peer that can run here the versions of what it consists of."""
    names = sorted({name for peer in peers for name in peer.distributions})
    interpreter, found = probe(python, names, source=False)
    own, own_found = interpreter, found
    if fullduplex_python != python:
        own, own_found = probe(fullduplex_python, ["fullduplex"], source=True)
    result = {}
    for peer in peers:
        if peer.module == "floor":
            compiler = _output("cc", "--version").partition("\n")[0]
            result[peer.name] = {"cc": compiler}
        elif peer.module == "node":
            package = paths.NODE / "node_modules" / "ws" / "package.json"
            if shutil.which("node") and package.exists():
                version = json.loads(package.read_text())["version"]
                result[peer.name] = {"ws": version, "node": _output("node", "--version")}
        else:
            ours = "fullduplex" in peer.distributions
            have = own_found if ours else found
            if all(name in have for name in peer.distributions):
                result[peer.name] = {name: have[name] for name in peer.distributions}
                result[peer.name]["python"] = (own if ours else interpreter).split()[0]
    return result


def congestion_control() -> str:
    """What new TCP connections begin with."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def environment() -> dict[str, Any]:
    """The machine and the state of the source."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", "benchmarks", *sys.argv[1:]],
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        # BBR paces what is sent, loopback included, by timers that cost more than a small message.
        "congestion_control": congestion_control(),
        "libc": " ".join(platform.libc_ver()),
        "load_average_before": os.getloadavg()[0],
        "commit": _output("git", "describe", "--always", "--dirty", directory=paths.ROOT),
    }


def save(path: Path, document: dict[str, Any]) -> None:
    """Write the file whole or not at all: a run that is broken off keeps what it had."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a result file of this format or of the one before; ``ValueError`` for any other."""
    document: dict[str, Any] = json.loads(path.read_text())
    found = document.get("format")
    if found == 1:
        _add_starts(document)
    elif found != FORMAT:
        raise ValueError(f"{path} has format {found}; these benchmarks read 1 and {FORMAT}")
    return document


def _add_starts(document: dict[str, Any]) -> None:
    """Say of a file of format 1 what was true of all: one start a cell, but a new one for each
    round where memory was measured."""
    document["format"] = FORMAT
    document["method"]["starts"] = 1
    for outcome in document["cells"].values():
        for peer in outcome["peers"].values():
            if "rounds" in peer:
                count = len(peer["rounds"])
                memory = outcome["metric"] == "kib"
                peer["starts"] = list(range(1, count + 1)) if memory else [1] * count
