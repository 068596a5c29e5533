"""The documentation's promise in one test: what is sent is what arrives."""

import asyncio


def test_lines_come_back(run, streams):
    """A server that answers each line gets and sends each of them once, in order."""

    async def serve(reader, writer):
        async for line in reader:
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await streams.start_server(serve, "127.0.0.1", 0)
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname()[:2])
        writer.writelines([b"%d\n" % i for i in range(100)])
        writer.write_eof()
        lines = [line async for line in reader]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
        return lines

    assert run(main) == [b"%d\n" % i for i in range(100)]
