"""The far ends: each as the exchanges want it, with its name, its version and what it offers."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from . import middle
from .browser import Browser
from .exchanges import CODES
from .lab import Lab
from .programs import (
    HERE,
    TIMEOUT,
    Program,
    find_program,
    node_package_version,
    package_version,
    program_version,
    python,
)

FAR_JS = "far/node/far.mjs"
BROWSER_CODES = (1000, 3000, 3999, 4000, 4999, 1005)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A far end that is a program of another make."""

    name: str
    version: Callable[[], str]
    command: Callable[[str, str], list[str]]
    """Gives the command line for a role and a kind of compression, both in a word."""
    roles: tuple[str, ...] = ("server", "client")
    deflate: bool = True
    fragments: bool = True
    pings: bool = True
    codes: tuple[int, ...] = CODES
    answers: int | None = None


KINDS = [
    Kind(
        name="ws (Node)",
        version=lambda: node_package_version("ws"),
        command=lambda *words: [find_program("node"), str(HERE / FAR_JS), *words],
        codes=(*CODES, 1005),
    ),
    Kind(
        name="websockets",
        version=lambda: package_version("websockets"),
        command=lambda *words: python("websockets_far.py", "websockets", *words),
    ),
    Kind(
        name="picows",
        version=lambda: package_version("picows"),
        command=lambda *words: python("websockets_far.py", "picows.websockets", *words),
    ),
    Kind(
        name="aiohttp",
        version=lambda: package_version("aiohttp"),
        command=lambda *words: python("aiohttp_far.py", *words),
        fragments=False,
        answers=1000,
    ),
    Kind(
        name="websocket-client",
        version=lambda: package_version("websocket-client"),
        command=lambda *words: python("websocket_client_far.py", *words),
        roles=("client",),
        deflate=False,
        answers=1000,
    ),
]


class Base:
    """What an exchange needs of a far end."""

    def __init__(self, lab: Lab, fd: ModuleType, deflate: bool, kind: Kind) -> None:
        self.lab = lab
        self.fd = fd
        self.deflate = deflate
        self.fragments = kind.fragments
        self.pings = kind.pings
        self.codes = kind.codes
        self.answers = kind.answers

    def connect(self, url: str, **options: Any) -> Any:
        return self.checked(
            self.fd.sync.client.connect(
                url,
                compression="deflate" if self.deflate else None,
                max_size=None,
                **{"proxy": None, **options},
            )
        )

    def checked(self, connection: Any) -> Any:
        """Give the connection, if compression was agreed on where it should have been."""
        extension = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        if extension.startswith("permessage-deflate") != self.deflate:
            connection.close()
            raise AssertionError(f"agreed on {extension!r}, with compression {self.deflate}")
        return connection


class TheirServer(Base):
    def __init__(self, lab: Lab, fd: ModuleType, deflate: bool, kind: Kind) -> None:
        super().__init__(lab, fd, deflate, kind)
        self.program = lab.program(kind.command("server", "deflate" if deflate else "plain"))
        self.port = lab.kept(("port", self.program), lambda: self.program.hear()["port"])

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with self.connect(f"ws://127.0.0.1:{self.port}/") as connection:
            yield connection

    def saw(self) -> Any:
        return self.program.hear()


class TheirClient(Base):
    def __init__(self, lab: Lab, fd: ModuleType, deflate: bool, kind: Kind) -> None:
        super().__init__(lab, fd, deflate, kind)
        self.program: Program | Browser = self.start(kind)
        lab.kept(("started", self.program), self.program.hear)
        self.server = lab.server(fd, deflate)

    def start(self, kind: Kind) -> Program | Browser:
        return self.lab.program(kind.command("client", "deflate" if self.deflate else "plain"))

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        self.program.tell(f"ws://127.0.0.1:{self.server.port}/test")
        with self.server.accept() as connection:
            yield self.checked(connection)

    def saw(self) -> Any:
        return self.program.hear()


class BrowserClient(TheirClient):
    """Chromium. It always offers compression, so our server is who decides."""

    def start(self, kind: Kind) -> Browser:
        return self.lab.browser(self.fd)


BROWSER = Kind(
    name="Chromium",
    version=lambda: program_version("chromium", "--version"),
    command=lambda *words: [],
    roles=("client",),
    fragments=False,
    pings=False,
    codes=BROWSER_CODES,
)


class OurselvesBehind(Base):
    """Our server as the far end of our client, with other programs between them."""

    def __init__(self, lab: Lab, fd: ModuleType, deflate: bool, way: middle.Way) -> None:
        super().__init__(lab, fd, deflate, OURSELVES)
        self.server = lab.server(fd, deflate)
        self.url, self.options = way.lead(lab, self.server.port)

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with self.connect(self.url, **self.options) as connection:
            yield connection

    def saw(self) -> Any:
        return self.server.seen.get(timeout=TIMEOUT)


OURSELVES = Kind(name="fullduplex", version=str, command=lambda *words: [])


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the matrix: a far end in a role."""

    name: str
    role: str
    version: Callable[[], str]
    make: Callable[[Lab, ModuleType, bool], Any]
    deflate: bool = True

    def __str__(self) -> str:
        return "-".join(re.findall(r"[\w-]+", f"{self.name} {self.role}"))


def theirs(kind: Kind, role: str, make: Any) -> Row:
    return Row(
        kind.name,
        role,
        kind.version,
        lambda lab, fd, deflate: make(lab, fd, deflate, kind),
        kind.deflate,
    )


def behind(way: middle.Way) -> Row:
    return Row(
        way.name,
        "between",
        way.version,
        lambda lab, fd, deflate: OurselvesBehind(lab, fd, deflate, way),
    )


ROWS = [
    *(
        theirs(kind, role, TheirServer if role == "server" else TheirClient)
        for kind in KINDS
        for role in kind.roles
    ),
    theirs(BROWSER, "client", BrowserClient),
    *(behind(way) for way in middle.WAYS),
]
