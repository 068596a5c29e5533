"""A program of the system as a filter: text goes to its input and comes back, changed, from its
output.

    python examples/filter.py the quick brown fox

asyncio.create_subprocess_exec() makes its streams with the classes it finds in asyncio: within
headrace.install() these are headrace's. The program here is sort, and any filter will do.
"""

import argparse
import asyncio

import headrace


async def through(command: list[str], text: bytes) -> bytes:
    """Return what *command* writes to its output when *text* is its input. Raises: RuntimeError if
    it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert isinstance(process.stdout, headrace.StreamReader)

    async def feed(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    # Both at once: a filter that answers early would wait for us to read while we wait for it to.
    output: bytes
    _, output = await asyncio.gather(feed(process.stdin), process.stdout.read())
    if await process.wait() != 0:
        raise RuntimeError(f"{command[0]} failed with status {process.returncode}")
    return output


async def main(words: list[str]) -> None:
    output = await through(["sort"], "\n".join(words).encode() + b"\n")
    print(" ".join(output.decode().split()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="sort words with the system's sort")
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    with headrace.install():
        asyncio.run(main(options.words))
