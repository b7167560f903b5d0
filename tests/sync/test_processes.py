"""Real processes: Ctrl-C in blocked calls, the interpreter's exit, fork, subinterpreters."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from .links import CLOSE, PING, PONG, TEXT, TIMEOUT, RawPeer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and fork")

PRELUDE = """
import os, signal, socket, sys, threading, time
import fullduplex
from fullduplex.protocol import Protocol, Side
from fullduplex.sync.connection import Connection
from fullduplex.sync.service import get_service

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run may have been started without

def connect(**options):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    options.setdefault("ping_interval", None)
    return Connection(sock, Protocol(Side.CLIENT), **options)

def say(text):
    print(text, flush=True)

class Wrapped:
    # Like a socket, and not one: for the portable stream.
    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)
"""


class Program:
    """A Python program in a process of its own, with a connection to us."""

    def __init__(self, fd: ModuleType, source: str) -> None:
        self.fd = fd
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        environment = dict(os.environ)
        # The package is the one that this process runs, wherever it was imported from.
        environment["PYTHONPATH"] = str(Path(fd.__file__ or "").parent.parent)
        environment["FULLDUPLEX_PURE_PYTHON"] = "1" if fd.IMPLEMENTATION == "pure" else "0"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore::ResourceWarning",
                "-c",
                PRELUDE + textwrap.dedent(source),
                str(self.listener.getsockname()[1]),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.peers: list[RawPeer] = []

    def accept(self) -> RawPeer:
        sock, _ = self.listener.accept()
        peer = RawPeer(self.fd, sock, masks=False)
        self.peers.append(peer)
        return peer

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        if found != line + "\n":
            self.process.kill()
            pytest.fail(f"{found!r} instead of {line!r}; {self.process.communicate()}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def until_blocked(self) -> None:
        """Wait until the main thread sleeps in a system call, which is the one that it announced."""
        path = Path(f"/proc/{self.process.pid}/stat")
        if not path.exists():
            return
        seen = 0
        while seen < 20:
            state = path.read_text().rpartition(")")[2].split()[0]
            seen = seen + 1 if state == "S" else 0
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.002)

    def end(self) -> tuple[str, str]:
        """Wait for the end of the process; gives its last output and its errors."""
        output, errors = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, errors
        return output, errors


@contextlib.contextmanager
def program(fd: ModuleType, source: str) -> Iterator[Program]:
    running = Program(fd, source)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()
        running.listener.close()
        for peer in running.peers:
            peer.close()


@pytest.mark.parametrize(
    "call",
    [
        "connection.recv()",
        "connection.recv(timeout=60)",
        "next(connection.recv_streaming())",
        "connection.send(bytes(50_000_000))",
        "connection.send(bytes(50_000_000), timeout=60)",
        "connection.close()",
        "connection.wait_closed(60)",
    ],
)
def test_ctrl_c_interrupts(fd: ModuleType, call: str) -> None:
    source = f"""
    connection = connect(close_timeout=60)
    say("connected")
    try:
        {call}
    except KeyboardInterrupt:
        say("interrupted")
    """
    with program(fd, source) as running:
        running.accept()
        running.expect("connected")
        running.until_blocked()
        running.interrupt()
        running.expect("interrupted")
        assert running.end() == ("", "")


def test_ctrl_c_in_recv_leaves_the_connection_usable(fd: ModuleType) -> None:
    source = """
    connection = connect()
    say("connected")
    try:
        connection.recv()
    except KeyboardInterrupt:
        say("interrupted")
    say(connection.recv())
    connection.send("usable")
    """
    with program(fd, source) as running:
        peer = running.accept()
        running.expect("connected")
        running.until_blocked()
        peer.sock.sendall(peer.frame(TEXT, b"half")[:3])
        running.until_blocked()
        running.interrupt()
        running.expect("interrupted")
        peer.sock.sendall(peer.frame(TEXT, b"half")[3:])
        running.expect("half")
        peer.expect(TEXT, b"usable")


def test_ctrl_c_in_the_midst_of_send_ends_the_connection(fd: ModuleType) -> None:
    source = """
    connection = connect()
    say("connected")
    try:
        connection.send(bytes(50_000_000))
    except KeyboardInterrupt:
        say("interrupted")
    try:
        connection.send("torn")
    except fullduplex.ConnectionClosedError:
        say(connection.state.name)
    """
    with program(fd, source) as running:
        running.accept()
        running.expect("connected")
        running.until_blocked()
        running.interrupt()
        running.expect("interrupted")
        running.expect("CLOSED")
        running.end()


@pytest.mark.parametrize(
    "state", ["idle", "armed", "keepalive", "daemon thread in recv", "unread", "closing"]
)
def test_the_interpreter_exits_with_open_connections(fd: ModuleType, state: str) -> None:
    source = f"""
    state = {state!r}
    connections = [connect(ping_interval=0.01 if state == "keepalive" else None) for _ in range(3)]
    for connection in connections:
        connection.start_keepalive()
        if state == "daemon thread in recv":
            threading.Thread(target=connection.recv, daemon=True).start()
        if state == "closing":
            threading.Thread(target=connection.close, daemon=True).start()
    if state != "idle":
        time.sleep(0.1)
    say("leaving")
    """
    with program(fd, source) as running:
        peers = [running.accept() for _ in range(3)]
        if state == "unread":
            for peer in peers:
                peer.send(TEXT, b"never read")
        running.expect("leaving")
        assert running.end() == ("", "")
        for peer in peers:
            while peer.sock.recv(65536):
                pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_with_open_connections(fd: ModuleType) -> None:
    """Threads of the parent were everywhere; the child goes on with its copy, then the parent with its own."""
    source = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    one, two = connect(), connect()
    receiver = threading.Thread(target=lambda: say(one.recv()), daemon=True)
    receiver.start()
    two.ping()
    time.sleep(0.05)
    service = get_service()
    pid = os.fork()
    if pid == 0:
        child = connect()
        assert get_service() is not service
        say("child " + child.recv())
        two.send("from the child")
        assert child.ping(b"child").wait(20)
        child.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert get_service() is service
    say("child ended")
    two.send("from the parent")
    assert two.ping(b"parent").wait(20)
    receiver.join(20)
    """
    with program(fd, source) as running:
        one, two = running.accept(), running.accept()
        two.expect(PING)
        child = running.accept()
        child.send(TEXT, b"message")
        running.expect("child message")
        two.expect(TEXT, b"from the child")
        child.expect(PING, b"child")
        child.send(PONG, b"child")
        child.expect_close(1000)
        child.send_close(1000)
        child.close()
        running.expect("child ended")
        two.expect(TEXT, b"from the parent")
        two.expect(PING, b"parent")
        two.send(PONG, b"parent")
        one.send(TEXT, b"for the parent's thread")
        running.expect("for the parent's thread")
        running.end()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs to see threads stop")
