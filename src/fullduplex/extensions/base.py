"""The interface between the protocol and extensions (RFC 6455 §9).

A factory on each side negotiates in the opening handshake; what comes out of it is an extension,
one for each connection, which changes frames on their way out and in. Deriving from these classes
is not necessary: whatever has their attributes and methods will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..frames import Frame
    from ..typing import ExtensionName, ExtensionParameter

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """An extension in use on one connection.

    Sending applies the extensions of a connection in the order in which they were negotiated,
    receiving in the reverse order. A connection never calls :meth:`encode` from two threads at
    once, nor :meth:`decode`; it may well call one of each.
    """

    name: ExtensionName
    """The name under which it is negotiated."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Turn a frame that was received into what it was before the peer's extension.

        Args:
            frame: The frame; it may be changed.
            max_size: How many bytes the payload of the result may have at most; None for no limit,
                0 for none at all.

        Returns:
            `frame`, or another one in its place.

        Raises:
            PayloadTooBig: With ``(size | None, max_size)``, if the result would exceed the limit.
            ProtocolError: If the frame breaks the rules of the extension.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """Turn a frame into what goes over the wire.

        Args:
            frame: The frame; it may be changed.

        Returns:
            `frame`, or another one in its place.
        """
        raise NotImplementedError


class ClientExtensionFactory:
    """The client's side of the negotiation of an extension."""

    name: ExtensionName
    """The name under which it is negotiated."""

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer: pairs of a name and a value or None."""
        raise NotImplementedError

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        """Take the server's answer.

        Args:
            params: The parameters in the response.
            accepted_extensions: The extensions that stand before this one in the response.

        Returns:
            The extension for this connection.

        Raises:
            NegotiationError: If the parameters cannot be accepted.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """The server's side of the negotiation of an extension."""

    name: ExtensionName
    """The name under which it is negotiated."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        """Take a client's offer.

        Args:
            params: The parameters in the request.
            accepted_extensions: The extensions that were accepted before this one.

        Returns:
            The parameters for the response, and the extension for this connection.

        Raises:
            NegotiationError: If the offer cannot be accepted; the next one is tried then.
        """
        raise NotImplementedError
