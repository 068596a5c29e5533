"""A TCP echo server.

    python examples/echo_server.py --port 8888

Prints the address it listens on; Ctrl-C or SIGTERM ends it.
"""

import argparse
import asyncio
import signal

import headrace


async def echo(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    """Send back what comes, until the client has said everything."""
    peer = writer.get_extra_info("peername")
    size = 0
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()  # waits only while the client is slower than we are
            size += len(data)
    except ConnectionError as error:
        print(f"{peer}: lost: {error}", flush=True)
    finally:
        writer.close()
    print(f"{peer}: {size} bytes", flush=True)


async def main(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await headrace.start_server(echo, host, port) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on {host} {port}", flush=True)
        await stop.wait()
        server.close_clients()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a TCP echo server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888, help="0: any that is free")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port))
