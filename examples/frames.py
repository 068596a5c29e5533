"""Messages of any bytes: each is sent as its length in four bytes, then itself.

    python examples/frames.py serve --port 8890
    python examples/frames.py send --port 8890 one two three

The server answers each message with its bytes reversed.
"""

import argparse
import asyncio
import signal

import headrace

# A peer may claim any length: say what you are ready to hold before you wait for it.
MAX_FRAME_BYTES = 1024 * 1024


async def read_frame(reader: headrace.StreamReader) -> bytes | None:
    """Return the next message, or None at the end. Raises: ValueError if it is too long,
    IncompleteReadError if it is cut short."""
    try:
        header = await reader.readexactly(4)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    size = int.from_bytes(header, "big")
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes; {MAX_FRAME_BYTES} are allowed")
    return await reader.readexactly(size)


def write_frame(writer: headrace.StreamWriter, message: bytes) -> None:
    """Send *message*. The two parts leave together."""
    writer.writelines([len(message).to_bytes(4, "big"), message])


async def answer(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    try:
        while (message := await read_frame(reader)) is not None:
            write_frame(writer, message[::-1])
            await writer.drain()
    except (ConnectionError, ValueError, asyncio.IncompleteReadError) as error:
        print(f"dropped a client: {error}", flush=True)
    finally:
        writer.close()


async def serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await headrace.start_server(answer, host, port) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on {host} {port}", flush=True)
        await stop.wait()
        server.close_clients()


async def send(host: str, port: int, words: list[str]) -> None:
    reader, writer = await headrace.open_connection(host, port)
    for word in words:  # all at once: the answers come in order
        write_frame(writer, word.encode())
    await writer.drain()
    for word in words:
        reply = await read_frame(reader)
        assert reply is not None
        print(f"{word} -> {reply.decode()}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="length-prefixed messages")
    parser.add_argument("what", choices=("serve", "send"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8890, help="serve with 0: any that is free")
    parser.add_argument("words", nargs="*")
    options = parser.parse_intermixed_args()
    if options.what == "serve":
        asyncio.run(serve(options.host, options.port))
    else:
        asyncio.run(send(options.host, options.port, options.words))
