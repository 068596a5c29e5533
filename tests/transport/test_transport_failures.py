"""The transport behind ``writer.transport`` where a protocol's callbacks raise, and where the loop
itself uses it: TLS and files.

Each test runs on the transports of asyncio's loop and of uvloop, and on ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile

import pytest
from conftest import STOCK, new_loop
from support.connections import client, pair, receive, reset, until
from support.transports import BOTH, FIXTURES, Buffered, Recorder, ended, is_libuv, stuffed, taken
from support.wires import turns

loop_kind, ours, streams = FIXTURES

FILE = bytes(range(256)) * 8192


# ---- what callbacks raise


class Failure(Exception):
    pass


def failing(kind, name, error, once=False):
    """Return a protocol of *kind* whose callback *name* raises *error*, each time or only
    *once*."""

    def fail(self, *arguments):
        if once and name in self.calls:
            return getattr(kind, name)(self, *arguments)
        self.calls.append(name)
        if name == "connection_lost":
            self.lost.set_result(*arguments)
        raise error

    return type("Failing", (kind,), {name: fail})


CALLS = [
    (Recorder, "data_received"),
    (Recorder, "eof_received"),
    (Buffered, "get_buffer"),
    (Buffered, "buffer_updated"),
    (Buffered, "eof_received"),
]


@pytest.mark.parametrize(("kind", "name"), CALLS)
def test_a_callback_that_raises(run, streams, kind, name):
    """What a callback of arriving data raises is reported, with transport and protocol, and ends
    the connection with that error."""
    errors = run.expect_errors()

    async def main():
        error = Failure(name)
        async with taken(streams, failing(kind, name, error)()) as (transport, protocol, peer):
            if name == "get_buffer" and is_libuv(transport):
                pytest.skip("uvloop has an error of its own for that")
            peer.send(b"data")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is error
            await ended(peer)
            assert [each["exception"] for each in errors] == [error]
            assert errors[0]["transport"] is transport
            assert errors[0]["protocol"] is protocol
            assert protocol.calls == [name, "connection_lost"]

    run(main)


@pytest.mark.parametrize(("kind", "name"), CALLS)
def test_a_callback_that_raises_an_oserror(run, streams, kind, name):
    """An OSError of a callback ends the connection too, and is not reported, except by a loop in
    debug mode, to its log."""
    run.expect_errors()

    async def main():
        error = OSError("of the protocol")
        async with taken(streams, failing(kind, name, error)()) as (transport, protocol, peer):
            if is_libuv(transport):
                pytest.skip("uvloop reports them all")
            peer.send(b"data")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is error
            await turns(2)
            assert run.errors == []

    run(main)


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises(run, streams, name):
    """What pause_writing() and resume_writing() raise is reported, and the connection goes on."""
    errors = run.expect_errors()

    async def main():
        error = Failure(name)
        async with taken(streams, failing(Recorder, name, error)()) as (transport, protocol, peer):
            await stuffed(transport)
            assert await receive(peer, 6 << 20)
            await until(lambda: transport.get_write_buffer_size() == 0)
            transport.write(b"and on")
            assert await receive(peer, 6) == b"and on"
            await until(lambda: errors)
            assert [each["exception"] for each in errors] == [error]
            assert not transport.is_closing()

    run(main)


def test_connection_lost_that_raises(run, streams):
    """What connection_lost() raises is reported, and the socket is closed all the same."""
    errors = run.expect_errors()

    async def main():
        error = Failure("connection_lost")
        async with taken(streams, failing(Recorder, "connection_lost", error)()) as (
            transport,
            protocol,
            peer,
        ):
            transport.close()
            assert await receive(peer) == b""
            await until(lambda: errors)
            assert [each["exception"] for each in errors] == [error]
            assert protocol.calls == ["connection_lost"]

    run(main)


@pytest.mark.parametrize(
    "wrong",
    [bytearray(), b"read only", None, memoryview(bytearray(8))[::2]],
    ids=["empty", "bytes", "None", "gaps"],
)
def test_a_buffer_that_is_none(run, streams, wrong):
    """An empty buffer, one that cannot be written to, and what is no buffer end the connection, and
    are reported."""
    errors = run.expect_errors()

    class Wrong(Buffered):
        def get_buffer(self, sizehint):
            return wrong

    async def main():
        async with taken(streams, Wrong()) as (transport, protocol, peer):
            peer.send(b"data")
            error = await protocol.lost
            expected = (
                RuntimeError
                if wrong == bytearray() or is_libuv(transport)
                else (TypeError, BufferError, ValueError)
            )
            assert isinstance(error, expected)
            assert protocol.data == b""
            await ended(peer)
            assert [each["exception"] for each in errors] == [error]

    run(main)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(("kind", "name"), CALLS)
def test_an_exit_from_a_callback(loop_kind, streams, kind, name, exception):
    """SystemExit and KeyboardInterrupt leave the run, once; nothing is reported; run again, the
    loop brings the connection to its end."""
    if loop_kind == "uvloop" and streams.name == "stock":
        pytest.skip("uvloop takes an exit for an error of the protocol")
    ends = socket.socketpair()

    async def start():
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: pytest.fail(str(context))
        )
        _, writer = await streams.open_connection(sock=ends[0])
        writer.transport.set_protocol(
            protocol := failing(kind, name, exception("out"), once=True)()
        )
        return writer, protocol

    loop = new_loop(loop_kind)
    try:
        writer, protocol = loop.run_until_complete(start())
        ends[1].send(b"data")
        ends[1].shutdown(socket.SHUT_WR)
        with pytest.raises(exception, match="out"):
            loop.run_until_complete(asyncio.sleep(5))
        assert protocol.calls.count(name) == 1
        writer.transport.abort()
        assert loop.run_until_complete(asyncio.wait_for(protocol.lost, 5)) is None
        loop.run_until_complete(turns(2))
        assert protocol.calls.count("connection_lost") == 1
    finally:
        loop.close()
        ends[1].close()


@BOTH
def test_an_exit_loses_nothing(loop_kind, streams, kind):
    """What the kernel held when a callback left the loop is given to the protocol as soon as the
    loop runs again."""
    if loop_kind == "uvloop" and streams.name == "stock":
        pytest.skip("uvloop takes an exit for an error of the protocol")
    ours, peer = socket.socketpair()
    sent = bytes(150_000)

    class Leaving(kind):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) == len(data):
                raise SystemExit

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if len(self.data) == nbytes:
                raise SystemExit

    async def start():
        _, writer = await streams.open_connection(sock=ours)
        writer.transport.pause_reading()
        writer.transport.set_protocol(protocol := Leaving())
        return writer, protocol

    loop = new_loop(loop_kind)
    try:
        writer, protocol = loop.run_until_complete(start())
        peer.sendall(sent)
        writer.transport.resume_reading()
        with pytest.raises(SystemExit):
            loop.run_until_complete(asyncio.sleep(5))
        with contextlib.suppress(TimeoutError):
            loop.run_until_complete(
                asyncio.wait_for(until(lambda: len(protocol.data) == len(sent)), 2)
            )
        assert len(protocol.data) == len(sent)
        writer.transport.abort()
        loop.run_until_complete(asyncio.wait_for(protocol.lost, 5))
        loop.run_until_complete(turns(2))
    finally:
        loop.close()
        peer.close()


# ---- what a loop does with it


@BOTH
def test_start_tls_of_the_loop(run, streams, tls, kind):
    """loop.start_tls() upgrades both ends, with any protocol, early bytes in either direction
    included, and they close as one does."""

    async def main():
        loop = asyncio.get_running_loop()
        async with pair(streams) as both:
            protocols = [kind(), kind()]
            outer = [both.server_writer.transport, both.writer.transport]
            firsts = [each.get_protocol() for each in outer]
            server, connected = await asyncio.gather(
                loop.start_tls(outer[0], protocols[0], tls.server, server_side=True),
                loop.start_tls(outer[1], protocols[1], tls.client, server_hostname="localhost"),
            )
            assert connected.get_extra_info("peername") == outer[1].get_extra_info("peername")
            assert connected.get_extra_info("sslcontext") is tls.client
            big = bytes(range(256)) * 400
            connected.write(big)
            server.write(b"welcome")
            await until(lambda: len(protocols[0].data) == len(big) and protocols[1].data)
            assert (protocols[0].data, protocols[1].data) == (big, b"welcome")
            connected.close()
            assert [await each.lost for each in protocols] == [None, None]
            await until(lambda: all(each.is_closing() for each in outer))
            for each in firsts:
                each.connection_lost(None)
            await turns(3)

    run(main)


def test_start_tls_refuses_others(run, streams, tls):
    """loop.start_tls() takes no transport that it does not know, after headrace was used on the
    loop as before."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams):
            with pytest.raises(TypeError):
                await loop.start_tls(asyncio.Transport(), asyncio.Protocol(), tls.client)
            with pytest.raises(TypeError):
                await loop.start_tls(None, asyncio.Protocol(), tls.client)

    run(main)


