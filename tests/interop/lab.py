"""What runs for the time of the tests: each program and server is started once, when needed."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Hashable
from pathlib import Path
from types import ModuleType
from typing import Any

import trustme

from .browser import Browser
from .ours import OurServer
from .programs import Program, free_port


class Lab:
    """Keeps what was started, and ends all of it with `close`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.things: dict[Hashable, Any] = {}
        self.stack = contextlib.ExitStack()
        self.authority = trustme.CA()
        self.certificate = directory / "certificate.pem"
        self.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self.certificate)
        )

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Give what was made for this key, making it the first time."""
        if key not in self.things:
            self.things[key] = make()
        return self.things[key]

    def forget(self) -> None:
        """Start anew after a failure, so that nothing left over from it fails other tests."""
        self.things.clear()

    def program(self, command: list[str]) -> Program:
        """Give a running program."""
        return self.kept(
            ("program", *command),
            lambda: self.stack.enter_context(Program(*command, directory=self.directory)),
        )

    def listening(self, key: Hashable, make: Callable[[int], list[str]]) -> int:
        """Give the port of a program that is told where to listen."""

        def start() -> int:
            port = free_port()
            self.program(make(port)).wait_until_it_listens(port)
            return port

        return self.kept(("listening", key), start)

    def server(self, fd: ModuleType, deflate: bool) -> OurServer:
        """Give a server of ours."""

        def start() -> OurServer:
            server = OurServer(fd, "deflate" if deflate else None)
            self.stack.callback(server.close)
            return server

        return self.kept(("server", fd.__name__, deflate), start)

    def browser(self, fd: ModuleType) -> Browser:
        """Give the browser, which got its page from a server of ours."""
        server = self.server(fd, False)
        return self.kept(
            "browser",
            lambda: self.stack.enter_context(Browser(server, self.directory)),
        )

    def trusting(self) -> ssl.SSLContext:
        """Give the context of a client that trusts our certificate."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def close(self) -> None:
        self.stack.close()
