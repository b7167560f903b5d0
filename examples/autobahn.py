"""The programs that the Autobahn TestSuite judges, for its own program `wstest`.

    python examples/autobahn.py server           for `wstest -m fuzzingclient`
    python examples/autobahn.py client [AGENT]   for `wstest -m fuzzingserver`

docs/conformance.md shows what to give `wstest`.
"""

from __future__ import annotations

import sys
import urllib.parse

from fullduplex.exceptions import ConnectionClosed
from fullduplex.sync.client import connect
from fullduplex.sync.connection import Connection
from fullduplex.sync.server import serve

SERVER = ("127.0.0.1", 9002)
SUITE = "ws://127.0.0.1:9001"


def echo(connection: Connection) -> None:
    """Send back what comes; how the connection ends is for the suite to judge."""
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


def run_server() -> None:
    """Serve until Ctrl-C."""
    with serve(echo, *SERVER, max_size=None) as server:
        server.serve_forever()


def run_client(agent: str) -> None:
    """Go through all cases that the suite has chosen."""
    agent = urllib.parse.quote(agent, safe="")
    with connect(f"{SUITE}/getCaseCount") as connection:
        count = int(connection.recv())
    for number in range(1, count + 1):
        with connect(f"{SUITE}/runCase?case={number}&agent={agent}", max_size=None) as connection:
            echo(connection)
    with connect(f"{SUITE}/updateReports?agent={agent}") as connection:
        echo(connection)


if __name__ == "__main__":
    if sys.argv[1:] == ["server"]:
        run_server()
    elif sys.argv[1:2] == ["client"]:
        run_client(*(sys.argv[2:] or ["fullduplex"]))
    else:
        sys.exit(__doc__)
