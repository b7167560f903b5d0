"""Where the parts of the benchmarks are."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
FLOOR = HERE / "floor"
FLOOR_BUILD = FLOOR / "build"
NODE = HERE / "peers" / "node"
REQUIREMENTS = HERE / "requirements.txt"
EXPECTED = HERE / "expected.json"
AIMS = HERE / "aims.json"
VENV = ROOT / ".venv-bench"


def default_python() -> str:
    """The interpreter of the peers: that of the benchmarks' own environment where it exists."""
    python = VENV / "bin" / "python"
    return str(python) if python.exists() else sys.executable
