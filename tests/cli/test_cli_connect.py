"""headrace connect sends its input, prints what comes, and says what happened; each run is a
process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import gc
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.connections import LOOPBACK, echo, reset

import headrace
from headrace._transport import backend
from headrace.cli.connect import add_arguments
from headrace.cli.connect import connect as run_command
from headrace.cli.connect.pipes import to_crlf

TIMEOUT_S = 20
# TLS with the name of the test certificate; the file of the authority follows.
VERIFYING = ("--tls", "--server-name", "localhost", "--ca")
DRIVER = """\
import argparse, os, signal, socket, sys
# A shell starts what runs in the background with SIGINT ignored: so may be whoever runs the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
from headrace.cli.connect import DESCRIPTION, add_arguments, connect, exchange
exchange.ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", exchange.ANSWER_SECONDS))
resolve = socket.getaddrinfo
def resolve_two(host, *rest, **named):
    hosts = ("127.0.0.2", "127.0.0.1") if host == "two.test" else (host,)
    return [address for each in hosts for address in resolve(each, *rest, **named)]
socket.getaddrinfo = resolve_two
parser = argparse.ArgumentParser(prog="headrace connect", description=DESCRIPTION)
add_arguments(parser)
sys.exit(connect(parser.parse_args()))
"""
# The command takes the way that the environment says, and so do the servers that are ours.
each_way = pytest.mark.usefixtures("ours")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def environment() -> dict[str, str]:
    root = str(Path(headrace.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error"}


def connect(*arguments: object, sends: bytes = b"", status: int = 0) -> tuple[bytes, str]:
    """Run the command with *sends* as its input; return its output, and what it said."""
    done = subprocess.run(
        command(*arguments),
        input=sends,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )
    assert done.returncode == status, done
    said = done.stderr.decode()
    assert "Traceback" not in said and "Warning" not in said
    return done.stdout, said


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process, where it never comes to the input; returns what it said."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def fail(*arguments: object, status: int = 1) -> str:
        assert run_command(parser.parse_args([*map(str, arguments)])) == status
        gc.collect()
        out, said = capsys.readouterr()
        assert out == ""
        return said

    return fail


def native() -> bool:
    """Tell whether connections take the native way, which alone can tell an end of TLS from a
    cut."""
    return os.environ[backend.VARIABLE] == "native"


@contextlib.contextmanager
def serving(
    serve: Callable[[socket.socket], object], listener: socket.socket | None = None
) -> Iterator[Any]:
    """The address of a server that gives one connection to *serve* in a thread; what that raises
    fails the test."""
    failures: list[BaseException] = []
    with listener or socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)

        def accept() -> None:
            try:
                sock, _ = listening.accept()
                sock.settimeout(TIMEOUT_S)
                with sock:
                    serve(sock)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            thread.join(TIMEOUT_S)
    assert failures == []


@contextlib.contextmanager
def streaming(
    handler: Callable[..., Any], context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    """The address of a headrace.start_server() whose loop runs in a thread."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(
        lambda *_: None
    )  # a client that refuses the certificate is reported there
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(TIMEOUT_S)

    server = call(headrace.start_server(handler, LOOPBACK, 0, ssl=context))

    async def close() -> None:
        server.close()
        await server.wait_closed()

    try:
        yield server.sockets[0].getsockname()
    finally:
        call(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


def received(sock: socket.socket) -> bytes:
    """Return what comes until the end."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


async def shout_once(reader: Any, writer: Any) -> None:
    """Answer one line in capitals, and end."""
    with contextlib.suppress(OSError):
        writer.write((await reader.readline()).upper())
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def authority(tls: Any, tmp_path: Path) -> Path:
    """The file of the authority that signed the server's certificate."""
    path = tmp_path / "authority.pem"
    tls.authority.cert_pem.write_to_path(path)
    return path


@each_way
def test_echo_with_half_close() -> None:
    """The input is sent and ended, the rest of the answer still comes; standard error tells of the
    connection from address to end."""
    with streaming(echo) as (host, port):
        out, said = connect(host, port, sends=b"hello\nthere\0\xff")
    assert out == b"hello\nthere\0\xff"
    lines = said.splitlines()
    assert lines[0].startswith(f"* {LOOPBACK} is {LOOPBACK} (")
    assert lines[1].startswith("* connected in ") and lines[1].endswith(
        f" to {LOOPBACK} port {port}"
    )
    assert lines[2].startswith("* the peer ended the stream; 13 bytes in, 13 bytes out, ")
    assert len(lines) == 3


@each_way
def test_verbose() -> None:
    """-v says which way was taken to the socket, and why."""
    with streaming(echo) as (host, port):
        _, said = connect(host, port, "-v", sends=b"hello")
    assert said.splitlines()[2].startswith(f"* the {os.environ[backend.VARIABLE]} way, ")


def test_files_byte_for_byte(tmp_path: Path) -> None:
    """A megabyte of a file goes through and into a file as it was; -q says nothing."""
    data = os.urandom(1 << 20)
    (tmp_path / "in").write_bytes(data)
    with (
        streaming(echo) as (host, port),
        open(tmp_path / "in", "rb") as stdin,
        open(tmp_path / "out", "wb") as stdout,
    ):
        done = subprocess.run(
            command("-q", f"{host}:{port}"), stdin=stdin, stdout=stdout,
            stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=True,
            env=environment(),
        )  # fmt: skip
    assert (tmp_path / "out").read_bytes() == data
    assert done.stderr == b""


@each_way
def test_a_slow_peer_holds_back_the_input() -> None:
    """No more of the input is read than the peer takes: the writer of the input's pipe is
    blocked."""
    begun, go_on = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        received(sock)

    with serving(serve, listener := socket.create_server((LOOPBACK, 0))) as address:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        with subprocess.Popen(
            command("-q", *address), stdin=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdin is not None
            os.write(process.stdin.fileno(), b"x")
            assert begun.wait(TIMEOUT_S)
            os.set_blocking(process.stdin.fileno(), False)
            written = blocked = 0
            # Full for as long as the loop would need to take hundreds of pieces.
            while blocked < 10 and written < 64 << 20:
                try:
                    written += os.write(process.stdin.fileno(), bytes(65536))
                    blocked = 0
                except BlockingIOError:
                    blocked += 1
                    threading.Event().wait(0.01)
            go_on.set()
            os.set_blocking(process.stdin.fileno(), True)
        assert process.returncode == 0
    assert written < 16 << 20


def test_no_half_close() -> None:
    """--no-half-close leaves the sending half open at the end of the input, until the peer ends."""

    def serve(sock: socket.socket) -> None:
        assert sock.recv(2, socket.MSG_WAITALL) == b"hi"
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.sendall(b"bye")

    with serving(serve) as address:
        connect(*address, "--no-half-close", sends=b"hi")


def test_crlf() -> None:
    """--crlf turns LF into CR LF, and leaves CR LF as it is."""
    got = []
    with serving(lambda sock: got.append(received(sock))) as address:
        connect(*address, "--crlf", sends=b"GET / HTTP/1.0\nA: b\r\n\n")
    assert got == [b"GET / HTTP/1.0\r\nA: b\r\n\r\n"]


def test_crlf_across_pieces() -> None:
    """A CR at the end of one piece and the LF at the beginning of the next are one CR LF."""
    translate = to_crlf()
    assert [translate(piece) for piece in (b"a\n", b"\nb\r", b"\nc\r", b"d\n")] == [
        b"a\r\n",
        b"\r\nb\r",
        b"\nc\r",
        b"d\r\n",
    ]


def test_unix_socket(tmp_path: Path) -> None:
    """unix:PATH connects to a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with serving(lambda sock: sock.sendall(received(sock)), listener):
        out, said = connect(f"unix:{tmp_path}/s", sends=b"hi")
    assert out == b"hi"
    assert f"to {tmp_path}/s\n" in said


def test_the_first_address_that_answers() -> None:
    """If a name has two addresses and the first refuses, the output names both and the refusal, and
    the second is used."""
    with streaming(echo) as (_, port):
        out, said = connect("two.test", port, sends=b"hi")
    assert out == b"hi"
    assert f"* two.test is 127.0.0.2, {LOOPBACK} (" in said
    assert f"* 127.0.0.2 port {port}: refused: nobody listens there\n* connected in " in said


def test_refused(closed_port: int, failing: Callable[..., str]) -> None:
    """A port where nobody listens is one line that says so, and status 1."""
    said = failing(LOOPBACK, closed_port)
    assert (
        f"* {LOOPBACK} port {closed_port}: refused: nobody listens there\n* no connection\n" in said
    )


@each_way
def test_reset() -> None:
    """A reset by the peer is reported as one, after the bytes that came before it; the status is
    1."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        reset(sock)

    with serving(serve) as address:
        _, said = connect(*address, "--no-half-close", sends=b"x", status=1)
    assert (
        "* the peer reset the connection without a byte: does it speak TLS? try --tls; 0 bytes in, "
        "1 bytes out, " in said
    )


def test_quiet(closed_port: int, failing: Callable[..., str]) -> None:
    """-q says nothing on standard error, not even of a failure."""
    assert failing("-q", LOOPBACK, closed_port) == ""


@each_way
def test_tls(tls: Any, authority: Path) -> None:
    """--tls says version, cipher, ALPN, subject, names, issuer and expiry; the stream works, and
    how it ended is told."""
    server, _ = tls.contexts()
    server.set_alpn_protocols(["b"])
    with streaming(shout_once, server) as address:
        out, said = connect(*address, *VERIFYING, authority, "--alpn", "a,b", sends=b"hello\n")
    assert out == b"HELLO\n"
    assert "* TLSv1.3 in " in said and ", TLS_AES" in said and ", ALPN b\n" in said
    assert "* certificate of organizationName=trustme" in said and "; names: localhost\n" in said
    assert "* signed by organizationName=trustme" in said and "; expires in " in said
    assert ("(with close_notify)" if native() else "cannot tell") in said
    assert "NOT verified" not in said


@each_way
def test_tls_that_is_cut(tls: Any, authority: Path) -> None:
    """On the native way an end without close_notify is reported, with status 1; the portable way
    cannot see it."""

    def serve(sock: socket.socket) -> None:
        with tls.server.wrap_socket(sock, server_side=True) as secured:
            secured.sendall(b"half")

    with serving(serve) as address:
        out, said = connect(
            *address, *VERIFYING, authority, "--no-half-close", status=int(native())
        )
    assert out == b"half"
    assert ("without TLS's close_notify" if native() else "cannot tell") in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--server-name", "localhost"],
            "nobody trusted here has signed it: --ca FILE trusts an authority, --insecure goes on",
        ),
        (
            ["--ca", "{authority}"],
            f"is not valid for '{LOOPBACK}': it is for localhost: --server-name NAME checks for "
            "another one",
        ),
        (
            ["--ca", "{authority}", "--server-name", "other"],
            "is not valid for 'other': it is for localhost: --server-name NAME",
        ),
    ],
)
@each_way
def test_tls_refused(
    tls: Any, authority: Path, options: list[str], words: str, failing: Callable[..., str]
) -> None:
    """For a certificate that is not trusted, or not for this name, it shows the certificate, its
    names and what to do; the status is 1."""
    with streaming(shout_once, tls.server) as address:
        said = failing(*address, "--tls", *(each.format(authority=authority) for each in options))
    assert "* no TLS: the certificate was refused: " in said and words in said
    assert "* certificate of organizationName=trustme" in said and "; names: localhost\n" in said


