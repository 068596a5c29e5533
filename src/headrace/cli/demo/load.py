"""The load of the demo's table: one process that keeps every connection's messages in flight, and
counts the answers.

Run as a file (``python load.py PORT MESSAGE_BYTES IN_FLIGHT WARM_UP_SECONDS SECONDS``), with
nothing but the standard library, so that it starts at once. After the warm-up it prints "ready" and
waits for a line; at the end it prints how many messages came back since. A server that answers
wrongly is an error: the first answer of every connection is compared.
"""

from __future__ import annotations

import select
import socket
import sys
import time

CONNECTIONS = 10


def connect(port: int, message: bytes, in_flight: int) -> socket.socket:
    """Return a connection with *in_flight* messages on their way, whose first answer was right."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(message * in_flight)
    first = b""
    while len(first) < len(message):
        first += connection.recv(len(message) - len(first))
        if not message.startswith(first) or not first:
            raise SystemExit(f"the server answered {first!r}")
    connection.sendall(message)
    return connection


def exchange(
    connections: list[socket.socket],
    parts: dict[int, int],
    message: bytes,
    in_flight: int,
    seconds: float,
) -> int:
    """Send a message again for each that is answered, for *seconds*; return how many were.

    *parts*: how much of an unfinished answer has come, by descriptor.

    The loop is bare, since the load must not be what the server waits for: a server that falls
    asleep between two messages pays for its waking, and all of them would look alike.
    """
    answered = 0
    size = len(message)
    again = [message * count for count in range(in_flight + 1)]
    receive = {connection.fileno(): connection.recv for connection in connections}
    send = {connection.fileno(): connection.sendall for connection in connections}
    until = time.perf_counter() + seconds
    poller = select.epoll() if hasattr(select, "epoll") else select.poll()
    for connection in connections:
        poller.register(connection, select.POLLIN)
    while time.perf_counter() < until:
        for number, _ in poller.poll(1):
            got = len(receive[number](65536))
            if not got:
                raise SystemExit("the server closed the connection")
            count, parts[number] = divmod(parts[number] + got, size)
            if count:
                send[number](again[count])
                answered += count
    return answered


def main() -> None:
    """Load the server of sys.argv for the seconds it says."""
    port, message_bytes, in_flight = map(int, sys.argv[1:4])
    warm_up_seconds, seconds = map(float, sys.argv[4:])
    # One message fits every handler: a line that begins with the length of the rest, as the frames
    # do.
    message = (message_bytes - 4).to_bytes(4, "big") + b"x" * (message_bytes - 5) + b"\n"
    connections = [connect(port, message, in_flight) for _ in range(CONNECTIONS)]
    parts = {connection.fileno(): 0 for connection in connections}
    exchange(connections, parts, message, in_flight, warm_up_seconds)
    print("ready", flush=True)
    sys.stdin.readline()
    print(exchange(connections, parts, message, in_flight, seconds))


if __name__ == "__main__":
    main()
