"""``headrace serve``: what it does with a connection, at every kind of address, until it stops."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace

SOURCE = str(Path(headrace.__file__).parent.parent)
TIMEOUT_S = 20.0


def command(*arguments: object) -> list[str]:
    """Return the command line of ``headrace serve``."""
    return [sys.executable, "-m", "headrace", "serve", *map(str, arguments)]


class Server:
    """``headrace serve`` in a process, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.told = False

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the match of the first line that has *pattern*."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it never said {pattern!r}:\n{''.join(self.said)}")

    def port(self) -> int:
        """Return the port of the next place that it names."""
        return int(self.wait_for(r" on 127\.0\.0\.1:(\d+)")[1])

    def tell_to_stop(self) -> None:
        """Send SIGTERM, once: a second one may find no handler any more."""
        if not self.told:
            self.told = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Have it stop; return the exit status."""
        assert self.process.stderr is not None
        self.tell_to_stop()
        self.said += self.process.stderr.readlines()
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def serving(*arguments: object) -> Iterator[Server]:
    """``headrace serve`` with *arguments*, which is stopped in the end."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        server = Server(process)
        try:
            yield server
            if process.poll() is None:
                assert server.stop() == 0, "".join(server.said)
        finally:
            process.kill()


def everything(sock: socket.socket) -> bytes:
    """Return all that comes."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def connected(port: int) -> socket.socket:
    """Return a connection to *port*."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def trusting(server: Server) -> ssl.SSLContext:
    """Return a context that trusts the certificate that *server* has made."""
    return ssl.create_default_context(cafile=server.wait_for(r"--ca (\S+)")[1])


def test_echo_and_the_end():
    """It echoes, says who came and how much was said, and how the connections went that SIGTERM
    found."""
    with serving("echo", "127.0.0.1:0") as server:
        port = server.port()
        with connected(port) as sock, connected(port) as idle:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert everything(sock) == b"hello"
            server.wait_for(r"from \('127\.0\.0\.1', \d+\) is over: 5 bytes came, 5 went")
            idle.sendall(b"x")
            assert idle.recv(10) == b"x"
            server.tell_to_stop()
            server.wait_for("SIGTERM: finishing 1 connection")
            idle.shutdown(socket.SHUT_WR)
            server.wait_for("1 finished, 0 cancelled, 0 aborted")


def test_sink_and_file(tmp_path):
    """A sink swallows what comes, and a file goes to each client; quiet says nothing."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    with serving("file", path, "127.0.0.1:0") as server, connected(server.port()) as sock:
        assert everything(sock) == path.read_bytes()
    with serving("sink", "127.0.0.1:0") as server, connected(server.port()) as sock:
        sock.sendall(bytes(100_000))
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b""
        server.wait_for("100000 bytes came, 0 went")


def test_several_places(tmp_path):
    """A port and a Unix socket at once; the socket's file is removed in the end."""
    path = tmp_path / "socket"
    with serving("127.0.0.1:0", f"unix:{path}") as server:
        server.wait_for(f"echo on unix:{path}")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
    assert not path.exists()


def test_signals_are_for_all_places():
    """A second SIGTERM hurries every place, also where another is done already; the exit is clean,
    and each says how it went."""
    with serving("127.0.0.1:0", "127.0.0.1:0", "--grace", 60) as server:
        server.port()
        with connected(server.port()) as idle:
            idle.sendall(b"x")
            assert idle.recv(10) == b"x"
            server.tell_to_stop()
            server.wait_for("shut down: 0 finished")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("0 finished, 1 cancelled, 0 aborted")


