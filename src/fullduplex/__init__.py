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

from ._version import __version__ as __version__
from .codec import IMPLEMENTATION as IMPLEMENTATION

if TYPE_CHECKING:
    from .client import (
        ClientProtocol as ClientProtocol,
    )
    from .datastructures import (
        Headers as Headers,
    )
    from .datastructures import (
        HeadersLike as HeadersLike,
    )
    from .datastructures import (
        MultipleValuesError as MultipleValuesError,
    )
    from .exceptions import (
        ConcurrencyError as ConcurrencyError,
    )
    from .exceptions import (
        ConnectionClosed as ConnectionClosed,
    )
    from .exceptions import (
        ConnectionClosedError as ConnectionClosedError,
    )
    from .exceptions import (
        ConnectionClosedOK as ConnectionClosedOK,
    )
    from .exceptions import (
        DuplicateParameter as DuplicateParameter,
    )
    from .exceptions import (
        HeaderLineTooLong as HeaderLineTooLong,
    )
    from .exceptions import (
        InvalidHandshake as InvalidHandshake,
    )
    from .exceptions import (
        InvalidHeader as InvalidHeader,
    )
    from .exceptions import (
        InvalidHeaderFormat as InvalidHeaderFormat,
    )
    from .exceptions import (
        InvalidHeaderValue as InvalidHeaderValue,
    )
    from .exceptions import (
        InvalidMessage as InvalidMessage,
    )
    from .exceptions import (
        InvalidMethod as InvalidMethod,
    )
    from .exceptions import (
        InvalidOrigin as InvalidOrigin,
    )
    from .exceptions import (
        InvalidParameterName as InvalidParameterName,
    )
    from .exceptions import (
        InvalidParameterValue as InvalidParameterValue,
    )
    from .exceptions import (
        InvalidProtocol as InvalidProtocol,
    )
    from .exceptions import (
        InvalidProxy as InvalidProxy,
    )
    from .exceptions import (
        InvalidProxyMessage as InvalidProxyMessage,
    )
    from .exceptions import (
        InvalidProxyStatus as InvalidProxyStatus,
    )
    from .exceptions import (
        InvalidState as InvalidState,
    )
    from .exceptions import (
        InvalidStatus as InvalidStatus,
    )
    from .exceptions import (
        InvalidUpgrade as InvalidUpgrade,
    )
    from .exceptions import (
        InvalidURI as InvalidURI,
    )
    from .exceptions import (
        NegotiationError as NegotiationError,
    )
    from .exceptions import (
        PayloadTooBig as PayloadTooBig,
    )
    from .exceptions import (
        ProtocolError as ProtocolError,
    )
    from .exceptions import (
        ProxyError as ProxyError,
    )
    from .exceptions import (
        RequestLineTooLong as RequestLineTooLong,
    )
    from .exceptions import (
        SecurityError as SecurityError,
    )
    from .exceptions import (
        StatusLineTooLong as StatusLineTooLong,
    )
    from .exceptions import (
        TooManyFragments as TooManyFragments,
    )
    from .exceptions import (
        TooManyHeaders as TooManyHeaders,
    )
    from .exceptions import (
        WebSocketException as WebSocketException,
    )
    from .frames import (
        Close as Close,
    )
    from .frames import (
        CloseCode as CloseCode,
    )
    from .frames import (
        Frame as Frame,
    )
    from .frames import (
        Opcode as Opcode,
    )
    from .http11 import (
        Request as Request,
    )
    from .http11 import (
        Response as Response,
    )
    from .protocol import (
        Protocol as Protocol,
    )
    from .protocol import (
        Side as Side,
    )
    from .protocol import (
        State as State,
    )
    from .server import (
        ServerProtocol as ServerProtocol,
    )
    from .sync.client import (
        ClientConnection as ClientConnection,
    )
    from .sync.client import (
        connect as connect,
    )
    from .sync.client import (
        reconnect as reconnect,
    )
    from .sync.client import (
        unix_connect as unix_connect,
    )
    from .sync.client import (
        unix_reconnect as unix_reconnect,
    )
    from .sync.connection import (
        Connection as Connection,
    )
    from .sync.router import (
        Router as Router,
    )
    from .sync.router import (
        route as route,
    )
    from .sync.router import (
        unix_route as unix_route,
    )
    from .sync.server import (
        Server as Server,
    )
    from .sync.server import (
        ServerConnection as ServerConnection,
    )
    from .sync.server import (
        basic_auth as basic_auth,
    )
    from .sync.server import (
        broadcast as broadcast,
    )
    from .sync.server import (
        serve as serve,
    )
    from .sync.server import (
        unix_serve as unix_serve,
    )
    from .sync.wait import (
        wait as wait,
    )
    from .typing import (
        Data as Data,
    )
    from .typing import (
        ExtensionName as ExtensionName,
    )
    from .typing import (
        ExtensionParameter as ExtensionParameter,
    )
    from .typing import (
        LoggerLike as LoggerLike,
    )
    from .typing import (
        Origin as Origin,
    )
    from .typing import (
        StatusLike as StatusLike,
    )
    from .typing import (
        Subprotocol as Subprotocol,
    )
    from .uri import (
        parse_uri as parse_uri,
    )

_LAZY = {
    "ClientConnection": ".sync.client",
    "ClientProtocol": ".client",
    "Close": ".frames",
    "CloseCode": ".frames",
    "Connection": ".sync.connection",
    "Data": ".typing",
    "ExtensionName": ".typing",
    "ExtensionParameter": ".typing",
    "Frame": ".frames",
    "Headers": ".datastructures",
    "HeadersLike": ".datastructures",
    "LoggerLike": ".typing",
    "MultipleValuesError": ".datastructures",
    "Opcode": ".frames",
    "Origin": ".typing",
    "Protocol": ".protocol",
    "Request": ".http11",
    "Response": ".http11",
    "Router": ".sync.router",
    "Server": ".sync.server",
    "ServerConnection": ".sync.server",
    "ServerProtocol": ".server",
    "Side": ".protocol",
    "State": ".protocol",
    "StatusLike": ".typing",
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
    "HeaderLineTooLong",
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
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
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
