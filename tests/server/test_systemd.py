"""What a service does with systemd: the sockets it is handed, by a program that hands over like
systemd; notifications; the watchdog."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.connections import LOOPBACK

import headrace
from headrace._server.process import systemd

TIMEOUT_S = 20
VARIABLES = (
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
OWN, OTHER = str(os.getpid()), str(os.getppid())

# Puts the descriptors of its arguments in the places that systemd puts them, and becomes the
# service: exec keeps the process id.
LAUNCHER = """\
import fcntl, os, sys
python, program, *descriptors = sys.argv[1:]
high = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD, 100) for descriptor in descriptors]
os.closerange(3, 100)
for number, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + number)
os.closerange(100, 200)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(python, [python, "-c", program])
"""
PREAMBLE = """\
import json, os, socket, sys
from headrace._server.process.systemd import activated_sockets
def report(result): print(json.dumps(result))
def found(*names):
    "Close what is found, and return what it was."
    result = []
    for sock in activated_sockets(*names):
        with sock:
            result.append([sock.family, sock.type, sock.getsockname()])
    return result
def message(*names):
    try:
        found(*names)
    except ValueError as error:
        return str(error)
"""

Sockets = dict[str, socket.socket]


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the tests themselves are started with."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def activated(
    program: str, *handed: Any, names: str | None = None, count: int | None = None
) -> Any:
    """Return what *program* reports when it is started with *handed* as its descriptors 3, 4 …, as
    *count* many."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(headrace.__file__).parent.parent),
        "PYTHONWARNINGS": "error",
    }
    environment["LISTEN_FDS"] = str(len(handed) if count is None else count)
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    descriptors = [one if isinstance(one, int) else one.fileno() for one in handed]
    command = [
        sys.executable,
        "-S",
        "-E",
        "-c",
        LAUNCHER,
        sys.executable,
        PREAMBLE + program,
        *map(str, descriptors),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment,
        pass_fds=descriptors,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Sockets]:
    """Listening sockets: of IPv4, IPv6 and a Unix path."""
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        v4 = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        yield {
            "v4": v4,
            "v6": stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)),
            "unix": unix,
        }


def test_sockets_are_found(sockets: Sockets) -> None:
    """All sockets come in systemd's order, each with its own family, type and address."""
    expected = [[sock.family, sock.type, sock.getsockname()] for sock in sockets.values()]
    assert activated("report(found())", *sockets.values()) == json.loads(json.dumps(expected))


def test_sockets_accept(sockets: Sockets) -> None:
    """A client that came before the service is served by it, on the socket of the right name."""
    program = """
for name in ("unix", "v4", "v6"):
    [sock] = activated_sockets(name)
    with sock, sock.accept()[0] as peer:
        peer.sendall(name.encode())
report(None)
"""
    with contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(socket.socket(sock.family)) for name, sock in sockets.items()
        }
        for name, client in clients.items():
            client.connect(sockets[name].getsockname())
        activated(program, *sockets.values(), names="v4:v6:unix")
        assert {name: client.recv(9).decode() for name, client in clients.items()} == {
            name: name for name in clients
        }


def test_several_calls(sockets: Sockets) -> None:
    """Names share a process: several sockets may have one, a later call finds what an earlier one's
    caller closed, none is of no name."""
    program = (
        "report([[one[0] for one in found(*names)] for names in (['b'], ['a'], ['b'], ['c'], [])])"
    )
    v4, v6, unix = (sock.family for sock in sockets.values())
    assert activated(program, *sockets.values(), names="a:b:a") == [
        [v6],
        [v4, unix],
        [v6],
        [],
        [v4, v6, unix],
    ]


def test_unnamed(sockets: Sockets) -> None:
    """Without LISTEN_FDNAMES every socket is called "unknown"."""
    assert activated(
        "report([len(found(name)) for name in ('unknown', '')])", *sockets.values()
    ) == [3, 0]


