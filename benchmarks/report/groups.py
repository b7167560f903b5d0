"""Which cells are shown together, and how peers and figures are written."""

from __future__ import annotations

import fnmatch
from typing import Any

#: File name, heading, cells.
GROUPS: list[tuple[str, str, str]] = [
    ("round-trips", "Round trips", "echo-*"),
    ("tls", "Round trips over TLS", "tls-[0-9]*"),
    ("deflate", "Round trips with compression", "deflate-*"),
    ("receive", "Receiving: CPU time a message", "receive-*"),
    ("send", "Sending: CPU time a message", "send-*"),
    ("handshakes", "Opening and closing connections", "*handshake"),
    ("load", "Busy servers", "load-*"),
    ("idle", "Idle connections", "idle-*"),
    ("broadcast", "Broadcast", "broadcast-*"),
]

#: The chart for the README: one cell for each thing that people ask about.
OVERVIEW = [
    "echo-32",
    "echo-1m",
    "tls-256",
    "deflate-1k",
    "receive-100-ascii",
    "receive-1m-mixed",
    "handshake",
    "load-100",
]

LABELS = {
    "floor": "bare C sockets",
    "fullduplex": "Fullduplex",
    "fullduplex-pure": "Fullduplex, pure Python",
    "websockets": "websockets (threading)",
    "picows": "picows + uvloop",
    "aiohttp": "aiohttp + uvloop",
    "ws": "ws (Node.js)",
    "websocket-rs": "websocket-rs (sync)",
}


def label(peer: dict[str, Any], name: str) -> str:
    """The name of a peer on a chart. ``peer`` is its outcome in a cell."""
    shown = LABELS.get(name, name)
    client, server = peer["client"], peer["server"]
    if client != server and client in name and server != "floor" and "+" not in name:
        shown += f", {server} server"
    return shown


def in_group(document: dict[str, Any], pattern: str) -> list[str]:
    return [name for name in document["cells"] if fnmatch.fnmatch(name, pattern)]


def several_starts(document: dict[str, Any]) -> bool:
    """Whether processes were started more than once, so that there is a spread between starts."""
    return bool(document["method"]["starts"] > 1)


def spread(starts: tuple[float, ...]) -> str:
    """From the lowest to the highest ratio of a start."""
    return f"{min(starts):.2f} to {max(starts):.2f}"


def figure(value: float) -> str:
    """Three significant digits, and no exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def ranked(cell: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Peers with a result, best first."""
    done = [(name, peer) for name, peer in cell["peers"].items() if "median" in peer]
    return sorted(done, key=lambda one: one[1]["median"], reverse=cell["higher_is_better"])
