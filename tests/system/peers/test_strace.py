"""strace in place of a peer. It makes every Nth system call of a whole process fail, ours and the
loop's, during an exchange of random bytes.

tests/system/faults does the same at headrace's own calls only, with more kinds of faults; this
needs no C compiler, and does not rely on how the calls are bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace._transport import backend

from .programs import environment, program

pytestmark = pytest.mark.peers
EXCHANGE = Path(__file__).parent.parent / "faults" / "exchange.py"
TIMEOUT_S = 40
CALLS = "recvfrom,sendto,sendmsg,accept4,epoll_wait,epoll_pwait"


@pytest.fixture(scope="module")
def strace() -> str:
    """Return strace's path; skip where it is missing or may not trace."""
    path = program("strace")
    tried = subprocess.run(
        [path, "-qq", "-o", "/dev/null", "true"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    if backend.native is None:
        pytest.skip("there is no native way here, or this is the pure-Python build")
    return path


def exchange(strace: str, log: Path, injections: list[str], *arguments: object) -> dict[str, int]:
    """Run the exchange while strace makes calls fail; return how many of each it made fail."""
    tracing = [strace, "-f", "-qq", "-o", str(log), "-e", f"trace={CALLS}"]
    for injection in injections:
        tracing += ["-e", f"inject={injection}"]
    done = subprocess.run(
        [
            *tracing,
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "error",
            str(EXCHANGE),
            *map(str, arguments),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    assert json.loads(done.stdout.splitlines()[-1])
    failed = [
        line for line in log.read_text(errors="replace").splitlines() if line.endswith("(INJECTED)")
    ]
    return {
        name: sum(f" {name}(" in line or f"<... {name} resumed" in line for line in failed)
        for name in CALLS.split(",")
    }


@pytest.mark.parametrize(
    ("when", "send_buffer", "processes"), [("3+5", 0, 1), ("2+3", 4096, 2), ("1+2", 30_000, 1)]
)
@pytest.mark.parametrize("error", ["EINTR", "ENOBUFS"])
@pytest.mark.parametrize("family", ["inet", "unix", "tls"])
def test_every_nth_call_fails(
    strace, tmp_path, loop_kind, family, error, when, send_buffer, processes
):
    """Receives and sends that fail for a passing reason cost no byte.

    (Every second epoll_wait() would always be ours, on asyncio: Python calls again at once.)
    """
    injections = [
        f"recvfrom,sendto,sendmsg:error={error}:when={when}",
        "epoll_wait,epoll_pwait:error=EINTR:when=2+5",
    ]
    failed = exchange(
        strace, tmp_path / "log", injections, loop_kind, family, processes, send_buffer
    )
    assert failed["recvfrom"] and failed["sendto"]
    assert failed["sendmsg"] or not send_buffer
    assert failed["epoll_wait"] + failed["epoll_pwait"]


@pytest.mark.parametrize("error", ["EMFILE", "ECONNABORTED", "EINTR"])
def test_accepting_fails(strace, tmp_path, loop_kind, error):
    """A server that cannot accept goes on, for want of descriptors after a second; it tells the
    loop's exception handler of that only."""
    if error == "EMFILE":
        with pytest.raises(AssertionError, match=r"socket\.accept\(\) out of system resource"):
            exchange(
                strace, tmp_path / "log", ["accept4:error=EMFILE:when=2"], loop_kind, "inet", 2
            )
        assert "(INJECTED)" in (tmp_path / "log").read_text(errors="replace")
    else:
        assert exchange(
            strace, tmp_path / "log", [f"accept4:error={error}:when=1+2"], loop_kind, "inet", 2
        )["accept4"]
