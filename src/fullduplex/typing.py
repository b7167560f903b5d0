"""Names for the types that appear in public signatures."""

from __future__ import annotations

import http
import logging
import os
from typing import Any, NewType, TypeAlias

__all__ = [
    "BytesLike",
    "Data",
    "DataLike",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "PathLike",
    "StatusLike",
    "Subprotocol",
]

Data: TypeAlias = str | bytes
"""A message as it is received: :class:`str` for Text, :class:`bytes` for Binary (RFC 6455 §5.6)."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Binary data as it may be sent."""

DataLike: TypeAlias = str | bytes | bytearray | memoryview
"""A message as it may be sent."""

LoggerLike: TypeAlias = logging.Logger | logging.LoggerAdapter[Any]
"""A logger, or an adapter around one."""

StatusLike: TypeAlias = http.HTTPStatus | int
"""An HTTP status code."""

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""The path of a Unix socket."""

Origin = NewType("Origin", str)
"""The value of an Origin header (RFC 6454 §7)."""

Subprotocol = NewType("Subprotocol", str)
"""The name of a subprotocol (RFC 6455 §1.9)."""

ExtensionName = NewType("ExtensionName", str)
"""The name of an extension (RFC 6455 §9.1)."""

ExtensionParameter: TypeAlias = tuple[str, str | None]
"""A parameter of an extension: its name and its value, None if it has none (RFC 6455 §9.1)."""
