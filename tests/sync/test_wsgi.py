"""WebSockets under WSGI servers that let an application take over the socket."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import make_server

from .responses import headers_of, status_of
from .serving import TIMEOUT, Running, certificates, echo, read_all, request, run_script


@contextlib.contextmanager
def werkzeug(fd, app, **kwargs):
    """Run werkzeug's server."""
    server = make_server("127.0.0.1", 0, app, threaded=True, **kwargs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    run = Running.__new__(Running)
    run.fd, run.server, run.address = fd, server, server.socket.getsockname()
    try:
        yield run
    finally:
        server.shutdown()
        thread.join(TIMEOUT)
        server.server_close()


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def at(path, app, otherwise=hello):
    """Mount an application at a path."""
    return lambda environ, start_response: (app if environ["PATH_INFO"] == path else otherwise)(
        environ, start_response
    )


def test_werkzeug(fd, caplog):
    app = at("/echo", fd.sync.wsgi.wsgi_app(echo))
    with werkzeug(fd, app) as run:
        for _ in range(2):
            with run.dial("/echo") as client:
                for message in ("text", b"binary", "x" * 300000):
                    client.send(message)
                    assert client.recv(TIMEOUT) == message
            assert client.close_code == 1000
            plain = run.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"hello" in plain
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_nothing_follows_the_end(fd):
    """The WSGI server must not write a response behind the Close frame."""
    app = fd.sync.wsgi.wsgi_app(lambda c: None)
    with werkzeug(fd, app) as run, run.connect() as sock:
        sock.sendall(request())
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 4:
            received += sock.recv(1000)
        sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        received += read_all(sock)
    assert received.partition(b"\r\n\r\n")[2] == b"\x88\x02\x03\xe8"


def test_tls(fd):
    server_context, client_context = certificates()
    with werkzeug(fd, fd.sync.wsgi.wsgi_app(echo), ssl_context=server_context) as run:
        tls = client_context.wrap_socket(run.connect(), server_hostname="localhost")
        with run.dial(sock=tls) as client:
            client.send("x" * 100000)
            assert client.recv(TIMEOUT) == "x" * 100000


def test_options(fd):
    pmd = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory

    def handler(connection):
        connection.send(f"{connection.username} {connection.request.path} {connection.server}")

    app = fd.sync.wsgi.wsgi_app(
        handler,
        subprotocols=["chat"],
        process_request=fd.sync.server.basic_auth(credentials=("me", "secret")),
        origins=["https://example.com"],
        server_header="mine",
    )
    with werkzeug(fd, app) as run:
        headers = {"Authorization": "Basic bWU6c2VjcmV0"}
        options = {"origin": "https://example.com", "extensions": [pmd()]}
        with run.dial("/a%20b?c=d", headers=headers, subprotocols=["chat"], **options) as client:
            assert client.recv(TIMEOUT) == "me /a%20b?c=d None"
            assert client.subprotocol == "chat"
            assert client.response.headers["Server"] == "mine"
            assert "Sec-WebSocket-Extensions" in client.response.headers
        unauthorized = run.exchange(request())
        assert status_of(unauthorized) == 401
        assert headers_of(unauthorized)["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (request().replace(b"GET", b"PUT"), 405),
        (request(headers="Origin: https://evil.com\r\n"), 403),
        (request().replace(b"-Version: 13", b"-Version: 12"), 400),
        (request(headers="Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400),
    ],
)
def test_refusals_go_the_way_of_wsgi(fd, data, status):
    with werkzeug(fd, fd.sync.wsgi.wsgi_app(echo, origins=[None])) as run:
        response = run.exchange(data)
    assert status_of(response) == status
    assert headers_of(response)["server"]


def test_hook_that_fails(fd, caplog):
    def process_response(connection, request, response):
        response.headers["X"] = "a\r\nb"

    with werkzeug(fd, fd.sync.wsgi.wsgi_app(echo, process_response=process_response)) as run:
        assert status_of(run.exchange(request())) == 500


def test_response_that_cannot_be_sent(fd):
    def process_response(connection, request, response):
        return fd.http11.Response(101, "a\r\nb", response.headers)

    with werkzeug(fd, fd.sync.wsgi.wsgi_app(echo, process_response=process_response)) as run:
        assert status_of(run.exchange(request())) == 500


def test_handler_that_fails(fd, caplog):
    def handler(connection):
        raise LookupError

    with werkzeug(fd, fd.sync.wsgi.wsgi_app(handler)) as run, run.dial() as client:
        client.wait_closed(TIMEOUT)
        assert client.close_code == 1011
    assert any(r.exc_info and r.exc_info[0] is LookupError for r in caplog.records)


def test_in_a_view(fd):
    """With a framework, in three steps."""
    wsgi = fd.sync.wsgi

    def view(environ):
        with wsgi.accept_wsgi(environ, compression=None) as connection:
            connection.send(connection.recv(TIMEOUT))
        return wsgi.taken_over

    def app(environ, start_response):
        return view(environ)(environ, start_response)

    with werkzeug(fd, app) as run, run.dial() as client:
        client.send("x")
        assert client.recv(TIMEOUT) == "x"


def test_keepalive(fd):
    app = fd.sync.wsgi.wsgi_app(echo, ping_interval=0.02)
    with werkzeug(fd, app) as run, run.dial() as client:
        deadline = time.monotonic() + TIMEOUT
        while client.counters["frames_received"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"max_queue": -1}])
