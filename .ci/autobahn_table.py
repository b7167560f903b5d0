"""Judges runs of the Autobahn TestSuite, and puts what came out into the table of a page.

    autobahn_table.py DIRECTORY [PAGE]

DIRECTORY has a folder for each run, server-compiled and so on, with its results.json. Fails unless
all four are there, and every case that was chosen ran and is OK or INFORMATIONAL, in what was done
and in how the connection was closed.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

RUNS = [(side, how) for how in ("compiled", "pure") for side in ("server", "client")]
FINE = {"OK", "INFORMATIONAL"}
HEAD = "| | cases | OK | informational | non-strict | failed or unimplemented | bad close |"


def below_ok(results: dict[str, Any]) -> list[str]:
    """Give a line for each case that is not as it should be."""
    cases = results["cases"]
    lines = [f"{name}: did not run" for name in results["meta"]["chosen"] if name not in cases]
    for name, case in cases.items():
        if not {case["behavior"], case["behaviorClose"]} <= FINE:
            lines.append(f"{name}: {case['behavior']}, closing {case['behaviorClose']}")
    return lines


def row(side: str, how: str, results: dict[str, Any]) -> str:
    """Give the line of the table for one run."""
    cases = results["cases"].values()
    behavior = Counter(case["behavior"] for case in cases)
    fine = [behavior["OK"], behavior["INFORMATIONAL"]]
    bad_closes = sum(case["behaviorClose"] not in FINE for case in cases)
    below = [behavior["NON-STRICT"], len(cases) - sum(fine) - behavior["NON-STRICT"]]
    return " | ".join(
        ["", f"{side}, {how}", *map(str, [len(cases), *fine, *below, bad_closes]), ""]
    )


def replace_table(page: Path, table: str) -> None:
    """Replace the table of a page, which is there once."""
    text = page.read_text(encoding="utf-8")
    text, found = re.subn(
        rf"^{re.escape(HEAD)}\n(\|.*\n)*", lambda _: table, text, flags=re.MULTILINE
    )
    if found != 1:
        raise SystemExit(f"{page} has {found} tables of results")
    page.write_text(text, encoding="utf-8")


def main() -> int:
    """Judge, print, and write."""
    directory = Path(sys.argv[1])
    lines = [HEAD, "| --- | --- | --- | --- | --- | --- | --- |"]
    wrong = 0
    count = 0
    for side, how in RUNS:
        path = directory / f"{side}-{how}" / "results.json"
        if not path.exists():
            print(f"{side}, {how}: no results")
            wrong += 1
            continue
        results = json.loads(path.read_text())
        count = max(count, len(results["cases"]))
        for line in below_ok(results):
            print(f"{side}, {how}: {line}")
            wrong += 1
        lines.append(row(side, how, results).strip())
    table = "\n".join(lines) + "\n"
    print(table)
    if len(sys.argv) > 2 and not wrong:
        replace_table(Path(sys.argv[2]), table)
    return int(wrong > 0 or count == 0)


if __name__ == "__main__":
    sys.exit(main())
