"""The command line of the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import results
from .groups import GROUPS, OVERVIEW, in_group
from .svg import chart
from .tables import in_starts, tables


def _note(document: dict[str, Any]) -> str:
    environment = document["environment"]
    method = document["method"]
    return (
        f"Medians of {method['rounds']} interleaved rounds{in_starts(document)}; whiskers: quartiles."
        " Cut bars are longer than drawn.\n"
        f"{environment['cpu']}, {environment['kernel']}, {environment['date'][:10]}."
    )


def write(document: dict[str, Any], directory: Path) -> list[Path]:
    """Write all charts and the tables; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    note = _note(document)
    written = []
    wanted = [(name, heading, in_group(document, pattern)) for name, heading, pattern in GROUPS]
    overview = [name for name in OVERVIEW if name in document["cells"]]
    for name, heading, cells in [("overview", "Fullduplex and its peers", overview), *wanted]:
        if cells:
            path = directory / f"{name}.svg"
            path.write_text(chart([document["cells"][cell] for cell in cells], heading, note))
            written.append(path)
    page = directory / "tables.md"
    page.write_text(tables(document))
    return [*written, page]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("result", type=Path, help="file written by run --json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    try:
        document = results.load(arguments.result)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path in write(document, arguments.out):
        print(path)


if __name__ == "__main__":
    main()