def test_tls_expired(tls: Any, authority: Path, failing: Callable[..., str]) -> None:
    """A certificate that has expired is refused as such."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    tls.authority.issue_cert("localhost", not_after=yesterday).configure_cert(server)
    with streaming(shout_once, server) as address:
        assert "it has expired" in failing(*address, *VERIFYING, authority)


def test_insecure(tls: Any) -> None:
    """--insecure goes on with whatever certificate, shows it, and says that nothing was
    verified."""
    with streaming(shout_once, tls.server) as address:
        out, said = connect(*address, "--tls", "--insecure", sends=b"hello\n")
    assert out == b"HELLO\n"
    assert "; names: localhost\n" in said
    assert "the certificate was NOT verified (--insecure)" in said


@each_way
def test_client_certificate(tls: Any, authority: Path, tmp_path: Path) -> None:
    """--cert and --key present a certificate; if a server wants one and gets none, the output says
    so."""
    server, _ = tls.contexts()
    server.verify_mode = ssl.CERT_REQUIRED
    tls.authority.configure_trust(server)
    certificate = tls.authority.issue_cert("client")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    certificate.private_key_pem.write_to_path(tmp_path / "key")

    def serve(sock: socket.socket) -> None:
        # asyncio's TLS would not send the alert.
        with (
            contextlib.suppress(ssl.SSLError),
            server.wrap_socket(sock, server_side=True) as secured,
        ):
            secured.sendall(secured.getpeercert()["subject"][0][0][1].encode())

    with serving(serve) as address:
        out, _ = connect(
            *address,
            *VERIFYING,
            authority,
            "--cert",
            tmp_path / "cert",
            "--key",
            tmp_path / "key",
            status=int(native()),
        )
    with serving(serve) as address:
        _, said = connect(*address, *VERIFYING, authority, "--no-half-close", status=1)
    assert out.startswith(b"trustme")
    assert "* the peer wants a certificate of ours: --cert FILE" in said


@each_way
@pytest.mark.parametrize(
    "answer",
    [
        lambda hello: b"HTTP/1.0 400 Bad Request\r\n\r\n",
        lambda hello: hello,
        lambda hello: hello.upper(),
        lambda hello: b"\x4a\0\0\0\x0a5.5.5-10.11\0" + bytes(60),
        lambda hello: bytes(100),
        lambda hello: b"\xff\xfd\x18\xff\xfd\x20",
        lambda hello: b"\x17\x03\x03\x00\x10" + bytes(16),
    ],
    ids=["http", "echo", "capitals", "mysql", "zeros", "telnet", "nearly"],
)
def test_a_peer_without_tls(failing: Callable[..., str], answer: Callable[[bytes], bytes]) -> None:
    """A peer that answers a handshake in plain text, or by what it got, is said to speak no TLS
    there."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(answer(sock.recv(65536)))
        received(sock)

    with serving(serve) as address:
        said = failing(*address, "--tls", "--insecure")
    assert (
        "* no TLS: the peer does not speak TLS here: leave out --tls, or begin in plain text with "
        "--starttls" in said
    )


