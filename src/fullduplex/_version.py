"""The version of the package, and the only place that states it."""

from __future__ import annotations

__all__ = ["__version__"]

#: The version of the package, as in its metadata.
__version__ = "0.1.0"
