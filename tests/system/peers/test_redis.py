"""redis-py's asyncio client, unmodified, with redis-server: the same program prints the same under
python and under headrace run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Files
from .programs import environment, free_port, program, running, under

pytestmark = pytest.mark.peers
PROGRAM = str(Path(__file__).parent / "redis_program.py")
PARSERS = ["python2", "python3", "hiredis"]


@pytest.fixture(scope="module")
def redis_server(
    tmp_path_factory: pytest.TempPathFactory, files: Files
) -> Iterator[tuple[str, ...]]:
    """Return the port, the TLS port and the socket of a redis-server of our own, which keeps
    nothing."""
    pytest.importorskip("redis")
    directory = tmp_path_factory.mktemp("redis")
    path = str(directory / "redis.sock")
    port, tls_port = str(free_port()), str(free_port())
    arguments = [
        "--bind",
        "127.0.0.1",
        "--port",
        port,
        "--unixsocket",
        path,
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    arguments += [
        "--tls-port",
        tls_port,
        "--tls-cert-file",
        files.chain,
        "--tls-key-file",
        files.key,
    ]
    arguments += [
        "--tls-ca-cert-file",
        files.authority,
        "--tls-auth-clients",
        "no",
        "--dir",
        str(directory),
    ]
    with running(program("redis-server"), *arguments, cwd=directory) as server:
        server.hear("Ready to accept connections|The server is now ready to accept connections at")
        yield port, tls_port, path


def answers(streams: str, loop: str, parser: str, server: tuple[str, ...], files: Files) -> str:
    """Return what the program prints on *streams* ("stock" or "headrace"); it may complain of
    nothing."""
    name = "asyncio" if streams == "stock" else streams
    command = [*under(streams, loop), PROGRAM, name, parser, *server, files.authority]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Return what each parser's program printed under python itself, once that is known."""
    return {}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.timeout(120)  # two programs, each with a limit of its own
def test_redis_py(redis_server, files, expected, parser, loop_kind):
    """Strings, pipelines, transactions, blocking, pub/sub, large values, 50 connections, kills:
    TCP, unix and TLS answer as on asyncio."""
    if parser == "hiredis":
        pytest.importorskip("hiredis")
    if parser not in expected:
        expected[parser] = answers("stock", "asyncio", parser, redis_server, files)
    assert expected[parser].count("\nclosed True\n") == 3
    assert answers("headrace", loop_kind, parser, redis_server, files) == expected[parser]
