"""headrace top: what it makes of two samples, its plain table and its live view, and what it says
where there are no figures."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.connections import LOOPBACK, serving, until

import headrace

pytest.importorskip("prometheus_client")
pytest.importorskip("rich")

from rich.console import Console

from headrace import metrics
from headrace._server.statistics import Statistics
from headrace.cli import top
from headrace.cli.top import endpoint, history, live, table

FIRST = Statistics(
    uptime=3600,
    open=4,
    max_connections=8,
    accepting=True,
    negotiating=1,
    buffered_bytes=2048,
    draining=False,
    accepted=100,
    refused={},
    ended={"idle": 4, "first byte": 2},
    failed={"not TLS": 5},
    handled=90,
    errors={"KeyError": 2, "ValueError": 1},
    received_bytes=1_000_000,
    sent_bytes=5_000_000,
    drain_seconds=None,
)
# Two seconds later.
SECOND = dataclasses.replace(
    FIRST,
    uptime=3602,
    open=8,
    accepting=False,
    draining=True,
    accepted=107,
    refused={"full": 1, "rate": 2},
    received_bytes=1_003_000,
    sent_bytes=9_000_000,
)
PLAIN = """\
server   open  accepts/s  in-B/s  out-B/s    buffered-B  draining  refused        \
ended              failed     errors
the_api  8     3.5        1500.0  2000000.0  2048        yes       full=1,rate=2  \
first_byte=2,idle=4  not_TLS=5  3
"""
TIMEOUT_S = 20
RUN = """\
import argparse, signal, sys
from headrace.cli import top
# A shell starts what runs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
parser = argparse.ArgumentParser()
top.add_arguments(parser)
sys.exit(top.top(parser.parse_args()))
"""


class Server:
    """What has a name and statistics: FIRST in the first collection, SECOND from then on."""

    name = "the api"

    def __init__(self) -> None:
        self.collections = 0

    def statistics(self) -> Statistics:
        self.collections += 1
        return FIRST if self.collections == 1 else SECOND


def figures(statistics: Statistics, name: str = "the api") -> dict[str, endpoint.Figures]:
    """Return *statistics* as top knows them, by way of the text."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    server = Server()
    server.name, server.statistics = name, lambda: statistics
    registry.register(metrics.StatisticsCollector(server))
    return endpoint.figures(generate_latest(registry).decode())


def drawn(view: history.EndpointHistory, at: float = 0.0, width: int = 80) -> str:
    """Return what rich makes of the live view."""
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(live.render(view, "http://here/metrics", at))
    return console.export_text()


def options(*arguments: str) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser()
    top.add_arguments(parser)
    return parser.parse_args(arguments)


