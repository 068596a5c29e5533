"""A real HAProxy in front of serve(): who the client is, by both versions of the PROXY protocol; a
rolling restart behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace
from tests.system.peers.programs import program
from tests.system.production.haproxy import haproxy

ROOT = Path(__file__).parents[3]
# Another address of loopback than HAProxy's own.
CLIENT = "127.0.0.2"

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_who_the_client_is(run, ours, tls, version, secure):
    """The handler sees the client's address, and the header in front of TLS too, which HAProxy
    passes on; it counts as that peer."""
    program("haproxy")
    seen: list[Any] = []

    async def handler(reader: Any, writer: Any) -> None:
        seen.append(
            (
                writer.get_extra_info("peername"),
                writer.get_extra_info("sockname"),
                writer.get_extra_info("proxy").version,
            )
        )
        writer.write(await reader.readline())

    async def main() -> None:
        ssl = tls.server if secure else None
        server = headrace.serve(
            handler, "127.0.0.1", 0, proxies=["127.0.0.1"], ssl=ssl, max_connections_per_peer=1
        )
        async with server, haproxy(server.sockets[0].getsockname()[1], version) as port:
            reader, writer = await headrace.open_connection(
                "127.0.0.1",
                port,
                local_addr=(CLIENT, 0),
                ssl=tls.client if secure else None,
                server_hostname="localhost" if secure else None,
            )
            writer.write(b"hello\n")
            assert await reader.read() == b"hello\n"
            here = writer.get_extra_info("sockname")
            assert seen == [(here, ("127.0.0.1", port), 2 if version.endswith("v2") else 1)]
            writer.close()
            await writer.wait_closed()

    run(main, timeout_s=20)


def test_a_rolling_restart_behind_haproxy():
    """Workers are replaced under load behind HAProxy, and no request fails."""
    program("haproxy")
    source = str(Path(headrace.__file__).parent.parent)
    command = [
        sys.executable,
        "-m",
        "tests.system.production",
        "rolling",
        "--haproxy",
        "--seconds",
        "4",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin:/usr/sbin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed requests: none" in done.stdout
