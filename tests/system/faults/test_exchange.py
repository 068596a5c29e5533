"""Traffic both ways over several connections while every Nth system call fails or is short: each
byte arrives once, in its place."""

from __future__ import annotations

import pytest

# Every Nth call, what the system keeps of what was written, in bytes (0: its default), and how many
# processes.
RATES = [(2, 0, 1), (3, 4096, 2), (7, 30_000, 1)]
SENDING = ("send", "sendmsg")


def everything(error: str, every: int, family: str) -> str:
    """Return a plan: *error* at every Nth call that receives or sends, and EINTR as often where
    events are asked for."""
    return ",".join(
        [f"{name}/{family}={error}@{every}" for name in ("recv", *SENDING)]
        + [f"epoll_wait=EINTR@{every}"]
    )


@pytest.mark.parametrize("send_buffer", [0, 4096, 30_000])
@pytest.mark.parametrize("family", ["inet", "unix", "tls"])
def test_without_faults(program, loop_kind, family, send_buffer):
    """The shim, without a plan, counts headrace's calls and changes nothing; a small buffer of the
    system's makes sends short."""
    facts = program("exchange.py", loop_kind, family, 1, send_buffer)
    assert set(facts["faults"].values()) == {0}
    assert all(facts["calls"][name] for name in ("recv", "send", "accept4", "epoll_wait"))
    assert facts["calls"]["sendmsg"] or not send_buffer


@pytest.mark.parametrize(("every", "send_buffer", "processes"), RATES)
@pytest.mark.parametrize(
    "fault", ["inet EINTR", "inet ENOBUFS", "unix ENOMEM", "tls EINTR", "tls ENOBUFS"]
)
def test_every_nth_call_fails(program, loop_kind, fault, every, send_buffer, processes):
    """A call that fails for a passing reason is made again, and costs no byte; nor under TLS, whose
    layer is another protocol than ours."""
    family, error = fault.split()
    plan = everything(error, every, "unix" if family == "unix" else "inet")
    facts = program("exchange.py", loop_kind, family, processes, send_buffer, plan=plan)
    assert all(facts["faults"][name] for name in ("recv", "send", "sendmsg", "epoll_wait"))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_while(program, loop_kind, processes):
    """All of the first calls fail, then none: everything starts late, and is as it should be."""
    plan = "recv=ENOBUFS@1x30,send=ENOMEM@1x10,sendmsg=ENOBUFS@1x20,epoll_wait=EINTR@1x50"
    facts = program("exchange.py", loop_kind, "inet", processes, plan=plan)
    assert facts["faults"] == {
        "recv": 30,
        "send": 10,
        "sendmsg": 20,
        "accept4": 0,
        "epoll_wait": 50,
    }


@pytest.mark.parametrize(
    ("plan", "send_buffer"),
    [
        ("recv/unix=SHORT:1@2", 0),
        ("recv/unix=SHORT:1000@1", 4096),
        ("send/unix=SHORT:1@1,sendmsg/unix=SHORT:1000@1", 0),
        ("recv/unix=SHORT:37@3,send/unix=SHORT:1@2,sendmsg/unix=SHORT:9@2", 4096),
        (
            "recv/unix=SHORT:100@2,recv/unix=ENOBUFS@3,"
            "sendmsg/unix=SHORT:5000@2,sendmsg/unix=EINTR@5",
            0,
        ),
    ],
)
def test_short_calls_on_unix_sockets(program, loop_kind, plan, send_buffer):
    """A Unix socket may give less than it has, and take less than it could: no event is waited for
    that does not come."""
    facts = program("exchange.py", loop_kind, "unix", 1, send_buffer, plan=plan)
    assert all(facts["faults"][rule.partition("/")[0]] for rule in plan.split(","))


@pytest.mark.parametrize("error", ["ECONNABORTED", "EINTR", "EPROTO", "EAGAIN"])
def test_every_second_accept_fails(program, loop_kind, error):
    """What is about one connection, or about none, keeps no other from being accepted."""
    assert program("exchange.py", loop_kind, "inet", plan=f"accept4={error}@2")["faults"]["accept4"]
