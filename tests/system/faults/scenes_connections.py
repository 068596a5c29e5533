"""Scenes of one connection whose system calls fail. See scene.py."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct

import child
from scene import client, holds, idle, pattern, play, raising, read_to_error, receive, until

# How often at most a connection asks the system again that was short of memory: connection.pyx has
# 20 ms.
RETRIES_A_SECOND = 50


async def receiving_breaks(name: str, size: str) -> None:
    """A receive fails: the waiting read raises that, what came before can still be read, and then
    everything raises it."""
    sent = pattern(int(size))
    async with client() as (reader, writer, peer):
        waiting = asyncio.create_task(reader.readexactly(len(sent) + 1))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().sock_sendall(peer, sent)
        await until(holds(reader, len(sent)))
        child.plan(f"recv={name}@1x1")
        peer.sendall(b"x")
        with raising(name):
            await waiting
        assert child.faults("recv") == 1
        assert await reader.readexactly(10) == sent[:10]
        assert await read_to_error(reader) == (sent[10:], getattr(errno, name))
        for ask in (
            reader.read,
            reader.readline,
            lambda: reader.readexactly(1),
            writer.drain,
            writer.wait_closed,
        ):
            with raising(name):
                await ask()
        assert writer.get_extra_info("socket").fileno() == -1


async def sending_breaks(name: str, how: str, receiving: str = "") -> None:
    """A send fails while the system holds an answer: that is read to its end, then everything
    raises the error.

    *receiving* is a fault of recv, from the moment when the send fails.
    """
    answer = pattern(200_000 if how == "paused" else 50_000)
    plan = f"send={name}@1x1,sendmsg={name}@1x1" + (f",recv={receiving}" if receiving else "")
    loop = asyncio.get_running_loop()
    # With a low limit most of the answer stays in the system's hands.
    async with client(limit=1024) as (reader, writer, peer):
        if how == "queued":
            # More is unsent than the system takes; then the peer makes room.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(bytes(4_000_000))
            assert writer.transport.get_write_buffer_size() > 0
            peer.sendall(answer)
            child.plan(plan)
            await receive(peer, 1_000_000)
        elif how == "paused":
            await loop.sock_sendall(peer, answer)
            await until(lambda: "paused" in repr(reader))
            child.plan(plan)
            writer.write(b"question")
        elif how == "step":
            # The write leaves at the end of a task's step, which the first bytes of the answer have
            # caused.
            async def asking() -> bytes:
                first = await reader.readexactly(2)
                writer.write(b"question")
                return first

            task = asyncio.create_task(asking())
            await asyncio.sleep(0)
            child.plan(plan)
            peer.sendall(answer)
            assert await task == answer[:2]
            answer = answer[2:]
        else:
            child.plan(plan)
            peer.sendall(answer)
            if how == "ended":
                peer.shutdown(socket.SHUT_WR)
            writer.write(b"question")
        got, number = await read_to_error(reader)
        assert child.faults("send") + child.faults("sendmsg") == 1
        assert got == answer, f"{len(got)} bytes of {len(answer)}"
        assert number == getattr(errno, name) or (how == "ended" and number == 0)
        for ask in (writer.drain, writer.wait_closed):
            with raising(name):
                await ask()
        assert writer.get_extra_info("socket").fileno() == -1


async def sending_is_interrupted(name: str, then: str) -> None:
    """Sends fail for a while, just before *then*, write_eof or close: all that was written arrives,
    and the end behind it."""
    sent = pattern(150_000)
    async with client() as (reader, writer, peer):
        child.plan(f"send={name}@1x1,sendmsg={name}@1x3")
        for at in range(0, len(sent), 30_000):
            writer.write(sent[at : at + 30_000])
        getattr(writer, then)()
        assert await receive(peer) == sent
        assert (child.faults("send"), child.faults("sendmsg")) == (1, 3)
        if then == "write_eof":
            peer.sendall(b"answer")
            assert await reader.readexactly(6) == b"answer"
            writer.close()
        await writer.wait_closed()


async def aborted_while_short_of_memory(wait: str) -> None:
    """A connection that is aborted while it waits for memory is gone at once; a later retry does no
    harm."""
    async with client() as (reader, writer, peer):
        child.plan("send=ENOBUFS@1,sendmsg=ENOBUFS@1,recv=ENOMEM@1")
        writer.write(b"lost")
        peer.sendall(b"lost too")
        await until(lambda: child.faults("recv"))
        writer.transport.abort()
        await writer.wait_closed()
        assert writer.get_extra_info("socket").fileno() == -1
        await asyncio.sleep(float(wait))


async def short_of_memory(function: str, name: str) -> None:
    """While the system has no memory, headrace tries again now and then, and no more often with
    more to do. Then all goes on."""
    async with client() as (reader, writer, peer):
        child.plan(f"send={name}@1,sendmsg={name}@1" if function == "send" else f"recv={name}@1")
        writer.write(b"question")
        # Each of these is an event for a socket that may be written to as well.
        for index in range(200):
            peer.sendall(b"%03d" % index)
            await asyncio.sleep(0.0005)
        counted = "sendmsg" if function == "send" else "recv"
        before = child.calls(counted)
        with idle():
            await asyncio.sleep(0.5)
        assert 1 <= child.calls(counted) - before <= 0.5 * RETRIES_A_SECOND * 1.2
        child.plan("")
        assert await reader.readexactly(600) == b"".join(b"%03d" % index for index in range(200))
        assert await receive(peer, 8) == b"question"


class Collecting(asyncio.Protocol):
    """A protocol that is not ours: what it was told. Of the end it tells the one that was there
    before."""

    def __init__(self, before: asyncio.BaseProtocol) -> None:
        self.before = before
        self.data = bytearray()
        self.ended = False
        self.lost: list[BaseException | None] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)
        self.before.connection_lost(exc)


class Buffering(Collecting, asyncio.BufferedProtocol):
    """The same, which brings a buffer."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(20_000)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]


async def another_protocol(kind: str, name: str) -> None:
    """A protocol that is not ours gets every byte where calls fail for a passing reason, and is
    told once of what breaks the connection."""
    sent = pattern(200_000)
    async with client() as (_, writer, peer):
        transport = writer.transport
        protocol = (Buffering if kind == "buffered" else Collecting)(transport.get_protocol())
        transport.set_protocol(protocol)
        child.plan(f"recv={name}@2")
        await asyncio.get_running_loop().sock_sendall(peer, sent)
        await until(lambda: len(protocol.data) == len(sent))
        assert protocol.data == sent
        assert child.faults("recv")
        child.plan("send=EPIPE@1x1,recv=EINTR@2")
        peer.sendall(sent[:50_000])
        transport.write(b"question")
        await until(lambda: protocol.lost)
        assert [getattr(error, "errno", None) for error in protocol.lost] == [errno.EPIPE]
        assert protocol.data == sent + sent[:50_000]
        assert not protocol.ended


async def written_after_a_reset(limit: str) -> None:
    """The peer sends a lot and resets, and we write before we know: what it sent is read, then the
    error comes."""
    answer = pattern(50_000)  # what the system takes before anybody reads
    async with client(limit=int(limit)) as (reader, writer, peer):
        await asyncio.get_running_loop().sock_sendall(peer, answer)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        writer.write(b"question")
        got, number = await read_to_error(reader)
        assert got == answer, f"{len(got)} bytes of {len(answer)}"
        assert number in (errno.ECONNRESET, errno.EPIPE)


async def written_to_who_has_left(limit: str) -> None:
    """The peer sends a lot and closes; our first write is answered by a reset, and what the peer
    sent is read all the same."""
    answer = pattern(50_000)  # what the system takes before anybody reads
    async with client(limit=int(limit)) as (reader, writer, peer):
        await asyncio.get_running_loop().sock_sendall(peer, answer)
        peer.close()
        for _ in range(3):
            writer.write(b"question")
        got, number = await read_to_error(reader)
        assert got == answer, f"{len(got)} bytes of {len(answer)}"
        assert number in (0, errno.ECONNRESET, errno.EPIPE)


if __name__ == "__main__":
    play(globals())
