"""Proxies between our client and our server: in front of the server, and in front of the client."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from .lab import Lab
from .programs import find_program, program_version

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx-{port}.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx;
    proxy_temp_path {directory}/nginx;
    fastcgi_temp_path {directory}/nginx;
    uwsgi_temp_path {directory}/nginx;
    scgi_temp_path {directory}/nginx;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
        }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
frontend tls
    bind 127.0.0.1:{port} ssl crt {certificate}
    default_backend ours
backend ours
    server ours 127.0.0.1:{target}
"""

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
MaxClients 50
Timeout 60
LogLevel Error
BasicAuth user secret
"""


def started(lab: Lab, name: str, template: str, target: int, *arguments: str) -> int:
    """Start a program with a configuration file, and give its port."""
    program = find_program(name)

    def command(port: int) -> list[str]:
        path = lab.directory / f"{name}-{port}.conf"
        text = template.format(
            directory=lab.directory, certificate=lab.certificate, port=port, target=target
        )
        path.write_text(text)
        return [program, *(str(path) if item == "FILE" else item for item in arguments)]

    return lab.listening((name, target), command)


def nginx(lab: Lab, target: int) -> int:
    return started(
        lab, "nginx", NGINX, target, "-e", "stderr", "-p", str(lab.directory), "-c", "FILE"
    )


def haproxy(lab: Lab, target: int) -> int:
    return started(lab, "haproxy", HAPROXY, target, "-db", "-q", "-f", "FILE")


def tinyproxy(lab: Lab) -> str:
    port = started(lab, "tinyproxy", TINYPROXY, 0, "-d", "-c", "FILE")
    return f"http://user:secret@127.0.0.1:{port}"


def microsocks(lab: Lab) -> str:
    program = find_program("microsocks")
    port = lab.listening(
        "microsocks",
        lambda port: [
            *(program, "-i", "127.0.0.1", "-p", str(port)),
            *("-u", "user", "-P", "secret"),
        ],
    )
    return f"socks5h://user:secret@127.0.0.1:{port}"


def version_of(command: tuple[str, ...]) -> str:
    if len(command) == 1:
        find_program(*command)
        return "–"
    return program_version(*command)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way from our client to our server."""

    name: str
    programs: tuple[tuple[str, ...], ...]
    """The programs on it, each with the argument for its version, if it knows one."""
    reverse: Callable[[Lab, int], int] | None = None
    """Starts the proxy in front of the server, which brings TLS; gives its port."""
    forward: Callable[[Lab], str] | None = None
    """Starts the proxy in front of the client; gives its URL."""

    def version(self) -> str:
        return ", ".join(map(version_of, self.programs))

    def lead(self, lab: Lab, port: int) -> tuple[str, dict[str, Any]]:
        """Give the URL and the other arguments of `connect` that lead this way to a server."""
        url, options = f"ws://localhost:{port}/", {}
        if self.reverse is not None:
            url = f"wss://localhost:{self.reverse(lab, port)}/"
            options["ssl"] = lab.trusting()
        if self.forward is not None:
            options["proxy"] = self.forward(lab)
        return url, options


NGINX_VERSION, HAPROXY_VERSION = ("nginx", "-v"), ("haproxy", "-v")
TINYPROXY_VERSION, MICROSOCKS = ("tinyproxy", "-v"), ("microsocks",)
WAYS = [
    Way("nginx (TLS)", (NGINX_VERSION,), reverse=nginx),
    Way("HAProxy (TLS)", (HAPROXY_VERSION,), reverse=haproxy),
    Way("tinyproxy (HTTP proxy)", (TINYPROXY_VERSION,), forward=tinyproxy),
    Way(
        "tinyproxy, then nginx (TLS)",
        (TINYPROXY_VERSION, NGINX_VERSION),
        forward=tinyproxy,
        reverse=nginx,
    ),
    Way("microsocks (SOCKS5)", (MICROSOCKS,), forward=microsocks),
    Way(
        "microsocks, then HAProxy (TLS)",
        (MICROSOCKS, HAPROXY_VERSION),
        forward=microsocks,
        reverse=haproxy,
    ),
]