@pytest.mark.parametrize("kind", ["socket", "like a socket"])
def test_fork_while_a_thread_reads_the_connection(fd: ModuleType, kind: str) -> None:
    """The space into which that thread was reading is free again in the child."""
    source = f"""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    given = sock if {kind!r} == "socket" else Wrapped(sock)
    connection = Connection(given, Protocol(Side.CLIENT), ping_interval=None)
    receiver = threading.Thread(target=lambda: say(connection.recv()), daemon=True)
    receiver.start()
    while connection._reader.owner != 1:
        time.sleep(0.001)
    time.sleep(0.05)
    pid = os.fork()
    if pid == 0:
        # Else the parent's thread may take what is for us. Its threads stop one after the other.
        os.kill(os.getppid(), signal.SIGSTOP)
        tasks = f"/proc/{{os.getppid()}}/task"
        for task in os.listdir(tasks):
            while open(f"{{tasks}}/{{task}}/stat").read().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)
        try:
            connection.send("child")
            say("child " + connection.recv(10))
        finally:
            os.kill(os.getppid(), signal.SIGCONT)
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    connection.send("parent")
    receiver.join(20)
    """
    with program(fd, source) as running:
        peer = running.accept()
        peer.expect(TEXT, b"child")
        peer.send(TEXT, b"message")
        running.expect("child message")
        peer.expect(TEXT, b"parent")
        peer.send(TEXT, b"for the parent's thread")
        running.expect("for the parent's thread")
        running.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_masks_with_other_keys(fd: ModuleType) -> None:
    source = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    one = connect()
    one.send("before")
    pid = os.fork()
    if pid == 0:
        for _ in range(20):
            one.send("same")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for _ in range(20):
        one.send("same")
    one.send("end")
    """
    with program(fd, source) as running:
        peer = running.accept()
        keys = []
        size = 0
        while size < 12 + 40 * 10 + 9:
            received = peer.sock.recv(65536)
            assert received
            peer.data += received
            size += len(received)
        data = peer.data[12:]
        for _ in range(40):
            keys.append(data[2:6])
            data = data[10:]
        assert len(set(keys)) == 40
        peer.data = b""
        running.end()


def test_multiprocessing_with_every_start_method(fd: ModuleType) -> None:
    source = """
    import multiprocessing
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    connection = connect()
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        process = context.Process(target=print, args=("child by " + method,), kwargs={"flush": True})
        process.start()
        process.join(20)
        assert process.exitcode == 0
    connection.send("still here")
    """
    with program(fd, source) as running:
        peer = running.accept()
        peer.expect(TEXT, b"still here")
        output, _ = running.end()
        assert "child by spawn" in output


def newer_python() -> str | None:
    """Find a Python that has subinterpreters with a lock of their own: this one, or another."""
    if sys.version_info >= (3, 12):
        return sys.executable
    names = ("python3.14", "python3.13", "python3.12")
    found = [path for name in names if (path := shutil.which(name))]
    # Beside this one, as some programs that manage versions put them.
    found += map(str, Path(sys.base_prefix).parent.glob("3.1[2-9]*/bin/python3"))
    for path in found:
        command = [path, "-c", "import sys; assert sys.version_info >= (3, 12)"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return path
    return None


def test_subinterpreters_with_their_own_lock_can_import_it(fd: ModuleType) -> None:
    python = newer_python()
    if python is None:
        pytest.skip("needs Python 3.12 or newer")
    if fd.IMPLEMENTATION == "compiled" and python != sys.executable:
        pytest.skip("the extension is built for the Python that runs the tests")
    source = textwrap.dedent(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        code = '''
        import socket, sys
        sys.path[:0] = {path!r}
        import fullduplex
        from fullduplex.protocol import Protocol, Side
        from fullduplex.sync.connection import Connection
        ours, theirs = socket.socketpair()
        connection = Connection(ours, Protocol(Side.CLIENT))
        theirs.sendall(bytes([0x81, 2]) + b"hi")
        assert connection.recv() == "hi"
        theirs.close()
        connection.close()
        print(fullduplex.IMPLEMENTATION, flush=True)
        '''.replace("{path!r}", repr([sys.argv[1]]))
        for _ in range(2):
            identifier = interpreters.create()
            error = interpreters.run_string(identifier, code)
            assert error is None, error
            interpreters.destroy(identifier)
        """
    )
    environment = dict(os.environ)
    environment["FULLDUPLEX_PURE_PYTHON"] = "1" if fd.IMPLEMENTATION == "pure" else "0"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    result = subprocess.run(
        [python, "-c", source, str(Path(fd.__file__ or "").parent.parent)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT * 2,
        check=False,
    )
    if "No module named 'h11'" in result.stderr:
        pytest.skip(f"{python} does not have what the package depends on")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [fd.IMPLEMENTATION] * 2


def test_close_frames_reach_the_peer_of_a_process_that_ends_at_once(fd: ModuleType) -> None:
    source = """
    with connect() as connection:
        connection.send("last words")
        say("closing")
    """
    with program(fd, source) as running:
        peer = running.accept()
        peer.expect(TEXT, b"last words")
        assert peer.expect(CLOSE)
        peer.send_close(1000)
        peer.close()
        running.expect("closing")
        running.end()
