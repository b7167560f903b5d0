"""Every exchange with every far end, with and without compression, in both implementations."""

from __future__ import annotations

from types import ModuleType

import pytest

from .exchanges import EXCHANGES
from .farends import ROWS, Row
from .lab import Lab
from .table import Table

pytestmark = pytest.mark.interop

CELLS = [
    pytest.param(row, deflate, id=f"{row}-{'deflate' if deflate else 'plain'}")
    for row in ROWS
    for deflate in (False, True)
    if row.deflate or not deflate
]


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(("row", "deflate"), CELLS)
def test_exchange(
    fd: ModuleType, lab: Lab, table: Table, row: Row, deflate: bool, exchange: str
) -> None:
    heading = (row.name, row.version(), row.role)
    table.note(heading, exchange, fd.IMPLEMENTATION, deflate, False)
    try:
        EXCHANGES[exchange](row.make(lab, fd, deflate))
    except BaseException:
        lab.forget()
        raise
    table.note(heading, exchange, fd.IMPLEMENTATION, deflate, True)
