"""Metrics: the families that a collector yields, and the endpoint's answers to good, wrong, slow
and endless requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import socket
import sys

import pytest
from support.connections import LOOPBACK, receive, reset, until

from headrace._server.statistics import Statistics

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import parser  # noqa: E402
from prometheus_client.openmetrics import parser as openmetrics  # noqa: E402

from headrace import metrics  # noqa: E402
from headrace.metrics import _collector, _endpoint  # noqa: E402

parsed = openmetrics.text_string_to_metric_families
parsed_plain = parser.text_string_to_metric_families
STATISTICS = Statistics(
    uptime=12.5,
    open=3,
    max_connections=50,
    accepting=True,
    negotiating=1,
    buffered_bytes=4096,
    draining=True,
    accepted=10,
    refused={"full": 2, "rate": 1},
    ended={"idle": 4},
    failed={"not TLS": 5},
    handled=7,
    errors={"KeyError": 1},
    received_bytes=1000,
    sent_bytes=2000,
    drain_seconds=None,
)
# Sample -> value, of a server "api": what the collector is to make of STATISTICS.
EXPECTED = {
    ("headrace_uptime_seconds", ""): 12.5,
    ("headrace_connections_open", ""): 3,
    ("headrace_connections_limit", ""): 50,
    ("headrace_accepting", ""): 1,
    ("headrace_connections_negotiating", ""): 1,
    ("headrace_buffered_bytes", ""): 4096,
    ("headrace_draining", ""): 1,
    ("headrace_connections_accepted_total", ""): 10,
    ("headrace_connections_refused_total", "full"): 2,
    ("headrace_connections_refused_total", "rate"): 1,
    ("headrace_connections_closed_by_server_total", "idle"): 4,
    ("headrace_handshake_failures_total", "not TLS"): 5,
    ("headrace_handlers_total", ""): 7,
    ("headrace_handler_errors_total", "KeyError"): 1,
    ("headrace_received_bytes_total", ""): 1000,
    ("headrace_sent_bytes_total", ""): 2000,
}
GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n"
OPENMETRICS = b"Accept: application/openmetrics-text; version=1.0.0\r\n"


class Server:
    """What has a name and statistics."""

    def __init__(self, name: str = "api", statistics: Statistics = STATISTICS) -> None:
        self.name = name
        self.statistics = lambda: statistics


def values(families) -> dict[tuple[str, str], float]:
    """Return the samples of the server "api" by name and reason."""
    found = {}
    for family in families:
        for sample in family.samples:
            assert sample.labels.pop("server") == "api"
            found[sample.name, "".join(sample.labels.values())] = sample.value
    return found


@contextlib.asynccontextmanager
async def endpoint(*servers, **options):
    """The address of an endpoint for *servers*."""
    async with await metrics.serve_metrics(*(servers or [Server()]), port=0, **options) as server:
        yield server.sockets[0].getsockname()


async def ask(address, *parts: bytes) -> bytes:
    """Return all that is answered to *parts*, each sent when the one before has gone."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )  # so that who sends much is still sending when the answer comes
        await loop.sock_connect(sock, address)
        for part in parts:
            await loop.sock_sendall(sock, part)
        return await receive(sock)


def split(response: bytes) -> tuple[str, dict[str, str], str]:
    """Return the status line, the fields and the body."""
    head, _, body = response.decode().partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields), body


def test_families():
    """Every figure is a sample with the server's name, every family has a help text and a unit that
    ends its name."""
    families = list(metrics.StatisticsCollector(Server()).collect())
    assert values(families) == EXPECTED
    assert all(
        family.documentation.endswith(".") and family.name.endswith(family.unit)
        for family in families
    )
    units = {
        "uptime_seconds",
        "buffered_bytes",
        "last_drain_seconds",
        "received_bytes",
        "sent_bytes",
    }
    assert {family.name.removeprefix("headrace_") for family in families if family.unit} == units


def test_every_statistic_is_there():
    """Each attribute of Statistics has its family, so that a new one is not forgotten."""
    collected = [
        row[2] for row in (*_collector.GAUGES, *_collector.COUNTERS, *_collector.COUNTERS_BY_REASON)
    ]
    assert sorted(collected) == sorted(Statistics.__dataclass_fields__)