@each_way
@pytest.mark.parametrize("how", ["ended", "reset"])
def test_a_peer_that_ends_the_handshake(failing: Callable[..., str], how: str) -> None:
    """A peer that ends or resets the connection in the handshake is asked after TLS."""

    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        if how == "reset":
            reset(sock)

    with serving(serve) as address:
        said = failing(*address, "--tls", "--insecure")
    assert (
        f"* no TLS: the peer {how} the connection in the handshake: does it speak TLS here?\n"
        in said
    )


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command keeps the end of its input back until the peer has answered, however slow this
    machine is."""
    monkeypatch.setenv("ANSWER_SECONDS", "15")


@each_way
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sends", [b"hello\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_plain_text_to_a_port_of_tls(tls: Any, sends: bytes) -> None:
    """Plain text to a TLS server, which answers with an alert or not at all, gives status 1 and the
    advice --tls."""

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # ssl.SSLError is one
            tls.server.wrap_socket(sock, server_side=True)

    for options in [], ["--no-half-close"]:
        with serving(serve) as address:
            _, said = connect(*address, *options, sends=sends, status=1)
        assert "does it speak TLS? try --tls; " in said


@each_way
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("answer", "words", "status"),
    [
        (b"", " without a byte: does it speak TLS? try --tls; 0 bytes in, ", 1),
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            " with an alert of TLS: does it speak TLS? try --tls; 7 bytes in, ",
            1,
        ),
        (b"\x15\x03\x01\x00\x02\x02\x46!", "; 8 bytes in, ", 0),
        (b"\n", "; 1 bytes in, ", 0),
    ],
)
def test_an_end_without_an_answer(answer: bytes, words: str, status: int) -> None:
    """An end that comes after our bytes without an answer, or with a TLS alert alone, gives status
    1; any other answer does not."""

    def serve(sock: socket.socket) -> None:
        sock.recv(5, socket.MSG_WAITALL)
        sock.sendall(answer)

    with serving(serve) as address:
        _, said = connect(*address, sends=b"hello", status=status)
    assert "* the peer ended the stream" in said and words in said
    assert ("--tls" in said) == (status == 1)


@pytest.mark.parametrize("sends", [b"", b"hello"])
def test_who_only_listens(sends: bytes) -> None:
    """An end without a byte is a clean one where nothing was sent, and where the peer has waited
    for the end of it."""
    with serving(received) as address:
        _, said = connect(*address, sends=sends)
    assert f"* the peer ended the stream; 0 bytes in, {len(sends)} bytes out, " in said


@each_way
@pytest.mark.parametrize(
    "what", ["nothing sent", "no answer", "half an answer", "nothing taken", "TLS"]
)
def test_a_peer_that_never_answers(tls: Any, authority: Path, what: str) -> None:
    """--timeout bounds how long a peer may do nothing once the input has ended, or while it takes
    nothing of it; status 1."""
    options: tuple[object, ...] = ("--timeout", 0.3)
    sends = {"nothing sent": b"", "nothing taken": bytes(16 << 20)}.get(what, b"hello")

    def serve(sock: socket.socket) -> None:
        if what == "TLS":
            sock = tls.server.wrap_socket(sock, server_side=True)
        with sock:
            if what == "half an answer":
                sock.sendall(b"half")
            if what == "nothing taken":
                ended.wait(TIMEOUT_S)
            else:
                with contextlib.suppress(OSError):
                    received(sock)
                    ended.wait(TIMEOUT_S)

    if what == "TLS":
        options += (*VERIFYING, authority)
    ended = threading.Event()
    with serving(serve) as address:
        try:
            out, said = connect(*address, *options, sends=sends, status=1)
        finally:
            ended.set()
    assert out == (b"half" if what == "half an answer" else b"")
    assert "* nothing came or went for 0.3 s; " in said


def test_a_peer_that_is_slow() -> None:
    """What comes piece by piece is no silence, however long all of it takes; nor is a long wait for
    the next input."""

    def serve(sock: socket.socket) -> None:
        received(sock)
        for _ in range(4):
            sock.sendall(b"x")
            time.sleep(0.25)

    with serving(serve) as address:
        process = subprocess.Popen(
            command(*address, "--timeout", 0.6),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdin is not None
        process.stdin.write(b"a")
        process.stdin.flush()
        time.sleep(0.8)
        out, said = process.communicate(b"b", TIMEOUT_S)
    assert (process.returncode, out) == (0, b"xxxx"), said


def test_a_peer_that_is_silent(failing: Callable[..., str]) -> None:
    """--timeout bounds the handshake, and what is said names it."""
    with serving(received) as address:
        said = failing(*address, "--tls", "--insecure", "--timeout", "0.05")
    assert "* no TLS: the peer did not answer in 0.05 s" in said


SCRIPTS = {
    "smtp": [
        (b"", b"220-mail\r\n220 ESMTP\r\n"),
        (b"EHLO localhost\r\n", b"250-mail\r\n250 STARTTLS\r\n"),
        (b"STARTTLS\r\n", b"220 go\r\n"),
    ],
    "imap": [
        (b"", b"* OK ready\r\n"),
        (b"A STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\nA OK begin\r\n"),
    ],
    "pop3": [(b"", b"+OK ready\r\n"), (b"STLS\r\n", b"+OK begin\r\n")],
    "ftp": [
        (b"", b"220-hello\r\n of two lines\r\n220 ready\r\n"),
        (b"AUTH TLS\r\n", b"234 begin\r\n"),
    ],
}


@each_way
@pytest.mark.parametrize("protocol", list(SCRIPTS))
def test_starttls(tls: Any, authority: Path, protocol: str) -> None:
    """--starttls speaks the protocol up to TLS, answers of several lines included, and what is sent
    and comes is inside TLS."""

    async def handler(reader: Any, writer: Any) -> None:
        for expected, answer in SCRIPTS[protocol]:
            assert await reader.readexactly(len(expected)) == expected
            writer.write(answer)
        await writer.start_tls(tls.server)
        await shout_once(reader, writer)

    with streaming(handler) as address:
        out, said = connect(
            *address, *VERIFYING[1:], authority, "--starttls", protocol, sends=b"hello\n"
        )
    assert out == b"HELLO\n"
    assert "* TLSv1.3 in " in said


def test_starttls_that_is_not_offered(failing: Callable[..., str]) -> None:
    """A server that refuses the upgrade is quoted, and status 1; no input was sent to it."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"220 mail\r\n")
        assert sock.recv(100) == b"EHLO localhost\r\n"
        sock.sendall(b"250 mail\r\n")
        assert sock.recv(100) == b"STARTTLS\r\n"
        sock.sendall(b"502 \x1b[31mno\r\n")
        assert received(sock) == b""

    with serving(serve) as address:
        said = failing(*address, "--starttls", "smtp")
    assert (
        "the server answered b'502 \\x1b[31mno\\r\\n' to b'STARTTLS\\r\\n': it offers no TLS here"
        in said
    )