def test_options_that_make_no_sense(fd, options):
    with pytest.raises(ValueError):
        fd.sync.wsgi.wsgi_app(echo, **options)
    with pytest.raises(TypeError):
        fd.sync.wsgi.wsgi_app(echo, nonsense=1)


# Without a server


def environ_of(**extra):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/f\xc3\xbc \u00e9?",
        "QUERY_STRING": "a=b%20c",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "Test/1",
        "HTTP_HOST": "localhost",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        **extra,
    }


def test_request_of_an_environment(fd):
    made = fd.sync.wsgi.build_request(environ_of())
    assert made.path == "/app/f%C3%BC%20%E9%3F?a=b%20c"
    assert made.headers["Sec-WebSocket-Version"] == "13"
    assert fd.sync.wsgi.build_request(environ_of(RAW_URI="/x%20?y\xe9")).path == "/x%20?y%E9"
    empty = environ_of(SCRIPT_NAME="", PATH_INFO="", QUERY_STRING="")
    assert fd.sync.wsgi.build_request(empty).path == "/"


def test_server_that_keeps_its_socket(fd):
    with pytest.raises(RuntimeError, match="Test/1"):
        fd.sync.wsgi.accept_wsgi(environ_of())


def test_socket_as_an_argument(fd):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = fd.sync.wsgi.accept_wsgi(environ_of(), sock=ours)
        assert theirs.recv(12) == b"HTTP/1.1 101"
        assert connection.socket is not ours
        theirs.close()
        assert connection.wait_closed(TIMEOUT)


@pytest.mark.parametrize(
    "extra",
    [
        {"HTTP_UPGRADE": "h2c"},
        {"HTTP_X": "a\r\nb"},
        {"SERVER_PROTOCOL": "HTTP/0.9"},
        {"HTTP_X": "x" * 9000},
        {"HTTP_CONTENT_LENGTH": "5"},
        {"CONTENT_LENGTH": "5"},  # where PEP 3333 puts it
    ],
)
def test_refused_request_leaves_the_socket_as_it_was(fd, extra):
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        with pytest.raises(fd.exceptions.InvalidStatus) as caught:
            fd.sync.wsgi.accept_wsgi(environ_of(**extra), sock=ours)
        assert caught.value.response.status_code in (400, 426)
        assert ours.gettimeout() == 5
        theirs.sendall(b"still here")
        assert ours.recv(100) == b"still here"
        ours.sendall(b"yes")
        assert theirs.recv(100) == b"yes"


def test_client_that_has_gone(fd):
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(OSError):
            fd.sync.wsgi.accept_wsgi(environ_of(), sock=ours)


@pytest.mark.parametrize("known", [True, False])
def test_taken_over(fd, known):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = {"werkzeug.socket": ours} if known else {}
        answers = fd.sync.wsgi.taken_over(environ, lambda status, headers: None)
        if known:
            # A WSGI server that writes, headers for instance, gets the same.
            with pytest.raises(BrokenPipeError):
                ours.sendall(b"x")
            assert next(answers) == b""
        with pytest.raises(BrokenPipeError):
            next(answers)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_server_reaches_it(fd, kind):
    """The thread is the WSGI server's: it is not ours to go on as if nothing had happened."""

    def handler(connection):
        raise kind

    app = fd.sync.wsgi.wsgi_app(handler, close_timeout=0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(kind):
            app(environ_of(**{"werkzeug.socket": ours}), None)
        assert theirs.recv(1000).endswith(b"\r\n\r\n\x88\x02\x03\xf3")
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"HTTP/1.1 500")


INTERRUPTED = """
import os, signal, threading
from fullduplex.sync.client import connect
from fullduplex.sync.wsgi import wsgi_app
from werkzeug.serving import make_server

started = threading.Event()

def handler(connection):
    started.set()
    connection.recv()

server = make_server("127.0.0.1", 0, wsgi_app(handler))

def interrupt():
    with connect(f"ws://127.0.0.1:{server.server_port}", proxy=None) as connection:
        started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        connection.wait_closed(10)
    print("closed with", connection.close_code)

thread = threading.Thread(target=interrupt)
thread.start()
server.serve_forever()
thread.join()
print("the server has ended")
"""


def test_ctrl_c_ends_the_server(fd):
    done = run_script(fd, INTERRUPTED)
    assert done.stdout.splitlines() == ["closed with 1011", "the server has ended"], done.stderr


# gunicorn

