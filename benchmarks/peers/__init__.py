"""The peers, and what each of them can do."""

from __future__ import annotations

import dataclasses

from ..cells import Cell


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """A library under test. Its module in this package has ``serve()`` or ``client()`` or both."""

    name: str
    #: Module in this package; "floor" and "node" are no Python.
    module: str
    #: Distributions whose versions are recorded. All of them have to be installed.
    distributions: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset({"client", "server"})
    transports: frozenset[str] = frozenset({"plain", "tls", "deflate"})
    kinds: frozenset[str] = frozenset(
        {"echo", "receive", "send", "handshake", "load", "idle", "broadcast"}
    )
    environment: tuple[tuple[str, str], ...] = ()
    #: Seconds that a new process works before it is measured.
    warm_up: float = 0.1
    note: str = ""

    def does(self, cell: Cell, role: str) -> bool:
        """Say whether this peer can be the ``role`` in ``cell``."""
        return role in self.roles and cell.transport in self.transports and cell.kind in self.kinds


_PLAIN = frozenset({"plain"})
_CLIENT = frozenset({"client"})

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in [
        Peer("floor", "floor", transports=_PLAIN, note="bare sockets in C, not a library"),
        Peer("fullduplex", "threaded", ("fullduplex",)),
        Peer(
            "fullduplex-pure",
            "threaded",
            ("fullduplex",),
            environment=(("FULLDUPLEX_PURE_PYTHON", "1"),),
        ),
        Peer("websockets", "threaded", ("websockets",), note="the threading API"),
        Peer(
            "picows",
            "picows_peer",
            ("picows", "uvloop"),
            transports=frozenset({"plain", "tls"}),
            note="asyncio callbacks, with uvloop",
        ),
        Peer("aiohttp", "aiohttp_peer", ("aiohttp", "uvloop"), note="asyncio, with uvloop"),
        Peer(
            "websocket-client",
            "websocket_client_peer",
            ("websocket-client",),
            roles=_CLIENT,
            transports=frozenset({"plain", "tls"}),
        ),
        Peer(
            "websocket-rs",
            "websocket_rs_peer",
            ("websocket-rs",),
            roles=_CLIENT,
            transports=_PLAIN,
            note="the sync client",
        ),
        Peer(
            "simple-websocket",
            "simple_websocket_peer",
            ("simple-websocket",),
            transports=frozenset({"plain", "tls"}),
        ),
        # Its compiler looks on at first, and then works on the core that it shares with what it
        # compiles: the first half second may take five times as long as it does later.
        Peer("ws", "node", warm_up=1.0, note="Node.js"),
    ]
}

#: The server for clients that have none of their own: the fastest of the peers.
DEFAULT_SERVER = "picows"


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A client and a server for a cell. ``name`` is what the user wrote."""

    name: str
    client: Peer
    server: Peer

    @property
    def warm_up(self) -> float:
        """Seconds of work after which both ends are as fast as they will be."""
        return max(self.client.warm_up, self.server.warm_up)


def pair(spec: str) -> Pair:
    """Parse ``NAME`` (both ends) or ``CLIENT+SERVER``."""
    client_name, plus, server_name = spec.strip().partition("+")
    for name in (client_name, server_name) if plus else (client_name,):
        if name not in PEERS:
            raise ValueError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    client = PEERS[client_name]
    if plus:
        server = PEERS[server_name]
    else:
        server = client if "server" in client.roles else PEERS[DEFAULT_SERVER]
    return Pair(spec.strip(), client, server)


def for_cell(chosen: Pair, cell: Cell) -> Pair | None:
    """Return who plays which part in ``cell``, the floor standing in; None if it can't be."""
    floor = PEERS["floor"]
    client = chosen.client if "client" in cell.roles else floor
    server = chosen.server if "server" in cell.roles else floor
    tested = [
        peer.does(cell, role)
        for peer, role in ((client, "client"), (server, "server"))
        if role in cell.roles
    ]
    if not all(tested):
        return None
    # A client without a server of its own has nothing to say about servers.
    if "client" not in cell.roles and "server" not in chosen.client.roles:
        return None
    return Pair(chosen.name, client, server)