@contextlib.asynccontextmanager
async def answering(response: bytes):
    """The URL of a server that answers *response*, whatever it is asked."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    async with serving(headrace, answer) as (host, port):
        yield f"http://{host}:{port}"


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(headrace.__file__).parent.parent),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm",
    }


async def ended(process: asyncio.subprocess.Process) -> None:
    """Leave nothing running, also where a test fails."""
    if process.returncode is None:
        process.kill()
        await process.wait()


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run top in a process of its own whose output is no terminal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, errors = await process.communicate()
    finally:
        await ended(process)
    return process.returncode, out.decode(), errors.decode()


def test_table_of_a_real_endpoint():
    """Where the output is no terminal one plain table of two samples is printed: rates per second,
    reasons, no blank inside a column."""

    async def main():
        async with await metrics.serve_metrics(Server(), port=0) as server:
            return await command(
                f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}", "--interval", "0.01"
            )

    status, out, errors = asyncio.run(main())
    assert (status, errors) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        line.split() for line in PLAIN.splitlines()
    ]
    titles, row = out.splitlines()
    assert row.index("full=1") == titles.index("refused")
    assert "\x1b" not in out


def test_no_endpoint(closed_port):
    """An endpoint that is not there is one line that names it, and status 1."""
    status, out, errors = asyncio.run(command("--once", f"http://{LOOPBACK}:{closed_port}/metrics"))
    assert (status, out) == (1, "")
    assert errors.startswith(f"headrace top: http://{LOOPBACK}:{closed_port}/metrics: ")
    assert errors.count("\n") == 1


def test_import_is_cheap():
    """Importing the command imports neither rich nor prometheus_client, not even to add its
    arguments."""
    code = (
        "import argparse, sys; from headrace.cli import top;"
        "top.add_arguments(argparse.ArgumentParser())"
    )
    code += "; sys.exit(' '.join({'rich', 'prometheus_client'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_https(run, ours, tls, monkeypatch):
    """An https URL is fetched over TLS, whose certificate is verified."""
    run.expect_errors()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\n\r\nheadrace_connections_open{server="x"} 1\n')
        writer.close()

    async def main():
        async with serving(ours, answer, ssl=tls.server) as (_, port):
            with pytest.raises(endpoint.Unavailable, match="certificate"):
                await endpoint.fetch(f"https://localhost:{port}/metrics")
            with tls.authority.cert_pem.tempfile() as path:
                monkeypatch.setenv("SSL_CERT_FILE", path)
                return await endpoint.fetch(f"https://localhost:{port}/metrics")

    assert run(main) == {"x": {"connections_open": {"": 1}}}


BAD = [
    (b"", "not what a metrics endpoint answers: nothing"),
    (b"SSH-2.0-OpenSSH\x1b[2J\r\n", r"answers: SSH-2.0-OpenSSH\?\[2J"),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers: HTTP/1.1 404 Not Found"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "it ends after 3 of 9 bytes"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not what a metrics endpoint answers"),
    (b"HTTP/1.1 200 OK\r\n\r\n<html>{\n", "not what a metrics endpoint answers"),
    (b"HTTP/1.1 200 OK\r\n\r\n\xff", "not what a metrics endpoint answers"),
    (b"HTTP/1.1 200 OK\r\n\r\nup 1\n", "no figures of a headrace server"),
    (b"HTTP/1.1 200 OK\r\n\r\n" + b"#" * 2000 + b"\n", "more than 1000 bytes"),
]


@pytest.mark.parametrize(("response", "why"), BAD)
def test_answers_without_figures(monkeypatch, response, why):
    """Any other answer is reported in one line, without terminal escapes."""
    monkeypatch.setattr(endpoint, "LARGEST_RESPONSE", 1000)

    async def main():
        async with answering(response) as url:
            with pytest.raises(endpoint.Unavailable, match=why) as found:
                await endpoint.fetch(url)
        return str(found.value)

    assert asyncio.run(main()).isprintable()


def test_endpoint_that_says_nothing(run, ours, monkeypatch):
    """An endpoint that accepts and does not answer is given up in time."""
    monkeypatch.setattr(endpoint, "PATIENCE_S", 0.05)

    async def say_nothing(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def main():
        async with serving(ours, say_nothing) as (host, port):
            with pytest.raises(endpoint.Unavailable, match="no answer within 0.05 s"):
                await endpoint.fetch(f"http://{host}:{port}")

    run(main)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:9464",
        "ftp://a/",
        "http://",
        "http://a:b/",
        "http://a:0/",
        "http://[/",
        "http://u:p@a/",
        "http://a/ b",
    ],
)
def test_wrong_url(capsys, url):
    """What is no URL of http or https is refused with status 2 and an example."""
    assert top.top(options(url)) == 2
    assert (
        capsys.readouterr().err
        == f"headrace top: not an http or https URL: {url!r}; it should look like "
        f"{endpoint.DEFAULT_URL}\n"
    )


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_wrong_interval(capsys, interval):
    """An interval that is no number of seconds above 0 is refused."""
    with pytest.raises(SystemExit):
        options(f"--interval={interval}")
    assert "not a number of seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["rich", "prometheus_client"])
def test_missing_packages(capsys, monkeypatch, package):
    """Where a package is missing, the live view says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert top.top(options()) == 2
    assert "pip install 'headrace[cli]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--once"], []])