def test_starttls_of_another_protocol(failing: Callable[..., str]) -> None:
    """If a server ends in the middle of the upgrade, the output says so; the status is 1."""
    with serving(lambda sock: sock.sendall(b"SSH-2.0\r\n")) as address:
        said = failing(*address, "--starttls", "imap")
    assert "no answer to b'' in the words of imap: is this its port?" in said


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ctrl_c(loop: str) -> None:
    """Ctrl-C on a terminal ends it with 130 and without a traceback, although the input has not
    ended; what was typed has been sent."""
    pytest.importorskip("uvloop" if loop == "uvloop" else "asyncio")
    ours, terminal = pty.openpty()
    got = []
    process: subprocess.Popen[bytes] | None = None

    def serve(sock: socket.socket) -> None:
        got.append(sock.recv(3, socket.MSG_WAITALL))
        assert process is not None
        process.send_signal(signal.SIGINT)
        received(sock)

    try:
        with serving(serve) as address:
            process = subprocess.Popen(
                command(*address, "--loop", loop),
                stdin=terminal,
                stdout=terminal,
                stderr=subprocess.PIPE,
                env=environment(),
            )
            os.write(ours, b"hi\n")
            _, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        os.close(ours)
        os.close(terminal)
    assert process.returncode == 130
    assert got == [b"hi\n"]
    assert b"* stopped before the peer ended the stream; 0 bytes in, 3 bytes out, " in said
    assert b"Traceback" not in said and b"Warning" not in said


