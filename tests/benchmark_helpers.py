"""Where the benchmarks can be tested, and what a tiny run is told."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

NEEDED = ("cc", "taskset", "openssl")

#: Whether the benchmarks are there and can run; to be asked before they are imported.
POSSIBLE = (
    sys.platform == "linux" and (ROOT / "benchmarks").is_dir() and all(map(shutil.which, NEEDED))
)
REASON = "the benchmarks need Linux, a source tree, a C compiler, taskset and openssl"


def run_arguments(**changed: Any) -> argparse.Namespace:
    settings = {
        "cells": "echo-32",
        "peers": "floor",
        "starts": 2,
        "rounds": 2,
        "seconds": 0.005,
        "json": None,
        "python": sys.executable,
        "fullduplex_python": None,
    }
    return argparse.Namespace(**settings | changed)
