"""The matrix as a table for the documentation."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FULLDUPLEX_INTEROP_TABLE"
"""Environment variable with the file that the table is written to."""

HEAD = """\
# Interoperability

Fullduplex is tested against what it meets in the world: clients and servers of other makes,
a browser, and the proxies between. Every cell stands for tests that passed in both
implementations, compiled and pure, over real sockets. Without compression / with
permessage-deflate; "–" means that the other program does not offer it.

- *text* and *binary*: messages of 0 bytes to 1 MB, on both sides of every change in the form of a
  frame's header, echoed and compared.
- *10 MB*: one binary message of 10,000,000 bytes, then a text of 1,500,000
  characters of several scripts.
- *fragments*: sent by us, and by the other side where it can (not aiohttp, not a browser).
- *pings*: ours, also between fragments; theirs where they can be sent (not from a browser).
- *closes by us*, *by them*: a closing handshake with each legal code (1000–1003, 1007–1014, 3000,
  3999, 4000, 4999), with a reason, checked at both ends; from a browser with those that it
  allows (1000, 3000–4999, and an empty close frame). aiohttp and websocket-client answer every
  close frame with 1000.

The table is made by `make interop`.

"""
ROLES = {
    "server": "its server, our client",
    "client": "its client, our server",
    "between": "between our client and our server",
}


Cells = dict[str, dict[tuple[str, bool], bool]]
"""By column: what passed, by implementation and whether with compression."""


class Table:
    """Collects how tests went."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Cells] = {}

    def note(
        self, row: tuple[str, str, str], column: str, implementation: str, deflate: bool, ok: bool
    ) -> None:
        """Note how a test went; its row is a name, a version, and a role."""
        self.rows.setdefault(row, {}).setdefault(column, {})[implementation, deflate] = ok

    def text(self, columns: list[str]) -> str:
        lines = [
            "| " + " | ".join(["", "version", "role", *columns]) + " |",
            "|" + " --- |" * (len(columns) + 3),
        ]
        for (name, version, role), cells in self.rows.items():
            marks = [mark(cells.get(column, {})) for column in columns]
            lines.append("| " + " | ".join([name, version, ROLES[role], *marks]) + " |")
        return HEAD + "\n".join(lines) + "\n"

    def write_if_wanted(self, columns: list[str]) -> None:
        """Write the table where the environment says, if it does."""
        if path := os.environ.get(VARIABLE):
            Path(path).write_text(self.text(columns), encoding="utf-8")


def mark(cell: dict[tuple[str, bool], bool]) -> str:
    """Sum up a cell: without compression / with it."""
    return " / ".join(
        summary([ok for (_, with_deflate), ok in cell.items() if with_deflate == deflate])
        for deflate in (False, True)
    )


def summary(results: list[bool]) -> str:
    if not results:
        return "–"
    return "✓" if len(results) == 2 and all(results) else "✗"
