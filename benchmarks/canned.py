"""The load for servers of HTTP and WebSocket: the same request again and again, the answer counted.

    python -m benchmarks.canned KIND --port P [--tls] [--connections N] [--seconds T] [--warmup T]

One thread, one epoll set. It talks to the runner as load.c does: after a warm-up it lets every
answer arrive, prints "ready" and waits for a line on stdin; after the measured phase it prints one
line of JSON. Every answer must be as long as the first, and begin like it.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence

KINDS = ("http", "websocket")
LOOPBACK = "127.0.0.1"
PATIENCE_S = 20.0  # silence after which a server is called stuck

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: canned\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# A final text frame of 256 bytes, masked with zeroes (RFC 6455, 5.2).
FRAME = b"\x81\xfe\x01\x00\0\0\0\0" + b"x" * 256
FRAME_ANSWER = b"\x81\x7e\x01\x00" + b"x" * 256


def _connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection((LOOPBACK, port), PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if context is None else context.wrap_socket(sock)


def _headers(sock: socket.socket) -> bytes:
    """Read an answer's head, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise SystemExit(f"canned: the server closed after {data!r}")
        data += more
    return data


def _first(sock: socket.socket, kind: str) -> tuple[bytes, bytes]:
    """Make the first exchange; return the request to repeat, and the answer to it."""
    if kind == "websocket":
        sock.sendall(UPGRADE)
        head = _headers(sock)
        if not head.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"canned: no WebSocket: {head!r}")
        return FRAME, FRAME_ANSWER
    sock.sendall(REQUEST)
    data = _headers(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"canned: not what was asked for: {head!r}")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    size = int(fields[b"content-length"])
    while len(body) < size:
        body += sock.recv(65536)
    return REQUEST, head + b"\r\n\r\n" + body


class Load:
    """All connections, and how far the answer of each has come."""

    def __init__(self, socks: Sequence[socket.socket], request: bytes, answer: bytes) -> None:
        self.request = request
        self.size = len(answer)
        self.start = answer[:12]
        self.socks = {sock.fileno(): sock for sock in socks}
        self.left = dict.fromkeys(self.socks, self.size)
        self.epoll = select.epoll()
        for sock in socks:
            sock.setblocking(False)
            self.epoll.register(sock, select.EPOLLIN)

    def run(self, seconds: float) -> int:
        """Keep one request in flight on each connection; return how many were answered."""
        count, waiting = 0, len(self.socks)
        until = time.monotonic() + seconds
        for sock in self.socks.values():
            sock.sendall(self.request)
        while waiting:
            ready = self.epoll.poll(PATIENCE_S)
            if not ready:
                raise SystemExit("canned: the server went silent")
            going = time.monotonic() < until
            for fd, _ in ready:
                if not self._answered(fd):
                    continue
                count += 1
                if going:
                    self.socks[fd].sendall(self.request)
                else:
                    waiting -= 1
        return count

    def _answered(self, fd: int) -> bool:
        """Receive, and tell whether the answer is there."""
        while True:
            try:
                data = self.socks[fd].recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            left = self.left[fd]
            if not data or len(data) > left:
                raise SystemExit(f"canned: {len(data)} bytes where {left} were expected")
            if left == self.size and not data.startswith(self.start[: len(data)]):
                raise SystemExit(f"canned: not the answer: {data[:80]!r}")
            if len(data) == left:
                self.left[fd] = self.size
                return True
            self.left[fd] = left - len(data)


def main(arguments: list[str] | None = None) -> int:
    """Load a server; 0 when every answer came."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canned", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", action="store_true", help="without looking at the certificate")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    options = parser.parse_args(arguments)
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    socks = [_connect(options.port, context) for _ in range(options.connections)]
    firsts = [_first(sock, options.kind) for sock in socks]
    load = Load(socks, *firsts[0])
    load.run(options.warmup)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    count = load.run(options.seconds)
    print(json.dumps({"messages": count, "seconds": time.monotonic() - began}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