def test_drain_seconds_once_there_are_any():
    """The length of the last shutdown has a sample only after there was one."""
    found = values(
        metrics.StatisticsCollector(
            Server(statistics=dataclasses.replace(STATISTICS, drain_seconds=0.0))
        ).collect()
    )
    assert found == {**EXPECTED, ("headrace_last_drain_seconds", ""): 0.0}


def test_programs_own_registry():
    """The collector can be registered where names are checked, and its figures are those of the
    moment."""
    server = Server()
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    registry.register(metrics.StatisticsCollector(server))
    assert registry.get_sample_value("headrace_connections_open", {"server": "api"}) == 3
    server.statistics = lambda: dataclasses.replace(STATISTICS, open=0)
    assert registry.get_sample_value("headrace_connections_open", {"server": "api"}) == 0


def test_servers_that_cannot_be_told_apart():
    """No server, and two of one name, are refused with what to do."""
    with pytest.raises(ValueError, match="pass at least one"):
        metrics.StatisticsCollector()
    with pytest.raises(
        ValueError, match="two servers are called 'api': give each a name of its own"
    ):
        metrics.StatisticsCollector(Server(), Server())


def test_without_prometheus_client(monkeypatch):
    """Where prometheus_client is not there the error says what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'headrace\[metrics\]'"):
        metrics.StatisticsCollector(Server())


def test_get(run, ours):
    """GET answers OpenMetrics to clients that ask for it, and Prometheus' text to others; both
    parse, and say the same."""

    async def main():
        async with endpoint() as address:
            return [
                split(await ask(address, GET, accept, b"\r\n"))
                for accept in (OPENMETRICS, b"Accept: */*\r\n", b"")
            ]

    new, *old = run(main)
    for status, fields, body in (new, *old):
        assert status == "HTTP/1.1 200 OK"
        assert fields["Content-Length"] == str(len(body))
        assert fields["Connection"] == "close"
    assert new[1]["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert values(parsed(new[2])) == EXPECTED
    for _, fields, body in old:
        assert fields["Content-Type"].startswith("text/plain; version=0.0.4")
        assert values(parsed_plain(body)) == EXPECTED


def test_accept_that_nobody_understands(run):
    """A version that is no number is answered all the same: choose_encoder() of prometheus_client
    raises there from 0.22 on."""

    async def main():
        async with endpoint() as address:
            return split(
                await ask(
                    address, GET, b"Accept: application/openmetrics-text; version=new\r\n\r\n"
                )
            )

    status, fields, body = run(main)
    assert status == "HTTP/1.1 200 OK"
    assert (
        values((parsed if "openmetrics" in fields["Content-Type"] else parsed_plain)(body))
        == EXPECTED
    )


def test_head(run):
    """HEAD answers as GET does, with the same length and no body."""

    async def main():
        async with endpoint() as address:
            return [
                split(await ask(address, method, OPENMETRICS, b"\r\n"))
                for method in (GET, GET.replace(b"GET", b"HEAD"))
            ]

    get, head = run(main)
    assert head[2] == ""
    assert {**head[1], "Date": ""} == {**get[1], "Date": ""}


def test_several_servers_and_other_metrics(run):
    """Several servers share each family, and the metrics of a registry come with them; names need
    no escaping by the caller."""
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("orders", "Orders.", registry=registry).inc()

    async def main():
        async with endpoint(Server('a "b"\\\n'), Server("c"), registry=registry) as address:
            return split(await ask(address, GET, OPENMETRICS, b"\r\n"))[2]

    families = {family.name: family for family in parsed(run(main))}
    assert [
        sample.labels["server"] for sample in families["headrace_connections_open"].samples
    ] == ['a "b"\\\n', "c"]
    assert families["orders"].samples[0].value == 1


ANSWERS = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
    (b"HEAD /other HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
    (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
    (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", "200 OK"),
    (b"GET http://here:1/metrics HTTP/1.1\r\nHost: here:1\r\n\r\n", "200 OK"),
    (b"GET http://[/metrics HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request"),
    (b"GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
    (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 Bad Request"),
    (b"GET /metrics HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "400 Bad Request"),
    (b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: a\nb\r\n\r\n", "400 Bad Request"),
    (b"GET /metrics\r\n\r\n", "400 Bad Request"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"),
    (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", "400 Bad Request"),
    (b"\r\n\r\n", "400 Bad Request"),
]


@pytest.mark.parametrize(("request_bytes", "status"), ANSWERS)
def test_status(run, request_bytes, status):
    """What is not there, not allowed or no HTTP gets the status that says so, in a whole
    response."""

    async def main():
        async with endpoint() as address:
            return split(await ask(address, request_bytes))

    line, fields, body = run(main)
    assert line == f"HTTP/1.1 {status}"
    assert (
        body == ""
        if request_bytes.startswith(b"HEAD")
        else len(body) == int(fields["Content-Length"])
    )
    assert fields.get("Allow") == ("GET, HEAD" if status.startswith("405") else None)


def test_oversized_head(run, ours):
    """A head above 8 KiB is answered 431, and the answer arrives though the client goes on sending;
    one of 8 KiB is served."""

    def padded(size):
        head = GET + b"X: " + b"x" * size
        return head[: size - 4] + b"\r\n\r\n"

    async def main():
        async with endpoint() as address:
            whole = [split(await ask(address, padded(size)))[0] for size in (8192, 8193)]
            return [*whole, split(await ask(address, *[GET + b"X: " + b"x" * 20000] * 50))[0]]

    assert run(main) == [
        f"HTTP/1.1 {status}" for status in ("200 OK", *["431 Request Header Fields Too Large"] * 2)
    ]


def test_slow_head(run, ours, monkeypatch):
    """A request that does not end in time is answered 408, and one in pieces is put together."""

    async def main():
        async with endpoint() as address:
            pieces = [GET[:3], GET[3:30], GET[30:], b"\r", b"\n"]
            in_time = split(await ask(address, *pieces))[0]
            monkeypatch.setattr(_endpoint, "PATIENCE_S", 0.05)
            return in_time, split(await ask(address, GET))[0], split(await ask(address))[0]

    assert run(main) == ("HTTP/1.1 200 OK", *["HTTP/1.1 408 Request Timeout"] * 2)


def test_clients_that_leave(run, ours):
    """A client that closes, half-closes or resets in the middle disturbs nobody; half a request
    that has ended is answered 400."""

    async def main():
        async with await metrics.serve_metrics(Server(), port=0) as server:
            address = server.sockets[0].getsockname()
            for leave in (socket.socket.close, reset):
                for sent in (b"", GET, GET + b"\r\n"):
                    sock = socket.create_connection(address)
                    sock.sendall(sent)
                    leave(sock)
            with socket.create_connection(address) as sock:
                sock.sendall(GET)
                sock.shutdown(socket.SHUT_WR)
                sock.setblocking(False)
                assert (await receive(sock)).startswith(b"HTTP/1.1 400 ")
            assert (await ask(address, GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")

    run(main)


def test_client_that_does_not_take_the_answer(run, ours, monkeypatch):
    """A client that reads nothing of a long answer is given up in time."""
    monkeypatch.setattr(_endpoint, "PATIENCE_S", 0.1)
    many = [Server("x" * 1000 + str(number)) for number in range(1000)]

    async def main():
        async with await metrics.serve_metrics(*many, port=0) as server:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(server.sockets[0].getsockname())
                sock.sendall(GET + b"\r\n")
                await until(lambda: server._h_clients)
                await until(lambda: not server._h_clients)

    run(main)


def test_collector_that_raises(run, caplog):
    """What a collector raises is logged and answered 500, and the endpoint goes on."""
    server = Server()

    def fail():
        raise RuntimeError("no figures today")

    async def main():
        async with endpoint(server) as address:
            server.statistics, good = fail, server.statistics
            first = split(await ask(address, GET + b"\r\n"))[0]
            server.statistics = good
            return first, split(await ask(address, GET + b"\r\n"))[0]

    assert run(main) == ("HTTP/1.1 500 Internal Server Error", "HTTP/1.1 200 OK")
    assert "no figures today" in caplog.text


def test_address_in_use(run):
    """An address that is taken raises OSError where the endpoint is started, which says that it is
    the metrics' and has one errno."""

    async def main():
        async with endpoint() as (_, port):
            words = (
                rf"the metrics cannot be served on {LOOPBACK} port {port}: Address already in use$"
            )
            with pytest.raises(OSError, match=words) as caught:
                await metrics.serve_metrics(Server(), host=LOOPBACK, port=port)
            assert caught.value.errno == errno.EADDRINUSE

    run(main)
