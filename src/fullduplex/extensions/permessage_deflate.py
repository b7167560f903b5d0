"""Compression of messages (RFC 7692): the extension's factories, which negotiate it.

What the extension itself does is in :mod:`._deflate`; its public names are here, too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from ..exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
)
from ..typing import ExtensionParameter
from ._deflate import (
    DEFAULT_THRESHOLD,
    DEFAULT_THRESHOLD_NO_CONTEXT,
    NAME,
    PerMessageDeflate,
    SharedParameters,
    check_bits,
    check_threshold,
    encode_shared,
    freeze,
    wire_limit,
)
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = [
    "ClientPerMessageDeflateFactory",
    "DEFAULT_THRESHOLD",
    "DEFAULT_THRESHOLD_NO_CONTEXT",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "SharedParameters",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
    "encode_shared",
    "wire_limit",
]

_F = TypeVar("_F", bound=ClientExtensionFactory | ServerExtensionFactory)

_NO_CONTEXT: Final = ("server_no_context_takeover", "client_no_context_takeover")
_BITS: Final = ("server_max_window_bits", "client_max_window_bits")

# §7.1.2: a decimal integer without leading zeros. Anything that int() takes in addition ("+9", "
# 9", "1_0", digits of other scripts) is not one.
_BITS_VALUES: Final = {str(bits): bits for bits in range(8, 16)}


class _Parameters(NamedTuple):
    """The four parameters as they stand in an offer or an answer, in the order of their names."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int | None
    client_max_window_bits: int | Literal[True] | None

    def build(self) -> list[ExtensionParameter]:
        """Return them in the form that goes into a header."""
        return list(_build(self))


@functools.lru_cache(maxsize=64)
def _build(parameters: _Parameters) -> tuple[ExtensionParameter, ...]:
    params: list[ExtensionParameter] = []
    for name, value in zip(parameters._fields, parameters, strict=True):
        if value is True:
            params.append((name, None))
        elif value:
            params.append((name, str(value)))
    return tuple(params)


def _parse(params: Sequence[ExtensionParameter], *, is_offer: bool) -> _Parameters:
    """Read the parameters of an offer or an answer (§7.1.1, §7.1.2).

    Raises:
        NegotiationError: If one is unknown, doubled or has a wrong value.
    """
    return _parse_tuple(tuple(params), is_offer)


# Nearly all peers send the same. Errors are not remembered, so what is has a bounded length.
@functools.lru_cache(maxsize=64)
def _parse_tuple(params: tuple[ExtensionParameter, ...], is_offer: bool) -> _Parameters:
    seen: dict[str, int | Literal[True]] = {}
    for name, value in params:
        if name in seen:
            raise DuplicateParameter(name)
        if name in _NO_CONTEXT:
            if value is not None:
                raise InvalidParameterValue(name, value)
            seen[name] = True
        elif name in _BITS:
            # §7.1.2.2: only an offer, and only of client_max_window_bits, may leave the value out
            if value is None and is_offer and name == "client_max_window_bits":
                seen[name] = True
            elif value in _BITS_VALUES:
                seen[name] = _BITS_VALUES[value]
            else:
                raise InvalidParameterValue(name, value)
        else:
            raise InvalidParameterName(name)
    server_no_context_takeover, client_no_context_takeover = (name in seen for name in _NO_CONTEXT)
    server_max_window_bits, client_max_window_bits = (seen.get(name) for name in _BITS)
    return _Parameters(
        server_no_context_takeover,
        client_no_context_takeover,
        server_max_window_bits,
        client_max_window_bits,
    )


def _check_first(accepted: Sequence[Extension]) -> None:
    if any(extension.name == NAME for extension in accepted):
        raise NegotiationError(f"received duplicate {NAME}")