def test_tls_with_a_certificate_of_its_own():
    """Without --cert a certificate for localhost is made, and where to find its authority is
    said."""
    with serving("echo", "127.0.0.1:0", "--tls", "--alpn", "h2,echo") as server:
        context = trusting(server)
        context.set_alpn_protocols(["echo"])
        with (
            connected(server.port()) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
            assert sock.selected_alpn_protocol() == "echo"


@pytest.mark.parametrize(
    ("protocol", "talk"),
    [
        (
            "smtp",
            [
                (b"", b"220"),
                (b"EHLO me\r\n", b"250 STARTTLS"),
                (b"NOOP\r\n", b"500"),
                (b"STARTTLS\r\n", b"220"),
            ],
        ),
        ("pop3", [(b"", b"+OK"), (b"CAPA\r\n", b"STLS"), (b"STLS\r\n", b"+OK")]),
        ("imap", [(b"", b"* OK"), (b"a CAPABILITY\r\n", b"a OK"), (b"b STARTTLS\r\n", b"b OK")]),
        ("ftp", [(b"", b"220"), (b"FEAT\r\n", b"AUTH TLS"), (b"AUTH TLS\r\n", b"234")]),
    ],
)
def test_starttls(protocol, talk):
    """It speaks as much of a protocol as leads to TLS, then serves."""
    with serving("echo", "127.0.0.1:0", "--starttls", protocol) as server:
        context = trusting(server)
        with connected(server.port()) as plain:
            for said, answer in talk:
                plain.sendall(said)
                heard = b""
                while answer not in heard:
                    heard += plain.recv(1000)
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(b"hello")
                assert sock.recv(10) == b"hello"


def test_workers_and_metrics():
    """Workers serve, and the figures of all of them are at the metrics' port."""
    with serving("echo", "127.0.0.1:0", "--workers", 2, "--metrics", 0) as server:
        port = server.port()
        metrics = int(server.wait_for(r"metrics on http://127\.0\.0\.1:(\d+)/metrics")[1])
        with connected(port) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
        with connected(metrics) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"headrace_connections_open{" in everything(sock)


def test_bounds_reach_the_server():
    """The options of bounds are those of serve()."""
    with serving("127.0.0.1:0", "--idle-timeout", 0.2) as server, connected(server.port()) as sock:
        sock.sendall(b"hello")
        assert sock.recv(10) == b"hello"
        assert sock.recv(10) == b""
        server.wait_for("is ended: nothing was sent or received for 0.2 s")


@pytest.mark.parametrize("what", ["metrics", "place"])
def test_a_port_that_is_taken(what):
    """A port that is taken is one line that says which of the two it is, without a number of the
    system's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = (
            ["127.0.0.1:0", "--metrics", port] if what == "metrics" else [f"127.0.0.1:{port}"]
        )
        environment = {**os.environ, "PYTHONPATH": SOURCE}
        done = subprocess.run(
            command("-q", *arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    if what == "metrics":
        assert (
            done.stderr
            == f"headrace serve: the metrics cannot be served on 127.0.0.1 port {port}: Address "
            "already in use\n"
        )
    else:
        assert done.stderr == (
            f"headrace serve: error while attempting to bind on address ('127.0.0.1', {port}): "
            "address already in use\n"
        )


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--metrics", "70000"], "'70000' is no port: 0 to 65535", 2),
        (["ecko"], "'ecko' is nothing that can be served", 2),
        (["file"], "which one?", 2),
        (["file", "/nowhere/at/all"], "No such file", 2),
        (["echo", "localhost"], "'localhost' is no place to listen at", 2),
        (["echo", ":70000"], "':70000' is no place to listen at", 2),
        (["--cert", "x"], "are for --tls or --starttls", 2),
        (["--tls", "--cert", "/nowhere"], "No such file", 2),
        (["127.0.0.1:0", "--idle-timeout", "-1"], "idle_timeout must be a number above 0", 2),
        (["127.0.0.1:0", "--proxy", "here"], "does not appear to be an IPv4 or IPv6 network", 2),
        (["unix:/nowhere/at/all"], "No such file", 1),
    ],
)
def test_what_cannot_be(arguments, words, status):
    """The messages for wrong arguments say what is wrong, and so does the one for an address that
    cannot be used."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    done = subprocess.run(
        command(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
