"""``python -m benchmarks all``: from a fresh clone to charts, with one command."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from . import paths, setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=paths.ROOT / "build" / "benchmarks")
    parser.add_argument("--quick", action="store_true", help="a first look, in a few minutes")
    parser.add_argument("--python", help="interpreter to make the environment with")


def main(arguments: argparse.Namespace) -> None:
    """Install, measure the codec and the suite, draw; everything lands in ``--out``."""
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    setup.install(arguments.python)
    python = str(paths.VENV / "bin" / "python")
    micro = [python, "-m", "pytest", "benchmarks/micro", "-q", "--benchmark-quiet"]
    micro += ["-p", "no:cacheprovider", f"--benchmark-json={out / 'micro.json'}"]
    micro += ["--benchmark-warmup=on", "--timeout=600"]
    if arguments.quick:
        micro += ["--benchmark-max-time=0.05", "--benchmark-min-rounds=3"]
    result = out / "result.json"
    if result.is_relative_to(paths.ROOT):  # the command is kept in the result file
        result = result.relative_to(paths.ROOT)
    measure = [python, "-m", "benchmarks", "run", "--json", str(result)]
    if arguments.quick:
        measure.append("--quick")
    report = [python, "-m", "benchmarks.report", str(result), "--out", str(out)]
    for command in (micro, measure, report):
        print("$", " ".join(command), flush=True)
        subprocess.run(command, check=True, cwd=paths.ROOT)
    print(f"charts and tables: {out}")
