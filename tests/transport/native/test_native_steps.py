"""The native way and what a program does inside its handlers: whatever they close, stop, upgrade or
raise, all others are served."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket

import pytest
from conftest import OURS, STOCK, new_loop
from support.certificates import HOST, TlsPeer
from support.connections import client, receive, serving, until
from support.transports import Recorder, ended, taken
from support.wires import turns

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


# ---- inside a step


class Crowd:
    """*count* clients of which the first does something and the others answer, all of them ready in
    one turn."""

    def __init__(self, streams, acts, count=10):
        self.streams, self.acts, self.count = streams, acts, count

    async def __aenter__(self):
        self.stack = contextlib.AsyncExitStack()
        self.ends = [
            await self.stack.enter_async_context(client(self.streams)) for _ in range(self.count)
        ]
        self.tasks = [asyncio.create_task(self.answer(index)) for index in range(self.count)]
        await turns(2)
        return self

    async def answer(self, index):
        reader, writer, _ = self.ends[index]
        line = await reader.readline()
        if index == 0:
            return await self.acts(reader, writer)
        writer.write(line)
        await writer.drain()
        return None

    def send(self):
        for index, (_, _, peer) in enumerate(self.ends):
            peer.send(b"%d\n" % index)

    async def answered(self):
        """Check that the others were served, and return what the one that acts has returned."""
        for index, (_, _, peer) in enumerate(self.ends[1:], 1):
            assert await asyncio.wait_for(receive(peer, 2), 5) == b"%d\n" % index
        return (await asyncio.wait_for(asyncio.gather(*self.tasks), 5))[0]

    async def __aexit__(self, *error):
        await self.stack.aclose()


def close(writer):
    writer.write(b"last ")
    writer.write(b"words")
    writer.close()


def abort(writer):
    writer.write(b"last ")
    writer.write(b"words")
    writer.transport.abort()


def write_eof(writer):
    writer.write(b"last ")
    writer.write(b"words")
    writer.write_eof()


@pytest.mark.parametrize("end", [close, abort, write_eof])
def test_a_handler_that_ends_its_connection(run, native, end):
    """A handler that closes, aborts or half closes its connection in its step: what it wrote before
    arrives, and all others are served."""

    async def main():
        async def acts(reader, writer):
            end(writer)
            if end is not write_eof:
                with pytest.raises(ConnectionResetError):
                    await writer.drain()
                await writer.wait_closed()

        async with Crowd(native, acts) as crowd:
            crowd.send()
            await crowd.answered()
            assert await ended(crowd.ends[0][2]) == b"last words"

    run(main)


@pytest.mark.parametrize("end", [close, abort])
def test_a_handler_that_ends_another(run, native, end):
    """A handler closes or aborts a connection that is ready in the same turn: that one's handler
    finds the end, the others are served."""

    async def main():
        async def acts(reader, writer):
            end(crowd.ends[1][1])

        async with Crowd(native, acts) as crowd:
            crowd.tasks[1].cancel()
            victim = asyncio.ensure_future(crowd.ends[1][0].read())
            await turns(2)
            crowd.tasks[1] = victim
            crowd.send()
            assert await ended(crowd.ends[1][2]) == b"last words"
            assert await victim in (b"", b"1\n")
            crowd.ends[1], crowd.ends[2] = crowd.ends[2], crowd.ends[1]
            for index, (_, _, peer) in enumerate(crowd.ends[3:], 3):
                assert await asyncio.wait_for(receive(peer, 2), 5) == b"%d\n" % index

    run(main)


def test_a_handler_that_writes_to_all(run, native):
    """What a handler writes to every other connection in its step arrives there, before what their
    own handlers write later."""

    async def main():
        async def acts(reader, writer):
            for _, other, _ in crowd.ends:
                other.write(b"hello ")
                other.write(b"all ")

        async with Crowd(native, acts) as crowd:
            crowd.send()
            await asyncio.gather(*crowd.tasks)
            for index, (_, _, peer) in enumerate(crowd.ends):
                got = await receive(peer, 10 if index == 0 else 12)
                assert got == b"hello all " + (b"" if index == 0 else b"%d\n" % index)

    run(main)


def test_a_handler_that_sets_a_protocol(run, native):
    """A handler that sets another protocol in its step: what is still in the kernel is that one's,
    and the others are served."""

    async def main():
        async def acts(reader, writer):
            crowd.ends[0][2].send(b"for the other")
            writer.transport.set_protocol(protocol := Recorder())
            await until(lambda: protocol.data)
            first.append(protocol)
            return protocol.data

        first = []
        async with Crowd(native, acts) as crowd:
            before = crowd.ends[0][1].transport.get_protocol()
            crowd.send()
            assert await crowd.answered() == b"for the other"
            crowd.ends[0][1].transport.set_protocol(before)

    run(main)


@pytest.mark.parametrize("together", [True, False])
def test_a_handler_that_starts_tls(run, native, tls, together):
    """A handler that starts TLS in its step, with the client's hello received already or still to
    come; the others are served."""

    async def main():
        done = []

        async def serve(reader, writer):
            await reader.readline()
            await writer.start_tls(tls.server)
            done.append(await reader.readline())
            writer.write(b"welcome\n")
            await writer.drain()
            writer.close()

        async def acts(reader, writer):
            return None

        async with serving(native, serve) as address, Crowd(native, acts) as crowd:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                peer = TlsPeer(sock, tls.client)
                hello = peer.hello()
                sock.send(b"STARTTLS\n" + (hello if together else b""))
                crowd.send()
                if not together:
                    await asyncio.sleep(0.002)
                    sock.send(hello)
                await peer.handshake()
                await peer.write(b"over TLS\n")
                assert await peer.read(100) == b"welcome\n"
            await crowd.answered()
            assert done == [b"over TLS\n"]

    assert HOST == "localhost"
    run(main)


@pytest.mark.parametrize("way", ["stop", "SystemExit", "KeyboardInterrupt"])
def test_a_handler_that_leaves_the_loop(loop_kind, native, way):
    """A handler that stops the loop, or exits, in its step: run again, the loop serves all others
    that were ready with it."""
    loop = new_loop(loop_kind)
    exception = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}.get(way)

    async def acts(reader, writer):
        writer.write(b"leaving")
        if exception:
            raise exception
        asyncio.get_running_loop().stop()

    async def enter():
        return await Crowd(native, acts, 50).__aenter__()

    async def leave(crowd):
        for index, (_, _, peer) in enumerate(crowd.ends[1:], 1):
            assert await asyncio.wait_for(receive(peer, len(b"%d\n" % index)), 5) == b"%d\n" % index
        assert await receive(crowd.ends[0][2], 7) == b"leaving"
        await crowd.__aexit__()

    try:
        crowd = loop.run_until_complete(enter())
        crowd.send()
        given_up = loop.call_later(5, loop.stop)
        with pytest.raises(exception) if exception else contextlib.nullcontext():
            loop.run_forever()
        given_up.cancel()
        if exception:
            assert type(crowd.tasks[0].exception()) is exception
        loop.run_until_complete(leave(crowd))
    finally:
        loop.close()


# ---- the first step of a server's handler


def test_the_first_step(run, native):
    """In its first step a handler is the current task, known to all_tasks(), and may use timeouts,
    cancel itself, close and return."""

    async def main():
        seen = []

        async def serve(reader, writer):
            task = asyncio.current_task()
            seen.append(task is not None and task in asyncio.all_tasks())
            kind = len(seen)
            writer.write(b"hello ")
            if kind == 1:
                return writer.close()
            if kind == 2:
                task.cancel()
                await reader.read()
            if kind == 3:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await reader.read()
                writer.write(b"timed out")
                return writer.close()
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            writer.write(await reader.readline())
            return writer.close()

        async with serving(native, serve) as address:
            for expected in b"hello ", b"hello ", b"hello timed out", b"hello line\n":
                with socket.create_connection(address) as peer:
                    peer.setblocking(False)
                    if expected.endswith(b"\n"):
                        peer.send(b"line\n")
                    assert await asyncio.wait_for(ended(peer), 5) == expected
        assert seen == [True] * 4

    run(main)


def test_a_first_step_that_fails(run, native):
    """A handler that raises in its first step is reported, and its connection closed behind what it
    wrote; the next is served."""
    errors = run.expect_errors()

    async def main():
        count = []

        async def serve(reader, writer):
            count.append(1)
            writer.write(b"hello")
            if len(count) == 1:
                raise ZeroDivisionError
            writer.close()

        async with serving(native, serve) as address:
            for _ in range(2):
                with socket.create_connection(address) as peer:
                    peer.setblocking(False)
                    assert await asyncio.wait_for(ended(peer), 5) == b"hello"
        assert [type(each["exception"]) for each in errors] == [ZeroDivisionError]

    run(main)


def test_a_loop_that_makes_its_own_tasks(native):
    """A loop whose create_task() a program overrides, in its class or on the instance, makes the
    tasks of handlers too."""
    made = []

    class Loop(asyncio.SelectorEventLoop):
        def create_task(self, coroutine, **options):
            made.append(coroutine.__qualname__)
            return super().create_task(coroutine, **options)

    async def handle(reader, writer):
        writer.close()

    async def main():
        async with serving(native, handle) as address:
            with socket.create_connection(address) as peer:
                peer.setblocking(False)
                assert await receive(peer) == b""

    def patched():
        loop = asyncio.SelectorEventLoop()
        create_task = loop.create_task
        loop.create_task = lambda coroutine, **options: (
            made.append(coroutine.__qualname__) or create_task(coroutine, **options)
        )
        return loop

    for factory in Loop, patched:
        made.clear()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        assert [name for name in made if name.endswith("handle")] == [handle.__qualname__]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_a_first_step_that_exits(loop_kind, native, exception):
    """A handler that exits in its first step ends the run, after its bytes are sent; the other
    clients are served in the next run."""
    loop = new_loop(loop_kind)
    count = []

    async def serve(reader, writer):
        count.append(1)
        writer.write(b"hello")
        if len(count) == 1:
            raise exception
        writer.close()

    async def end():
        for peer in peers[1:]:
            assert await asyncio.wait_for(ended(peer), 5) == b"hello"
        assert await receive(peers[0], 5) == b"hello"
        server.close()
        server.abort_clients()
        await asyncio.wait_for(server.wait_closed(), 5)
        await turns(2)

    try:
        server = loop.run_until_complete(native.start_server(serve, "127.0.0.1", 0))
        peers = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(3)]
        for peer in peers:
            peer.setblocking(False)
        given_up = loop.call_later(5, loop.stop)
        with pytest.raises(exception):
            loop.run_forever()
        given_up.cancel()
        loop.run_until_complete(end())
        for peer in peers:
            peer.close()
    finally:
        loop.close()


# ---- context variables

variable = contextvars.ContextVar("variable", default="nobody's")


class Noting(Recorder):
    """Notes the variable in each callback, and sets it to the callback's name."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, name):
        self.seen.append((name, variable.get()))
        variable.set(name)

    def data_received(self, data):
        self.note("data")

    def eof_received(self):
        self.note("eof")

    def connection_lost(self, exc):
        self.note("lost")
        super().connection_lost(exc)