APP = """
import logging
from fullduplex.sync.wsgi import wsgi_app

def echo(connection):
    for message in connection:
        connection.send(message)

def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

ws = wsgi_app(echo)

def app(environ, start_response):
    return (ws if environ["PATH_INFO"] == "/ws" else hello)(environ, start_response)
"""


def missing(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@contextlib.contextmanager
def gunicorn(fd, tmp_path, worker, source, *options):
    """Run gunicorn with an application; its log must have nothing bad to say."""
    (tmp_path / "wsgi_echo.py").write_text(source, encoding="utf-8")
    root = os.path.dirname(os.path.dirname(os.path.abspath(fd.__file__)))
    env = {
        **os.environ,
        "FULLDUPLEX_PURE_PYTHON": str(int(fd.IMPLEMENTATION == "pure")),
        "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}",
    }
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        command = [sys.executable, "-m", "gunicorn", "-b", f"fd://{listening.fileno()}"]
        command += ["-k", worker, "--threads", "4", *options, "wsgi_echo:app"]
        process = subprocess.Popen(
            command,
            env=env,
            cwd=tmp_path,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            run = Running.__new__(Running)
            run.fd, run.address = fd, listening.getsockname()
            run.server = type("Server", (), {"socket": listening})
            yield run
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
    assert "Traceback" not in log
    assert "Error" not in log


@pytest.mark.interop
@missing("gunicorn")
@pytest.mark.parametrize("worker", ["gthread", "sync"])
def test_gunicorn(fd, tmp_path, worker):
    with gunicorn(fd, tmp_path, worker, APP) as run:
        for _ in range(2):
            with run.dial("/ws") as client:
                for message in ("text", b"x" * 300000):
                    client.send(message)
                    assert client.recv(TIMEOUT) == message
            assert client.close_code == 1000
            plain = run.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"hello" in plain


# Flask

FLASK = """
from flask import Flask, request
from fullduplex.exceptions import InvalidStatus
from fullduplex.sync.wsgi import accept_wsgi, refusal, taken_over, wsgi_app

app = Flask(__name__)

def echo(connection):
    for message in connection:
        connection.send(message)

echo_app = wsgi_app(echo, origins=["https://example.com"])

@app.route("/app", websocket=True)
def returned():
    return echo_app

@app.route("/view", websocket=True)
def view():
    try:
        connection = accept_wsgi(request.environ, origins=["https://example.com"])
    except InvalidStatus as exc:
        return refusal(exc)
    with connection:
        echo(connection)
    return taken_over

@app.route("/")
def hello():
    return "hello"
"""


def use_flask(run, secure=None):
    """See what a browser would see of the application above."""
    for path in ("/app", "/view"):
        sock = None if secure is None else secure(run.connect())
        with run.dial(path, origin="https://example.com", sock=sock) as client:
            client.send("x" * 100000)
            assert client.recv(TIMEOUT) == "x" * 100000
        assert client.close_code == 1000
        sock = None if secure is None else secure(run.connect())
        with pytest.raises(run.fd.exceptions.InvalidStatus, match="403"):
            run.dial(path, origin="https://evil.com", sock=sock)
    with run.connect() if secure is None else secure(run.connect()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"hello" in read_all(sock)


def nothing_behind_the_close_frame(run, path):
    with run.connect() as sock:
        sock.sendall(request(path, "Origin: https://example.com\r\n"))
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(1000)
        sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        received += read_all(sock)
    assert received.partition(b"\r\n\r\n")[2] == b"\x88\x02\x03\xe8"


@missing("flask")
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("debugger", [False, True])
def test_flask_on_werkzeug(fd, caplog, capfd, secure, debugger):
    namespace = {"__name__": "wsgi_flask"}
    exec(FLASK.replace("fullduplex", fd.__name__), namespace)
    app = namespace["app"]
    if debugger:
        app.wsgi_app = DebuggedApplication(app.wsgi_app)
    server_context, client_context = certificates()
    wrap = functools.partial(client_context.wrap_socket, server_hostname="localhost")
    with werkzeug(fd, app, ssl_context=server_context if secure else None) as run:
        use_flask(run, wrap if secure else None)
        if not secure:
            for path in ("/app", "/view"):
                nothing_behind_the_close_frame(run, path)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.interop
@missing("gunicorn")
@missing("flask")
@pytest.mark.parametrize("worker", ["gthread", "sync"])
@pytest.mark.parametrize("secure", [False, True])
def test_flask_on_gunicorn(fd, tmp_path, worker, secure):
    authority = trustme.CA()
    pem = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    pem.write_to_path(str(tmp_path / "pem"))
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client_context)
    options = ("--certfile", "pem", "--keyfile", "pem") if secure else ()
    wrap = functools.partial(client_context.wrap_socket, server_hostname="localhost")
    with gunicorn(fd, tmp_path, worker, FLASK, *options) as run:
        use_flask(run, wrap if secure else None)
        if not secure:
            for path in ("/app", "/view"):
                nothing_behind_the_close_frame(run, path)