def test_one_table_needs_no_rich(capsys, monkeypatch, closed_port, arguments):
    """One table, asked for or because the output is no terminal, does without rich; without
    prometheus_client it says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)

    async def sample(url):
        return figures(FIRST)

    monkeypatch.setattr(top, "fetch", sample)
    assert top.top(options(*arguments, "--interval", "0.01")) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("the_api  4 ")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert top.top(options(*arguments)) == 2
    assert "pip install 'headrace[metrics]'" in capsys.readouterr().err


def test_rates():
    """Rates are what has grown by the server's own clock; there are none after one sample, after a
    restart or without a new sample."""
    server = history.ServerHistory()
    found = []
    restarts = [
        dataclasses.replace(FIRST, uptime=uptime, accepted=accepted)
        for uptime, accepted in ((1, 2), (2, 4), (3, 1))
    ]
    for at, statistics in enumerate((FIRST, SECOND, SECOND, *restarts)):
        server.take(figures(statistics)["the api"], at)
        found.append(server.rate("connections_accepted_total"))
    assert found == [None, 3.5, None, None, 2, None]


def test_live_view():
    """The live view has every figure, rates and reasons, the most frequent first, and fits 80
    columns."""
    view = history.EndpointHistory()
    view.take(figures(FIRST), 0)
    first = drawn(view)
    assert "in -/s, out -/s" in first and "draining" not in first
    view.take(figures(SECOND), 2)
    text = drawn(view, at=2)
    for part in (
        "http://here/metrics", "the api up 1:00:02 draining",
        "8 of at most 8, accepting none, 1 negotiating", "▅█  at most 8 open", "3.5/s, 107 in all",
        "in 1.5 kB/s, out 2.0 MB/s, buffered 2.0 "
        "kB", "3: rate 2, full 1", "6: idle 4, first byte 2", "5: not TLS 5", "3 of 90 handlers",
    ):  # fmt: skip
        assert part in text, text
    assert "gone" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_live_view_of_several_servers():
    """Each server has a panel, by name; one that is no longer there has none."""
    view = history.EndpointHistory()
    view.take(figures(FIRST, "b") | figures(FIRST, "a"), 0)
    text = drawn(view)
    assert 0 < text.index("a up") < text.index("b up")
    view.take(figures(FIRST, "b"), 1)
    assert "a up" not in drawn(view)


def test_names_from_strangers():
    """A server's name neither moves the cursor nor is taken for rich's markup, and has no blank in
    the plain table."""
    view = history.EndpointHistory()
    view.take(figures(FIRST, "[red]a\x1b[2J b"), 0)
    assert "[red]a?[2J b" in drawn(view)
    assert table.plain_table(view).splitlines()[1].startswith("[red]a?[2J_b  ")


def test_gone_endpoint():
    """While the endpoint is gone the last figures stay, with the time since when and the latest
    reason; both go when it is back."""
    view = history.EndpointHistory()
    view.take(figures(FIRST), 0)
    view.lose("no answer", "12:00:00")
    view.lose("refused: nobody listens", "12:00:01")
    text = drawn(view)
    assert "gone since 12:00:00: refused: nobody listens" in text
    assert "4 of at most 8, 1 negotiating" in text
    view.take(figures(SECOND), 2)
    assert "gone" not in drawn(view)


def test_sparkline():
    """Bars are the highest of each two seconds of the last minute, to scale from 0; where there was
    no sample there is no bar."""
    server = history.ServerHistory()
    for at, count in ((0, 99), (30.5, 4), (56, 0), (58, 8), (58.5, 1), (61, 7)):
        server.take({"connections_open": {"": count}}, at)
    assert server.sparkline(61) == " " * 14 + "▅" + " " * 12 + "▁█▇"
    assert server.sparkline(63) == " " * 13 + "▅" + " " * 12 + "▁█▇ "
    assert server.sparkline(200) == " " * history.SPARKLINE_WIDTH
    for at in (61, 63):
        server.take({"connections_open": {"": 0}}, at + 100)
    assert server.sparkline(163) == " " * 28 + "▁▁"
    assert len(server.history) == 2


def test_live_on_a_terminal(closed_port):
    """On a terminal the view is live, keeps trying while nobody listens, and Ctrl-C ends it with
    status 0 and not a word."""
    controller, terminal = pty.openpty()
    os.set_blocking(controller, False)
    seen = bytearray()

    def shown(what: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(controller, 65536))
        return what in seen

    async def main():
        arguments = (f"http://{LOOPBACK}:{closed_port}", "--interval", "0.01")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            RUN,
            *arguments,
            stdout=terminal,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                for _ in range(2):
                    seen.clear()
                    await until(lambda: shown(b"gone since"))
                process.send_signal(signal.SIGINT)
                _, errors = await process.communicate()
            return process.returncode, errors
        finally:
            await ended(process)

    try:
        assert asyncio.run(main()) == (0, b"")
    finally:
        os.close(controller)
        os.close(terminal)
