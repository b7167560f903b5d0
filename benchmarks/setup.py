"""``python -m benchmarks setup``: an environment with all peers, and the floor programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import paths

PROGRAMS = ("server", "client", "load")
_FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Wconversion")


def build_floor() -> None:
    """Compile the floor programs that are older than their sources."""
    paths.FLOOR_BUILD.mkdir(exist_ok=True)
    shared = [paths.FLOOR / "ws.c", paths.FLOOR / "ws.h"]
    for name in PROGRAMS:
        source, program = paths.FLOOR / f"{name}.c", paths.FLOOR_BUILD / name
        newest = max(path.stat().st_mtime for path in [source, *shared])
        if program.exists() and program.stat().st_mtime >= newest:
            continue
        compiler = os.environ.get("CC", "cc")
        # Not in place: another run may be using the old program.
        fresh = program.with_suffix(".new")
        subprocess.run([compiler, *_FLAGS, "-o", fresh, source, shared[0]], check=True)
        fresh.replace(program)


def make_certificates(directory: Path) -> None:
    """An authority and a server's certificate for localhost, with the openssl program."""
    authority_key, authority = directory / "authority.key", directory / "authority.pem"
    server_key, server = directory / "server.key", directory / "server.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    new += ["-nodes", "-days", "2"]
    commands = [
        [*new, "-keyout", authority_key, "-out", authority, "-subj", "/CN=Benchmark authority"]
        + ["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        [*new, "-keyout", server_key, "-out", server, "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-CA", authority, "-CAkey", authority_key],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)


def install(python: str | None) -> None:
    """Make the environment, install the peers and this project into it, compile the floor.

    websocket-rs needs a newer Python than the project itself; with an older one it is left out, and
    with it its column.
    """
    build_floor()
    environment_python = paths.VENV / "bin" / "python"
    if not environment_python.exists():
        subprocess.run([python or _newest_python(), "-m", "venv", paths.VENV], check=True)
    pip = [str(environment_python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "-r", paths.REQUIREMENTS], check=True)
    environment = os.environ | {"FULLDUPLEX_REQUIRE_EXT": "1"}
    subprocess.run([*pip, "--force-reinstall", "--no-deps", paths.ROOT], check=True, env=environment)
    subprocess.run([*pip, "h11"], check=True)
    if shutil.which("npm"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(command, check=True, cwd=paths.NODE)
    print(f"ready: {environment_python} -m benchmarks run --list")


def _newest_python() -> str:
    """The newest release of CPython on the path that has the packages' wheels."""
    for minor in (14, 13, 12, 11):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return found
    return sys.executable