class _Factory:
    """What the factories of both sides have in common."""

    name = NAME

    def __init__(self, compress_settings: Mapping[str, Any] | None, threshold: int | None) -> None:
        freeze(compress_settings)
        if threshold is not None:
            check_threshold(threshold)
        self.compress_settings = compress_settings
        self.threshold = threshold

    def _make(
        self, remote_no_context: bool, local_no_context: bool, remote_bits: int, local_bits: int
    ) -> PerMessageDeflate:
        threshold = self.threshold
        if threshold is None:
            threshold = DEFAULT_THRESHOLD_NO_CONTEXT if local_no_context else DEFAULT_THRESHOLD
        return PerMessageDeflate(
            remote_no_context,
            local_no_context,
            remote_bits,
            local_bits,
            self.compress_settings,
            threshold=threshold,
        )


class ClientPerMessageDeflateFactory(_Factory, ClientExtensionFactory):
    """The client's side of the negotiation.

    What is asked of the server (``server_...``) must be granted, or the connection fails. What the
    client says of itself (``client_...``) it does in any case.

    Args:
        server_no_context_takeover: Ask the server to start each message with an empty window.
        client_no_context_takeover: Do so on this side.
        server_max_window_bits: Ask the server to use a window of at most this base-2 logarithm of a
            size in bytes, 8 to 15.
        client_max_window_bits: Use at most this window on this side, 9 to 15. True lets the server
            choose; None does not let it, and uses 15.
        compress_settings: Other arguments of :func:`zlib.compressobj`: ``level``, ``memLevel``,
            ``method`` and ``strategy``.
        threshold: A smaller message, in bytes, is sent uncompressed. None for the default: 64, or
            256 without context takeover on this side. 0 compresses all.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: Mapping[str, Any] | None = None,
        *,
        threshold: int | None = None,
    ) -> None:
        if server_max_window_bits is not None:
            check_bits("server_max_window_bits", server_max_window_bits, 8)
        if client_max_window_bits is not None and client_max_window_bits is not True:
            check_bits("client_max_window_bits", client_max_window_bits, 9)
        super().__init__(compress_settings, threshold)
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters of the offer."""
        return _Parameters(
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits,
        ).build()

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        """Take the server's answer (RFC 7692 §7.1).

        ============================  ============  ===============================================
        parameter                     in the offer  in the answer
        ============================  ============  ===============================================
        server_no_context_takeover    no            may be there
        server_no_context_takeover    yes           must be there
        client_no_context_takeover    any           may be there
        server_max_window_bits        no            may be there
        server_max_window_bits        N             must be there, at most N
        client_max_window_bits        no            must not be there
        client_max_window_bits        no value      may be there, 9 to 15
        client_max_window_bits        N             may be there, 9 to N
        ============================  ============  ===============================================

        8 for the client's own window is refused: zlib has no raw DEFLATE with such a window, and
        does not say that a larger one will do.

        Raises:
            NegotiationError: If the answer is not valid, or not acceptable.
        """
        _check_first(accepted_extensions)
        answer = _parse(params, is_offer=False)

        if self.server_no_context_takeover and not answer.server_no_context_takeover:
            raise NegotiationError("expected server_no_context_takeover")

        server_bits = answer.server_max_window_bits
        if self.server_max_window_bits is not None:
            if server_bits is None:
                raise NegotiationError("expected server_max_window_bits")
            if server_bits > self.server_max_window_bits:
                raise InvalidParameterValue("server_max_window_bits", str(server_bits))

        client_bits = answer.client_max_window_bits
        wanted = 15 if self.client_max_window_bits is True else self.client_max_window_bits
        if client_bits is not None:
            if wanted is None:
                raise NegotiationError("unexpected client_max_window_bits")
            if not 9 <= client_bits <= wanted:
                raise InvalidParameterValue("client_max_window_bits", str(client_bits))

        return self._make(
            answer.server_no_context_takeover,
            self.client_no_context_takeover or answer.client_no_context_takeover,
            server_bits or 15,
            client_bits or wanted or 15,
        )


