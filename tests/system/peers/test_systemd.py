"""systemd-socket-activate starts a service on the sockets that it listens on; systemd-notify says
what notify() says."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.connections import LOOPBACK

from headrace._server.process import systemd
from headrace._transport import backend

from .programs import TIMEOUT_S, environment, free_port, program, running

pytestmark = pytest.mark.peers

# Two echo servers, until a line has come on each; a letter before the echo tells which of the two
# it is.
SERVICE = """\
import asyncio
import headrace
from headrace._server.process.systemd import activated_sockets, notify

async def main():
    served = {"internet": asyncio.Event(), "local": asyncio.Event()}

    def echo_as(name):
        async def echo(reader, writer):
            writer.write(name.encode() + b": " + await reader.readline())
            writer.close()
            await writer.wait_closed()
            served[name].set()
        return echo

    servers = [
        await headrace.start_server(echo_as(name), sock=activated_sockets(name)[0])
        for name in served
    ]
    notify("READY=1", "STATUS=accepting")
    for event in served.values():
        await event.wait()
    for server in servers:
        server.close()
        await server.wait_closed()
    notify("STOPPING=1")

asyncio.run(main())
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would read, which NOTIFY_SOCKET names; messages come with their
    senders."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, True)
        sock.bind(os.environ["NOTIFY_SOCKET"])
        yield sock


def heard(manager: socket.socket) -> tuple[str, int]:
    """Return the next message and the id of the process that sent it."""
    message, [(_, _, credentials)], _, _ = manager.recvmsg(
        8192, socket.CMSG_SPACE(struct.calcsize("3i"))
    )
    return message.decode(), struct.unpack("3i", credentials)[0]


def answer(client: socket.socket) -> str:
    """Send a line and return all that comes back."""
    with client:
        client.settimeout(TIMEOUT_S)
        client.sendall(b"hello\n")
        return client.makefile().read()


def test_socket_activation(ours, tmp_path: Path, manager: socket.socket) -> None:
    """A service is started by its first client, answers on both its sockets under their names, and
    says so to NOTIFY_SOCKET as itself."""
    path, port = str(tmp_path / "socket"), free_port()
    passed = [f"--setenv={name}" for name in ("PYTHONPATH", "NOTIFY_SOCKET", backend.VARIABLE)]
    listen = [f"--listen={path}", f"--listen={LOOPBACK}:{port}", "--fdname=local:internet"]
    command = [program("systemd-socket-activate"), *listen, *passed, sys.executable, "-c", SERVICE]
    with running(*command, environment=environment()) as activator:
        for descriptor in (3, 4):
            activator.hear(f"Listening on .* as {descriptor}")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as local:
            local.connect(path)
            # The activator is replaced by the service, which keeps its id.
            assert heard(manager) == ("READY=1\nSTATUS=accepting", activator.process.pid)
            assert answer(socket.create_connection((LOOPBACK, port))) == "internet: hello\n"
            assert answer(local) == "local: hello\n"
        assert heard(manager) == ("STOPPING=1", activator.process.pid)
        activator.end()
    assert os.path.exists(path)  # systemd's, and needed for the next start


def test_accept_yes(tmp_path: Path) -> None:
    """A service that is started for one connection, as with Accept=yes, is told what to change."""
    path = str(tmp_path / "socket")
    service = "from headrace._server.process.systemd import activated_sockets; activated_sockets()"
    command = [
        program("systemd-socket-activate"),
        "--accept",
        f"--listen={path}",
        "--setenv=PYTHONPATH",
        sys.executable,
        "-c",
        service,
    ]
    with running(*command, environment=environment()) as activator:
        activator.hear("Listening on")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(path)
            activator.hear("ValueError: .*descriptor 3 .*is not listening: .*use Accept=no")


def test_systemd_notify(manager: socket.socket) -> None:
    """systemd-notify sends the very message that notify() sends."""
    subprocess.run(
        [program("systemd-notify"), "--no-block", "--ready", "--status=accepting"],
        timeout=TIMEOUT_S,
        check=True,
    )
    message, _ = heard(manager)
    assert systemd.notify("READY=1", "STATUS=accepting") is True
    assert heard(manager) == (message, os.getpid())
