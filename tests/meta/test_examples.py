"""Every example runs as its user would run it: in a process of its own, over loopback, on a port
that the system chose."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 20

Start = Callable[..., tuple[subprocess.Popen[str], str]]


def command(name: str, *arguments: object) -> list[str]:
    """Return the command line of the example *name*: warnings are errors there too."""
    return [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: object) -> str:
    """Run an example to its end and return what it printed."""
    done = subprocess.run(
        command(name, *arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def start() -> Iterator[Start]:
    """Start an example that serves; return its process and where it listens. At the end it is
    stopped if the test has not done so."""
    with ExitStack() as stack:

        def begin(name: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command(name, *arguments), stdout=pipe, stderr=pipe, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("listening on "), process.communicate(timeout=TIMEOUT_S)
            return process, first.split()[-1]

        yield begin


def stop(process: subprocess.Popen[str]) -> str:
    """Stop a server as an init system would; return what else it printed."""
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    return out


def connect(port: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options for a server's certificate, then those for a client that trusts it."""
    directory = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        directory / "server.pem"
    )
    authority.cert_pem.write_to_path(directory / "ca.pem")
    return [
        "--certificate",
        str(directory / "server.pem"),
        "--authority",
        str(directory / "ca.pem"),
    ]


@pytest.mark.parametrize("workers", [[], ["--workers", 1]], ids=["alone", "worker"])
def test_service(start: Start, workers: list[object]) -> None:
    """At a stop, the service answers a client that is there, says goodbye, and reports how it
    went."""
    server, port = start("service", "--port", 0, *workers)
    with connect(port) as client, client.makefile("rwb", buffering=0) as file:
        for said, answer in (
            (b"add 2\n", b"ok\n"),
            (b"get\n", b"2\n"),
            (b"add x\n", b"what? add NUMBER, or get\n"),
        ):
            file.write(said)
            assert file.readline() == answer
        server.send_signal(signal.SIGTERM)
        # It is over when the socket is: nobody is let in any more.
        while True:
            try:
                connect(port).close()
            except ConnectionError:  # refused, or reset where the socket is closed just then
                break
        file.write(b"get\n")
        assert file.readlines() == [b"2\n", b"bye\n"]
    out, errors = server.communicate(timeout=TIMEOUT_S)
    assert (server.returncode, errors) == (0, "")
    assert "0 cancelled, 0 aborted" in out


def test_every_example_is_run_here() -> None:
    """No example is left out of this file."""
    text = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in text] == []


def test_echo(start: Start) -> None:
    """The client of the documentation gets its words back from the server of the documentation."""
    server, port = start("echo_server", "--port", 0)
    assert run("echo_client", "--port", port, "hello", "world") == "received 'hello world'\n"
    assert "11 bytes" in stop(server)


