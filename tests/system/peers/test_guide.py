"""docs/production.md: its program behind the real HAProxy and nginx, with the configurations that
it shows; its units, read by systemd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.connections import until

import headrace
from tests.system.peers.programs import free_port, program
from tests.system.production import haproxy
from tests.system.production.haproxy import listens

GUIDE = (Path(__file__).parents[3] / "docs" / "production.md").read_text()
SOURCE = str(Path(headrace.__file__).parent.parent)
TIMEOUT_S = 20.0

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]


def blocks(language: str) -> list[str]:
    """Return the blocks of the guide that are in *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def until_listening(port: int) -> None:
    """Wait until a program listens at *port*."""
    deadline = time.monotonic() + TIMEOUT_S
    while not listens(port):
        assert time.monotonic() < deadline, f"nobody listens at {port}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[subprocess.Popen[str]]:
    """*command* in a process, once it listens at *port*."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )  # type: ignore[call-overload]
    try:
        until_listening(port)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


@contextlib.contextmanager
def the_program(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program of the guide, and its port."""
    source = blocks("python")[0]
    path = tmp_path / "server.py"
    path.write_text(source)
    port = free_port()
    with running(
        [sys.executable, str(path)],
        port,
        env={**os.environ, "PYTHONPATH": SOURCE, "PORT": str(port)},
    ) as process:
        yield process, port


def ask(port: int) -> bytes:
    """Return the answer to a line."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        sock.sendall(b"hello\n")
        return sock.recv(100)


def test_haproxy(tmp_path):
    """The program answers behind HAProxy with the guide's configuration, and ends at
    SIGTERM."""
    configuration = blocks("haproxy")[0]
    front = free_port()
    with the_program(tmp_path) as (process, port):
        path = tmp_path / "haproxy.cfg"
        path.write_text(configuration.replace(":9000", f":{front}").replace(":8888", f":{port}"))
        with running([program("haproxy"), "-db", "-f", str(path)], front):
            assert ask(front) == b"HELLO\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert "0 cancelled, 0 aborted" in output
        assert "proxy" not in output, "a health check was no proper header"


def lines_of_servers() -> dict[str, str]:
    """Return the guide's lines for a server behind HAProxy, by where TLS is. A comment is above
    each."""
    lines = re.split(r"^ *#.*\n", blocks("haproxy")[1], flags=re.MULTILINE)[1:]
    return dict(zip(("server", "both", "haproxy"), lines, strict=True))


@pytest.mark.parametrize("where", lines_of_servers())
def test_where_tls_is(run, ours, files, where):
    """Each of the guide's lines for TLS works, and HAProxy's checks count as nothing: only the
    client has a handler."""
    program("haproxy")
    before, _, _ = blocks("haproxy")[0].rpartition("    server ")
    line = lines_of_servers()[where].replace("/etc/ssl/lines-ca.pem", files.authority)
    front = free_port()
    peers = []

    async def handler(reader, writer):
        peers.append(writer.get_extra_info("peername"))
        writer.write((await reader.readline()).upper())

    async def main():
        context = None if where == "haproxy" else files.server
        server = headrace.serve(handler, "127.0.0.1", 0, ssl=context, proxies=["127.0.0.1"])
        async with server:
            back = server.sockets[0].getsockname()[1]
            text = (
                f"{before}{line}\n".replace(":8888", f":{back}")
                .replace(":9000", f":{front}")
                .replace(" check ", " check inter 300ms ")
            )
            async with haproxy.running(text, front):
                options = (
                    {"ssl": files.client, "server_hostname": "localhost"}
                    if where == "server"
                    else {}
                )
                reader, writer = await headrace.open_connection("127.0.0.1", front, **options)
                writer.write(b"hello\n")
                assert await reader.read() == b"HELLO\n"
                assert peers == [writer.get_extra_info("sockname")]
                writer.close()
                accepted = server.statistics().accepted
                await until(lambda: server.statistics().accepted >= accepted + 3)
            await until(lambda: not server.connections)
            figures = server.statistics()
            assert (figures.handled, figures.failed, figures.ended, len(peers)) == (1, {}, {}, 1)

    run(main)


def test_guests_who_stay(run, ours):
    """The handler of the guide's chat ends at once when the server shuts down, with its goodbye."""
    program_of_chat = {"asyncio": asyncio, "headrace": headrace}
    exec(blocks("python")[1], program_of_chat)

    async def main():
        async with headrace.serve(program_of_chat["chat"], "127.0.0.1", 0, grace=60) as server:
            reader, writer = await headrace.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            report = await asyncio.wait_for(server.shutdown(), 10)
            assert (report.cancelled, report.aborted) == (0, 0)
            assert await reader.read() == b"we are closing\n"
            writer.close()

    run(main)


def test_nginx(tmp_path):
    """The program answers behind nginx with the guide's configuration."""
    nginx = program("nginx")
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not Path(module).exists():
        pytest.skip("nginx has no stream module here (libnginx-mod-stream)")
    (configuration,) = blocks("nginx")
    front = free_port()
    with the_program(tmp_path) as (_, port):
        around = (
            f"load_module {module};\ndaemon off;\npid {tmp_path}/pid;\n"
            "error_log stderr;\nevents {}\n"
        )
        path = tmp_path / "nginx.conf"
        path.write_text(
            around + configuration.replace(":9001", f":{front}").replace(":8888", f":{port}")
        )
        with running([nginx, "-e", "stderr", "-p", str(tmp_path), "-c", str(path)], front):
            assert ask(front) == b"HELLO\n"


def test_systemd(tmp_path):
    """The units have no fault that systemd finds, and the program serves on a socket that it is
    handed."""
    for text in blocks("ini"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    analyze = program("systemd-analyze")
    units = [str(tmp_path / name) for name in ("headrace.socket", "headrace.service")]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert not [line for line in done.stderr.splitlines() if "headrace." in line], done.stderr
    source = blocks("python")[0]
    # Nobody tells the program here who the client is.
    (tmp_path / "server.py").write_text(source.replace('proxies=["127.0.0.1"],', ""))
    port = free_port()
    activate = [
        program("systemd-socket-activate"),
        "-l",
        f"127.0.0.1:{port}",
        "-E",
        f"PYTHONPATH={SOURCE}",
    ]
    with running([*activate, sys.executable, str(tmp_path / "server.py")], port):
        assert ask(port) == b"HELLO\n"
