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
        [
            *[*new, "-keyout", str(authority_key), "-out", str(authority)],
            *["-subj", "/CN=Benchmark authority"],
            *["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ],
        [
            *[*new, "-keyout", str(server_key), "-out", str(server), "-subj", "/CN=localhost"],
            *["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            *["-addext", "basicConstraints=critical,CA:FALSE"],
            *["-CA", str(authority), "-CAkey", str(authority_key)],
        ],
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
    # The first brings what it depends on, and compiles nothing; the second builds as the wheels are built.
    plain = {"FULLDUPLEX_REQUIRE_EXT": "0", "FULLDUPLEX_NO_EXT": "1", "FULLDUPLEX_PGO": "0"}
    subprocess.run([*pip, f"{paths.ROOT}[speed]"], check=True, env=os.environ | plain)
    # A benchmark of a build that silently fell back to pure Python would be a lie.
    strict = {"FULLDUPLEX_REQUIRE_EXT": "1", "FULLDUPLEX_NO_EXT": "0", "FULLDUPLEX_PGO": "try"}
    again = [*pip, "--force-reinstall", "--no-deps", str(paths.ROOT)]
    subprocess.run(again, check=True, env=os.environ | strict)
    if shutil.which("npm"):
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        command += ["--ignore-scripts", "--silent"]
        subprocess.run(command, check=True, cwd=paths.NODE)
    print(f"ready: {environment_python} -m benchmarks run")


def _newest_python() -> str:
    """The newest release of CPython that works, of those on the path and those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in (14, 13, 12):
        candidates = [shutil.which(f"python3.{minor}")]
        candidates += [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]
        for python in filter(None, candidates):
            if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
                return python
    return sys.executable
