"""``python -m benchmarks check``: are the ratios still where they are expected?"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import ratios, results, run
from .cells import select
from .paths import EXPECTED
from .setup import build_floor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run.add_arguments(parser)
    parser.add_argument("--expected", type=Path, default=EXPECTED, metavar="FILE")
    parser.add_argument("--result", type=Path, metavar="FILE", help="judge this, do not measure")
    parser.add_argument(
        "--record", action="store_true", help="write the expected ranges from --result instead"
    )
    parser.add_argument("--record-peer", default="fullduplex", metavar="PEER")


def _loaded(path: Path) -> dict[str, Any]:
    try:
        return results.load(path)
    except ValueError as error:
        sys.exit(f"error: {error}")


def _measured(arguments: argparse.Namespace, wanted: list[ratios.Expectation]) -> dict[str, Any]:
    """Measure the cells and peers that expectations name, and no others."""
    build_floor()
    chosen = {one.cell for one in wanted}
    arguments.cells = ",".join(sorted(chosen))
    arguments.peers = ",".join(dict.fromkeys(n for one in wanted for n in (one.peer, one.base)))
    with tempfile.TemporaryDirectory(prefix="fullduplex-bench-") as directory:
        this = run.Run(arguments, Path(directory))
        this.run()
    return this.document


def _report(wanted: list[ratios.Expectation], document: dict[str, Any]) -> int:
    """Print a line for each expectation; return how many are not met."""
    bad = 0
    for one in wanted:
        found = ratios.ratio(document, one.cell, one.peer, one.base)
        verdict = one.verdict(found)
        bad += verdict in ("worse", "missing")
        seen = f"{found.median:.3f} [{found.low:.3f} to {found.high:.3f}]" if found else "-"
        print(
            f"{verdict:<8} {one.cell:<22} {one.peer} / {one.base}: {seen},"
            f" expected {one.low:g} to {one.high:g}"
        )
    return bad


def main(arguments: argparse.Namespace) -> None:
    if arguments.record:
        if arguments.result is None:
            sys.exit("error: --record needs --result FILE")
        document = _loaded(arguments.result)
        bases = [name for name in document["versions"] if name != arguments.record_peer]
        count = ratios.record(document, arguments.record_peer, bases, arguments.expected)
        print(f"{count} ranges written to {arguments.expected}")
        return
    chosen = {cell.name for cell in select(arguments.cells)}
    wanted = [one for one in ratios.load_expected(arguments.expected) if one.cell in chosen]
    if arguments.result is not None:
        document = _loaded(arguments.result)
    else:
        document = _measured(arguments, wanted)
    bad = _report(wanted, document)
    if bad:
        sys.exit(f"{bad} of {len(wanted)} ratios are worse than expected or could not be measured")
    print(f"all {len(wanted)} ratios are as expected")
