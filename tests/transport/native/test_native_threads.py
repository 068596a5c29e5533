"""The native way in the wrong thread, in a forked child, and beside programs that were started:
refused, or harmless; no byte is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading

import pytest
from conftest import LOOP_KINDS
from support.connections import client, receive
from support.wires import tcp_pair, turns

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


# ---- threads


def in_thread(call):
    """Call call() in another thread; return what it raised, or None."""
    raised = []

    def work():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised[0] if raised else None


CALLS = {
    "write": lambda writer: writer.write(b"x"),
    "writelines": lambda writer: writer.writelines([b"x", b"y"]),
    "write_eof": lambda writer: writer.write_eof(),
    "close": lambda writer: writer.close(),
    "transport.write": lambda writer: writer.transport.write(b"x"),
    "transport.writelines": lambda writer: writer.transport.writelines([b"x", b"y"]),
    "transport.write_eof": lambda writer: writer.transport.write_eof(),
    "transport.close": lambda writer: writer.transport.close(),
    "transport.abort": lambda writer: writer.transport.abort(),
    "transport.pause_reading": lambda writer: writer.transport.pause_reading(),
}


@pytest.mark.parametrize("unsent", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_used_in_the_wrong_thread(run, native, name, unsent):
    """In another thread, while the loop runs, every use is a RuntimeError that says what to use,
    and has no effect at all."""
    size = 6 << 20 if unsent else 0

    async def main():
        async with client(native) as (reader, writer, peer):
            writer.write(bytes(size))
            error = in_thread(lambda: CALLS[name](writer))
            assert type(error) is RuntimeError
            assert "call_soon_threadsafe" in str(error)
            assert not writer.is_closing()
            peer.send(b"line\n")
            assert await asyncio.wait_for(reader.readline(), 5) == b"line\n"
            writer.write(b"right")
            writer.close()
            assert await receive(peer) == bytes(size) + b"right"
            await asyncio.wait_for(writer.wait_closed(), 5)

    run(main)


def test_a_drain_in_the_wrong_thread(run, native):
    """A drain() that has to wait cannot do so in another thread's loop: RuntimeError, and the
    connection goes on."""

    async def main():
        async with client(native) as (_, writer, peer):
            writer.write(bytes(6 << 20))
            assert type(in_thread(lambda: asyncio.run(writer.drain()))) is RuntimeError
            draining = asyncio.ensure_future(writer.drain())
            assert len(await receive(peer, 6 << 20)) == 6 << 20
            await asyncio.wait_for(draining, 5)

    run(main)


def test_call_soon_threadsafe(run, native):
    """What that error says to use works: a thread that has the loop write, line after line, and
    close."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(native) as (_, writer, peer):

            def work():
                for index in range(100):
                    loop.call_soon_threadsafe(writer.write, b"%d\n" % index)
                loop.call_soon_threadsafe(writer.close)

            thread = threading.Thread(target=work)
            thread.start()
            assert await receive(peer) == b"".join(b"%d\n" % index for index in range(100))
            thread.join()

    run(main)


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("unsent", [False, True])
def test_dropped_in_another_thread(run, native, unsent, cycle):
    """A writer that is dropped or collected in another thread warns and closes: its bytes arrive,
    then the end."""
    size = 6 << 20 if unsent else 5

    async def main():
        ours, peer = tcp_pair()
        peer.setblocking(False)
        reader, writer = await native.open_connection(sock=ours)
        writer.write(bytes(size))
        held = [writer]
        if cycle:
            held.append(held)
            writer.myself = writer
        del reader, writer

        def drop():
            held.clear()
            gc.collect()

        with pytest.warns(ResourceWarning, match="unclosed"):
            assert in_thread(drop) is None
        assert await asyncio.wait_for(receive(peer), 5) == bytes(size)
        peer.close()
        await turns(2)

    run(main)


# ---- processes

