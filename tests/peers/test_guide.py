"""docs/production.md: its program behind the real HAProxy and nginx, with the configurations that it shows; its units, read by systemd."""

from __future__ import annotations

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

import headrace
from tests.peers.programs import free_port, program
from tests.production.haproxy import listens

GUIDE = (Path(__file__).parents[2] / "docs" / "production.md").read_text()
SOURCE = str(Path(headrace.__file__).parent.parent)
TIMEOUT_S = 20.0

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]


def blocks(language: str) -> list[str]:
    """Return the blocks of the guide that are in *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def until_listening(port: int) -> None:
    """Wait until somebody listens at *port*."""
    deadline = time.monotonic() + TIMEOUT_S
    while not listens(port):
        assert time.monotonic() < deadline, f"nobody listens at {port}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[subprocess.Popen[str]]:
    """*command* in a process, once it listens at *port*."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    try:
        until_listening(port)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


@contextlib.contextmanager
def the_program(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program of the guide, and its port."""
    (source,) = blocks("python")
    path = tmp_path / "server.py"
    path.write_text(source)
    port = free_port()
    with running([sys.executable, str(path)], port, env={**os.environ, "PYTHONPATH": SOURCE, "PORT": str(port)}) as process:
        yield process, port


def ask(port: int) -> bytes:
    """Return the answer to a line."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        sock.sendall(b"hello\n")
        return sock.recv(100)


def test_haproxy(tmp_path):
    """The program answers behind HAProxy with the guide's configuration, and comes to its end at SIGTERM."""
    (configuration,) = blocks("haproxy")
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


def test_nginx(tmp_path):
    """The program answers behind nginx with the guide's configuration."""
    nginx = program("nginx")
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not Path(module).exists():
        pytest.skip("nginx has no stream module here (libnginx-mod-stream)")
    (configuration,) = blocks("nginx")
    front = free_port()
    with the_program(tmp_path) as (_, port):
        around = f"load_module {module};\ndaemon off;\npid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
        path = tmp_path / "nginx.conf"
        path.write_text(around + configuration.replace(":9001", f":{front}").replace(":8888", f":{port}"))
        with running([nginx, "-e", "stderr", "-p", str(tmp_path), "-c", str(path)], front):
            assert ask(front) == b"HELLO\n"


def test_systemd(tmp_path):
    """The units have no fault that systemd finds, and the program serves on a socket that it is handed."""
    for text in blocks("ini"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    analyze = program("systemd-analyze")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "headrace.socket"), str(tmp_path / "headrace.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not [line for line in done.stderr.splitlines() if "headrace." in line], done.stderr
    (source,) = blocks("python")
    # Nobody tells the program here who the client is.
    (tmp_path / "server.py").write_text(source.replace('proxies=["127.0.0.1"],', ""))
    port = free_port()
    activate = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", "-E", f"PYTHONPATH={SOURCE}"]
    with running([*activate, sys.executable, str(tmp_path / "server.py")], port):
        assert ask(port) == b"HELLO\n"
