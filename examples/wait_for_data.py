"""Wait for data on a socket that is open already, here one end of a socket pair.

python examples/wait_for_data.py
"""

import asyncio
import socket

import headrace


async def main() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await headrace.open_connection(sock=ours)
    # In a program of your own the data would come from the network.
    asyncio.get_running_loop().call_later(0.05, theirs.send, b"some data")
    data = await reader.read(100)
    print(f"received {data.decode()!r}")
    writer.close()
    await writer.wait_closed()
    theirs.close()


if __name__ == "__main__":
    asyncio.run(main())