def test_a_server_stops_while_a_client_is_connected(start: Start) -> None:
    """SIGTERM ends the echo server though a client says nothing and stays."""
    server, port = start("echo_server", "--port", 0)
    with connect(port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        stop(server)
        assert client.recv(1) == b""


def test_wait_for_data() -> None:
    """Data on a socket that was open already is read."""
    assert run("wait_for_data") == "received 'some data'\n"


def test_chat(start: Start) -> None:
    """What one guest says reaches the other; both hear that the house closes, then their
    connections end."""
    server, port = start("chat_server", "--port", 0)
    with (
        connect(port) as ann,
        connect(port) as bob,
        ann.makefile("rw") as ann_file,
        bob.makefile("rw") as bob_file,
    ):
        for file, name in ((ann_file, "Ann"), (bob_file, "Bob")):
            assert file.readline() == "your name?\n"
            file.write(f"{name}\n")
            file.flush()
            assert file.readline() == f"* {name} is here\n"
        assert ann_file.readline() == "* Bob is here\n"
        bob_file.write("good evening\n")
        bob_file.flush()
        assert ann_file.readline() == "Bob: good evening\n"
        server.send_signal(signal.SIGTERM)
        for file in (ann_file, bob_file):
            assert "* the house closes\n" in file.readlines()
    assert stop_after_signal(server) == "closed\n"


def stop_after_signal(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    return out


def test_frames(start: Start) -> None:
    """Messages keep their borders and their order, an empty one too."""
    server, port = start("frames", "serve", "--port", 0)
    assert (
        run("frames", "send", "--port", port, "one", "", "three")
        == "one -> eno\n -> \nthree -> eerht\n"
    )
    stop(server)


def test_a_frame_that_is_too_long_is_refused(start: Start) -> None:
    """A claim of 4 GiB ends the connection before anything is reserved for it."""
    server, port = start("frames", "serve", "--port", 0)
    with connect(port) as client:
        client.sendall(b"\xff\xff\xff\xff")
        assert client.recv(1) == b""
    assert "4294967295 bytes" in stop(server)


def test_tls_echo(start: Start, certificate: list[str]) -> None:
    """The certificate is checked and the words come back over TLS 1.3."""
    server, port = start("tls_echo", "serve", "--port", 0, *certificate)
    assert "TLSv1.3" in (out := run("tls_echo", "send", "--port", port, *certificate, "hello"))
    assert out.endswith("received 'hello'\n")
    stop(server)


def test_starttls(start: Start, certificate: list[str]) -> None:
    """The secret is told only after the upgrade."""
    server, port = start("starttls", "serve", "--port", 0, *certificate)
    lines = run("starttls", "talk", "--port", port, *certificate).splitlines()
    assert lines == [
        "SECRET: 530 STARTTLS first",
        "STARTTLS: 220 go ahead",
        "now TLSv1.3",
        "SECRET: 250 the answer is 42",
        "QUIT: 221 bye",
    ]
    stop(server)


def test_unix_rpc(start: Start, tmp_path: Path) -> None:
    """Ten calls at once each get their answer; an error comes back in words; the socket's file is
    gone afterwards."""
    path = tmp_path / "rpc.sock"
    server, _ = start("unix_rpc", "serve", "--path", path)
    assert run("unix_rpc", "call", "--path", path, "add", 2, 3) == "add(2, 3) = 5, ten times\n"
    assert "KeyError" in run("unix_rpc", "call", "--path", path, "subtract", 2, 3)
    stop(server)
    assert not path.exists()


def test_relay(start: Start) -> None:
    """Bytes and the end of input pass through both ways."""
    echo, echo_port = start("echo_server", "--port", 0)
    relay, port = start("relay", "--port", 0, "--to", f"127.0.0.1:{echo_port}")
    assert run("echo_client", "--port", port, "x" * 100_000) == f"received {'x' * 100_000!r}\n"
    assert "100000 bytes there, 100000 back" in stop(relay)
    stop(echo)


def test_filter() -> None:
    """A subprocess' pipes are headrace's streams within install()."""
    assert run("filter", "the", "quick", "brown", "fox") == "brown fox quick the\n"


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Serve one connection for each of *answers*: read a line, send the answer, close. Yield the
    port and what was read."""
    asked: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(TimeoutError):  # nobody came
            for answer in answers:
                client, _ = listener.accept()
                with client, client.makefile("rb") as file:
                    asked.append(file.readline())
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            thread.join()


def test_line_client_tries_again() -> None:
    """A connection that ends within an answer is tried again; what was answered is not asked
    twice."""
    with answering(b"one\n", b"tw", b"two\n") as (port, asked):
        out = run("line_client", "--port", port, "1", "2")
    assert asked == [b"1\n", b"2\n", b"2\n"]
    assert out.endswith("\n1 -> one\n2 -> two\n")
    assert out.count("trying again") == 2


def test_line_client_gives_up() -> None:
    """After the last try it says why, and its status is not 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = subprocess.run(
        command("line_client", "--port", port, "--tries", 2, "x"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no answer after 2 tries: ")


def framed(*messages: object) -> bytes:
    bodies = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages]
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def test_rpc_server(start: Start) -> None:
    """Requests that come together are answered in their order, wrong ones by an error."""
    server, port = start("rpc_server", "--port", 0)
    with connect(port) as client, client.makefile("rb") as file:
        client.sendall(
            framed(
                {"id": 1, "call": "add", "with": [2, 3]},
                {"id": 2, "call": "upper", "with": ["x"]},
                b"not JSON",
                {"id": 3, "call": "upper", "with": [1]},
            )
        )
        client.shutdown(socket.SHUT_WR)
        said = file.read()
    answers = []
    while said:
        size = 4 + int.from_bytes(said[:4], "big")
        answers.append(json.loads(said[4:size]))
        said = said[size:]
    assert answers[:2] == [{"id": 1, "result": 5}, {"id": 2, "result": "X"}]
    assert [(each["id"], "TypeError" in each["error"]) for each in answers[2:]] == [
        (None, False),
        (3, True),
    ]
    stop(server)


def test_rpc_server_refuses_a_frame_that_is_too_long(start: Start) -> None:
    """A claim of 4 GiB resets the connection, and the server says so."""
    server, port = start("rpc_server", "--port", 0)
    with connect(port) as client:
        client.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert "127.0.0.1" in stop(server)


def test_tls_proxy(start: Start, certificate: list[str]) -> None:
    """Bytes and the end of input go through TLS, both ways."""
    echo, echo_port = start("echo_server", "--port", 0)
    proxy, port = start(
        "tls_proxy", "--port", 0, *certificate[:2], "--to", f"127.0.0.1:{echo_port}"
    )
    context = ssl.create_default_context(cafile=certificate[3])
    with (
        connect(port) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"x" * 100_000)
        got = bytearray()
        while len(got) < 100_000 and (piece := client.recv(65536)):
            got += piece
        assert got == b"x" * 100_000
        client.unwrap().close()
    assert "100000 bytes there, 100000 back" in stop(proxy)
    stop(echo)


def test_tls_proxy_without_a_server(start: Start, certificate: list[str]) -> None:
    """A client of a server that is not there is reset, not told that this was all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    proxy, port = start("tls_proxy", "--port", 0, *certificate[:2], "--to", f"127.0.0.1:{nobody}")
    context = ssl.create_default_context(cafile=certificate[3])
    with (
        connect(port) as plain,
        # Python 3.11 calls a reset a ragged end.
        context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client,
        pytest.raises((ConnectionResetError, ssl.SSLEOFError)),
    ):
        client.recv(1)
    assert "127.0.0.1" in stop(proxy)


def test_file_server(start: Start, tmp_path: Path) -> None:
    """Each file comes with its size; what lies outside the directory does not come at all. Who
    sends what is no name is reset."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "big").write_bytes(bytes(range(256)) * 4096)
    (inside / "empty").touch()
    (tmp_path / "secret").write_text("secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    server, port = start("file_server", "--port", 0, inside)
    with connect(port) as client, client.makefile("rb") as file:
        client.sendall(b"big\nempty\n../secret\nlink\nnothing\n\xff\nbig\n")
        for size in (1 << 20, 0):
            assert file.readline() == b"%d\n" % size
            assert file.read(size) == (inside / "big").read_bytes()[:size]
        for _ in range(4):
            assert file.readline() == b"error: no such file\n"
        assert file.readline() == b"%d\n" % (1 << 20)
        assert len(file.read(1 << 20)) == 1 << 20
        client.shutdown(socket.SHUT_WR)
        assert file.read() == b""
    with connect(port) as client:
        client.sendall(b"x" * 2000)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    stop(server)


def test_chat_deadlines(start: Start) -> None:
    """Guests hear each other; one who does not say a name in time, however busily, must go."""
    server, port = start("chat_deadlines", "--port", 0, "--name-seconds", 0.5)
    with (
        connect(port) as ann,
        ann.makefile("rw") as file,
        connect(port) as slow,
    ):
        assert file.readline() == "your name?\n"
        file.write("Ann\n")
        file.flush()
        assert file.readline() == "* Ann is here\n"
        file.write("hello\n")
        file.flush()
        assert file.readline() == "Ann: hello\n"
        slow.sendall(b"never a whole li")
        assert slow.makefile("rb").read() == b"your name?\n"
    stop(server)
