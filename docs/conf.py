"""How the documentation is built; `make docs` does it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The reference is made from the Python sources, which have the signatures and annotations.
os.environ["FULLDUPLEX_PURE_PYTHON"] = "1"
sys.path.insert(0, str(ROOT / "src"))

import fullduplex  # noqa: E402

project = "Fullduplex"
author = "the Fullduplex contributors"
copyright = "2026, the Fullduplex contributors"
version = release = fullduplex.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "performance"]  # the latter is included by performance.md
html_theme = "furo"
html_title = f"Fullduplex {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# `name` in a docstring is a link where there is something to link to, and code where there isn't.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