def test_nothing_is_inherited(sockets: Sockets) -> None:
    """No descriptor of systemd's survives an exec, those that nobody asked for included, and no
    duplicate of ours does."""
    program = """
with activated_sockets("b")[0] as sock:
    report([os.get_inheritable(number) for number in (3, 4, sock.fileno())])
"""
    assert activated(program, sockets["v4"], sockets["unix"], names="a:b") == [False, False, False]


def test_wrong_kinds_are_refused(sockets: Sockets) -> None:
    """What is not a listening stream socket is refused, by number and name and with what to do, and
    leaves nothing open."""
    program = """
open_descriptors = lambda: len(os.listdir("/proc/self/fd"))
before = open_descriptors()
names = ("good", "datagram", "connection", "bound", "pipe")
messages = [message(name) for name in names] + [message()]
report([*messages, open_descriptors() - before])
"""
    with contextlib.ExitStack() as stack:
        datagram = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        bound = stack.enter_context(socket.socket())
        bound.bind((LOOPBACK, 0))
        connection = stack.enter_context(socket.create_connection(sockets["v4"].getsockname()))
        pipe, other_end = os.pipe()
        stack.callback(os.close, pipe)
        stack.callback(os.close, other_end)
        handed = (sockets["v4"], datagram, connection, bound, pipe)
        good, *refused, grown = activated(
            program, *handed, names="good:datagram:connection:bound:pipe"
        )
    assert (good, grown) == (None, 0)
    assert (
        "descriptor 4 ('datagram'), which is not a stream socket: use ListenStream=" in refused[0]
    )
    assert (
        "descriptor 5 ('connection'), which is not listening" in refused[1]
        and "use Accept=no" in refused[1]
    )
    assert "descriptor 6 ('bound'), which is not listening" in refused[2]
    assert "descriptor 7 ('pipe'), which is not a socket" in refused[3]
    assert refused[4] == refused[0]


def test_closed_descriptor_is_refused(sockets: Sockets) -> None:
    """A descriptor that systemd would have passed and that is not open is named."""
    assert "LISTEN_FDS=2, but descriptor 4 is not open" in activated(
        "report(message())", sockets["v4"], count=2
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": OWN},
        {"LISTEN_PID": OWN, "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""},
        {"LISTEN_PID": OTHER, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"},
        {"LISTEN_PID": OTHER, "LISTEN_FDS": "many"},
    ],
)
def test_no_sockets(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """There are no sockets where systemd has handed over none, or to another process, whose
    variables are not looked at."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert systemd.activated_sockets() == []


@pytest.mark.parametrize("value", ["", "many", "-1", " 1", "1_0", "٣", "1" * 21])
@pytest.mark.parametrize("variable", ["LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID", "WATCHDOG_USEC"])
def test_malformed_numbers(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A variable that is not a number is refused, by name."""
    monkeypatch.setenv("LISTEN_PID", OWN)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"^{variable}='{value}' is not a number"):
        systemd.watchdog_interval() if variable.startswith(
            "WATCHDOG"
        ) else systemd.activated_sockets()


@pytest.mark.parametrize(("names", "said"), [("a:b", 2), ("", 1)])
def test_number_of_names(monkeypatch: pytest.MonkeyPatch, names: str, said: int) -> None:
    """Names that are not as many as the descriptors are refused: which is whose cannot be told."""
    for variable, value in {"LISTEN_PID": OWN, "LISTEN_FDS": "3", "LISTEN_FDNAMES": names}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"has {said} names, and LISTEN_FDS says 3"):
        systemd.activated_sockets()


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket that systemd would read; NOTIFY_SOCKET names it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@headrace-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.setblocking(False)
        yield sock


def fill(manager: socket.socket) -> None:
    """Send until there is no room. Each message has a socket of its own, as with notify(): no
    sender's buffer is the limit."""
    with contextlib.suppress(BlockingIOError):
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(b"X=1", manager.getsockname())


def drain(manager: socket.socket) -> None:
    """Receive all that has come."""
    with contextlib.suppress(BlockingIOError):
        while manager.recv(8192):
            pass


