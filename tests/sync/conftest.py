"""Certificates and names for the tests of connections."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trustme


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(ca: trustme.CA) -> ssl.SSLContext:
    """TLS for a server named localhost, also by its addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(ca: trustme.CA) -> ssl.SSLContext:
    """TLS for a client that trusts the tests' authority."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that getaddrinfo() knows: lists of entries, or functions that give them."""
    table: dict[str, Any] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host not in table:
            return real(host, *args, **kwargs)
        found = table[host]
        return found() if callable(found) else found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table