FORKS = """
import asyncio, gc, json, os, socket, sys, warnings
import headrace

kind, where, how = sys.argv[1:]
if kind == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.SelectorEventLoop()

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer = listener.accept()[0]
    peer.settimeout(5)
    return ours, peer

def attempt(call):
    try:
        call()
    except RuntimeError as error:
        assert "parent process" in str(error), error
        return "refused"
    return "allowed"

async def other():
    ours, peer = pair()
    reader, writer = await headrace.open_connection(sock=ours)
    writer.write(b"ours")
    peer.sendall(b"theirs")
    assert (peer.recv(10), await reader.readexactly(6)) == (b"ours", b"theirs")
    writer.close()
    await writer.wait_closed()
    peer.close()

def child(what):
    if what == "write":
        assert attempt(lambda: streams[1].write(b"child")) == "refused"
        assert attempt(lambda: streams[1].writelines([b"child"])) == "refused"
    elif what == "write_eof":
        assert attempt(streams[1].write_eof) == "refused"
    elif what == "close":
        attempt(streams[1].close)
    elif what == "abort":
        attempt(streams[1].transport.abort)
    elif what == "loop":
        loop.close()
    elif what == "own loop":
        asyncio._set_running_loop(None)
        asyncio.run(other())
    if what in ("loop", "collect"):
        streams.clear()
        gc.collect()

def fork(what):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    peer.close()
    try:
        child(what)
    except BaseException as error:
        print("child:", what, repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    if how == "_exit":
        os._exit(0)
    sys.exit(0)

async def before(what):
    streams.extend(await headrace.open_connection(sock=ours))
    # In a step of ours: from Python 3.14 on a child that exits in a step of asyncio's own, behind a
    # sleep(), never ends.
    loop.call_later(0.002, peer.sendall, b"go\\n")
    await streams[0].readline()
    return fork(what) if where == "inside" else None

async def after():
    streams[1].write(b"parent\\n")
    peer.sendall(b"line\\n")
    got = [(await asyncio.wait_for(streams[0].readline(), 5)).decode(), peer.recv(100).decode()]
    peer.setblocking(False)
    try:
        got.append(repr(peer.recv(1)))
    except BlockingIOError:
        got.append("no end yet")
    peer.settimeout(5)
    streams[1].close()
    await streams[1].wait_closed()
    got.append(peer.recv(100).decode())
    return got

results = {}
streams = []  # a child drops what is in it
actions = ["nothing", "write", "write_eof", "close", "abort", "collect", "own loop"]
# libuv takes its descriptors out of the parent's set too, and its own transports then starve.
if where == "outside" and kind != "uvloop":
    actions.append("loop")
for what in actions:
    ours, peer = pair()
    code = loop.run_until_complete(before(what))
    if where == "outside":
        code = fork(what)
    results[what] = [code, *loop.run_until_complete(after())]
    streams.clear()
    peer.close()
print(json.dumps(results))
loop.close()
"""


@pytest.mark.parametrize("how", ["_exit", "exit"])
@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def test_forks(kind, where, how):
    """Whatever a forked child does with what it inherits, the parent's connection goes on: no byte
    more, no early end; nobody complains."""
    arguments = [sys.executable, "-W", "ignore", "-c", FORKS, kind, where, how]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, backend.VARIABLE: "native"},
    )
    assert done.stdout, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    expected = [0, "line\n", "parent\n", "no end yet", ""]
    assert {what: result for what, result in results.items() if result != expected} == {}
    assert done.stderr == ""


ORPHAN = """
import asyncio, os, socket, sys
import headrace

ours, peer = socket.socketpair()

async def main():
    streams = await headrace.open_unix_connection(sock=ours)
    await asyncio.sleep(0.001)
    if not os.fork():
        sys.exit(7)
    peer.sendall(b"x")  # so that the set is ready, which the child must not serve
    code = os.waitstatus_to_exitcode(os.wait()[1])
    print(code, await streams[0].read(10), flush=True)
    streams[1].close()
    await streams[1].wait_closed()

if sys.argv[1] == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.SelectorEventLoop()
try:
    loop.run_until_complete(main())
except SystemExit as error:
    # A loop of uvloop's that a child closes takes its descriptors out of the parent's set.
    os._exit(error.code)
loop.close()
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="here a child's loop still steps its tasks")
@pytest.mark.parametrize("kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def test_a_child_whose_loop_is_dead(kind):
    """A child that exits in a task, which Python 3.14 prevents, ends with the next event, and takes
    nothing of its parent's."""
    arguments = [sys.executable, "-W", "ignore", "-c", ORPHAN, kind]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, backend.VARIABLE: "native"},
    )
    assert (done.stdout, done.returncode) == ("7 b'x'\n", 0), done.stderr


def test_a_program_that_was_started(run, native):
    """A program that is started while there are connections does not inherit them: close() is seen
    at once, though it still runs."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(client(native)) for _ in range(2)]
            program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            for _, writer, peer in ends:
                writer.close()
                assert await asyncio.wait_for(receive(peer), 5) == b""
            assert program.poll() is None
            program.communicate(b"\n")

    run(main)
