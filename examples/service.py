"""A counter that many clients share, as a service: bounds against bad clients, a shutdown that
answers everybody, worker processes.

    python examples/service.py --port 8888
    python examples/service.py --port 8888 --workers 2     a counter in each process,
                                                           which SIGHUP replaces

A client sends lines: "add NUMBER" or "get". Prints the address it listens on; Ctrl-C or SIGTERM
lets connections finish.
"""

import argparse
import asyncio

import headrace

counter = 0


async def count(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    """Answer one client until it has said everything, or the server is about to stop."""
    global counter
    server = headrace.current_connection().server
    async for line in reader:
        match line.split():
            case [b"add", number] if number.isdigit():
                counter += int(number)
                writer.write(b"ok\n")
            case [b"get"]:
                writer.write(b"%d\n" % counter)
            case _:
                writer.write(b"what? add NUMBER, or get\n")
        await writer.drain()
        if server.draining.is_set():
            writer.write(b"bye\n")  # answered; the next request is for another server
            return


async def main(port: int, workers: int | None) -> None:
    server = headrace.serve(
        count,
        "127.0.0.1",
        port,
        workers=workers,
        limit=1000,  # no line is longer
        idle_timeout=300,
        minimum_rate=10,  # bytes a second, of a line that has begun
        max_connections_per_peer=100,
        grace=10,
    )
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        # Said when serve_forever() has begun to listen to signals.
        asyncio.get_running_loop().call_soon(
            lambda: print(f"listening on {host} {port}", flush=True)
        )
        print(await server.serve_forever())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a counter as a service")
    parser.add_argument("--port", type=int, default=8888, help="0: any that is free")
    parser.add_argument("--workers", type=int, help="so many processes")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.workers))
