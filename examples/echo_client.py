"""A TCP echo client: sends its arguments and prints what comes back.

python examples/echo_client.py --port 8888 hello world
"""

import argparse
import asyncio

import headrace


async def main(host: str, port: int, message: str) -> None:
    reader, writer = await headrace.open_connection(host, port)
    try:
        writer.write(message.encode())
        writer.write_eof()  # all is said: the server's read() will return b"" after it
        answer = await reader.read()  # up to the end, however many pieces it comes in
        print(f"received {answer.decode()!r}")
    finally:
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a TCP echo client")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port, " ".join(options.words)))