def test_the_loops_own_transports_go_on(run, ours, tls):
    """After headrace was used on a loop, loop.start_tls() upgrades the loop's own transports as
    ever, before and after."""

    async def upgraded():
        loop = asyncio.get_running_loop()
        async with pair(STOCK) as both:
            await asyncio.gather(
                both.server_writer.start_tls(tls.server),
                both.writer.start_tls(tls.client, server_hostname="localhost"),
            )
            both.writer.write(b"over TLS\n")
            assert await both.server_reader.readline() == b"over TLS\n"
            assert type(both.writer.transport) is not type(loop)

    async def main():
        async with pair(ours) as both:
            both.writer.write(b"line\n")
            assert await both.server_reader.readline() == b"line\n"
            await upgraded()
        await upgraded()

    run(main)


@pytest.fixture
def file(loop_kind):
    """A file of 2 MiB to be sent by loop.sendfile()."""
    if loop_kind == "uvloop":
        pytest.skip("uvloop has no sendfile()")
    with tempfile.TemporaryFile() as file:
        file.write(FILE)
        file.seek(0)
        yield file


def test_sendfile(run, streams, file):
    """loop.sendfile() sends a file, or a part of it, behind what was written; then the stream reads
    and writes as before."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams) as (reader, writer, peer):
            receiving = asyncio.ensure_future(receive(peer, 8 + len(FILE) + 1000 + 4, exact=True))
            writer.write(b"before: ")
            peer.send(b"meanwhile\n")
            assert await loop.sendfile(writer.transport, file) == len(FILE)
            assert await loop.sendfile(writer.transport, file, 256, 1000) == 1000
            assert writer.transport.is_reading()
            assert await reader.readline() == b"meanwhile\n"
            writer.write(b"then")
            assert await receiving == b"before: " + FILE + FILE[256:1256] + b"then"

    run(main)


def test_sendfile_and_a_reset(run, streams, file):
    """A reset while a file is sent fails sendfile(), reports nothing, and what the peer had said
    before is there to be read."""

    async def main():
        loop = asyncio.get_running_loop()
        file.truncate(16 << 20)  # more than the kernel takes
        async with client(streams) as (reader, writer, peer):
            sending = asyncio.ensure_future(loop.sendfile(writer.transport, file))
            await asyncio.sleep(0.01)
            peer.send(b"last words\n")
            await asyncio.sleep(0.002)
            reset(peer)
            with pytest.raises(ConnectionError):
                await sending
            assert await reader.readline() == b"last words\n"

    run(main)
