"""How a Stream ends: cleanly, or by a reset."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest
from support.duplex import stream_to

import headrace


def recv_all(peer):
    """Return what comes to *peer*, and how it ends: None for an orderly end."""
    received = b""
    try:
        while data := peer.recv(65536):
            received += data
    except OSError as error:
        return received, type(error)
    return received, None


async def ends(peer):
    return await asyncio.get_running_loop().run_in_executor(None, recv_all, peer)


def test_a_clean_end(run, way):
    """A block that ends sends everything, and then an end; also where the peer goes on sending."""

    async def main():
        for busy in (False, True):
            async with stream_to(way) as (stream, peer):
                if busy:
                    peer.sendall(b"x" * 100_000)
                async with stream:
                    await stream.write(b"y" * 10)
                assert stream.closing
                if not busy:
                    assert await ends(peer) == (b"y" * 10, None)

    run(main)


def test_an_exception_is_a_reset(run, way):
    """A block that ends by an exception, or a cancellation, resets the connection."""

    async def main():
        async with stream_to(way) as (stream, peer):
            with contextlib.suppress(ZeroDivisionError):
                async with stream:
                    await stream.write(b"half a message")
                    raise ZeroDivisionError
            assert (await ends(peer))[1] is ConnectionResetError
        async with stream_to(way) as (stream, peer):

            async def work():
                async with stream:
                    await stream.read()

            task = asyncio.ensure_future(work())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await ends(peer) == (b"", ConnectionResetError)

    run(main)


@pytest.mark.parametrize("clean", [True, False])
def test_over_tls(run, way, tls, clean):
    """A clean end is a close_notify; an exception leaves none: the peer's TLS raises."""

    async def main():
        got = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            try:
                got.set_result(await reader.read())
            except OSError as error:
                got.set_result(error)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        server = await headrace.start_server(serve, "127.0.0.1", 0, ssl=tls.server, way=way)
        async with server:
            address = server.sockets[0].getsockname()
            connecting = headrace.connect(
                *address[:2], tls=tls.client, server_hostname="localhost", way=way
            )
            with contextlib.suppress(ZeroDivisionError):
                async with connecting as stream:
                    await stream.write(b"hello")
                    await stream.flush()
                    if not clean:
                        raise ZeroDivisionError
            result = await got
        if clean:
            assert result == b"hello"
        else:
            assert isinstance(result, OSError)

    run(main)


def test_abort(run, way):
    """abort() may be called again; what reads or writes, before or after, raises and is not told of
    an end."""

    async def main():
        async with stream_to(way) as (stream, peer):
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            stream.abort()
            stream.abort()
            for call in (lambda: reading, stream.read, stream.readline, lambda: stream.write(b"x")):
                with pytest.raises(ConnectionError):
                    await call()
            await stream.aclose()
            assert (await ends(peer))[1] is ConnectionResetError

    run(main)


def test_aclose_twice(run, way):
    """aclose() may be called again, and by several at once; close() before it does no harm."""

    async def main():
        async with stream_to(way) as (stream, peer):
            await stream.write(b"x")
            stream.close()
            await asyncio.gather(stream.aclose(), stream.aclose())
            await stream.aclose()
            assert await ends(peer) == (b"x", None)

    run(main)


def test_aclose_of_what_is_unsent(run, way):
    """Where the peer does not take what was written, aclose() says so, and aborts; so does a
    cancellation."""

    async def main():
        for how in ("timeout", "cancel"):
            async with stream_to(way) as (stream, peer):
                while stream.unsent == 0:
                    stream.write_nowait(bytes(1 << 20))
                if how == "timeout":
                    with pytest.raises(headrace.WriteTimeout):
                        await stream.aclose(timeout=0.02)
                else:
                    closing = asyncio.ensure_future(stream.aclose())
                    await asyncio.sleep(0.02)
                    closing.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await closing
                assert stream.closing
                assert (await ends(peer))[1] is ConnectionResetError

    run(main)


def test_a_peer_that_is_gone(run, way):
    """A block whose peer has reset the connection ends without an error of its own."""

    async def main():
        async with stream_to(way) as (stream, peer):
            async with stream:
                await stream.write(b"x")
                assert peer.recv(1) == b"x"
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()
                with pytest.raises(ConnectionError):
                    await stream.read()

    run(main)


def test_a_unix_socket_cannot_be_reset(run, way):
    """abort() of a Unix socket is an end, since the system knows nothing else."""

    async def main():
        left, right = socket.socketpair()
        right.settimeout(5)
        with right:
            stream = await headrace.connect(sock=left, way=way)
            stream.abort()
            assert await ends(right) == (b"", None)

    run(main)


def test_a_stream_that_is_dropped(run, way):
    """One that nobody has closed is closed, with a warning, as a StreamWriter is."""

    async def main():
        left, right = socket.socketpair()
        with right:
            stream = await headrace.connect(sock=left, way=way)
            with pytest.warns(ResourceWarning, match="unclosed"):
                del stream
                gc.collect()
            right.settimeout(5)
            assert await ends(right) == (b"", None)

    run(main)


def test_abort_behind_a_close(run, way):
    """abort() of a stream that was closed with something unsent, and has sent it, does nothing."""

    async def main():
        async with stream_to(way) as (stream, peer):
            while stream.unsent < 1 << 20:
                stream.write_nowait(bytes(1 << 20))
            stream.close()
            received, error = await ends(peer)
            assert len(received) == stream.bytes_written
            await stream.writer.wait_closed()
            stream.abort()

    run(main)


def test_a_closed_stream_can_be_asked(run, way):
    """What is known of a stream that is closed is told, or None, and no error."""

    async def main():
        async with stream_to(way) as (stream, _):
            stream.abort()
            await asyncio.sleep(0.01)
            assert "closing" in repr(stream)
            assert isinstance(stream.peername, (tuple, type(None)))
            assert isinstance(stream.sockname, (tuple, type(None)))
            assert stream.statistics().unsent == 0

    run(main)


def test_a_flush_is_aborted(run, way):
    """A flush that waits raises that the stream was aborted, whatever the transport says then."""

    async def main():
        async with stream_to(way) as (stream, _):
            while stream.unsent < 1 << 20:
                stream.write_nowait(bytes(1 << 20))
            flushing = asyncio.ensure_future(stream.flush())
            await asyncio.sleep(0.01)
            stream.abort()
            with pytest.raises(ConnectionAbortedError):
                await flushing

    run(main)


def test_what_was_gathered_is_aborted(run, way):
    """What corked() had gathered is forgotten, and stays counted as accepted."""

    async def main():
        async with stream_to(way) as (stream, peer):
            with stream.corked():
                await stream.write(b"abc")
                stream.abort()
                assert stream.bytes_written == 3
            assert stream.bytes_written == 3
            assert stream.unsent == 0
            assert (await ends(peer))[0] == b""

    run(main)
