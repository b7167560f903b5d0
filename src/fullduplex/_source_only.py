"""Import the package from its Python sources, past any compiled module beside them.

Hot modules are compiled from the same ``.py`` file that stays next to the compiled one, and the import
system prefers the compiled one. `SourceOnlyFinder` reverses that for one package, which is how
``FULLDUPLEX_PURE_PYTHON=1`` and the test suite get the pure-Python implementation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType


class SourceOnlyFinder:
    """A meta path finder that gives one package's submodules from source files only."""

    def __init__(self, root: str) -> None:
        self.prefix = root + "."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a submodule; one that exists only in compiled form does not exist here."""
        if path is None or not name.startswith(self.prefix):
            return None
        folders = [entry for entry in path if os.path.isdir(entry)]
        if not folders:  # a zip archive or a frozen program: nothing compiled to step past
            return None
        for folder in folders:
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                return spec
        raise ModuleNotFoundError(f"No module named {name!r} in pure Python", name=name)


def install(root: str) -> None:
    """Make all later imports of submodules of ``root`` come from source; idempotent."""
    for finder in sys.meta_path:
        if isinstance(finder, SourceOnlyFinder) and finder.prefix == root + ".":
            return
    sys.meta_path.insert(0, SourceOnlyFinder(root))