class ServerPerMessageDeflateFactory(_Factory, ServerExtensionFactory):
    """The server's side of the negotiation.

    Args:
        server_no_context_takeover: Start each message with an empty window on this side.
        client_no_context_takeover: Ask the client to do so.
        server_max_window_bits: Use at most a window of this base-2 logarithm of a size in bytes,
            9 to 15, on this side.
        client_max_window_bits: Ask the client to use at most this window, 8 to 15, if it can.
        compress_settings: Other arguments of :func:`zlib.compressobj`: ``level``, ``memLevel``,
            ``method`` and ``strategy``.
        require_client_max_window_bits: Decline the offer of a client that cannot be asked for a
            window, instead of accepting it without.
        threshold: A smaller message, in bytes, is sent uncompressed. None for the default: 64, or
            256 without context takeover on this side. 0 compresses all.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: Mapping[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
        *,
        threshold: int | None = None,
    ) -> None:
        if server_max_window_bits is not None:
            check_bits("server_max_window_bits", server_max_window_bits, 9)
        if client_max_window_bits is not None:
            check_bits("client_max_window_bits", client_max_window_bits, 8)
        elif require_client_max_window_bits:
            raise ValueError("require_client_max_window_bits needs client_max_window_bits")
        super().__init__(compress_settings, threshold)
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.require_client_max_window_bits = require_client_max_window_bits

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Take a client's offer (RFC 7692 §7.1).

        ============================  ============  ===============================================
        parameter                     in the offer  in the answer
        ============================  ============  ===============================================
        server_no_context_takeover    yes           yes
        server_no_context_takeover    no            if this side wants it
        client_no_context_takeover    yes           yes
        client_no_context_takeover    no            if this side wants it
        server_max_window_bits        N             the smaller of N and this side's
        server_max_window_bits        no            this side's, if it has one
        client_max_window_bits        N             the smaller of N and this side's
        client_max_window_bits        no value      this side's, if it has one
        client_max_window_bits        no            no; declined if this side requires it
        ============================  ============  ===============================================

        A client that asks the server for a window of 8 is declined: zlib has no raw DEFLATE with
        such a window, and does not say that a larger one will do. The connection is then
        uncompressed, unless the client offered something else too.

        Raises:
            NegotiationError: If the offer is not valid, or not acceptable.
        """
        _check_first(accepted_extensions)
        offer = _parse(params, is_offer=True)

        server_bits = offer.server_max_window_bits
        if server_bits == 8:
            raise InvalidParameterValue("server_max_window_bits", "8")
        if self.server_max_window_bits is not None:
            server_bits = min(server_bits or 15, self.server_max_window_bits)

        client_bits: int | None = None
        if offer.client_max_window_bits is None:
            if self.require_client_max_window_bits:
                raise NegotiationError("required client_max_window_bits")
        elif offer.client_max_window_bits is True:
            client_bits = self.client_max_window_bits
        else:
            client_bits = min(offer.client_max_window_bits, self.client_max_window_bits or 15)

        answer = _Parameters(
            self.server_no_context_takeover or offer.server_no_context_takeover,
            self.client_no_context_takeover or offer.client_no_context_takeover,
            server_bits,
            client_bits,
        )
        extension = self._make(
            answer.client_no_context_takeover,
            answer.server_no_context_takeover,
            client_bits or 15,
            server_bits or 15,
        )
        return answer.build(), extension


def enable_client_permessage_deflate(
    extensions: Sequence[ClientExtensionFactory] | None,
) -> Sequence[ClientExtensionFactory]:
    """Return the client's extensions with permessage-deflate in its default form, if it is missing.

    The server may choose the client's window; ``memLevel`` is 5.
    """
    return _enable(extensions, ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5}))


def enable_server_permessage_deflate(
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Sequence[ServerExtensionFactory]:
    """Return the server's extensions with permessage-deflate in its default form, if it is missing.

    Windows are 12 bits and ``memLevel`` is 5, which is about 50 KiB for a connection.
    """
    return _enable(
        extensions,
        ServerPerMessageDeflateFactory(
            server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
        ),
    )


def _enable(extensions: Sequence[_F] | None, factory: _F) -> Sequence[_F]:
    """Append a factory unless there is one of its name."""
    if extensions is None:
        return [factory]
    if any(extension.name == NAME for extension in extensions):
        return extensions
    return [*extensions, factory]