def test_notification(manager: socket.socket) -> None:
    """All assignments of one call come as the lines of one message, at a path as at an abstract
    name."""
    assert systemd.notify("READY=1", "STATUS=zwölf = 12") is True
    assert manager.recv(8192) == "READY=1\nSTATUS=zwölf = 12".encode()


def test_longest_notification(manager: socket.socket) -> None:
    """A message of 4096 bytes is sent, and one byte more is refused: systemd would drop it."""
    assert systemd.notify("A=" + 4094 * "x")
    assert len(manager.recv(8192)) == 4096
    with pytest.raises(ValueError, match="4097 bytes"):
        systemd.notify("A=" + 2045 * "ü", "B=12")


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        [""],
        ["READY"],
        ["=1"],
        ["STATUS=one\nREADY=1"],
        ["STATUS=\0"],
        ["READY=1", "STATUS=\udc80"],
    ],
)
def test_malformed_notification(assignments: list[str]) -> None:
    """What is not NAME=value in one line is refused, also where nobody would hear it."""
    with pytest.raises(ValueError):
        systemd.notify(*assignments)


def test_nobody_to_notify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a NOTIFY_SOCKET, or with an empty one, nothing is sent."""
    assert systemd.notify("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert systemd.notify("READY=1") is False


@pytest.mark.parametrize(
    ("address", "reason"),
    [("vsock:2:1234", "vsock is not supported"), ("run/notify", "must begin with / or @")],
)
def test_other_addresses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str, reason: str
) -> None:
    """An address that is no Unix socket's is not sent to, which a warning says."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1") is False
    [record] = caplog.records
    assert (record.name, record.levelno) == ("headrace.server", logging.WARNING)
    assert address in record.getMessage() and reason in record.getMessage()


@pytest.mark.parametrize("name", ["missing", "x" * 200])
def test_failing_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, name: str
) -> None:
    """A socket that is gone, or whose path is none, does not raise: the message is lost, and that
    is logged."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
    with caplog.at_level(logging.DEBUG, "headrace.server"):
        assert systemd.notify("READY=1") is False
    [record] = caplog.records
    assert (record.name, record.levelno) == ("headrace.server", logging.DEBUG)
    assert name in record.getMessage() and "READY=1" in record.getMessage()


def test_full_socket(manager: socket.socket) -> None:
    """A socket that stays full is given up after NOTIFY_TIMEOUT, and waited for without turning in
    circles."""
    fill(manager)
    began, worked = time.monotonic(), time.thread_time()
    assert systemd.notify("READY=1") is False
    assert time.monotonic() - began >= systemd.NOTIFY_TIMEOUT
    assert time.thread_time() - worked < systemd.NOTIFY_TIMEOUT / 10


def test_socket_that_is_full_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, manager: socket.socket
) -> None:
    """A message waits for room that comes in time."""
    monkeypatch.setattr(systemd, "NOTIFY_TIMEOUT", TIMEOUT_S)
    fill(manager)
    reader = threading.Timer(0.02, drain, [manager])
    reader.start()
    assert systemd.notify("READY=1") is True
    reader.join()


def test_reload(manager: socket.socket) -> None:
    """A reload begins with the time in microseconds of CLOCK_MONOTONIC, in the same message."""
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert systemd.reloading() is True
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    first, second = manager.recv(8192).decode().split("\n")
    name, microseconds = second.split("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert int(before * 1e6) - 1 <= int(microseconds) <= after * 1e6 + 1


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "1"}, 5e-7),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": OWN}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": OTHER}, None),
        ({"WATCHDOG_USEC": "often", "WATCHDOG_PID": OTHER}, None),
        ({"WATCHDOG_PID": OWN}, None),
    ],
)
def test_watchdog(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], interval: float | None
) -> None:
    """A ping is due every half of WATCHDOG_USEC, unless no process or another one is watched."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert systemd.watchdog_interval() == interval
