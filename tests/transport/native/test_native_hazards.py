"""What an epoll set of one's own could get wrong: events of the wrong connection, none at all, or
events without end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import LOOP_KINDS, open_descriptors
from support.connections import LOOPBACK, client, finish, receive, reset, until
from support.exhaustion import CLIENTS, run_out
from support.transports import Buffered, Recorder, taken
from support.wires import tcp_pair, turns

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


def at_once(coroutine):
    """Return what *coroutine* returns, which must not have to wait."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def numbers(what):
    """Return the numbers of the descriptors whose target contains *what*."""
    return {int(each.split()[0]) for each in open_descriptors() if what in each}


# ---- whose events


def test_a_slot_that_is_used_again_within_a_batch(run, native):
    """A callback closes a ready listener and opens a connection, which gets its number and its
    slot: the listener's event is nobody's."""

    class Counting(Buffered):
        asked = 0

        def get_buffer(self, sizehint):
            self.asked += 1
            return super().get_buffer(sizehint)

    async def main():
        made = []

        class Closing(Recorder):
            def data_received(self, data):
                super().data_received(data)
                server.close()
                ours, peer = socket.socketpair()
                made.append(
                    (ours.fileno(), at_once(native.open_connection(sock=ours)), peer, Counting())
                )
                made[0][1][1].transport.set_protocol(made[0][3])

        server = await native.start_server(lambda *_: pytest.fail("accepted"), LOOPBACK, 0)
        number = server.sockets[0].fileno()
        async with taken(native, Closing()) as (_, closing, peer):
            await asyncio.sleep(0.002)
            peer.send(b"x")  # this one is ready first
            with socket.create_connection(server.sockets[0].getsockname()):
                await until(lambda: closing.data)
            found, (_, writer), other, counting = made[0]
            assert found == number
            assert counting.asked == 0
            other.sendall(b"for the new one")
            await until(lambda: counting.data)
            assert counting.data == b"for the new one"
            writer.transport.abort()
            await counting.lost
            other.close()

    run(main)


def test_a_number_that_is_used_again(run, native):
    """A handler that closes another ready connection and opens a new one, which gets its number:
    each has its own bytes and its own end."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(client(native))
            second = await stack.enter_async_context(client(native))
            number = second[1].get_extra_info("socket").fileno()

            async def handler():
                await first[0].readline()
                second[1].close()
                await second[1].wait_closed()
                await turns(1)
                ours, peer = tcp_pair()
                assert ours.fileno() == number
                return (*await native.open_connection(sock=ours), peer)

            task = asyncio.create_task(handler())
            await turns(2)
            first[2].send(b"go\n")
            second[2].send(b"old bytes\n")
            second[2].shutdown(socket.SHUT_WR)
            reader, writer, peer = await task
            assert await second[0].read() in (b"", b"old bytes\n")
            peer.sendall(b"new bytes\n")
            assert await reader.readline() == b"new bytes\n"
            assert not reader.at_eof()
            peer.close()
            assert await reader.read() == b""
            await finish(writer)

    run(main)


@pytest.mark.parametrize("count", [40, 100])
def test_many_ready_at_once(run, native, count):
    """All connections that become ready in one turn, more than one call of the system tells of, are
    served, each once."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(client(native)) for _ in range(count)]

            async def answer(index):
                reader, writer, _ = ends[index]
                for _ in range(3):
                    writer.write(b"%d " % index + await reader.readline())

            tasks = [asyncio.create_task(answer(index)) for index in range(count)]
            await turns(2)
            for word in b"one\n", b"two\n", b"three\n":
                for _, _, peer in ends:
                    peer.send(word)
                for index, (_, _, peer) in enumerate(ends):
                    assert await receive(peer, len(word) + 2) == b"%d " % index + word
            await asyncio.gather(*tasks)

    run(main)


@pytest.mark.parametrize("count", [40, 100])
def test_many_end_at_once(run, native, count):
    """Connections that end in one turn, half by a FIN and half by a reset, are all told so."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(client(native)) for _ in range(count)]
            tasks = [asyncio.create_task(reader.read()) for reader, _, _ in ends]
            await turns(2)
            for index, (_, _, peer) in enumerate(ends):
                peer.send(b"last")
                reset(peer) if index % 2 else peer.close()
            results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
            for index, result in enumerate(results):
                if index % 2:
                    assert type(result) is ConnectionResetError
                else:
                    assert result == b"last"
            assert [len(reader._buffer) for reader, _, _ in ends] == [
                4 * (index % 2) for index in range(count)
            ]

    run(main)


def test_a_new_set_with_the_number_of_the_old(run, native):
    """The last connection is closed and another is opened at once: the new set has the old one's
    number, and events come all the same."""

    async def main():
        before = numbers("[eventpoll]")
        seen = set()
        for index in range(30):
            ours, peer = tcp_pair()
            reader, writer = await native.open_connection(sock=ours)
            seen |= numbers("[eventpoll]") - before
            peer.sendall(b"%d\n" % index)
            assert await asyncio.wait_for(reader.readline(), 5) == b"%d\n" % index
            writer.close()
            await writer.wait_closed()
            await turns(index % 3)
            peer.close()
        assert len(seen) <= 3

    run(main)


# ---- events without end


def used(seconds):
    """Return the share of *seconds* that the process has worked, as a coroutine's result."""

    async def measure():
        await asyncio.sleep(0.005)  # what has just happened is worked off
        before = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - before) / seconds

    return measure()