@pytest.fixture(params=["stock", "native"])
def either(request, monkeypatch):
    """asyncio's streams, then ours on the native way."""
    if request.param == "stock":
        return STOCK
    monkeypatch.setenv(backend.VARIABLE, "native")
    return OURS


def test_context_of_a_set_protocol(run, either):
    """A protocol that is set sees the variables of who opened the connection, and what its own
    callbacks set; nobody else sees those."""

    async def main():
        variable.set("opener's")
        async with taken(either, protocol := Noting()) as (transport, _, peer):
            variable.set("main's")
            for count in 1, 2:
                peer.send(b"x")
                await until(lambda count=count: len(protocol.seen) == count)
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost
            assert protocol.seen == [
                ("data", "opener's"),
                ("data", "data"),
                ("eof", "data"),
                ("lost", "eof"),
            ]
            assert variable.get() == "main's"

    run(main)


def test_context_of_each_connection(run, either):
    """What a server's callback, its handler or a protocol set there changes is not seen by the next
    connection."""

    async def main():
        if run.kind == "uvloop" and either is STOCK:
            pytest.skip("uvloop calls all of them in one context")
        seen = []
        variable.set("starter's")

        def plain(reader, writer):
            seen.append(variable.get())
            variable.set("plain callback's")
            writer.transport.set_protocol(Noting())
            return handler(writer)

        async def handler(writer):
            seen.append(variable.get())
            variable.set("handler's")
            writer.close()

        async with serving(either, plain) as address:
            variable.set("main's")
            for _ in range(3):
                with socket.create_connection(address) as peer:
                    peer.setblocking(False)
                    assert await receive(peer) == b""
        assert seen == ["starter's", "plain callback's"] * 3
        assert variable.get() == "main's"

    run(main)


def test_context_of_who_resumes(run, native):
    """Pausing, resuming and writing elsewhere does not change the variables that a protocol
    sees."""

    async def main():
        variable.set("opener's")
        async with taken(native, protocol := Noting()) as (transport, _, peer):
            for count in 1, 2:
                variable.set(count)
                transport.pause_reading()
                peer.send(b"x")
                await asyncio.sleep(0.002)
                transport.resume_reading()
                await until(lambda count=count: len(protocol.seen) == count)
            assert protocol.seen == [("data", "opener's"), ("data", "data")]

    run(main)
