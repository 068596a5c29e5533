"""A chat server of lines, which stops gracefully: everybody gets a goodbye, then the connections
are closed.

    python examples/chat_server.py --port 8889
    nc 127.0.0.1 8889                             in as many terminals as you like

A guest who does not read is disconnected and does not hold up the others.
"""

import argparse
import asyncio
import contextlib
import signal

import headrace

LINE_BYTES = 1000
MAX_UNREAD_BYTES = 256 * 1024
GOODBYE_S = 3.0


class Room:
    """Who is here."""

    def __init__(self) -> None:
        self.guests: dict[headrace.StreamWriter, str] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def tell(self, line: str, besides: headrace.StreamWriter | None = None) -> None:
        """Send *line* to every guest but *besides*."""
        for writer, name in list(self.guests.items()):
            if writer is besides:
                continue
            if writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                print(f"{name} does not read", flush=True)
                writer.transport.abort()
            else:
                writer.write(f"{line}\n".encode())

    async def welcome(self, reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
        """Serve one guest until they leave."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            writer.write(b"your name?\n")
            name = (await reader.readline()).decode(errors="replace").strip() or "somebody"
            self.guests[writer] = name
            self.tell(f"* {name} is here")
            while line := await reader.readline():
                self.tell(f"{name}: {line.decode(errors='replace').strip()}", besides=writer)
        except (ConnectionError, ValueError):  # ValueError: a line above the limit
            pass
        finally:
            self.tasks.discard(task)
            if left := self.guests.pop(writer, None):
                self.tell(f"* {left} has left")
            writer.close()

    async def close(self) -> None:
        """Say goodbye to everybody, and wait a little until it has been sent."""
        self.tell("* the house closes")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(
                    *(writer.drain() for writer in self.guests), return_exceptions=True
                )
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def main(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    room = Room()
    server = await headrace.start_server(room.welcome, host, port, limit=LINE_BYTES)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on {host} {port}", flush=True)
    await stop.wait()
    server.close()  # nobody new
    await room.close()
    await server.wait_closed()
    print("closed", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a chat server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8889, help="0: any that is free")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port))
