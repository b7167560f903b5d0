"""Fullduplex: WebSocket for threads.

Blocking clients and servers (RFC 6455) with compression (RFC 7692), on a compiled codec with a
pure-Python fallback. `IMPLEMENTATION` says which of the two runs: ``"compiled"`` or ``"pure"``.
Everything that is documented at the top level is imported when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if os.environ.get("FULLDUPLEX_PURE_PYTHON", "") not in ("", "0"):
    from ._source_only import install

    install(__name__)

from ._version import __version__
from .codec import IMPLEMENTATION

_LAZY = {
    "ClientConnection": ".sync.client",
    "ClientProtocol": ".client",
    "Close": ".frames",
    "CloseCode": ".frames",
    "Connection": ".sync.connection",
    "Data": ".typing",
    "Frame": ".frames",
    "Headers": ".datastructures",
    "Opcode": ".frames",
    "Origin": ".typing",
    "Request": ".http11",
    "Response": ".http11",
    "Router": ".sync.router",
    "Server": ".sync.server",
    "ServerConnection": ".sync.server",
    "ServerProtocol": ".server",
    "Side": ".protocol",
    "State": ".protocol",
    "Subprotocol": ".typing",
    "basic_auth": ".sync.server",
    "broadcast": ".sync.server",
    "connect": ".sync.client",
    "parse_uri": ".uri",
    "reconnect": ".sync.client",
    "route": ".sync.router",
    "serve": ".sync.server",
    "unix_connect": ".sync.client",
    "unix_reconnect": ".sync.client",
    "unix_route": ".sync.router",
    "unix_serve": ".sync.server",
    "wait": ".sync.wait",
}
_EXCEPTIONS = (
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "SecurityError",
    "TooManyFragments",
    "WebSocketException",
)
_LAZY.update(dict.fromkeys(_EXCEPTIONS, ".exceptions"))

__all__ = sorted([*_LAZY, "IMPLEMENTATION", "__version__"])


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


if TYPE_CHECKING:
    pass
