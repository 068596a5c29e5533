"""A real HAProxy in front of the service. The PROXY protocol tells the service who the client
is."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

CONFIGURATION = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    # A connection that was not accepted is tried again, and nothing of a request is lost by that.
    retries 3
    option redispatch
frontend clients
    bind 127.0.0.1:{front}
    default_backend service
backend service
    server headrace 127.0.0.1:{back} {version}
"""
PATIENCE_S = 10.0


@contextlib.asynccontextmanager
async def haproxy(back: int, version: str = "send-proxy-v2") -> AsyncIterator[int]:
    """HAProxy before the port *back*; yields its own port. Raises: FileNotFoundError where it is
    not installed."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        front = sock.getsockname()[1]
    async with running(CONFIGURATION.format(front=front, back=back, version=version), front):
        yield front


@contextlib.asynccontextmanager
async def running(configuration: str, front: int) -> AsyncIterator[None]:
    """HAProxy with a *configuration* that has it listen at the port *front*. Raises:
    FileNotFoundError where it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("haproxy is not installed: it is a package of Debian")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "haproxy.cfg")
        path.write_text(configuration)
        process = subprocess.Popen([program, "-db", "-q", "-f", str(path)])
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not listens(front):
                    await asyncio.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def listens(port: int) -> bool:
    """Return whether a program listens at *port*, without connecting: the service would see that
    (proc_net(5): state 0A is LISTEN)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )
