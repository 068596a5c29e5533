"""Objects are reused only when nothing else holds them, cold or warm, in whatever way the
interpreter holds them.

From Python 3.14 on the interpreter borrows references that it used to count, so that a count may be
lower than it was.
"""

from __future__ import annotations

import asyncio

from support.wires import Wire, turns

# So many that an interpreter has specialized, or compiled, what it runs.
ROUNDS = 3000


def test_an_exposed_buffer(run, ours):
    """A buffer that somebody holds, in a variable, as an argument or as a temporary alone, stays
    the buffer."""

    async def main():
        reader = ours.StreamReader()

        def as_an_argument(buffer):
            reader.feed_data(b"12")
            buffer += b"3"
            reader.feed_data(b"4")
            return bytes(reader._buffer)

        def between():
            reader.feed_data(b"56")
            return b"7"

        for _ in range(ROUNDS):
            held = reader._buffer
            reader.feed_data(b"ab")
            held += b"c"
            reader.feed_data(b"d")
            assert reader._buffer is held
            del held
            assert await reader.readexactly(4) == b"abcd"
            assert as_an_argument(reader._buffer) == b"1234"
            assert await reader.readexactly(4) == b"1234"
            reader._buffer.extend(
                between()
            )  # the buffer is on the interpreter's stack alone while it is fed
            assert await reader.readexactly(3) == b"567"

    run(main)


def test_an_operation(run, ours):
    """An operation that somebody holds, in a variable or as an argument, is not the next one."""

    async def main():
        reader = ours.StreamReader()

        def another(operation):
            other = reader.read(1)
            assert other is not operation
            return other

        for _ in range(ROUNDS):
            reader.feed_data(b"abc")
            first = reader.read(1)
            assert await first == b"a"
            assert await another(first) == b"b"
            del first
            assert await another(None) == b"c"

    run(main)


def test_a_future(run, ours):
    """A future that somebody holds is completed when its wait is over, and is not waited for
    again."""

    async def main():
        wire = Wire(ours)

        async def reading():
            return await wire.reader.read(1)

        for _ in range(ROUNDS // 3):
            task = asyncio.create_task(reading())
            await turns()
            held = task.get_coro().cr_await.cr_await
            asyncio.get_running_loop().call_soon(wire.protocol.data_received, b"a")
            assert await task == b"a"
            await turns()
            assert held.done()
            task = asyncio.create_task(reading())
            await turns()
            assert task.get_coro().cr_await.cr_await is not held
            asyncio.get_running_loop().call_soon(wire.protocol.data_received, b"b")
            assert await task == b"b"
        wire.shut()

    run(main)


def test_what_was_read(run, native):
    """Bytes that somebody holds, in a variable, as an argument or as a temporary alone, are not
    received into again."""
    size = 60_000

    async def main():
        async def handler(reader, writer):
            for number in range(60):
                writer.write(bytes([number]) * size)
                await writer.drain()
                await reader.readexactly(1)
            writer.close()

        server = await native.start_server(handler, "127.0.0.1", 0)
        reader, writer = await native.open_connection(*server.sockets[0].getsockname(), limit=2**20)

        async def more(held, number):
            writer.write(b".")
            got = await reader.read(size)
            assert set(held) == {number}
            return got

        for number in range(0, 60, 2):
            got = await reader.readexactly(size)
            rest = await more(got, number)
            rest += await reader.readexactly(size - len(rest))
            assert set(got) == {number}
            assert set(rest) == {number + 1}
            writer.write(b".")
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()

    run(main)
