"""Listening sockets, and those of systemd."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import textwrap

import pytest

UNIX = getattr(socket, "AF_UNIX", None)
pytestmark = pytest.mark.skipif(UNIX is None, reason="no Unix sockets")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "socket")


def test_file_that_a_server_left_behind_is_replaced(fd, path):
    socket.create_server(path, family=UNIX).close()
    assert os.path.exists(path)
    with fd.sync.listening.listen_unix(path), socket.socket(UNIX) as client:
        client.connect(path)


def test_file_of_a_server_that_runs_is_not(fd, path):
    with socket.create_server(path, family=UNIX) as other:
        with pytest.raises(OSError) as caught:
            fd.sync.listening.listen_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(UNIX) as client:
            client.connect(path)
            other.accept()[0].close()


def test_file_of_a_server_with_a_full_queue_is_not(fd, path):
    with socket.create_server(path, family=UNIX, backlog=0), socket.socket(UNIX) as client:
        client.connect(path)
        with pytest.raises(OSError) as caught:
            fd.sync.listening.listen_unix(path)
    assert caught.value.errno == errno.EADDRINUSE


def test_file_that_is_no_socket_is_not_replaced(fd, path):
    with open(path, "w", encoding="utf-8") as file:
        file.write("precious")
    with pytest.raises(OSError) as caught:
        fd.sync.listening.listen_unix(path)
    assert caught.value.errno == errno.EADDRINUSE
    with open(path, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_file_that_vanishes_meanwhile(fd, path):
    assert fd.sync.listening._is_abandoned(path) is False


def test_folder_that_does_not_exist(fd, path):
    with pytest.raises(FileNotFoundError):
        fd.sync.listening.listen_unix(path + "/socket")


def test_shutdown_leaves_the_file_of_a_successor(fd, path):
    server = fd.sync.server.unix_serve(print, path)
    os.unlink(path)
    with socket.create_server(path, family=UNIX):
        server.shutdown()
        assert os.path.exists(path)


def test_shutdown_leaves_the_file_of_a_socket_that_was_given(fd, path):
    """As of one that systemd made, on which it goes on to listen."""
    with socket.create_server(path, family=UNIX) as sock:
        fd.sync.server.unix_serve(print, sock=sock).shutdown()
        assert os.path.exists(path)


def test_shutdown_without_the_file(fd, path):
    server = fd.sync.server.unix_serve(print, path)
    os.unlink(path)
    server.shutdown()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these")
def test_abstract_names_have_no_file(fd):
    name = f"\0fullduplex-test-{os.getpid()}"
    server = fd.sync.server.unix_serve(print, name)
    assert fd.sync.listening.socket_file_identity(server.socket) is None
    server.shutdown()


def test_bytes_as_path(fd, path):
    server = fd.sync.server.unix_serve(print, os.fsencode(path))
    assert os.path.exists(path)
    server.shutdown()
    assert not os.path.exists(path)


def test_nodelay_of_a_socket_that_is_not_tcp(fd):
    left, right = socket.socketpair()
    with left, right:
        fd.sync.listening.set_nodelay(left)
    fd.sync.listening.set_nodelay(left)


# systemd: https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html


def run_like_systemd(fd, code, count, names=None, wrong_pid=False):
    """Run code in a process that has listening sockets from descriptor 3 on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    setup = f"""
        import importlib, os, socket, sys, threading
        for target, source in enumerate({[s.fileno() for s in sockets]}, 100):
            os.dup2(source, target)
        for target in range({count}):
            os.dup2(100 + target, 3 + target)
        os.environ["LISTEN_FDS"] = "{count}"
        os.environ["LISTEN_PID"] = "{1 if wrong_pid else "X"}".replace("X", str(os.getpid()))
        if {names!r} is not None:
            os.environ["LISTEN_FDNAMES"] = {names!r}
        from fullduplex.sync.server import serve, systemd_sockets
    """
    env = {**os.environ, "FULLDUPLEX_PURE_PYTHON": str(int(fd.IMPLEMENTATION == "pure"))}
    env["PYTHONPATH"] = os.path.dirname(os.path.dirname(fd.__file__))
    try:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(code)],
            pass_fds=[s.fileno() for s in sockets],
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.split(), [str(s.getsockname()[1]) for s in sockets]
    finally:
        for sock in sockets:
            sock.close()


PORTS = "for s in systemd_sockets({}): print(s.getsockname()[1], s.get_inheritable())"


def test_sockets_of_systemd(fd):
    output, (first, second) = run_like_systemd(fd, PORTS.format(""), 2)
    assert output == [first, "False", second, "False"]


def test_sockets_of_systemd_by_name(fd):
    output, (_, second) = run_like_systemd(fd, PORTS.format("'b'"), 2, names="a:b")
    assert output == [second, "False"]


def test_sockets_for_another_process(fd):
    assert run_like_systemd(fd, PORTS.format(""), 1, wrong_pid=True)[0] == []


def test_serving_on_sockets_of_systemd(fd):
    code = """
        server = serve(lambda c: None, sock=systemd_sockets())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with socket.create_connection(server.socket.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
            print(client.recv(12).decode())
        server.shutdown()
        thread.join()
    """
    assert run_like_systemd(fd, code, 2)[0] == ["HTTP/1.1", "400"]


@pytest.mark.parametrize("count", [None, "", "x"])
def test_not_started_by_systemd(fd, monkeypatch, count):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    if count is None:
        monkeypatch.delenv("LISTEN_FDS", raising=False)
        monkeypatch.delenv("LISTEN_PID", raising=False)
    else:
        monkeypatch.setenv("LISTEN_FDS", count)
    assert list(fd.sync.server.systemd_sockets()) == []
