"""What runs while these tests do, and the table of what worked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .exchanges import EXCHANGES
from .lab import Lab
from .table import Table


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("interop"))
    yield lab
    lab.close()


@pytest.fixture(scope="package")
def table() -> Iterator[Table]:
    """Collect what worked; where the environment says so, write it to a file."""
    table = Table()
    yield table
    table.write_if_wanted(list(EXCHANGES))