QUIET = {
    "paused, data": (True, ["data"]),
    "paused, FIN": (True, ["FIN"]),
    "paused, data and FIN": (True, ["data", "FIN"]),
    "paused, RST": (True, ["RST"]),
    "paused, FIN and RST": (True, ["FIN", "RST"]),
    "urgent data": (False, ["urgent"]),
    "half open": (False, ["FIN"]),
    "both halves shut": (False, ["FIN", "write_eof"]),
    "paused, both halves shut": (True, ["write_eof", "FIN"]),
    "closing, data and FIN": (False, ["unsent", "close", "data", "FIN"]),
    "a full queue": (False, ["unsent"]),
}


@pytest.mark.parametrize("kind", QUIET)
@pytest.mark.parametrize(
    "loop_kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")]
)
def test_nothing_spins(run, native, kind):
    """What is ready and not wanted costs nothing: less than 5 % of a processor, whatever was sent,
    shut or reset."""
    paused, events = QUIET[kind]

    async def main():
        async with client(native) as (_, writer, peer):
            if paused:
                writer.transport.pause_reading()
            for event in events:
                if event == "data":
                    peer.send(b"data")
                elif event == "urgent":
                    peer.send(b"!", socket.MSG_OOB)
                elif event == "FIN":
                    peer.shutdown(socket.SHUT_WR)
                elif event == "RST":
                    reset(peer)
                elif event == "write_eof":
                    writer.write_eof()
                elif event == "unsent":
                    writer.write(bytes(8 << 20))
                else:
                    writer.close()
                await asyncio.sleep(0.002)
            assert await used(0.2) < 0.05

    run(main)


def test_a_copy_of_the_descriptor(run, native):
    """A copy of the descriptor outlives the connection: nothing spins, no event goes astray, and
    the peer sees the end of the copy."""

    async def main():
        before = numbers("[eventpoll]")
        async with client(native) as other:  # keeps the set
            ours, peer = tcp_pair()
            peer.setblocking(False)
            reader, writer = await native.open_connection(sock=ours)
            copy = writer.get_extra_info("socket").dup()
            writer.close()
            await writer.wait_closed()
            ours, second_peer = tcp_pair()
            second_reader, second = await native.open_connection(sock=ours)  # has the slot now
            peer.send(b"nobody's")
            assert await used(0.1) < 0.05
            assert second_reader._buffer == b""
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            copy.close()
            with contextlib.suppress(ConnectionResetError):  # it was not read
                assert await receive(peer) == b""
            peer.close()
            second_peer.close()
            await finish(second, other[1])
            await turns(2)
        assert numbers("[eventpoll]") == before

    run(main)


IN_A_CHILD = """
import asyncio, os, socket, sys, time
import headrace

async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keeping = await headrace.open_connection(*listener.getsockname())
        kept = listener.accept()[0]
        reader, writer = await headrace.open_connection(*listener.getsockname())
        peer = listener.accept()[0]
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # until the parent closes it
        os._exit(0)
    writer.close()
    await writer.wait_closed()
    peer.sendall(b"for nobody")
    peer.setblocking(False)
    before = time.process_time()
    await asyncio.sleep(0.1)
    worked = time.process_time() - before
    try:
        seen = repr(peer.recv(1))
    except BlockingIOError:
        seen = "no end yet"
    os.close(write)
    os.wait()
    await asyncio.sleep(0.01)
    try:
        end = repr(peer.recv(1))
    except ConnectionResetError:
        end = "reset"
    kept.sendall(b"line")
    print(worked < 0.02, seen, end, await keeping[0].readexactly(4))
    keeping[1].close()
    await keeping[1].wait_closed()

if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = asyncio.SelectorEventLoop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


def program(text, *arguments, **variables):
    """Run the program *text* on the native way; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, backend.VARIABLE: "native", **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SYSTEM_LOOPS = pytest.mark.parametrize(
    "kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")]
)


@SYSTEM_LOOPS
def test_a_copy_in_a_child(kind):
    """A connection that a forked child has as well, and that the parent closes, is forgotten:
    nothing spins; its end is the child's."""
    worked, *rest = program(IN_A_CHILD, kind).split(maxsplit=1)
    assert worked == "True"
    assert rest == ["no end yet reset b'line'\n"]


# ---- descriptors run out


@SYSTEM_LOOPS
def test_no_descriptor_for_another_connection(kind):
    """A server that has no descriptor left says so, once a second, is idle meanwhile, and serves
    the waiting clients when there are some again."""
    outcome = run_out(kind, "headrace", {**os.environ, backend.VARIABLE: "native"})
    assert outcome.worked < 0.05
    assert outcome.during == 0
    assert outcome.served == CLIENTS
    assert outcome.after < 2
    assert 1 <= len(outcome.reports) <= 3
    assert set(outcome.reports) == {"OSError socket.accept() out of system resource"}


@pytest.mark.parametrize("name", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_a_descriptor_of_a_stream_is_not_watched_by_hand(run, streams, name):
    """The loop refuses to watch, or to forget, the descriptor of a stream, until that is closed."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        reader, writer = await streams.open_unix_connection(sock=ours)
        sock = writer.get_extra_info("socket")
        arguments = (print,) if name.startswith("add") else ()
        for descriptor in (sock, sock.fileno()):
            with pytest.raises(RuntimeError, match="used by transport"):
                getattr(loop, name)(descriptor, *arguments)
        peer.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0)
        other, end = socket.socketpair()
        with other, end:  # one of them has its number now
            for each in (other, end):
                getattr(loop, name)(each, *arguments)
                if arguments:
                    getattr(loop, name.replace("add", "remove"))(each)

    run(main)
