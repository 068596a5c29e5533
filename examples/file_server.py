"""A server of the files of one directory.

    python examples/file_server.py --port 8896 docs

A client sends names of files, a line each. It gets the size as a line and the bytes, or an error.
"""

import argparse
import asyncio
import functools
from pathlib import Path
from typing import BinaryIO

import headrace

NAME_BYTES, IDLE_SECONDS = 1000, 60


def opened(directory: Path, name: bytes) -> BinaryIO | None:
    """Return the file *name* of *directory*, open; None where it is none."""
    try:
        path = (directory / name.decode().strip()).resolve(strict=True)
        inside = path.is_relative_to(directory)  # links lead out, and ".." does
        return path.open("rb") if inside and path.is_file() else None
    except (OSError, ValueError):
        return None


async def send_files(stream: headrace.Stream, directory: Path) -> None:
    """Send one client what it asks for. The server logs a timeout, and ends the client."""
    stream.write_timeout = IDLE_SECONDS
    try:
        while name := await stream.readline(limit=NAME_BYTES, timeout=IDLE_SECONDS):
            if (file := opened(directory, name)) is None:
                await stream.write(b"error: no such file\n")
                continue
            with file:
                await stream.write(b"%d\n" % (size := file.seek(0, 2)))
                # Never more, if it grows. If it shrinks the client must not wait for the rest.
                if await stream.send_file(file, 0, size) < size:
                    stream.abort()
                    return
    except headrace.LimitOverrunError:
        stream.abort()  # no name is so long


async def main(port: int, directory: Path) -> None:
    handler = functools.partial(send_files, directory=directory)
    async with headrace.serve(handler, "127.0.0.1", port) as server:
        listening = "listening on {} {}".format(*server.sockets[0].getsockname())
        asyncio.get_running_loop().call_soon(lambda: print(listening, flush=True))
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a server of the files of one directory")
    parser.add_argument("--port", type=int, default=8896, help="0: any that is free")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    asyncio.run(main(options.port, options.directory.resolve(strict=True)))
