"""A TCP relay: it passes the bytes of each client on to another server, both ways, with each end of
input.

python examples/relay.py --port 8893 --to example.org:80
"""

import argparse
import asyncio
import signal

import headrace

PIECE_BYTES = 65536


async def copy(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> int:
    """Send everything from *reader* to *writer*, then the end of input; return how many bytes it
    was."""
    size = 0
    while data := await reader.read(PIECE_BYTES):
        writer.write(data)
        await writer.drain()
        size += len(data)
    if writer.can_write_eof():
        writer.write_eof()  # the other direction may still have much to say
    return size


async def connect_through(
    reader: headrace.StreamReader, writer: headrace.StreamWriter, host: str, port: int
) -> None:
    try:
        there_reader, there_writer = await headrace.open_connection(
            host, port, happy_eyeballs_delay=0.25
        )
    except OSError as error:
        print(f"cannot connect to {host}:{port}: {error}", flush=True)
        writer.transport.abort()
        return
    try:
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(copy(reader, there_writer))
            received = group.create_task(copy(there_reader, writer))
        print(f"{sent.result()} bytes there, {received.result()} back", flush=True)
    except* ConnectionError as errors:  # one side is gone: so shall be the other
        print(f"lost: {errors.exceptions[0]}", flush=True)
        writer.transport.abort()
        there_writer.transport.abort()
    finally:
        writer.close()
        there_writer.close()


async def main(host: str, port: int, to_host: str, to_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await headrace.start_server(
        lambda r, w: connect_through(r, w, to_host, to_port), host, port
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on {host} {port}", flush=True)
        await stop.wait()
        server.close_clients()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a TCP relay")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8893, help="0: any that is free")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    target, _, target_port = options.to.rpartition(":")
    asyncio.run(main(options.host, options.port, target, int(target_port)))