def test_output_that_nobody_reads() -> None:
    """If the reader of the output closes it, a message says so; the status is 1."""
    reading, writing = os.pipe()
    os.close(reading)
    with streaming(echo) as (host, port):
        done = subprocess.run(
            command(host, port),
            input=b"hi",
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
            env=environment(),
        )
    os.close(writing)
    assert done.returncode == 1
    assert b"* nobody reads the standard output any more; 2 bytes in" in done.stderr
    assert b"Traceback" not in done.stderr and b"Warning" not in done.stderr


def test_input_that_cannot_be_read() -> None:
    """An input that cannot be read (it is open for writing) is reported and ends the sending; the
    status is 1."""
    unreadable = os.open(os.devnull, os.O_WRONLY)
    with streaming(echo) as (host, port):
        done = subprocess.run(
            command(host, port),
            stdin=unreadable,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environment(),
        )
    os.close(unreadable)
    assert done.returncode == 1
    assert b"* standard input cannot be read: Bad file descriptor\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["localhost"], "localhost: where to? Give HOST PORT, HOST:PORT or unix:PATH"),
        (["::1"], "an IPv6 address with its port is written [ADDRESS]:PORT, or ADDRESS PORT"),
        (["localhost:80/"], "where to? Give HOST PORT, HOST:PORT or unix:PATH"),
        (["localhost", "80/x"], "where to? Give HOST PORT, HOST:PORT or unix:PATH"),
        (["http://localhost:8080/"], "a URL is no target: type headrace connect localhost 8080\n"),
        (["HTTP://localhost"], "type headrace connect localhost 80\n"),
        (["http://localhost", "81"], "type headrace connect localhost 81\n"),
        (["https://localhost/?a:b"], "type headrace connect --tls localhost 443\n"),
        (["http://[::1]:80"], "type headrace connect ::1 80\n"),
        (["redis://localhost"], "type headrace connect localhost PORT\n"),
        (["http://:x"], "a URL is no target: give HOST PORT, HOST:PORT or unix:PATH\n"),
        (["localhost:65536"], "port 65536: ports are 1 to 65535"),
        (["unix:"], "unix:PATH takes a path"),
        (["h:1", "--insecure"], "--insecure needs --tls or --starttls"),
        (["h:1", "--tls", "--key", "k"], "--key needs --cert"),
        (["h:1", "--tls", "--ca", "/nowhere"], "--ca /nowhere: No such file or directory"),
        (["h:1", "--tls", "--cert", "/nowhere"], "--cert /nowhere: No such file or directory"),
        (["unix:/s", "--tls"], "TLS over a Unix socket needs --server-name NAME"),
        (["h:1", "--timeout", "0"], "--timeout must be a number of seconds above 0"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str, failing: Callable[..., str]) -> None:
    """Arguments that cannot be are one line that says what to do, and status 2."""
    said = failing(*arguments, status=2)
    assert said.startswith("headrace connect: ") and words in said and said.count("\n") == 1
