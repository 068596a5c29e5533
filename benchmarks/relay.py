"""CPU per GiB, and per small message, of relays: ours, asyncio's two tasks, HAProxy and socat.

    python -m benchmarks.relay --gib 1 --rounds 3

Each relay is a process of its own between a sender and a receiver in this one; they take turns, and
the best of the rounds counts. What is measured is the CPU time of the relay's process alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

OURS = """
import asyncio, sys, headrace
async def main():
    async def serve(reader, writer):
        a = headrace.Stream(reader, writer)
        pair = await headrace.open_connection("127.0.0.1", int(sys.argv[2]))
        async with a, headrace.Stream(*pair) as b:
            await headrace.relay(a, b)
    async with await headrace.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""

ASYNCIO = """
import asyncio, sys
async def main():
    async def copy(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    async def serve(reader, writer):
        back, forth = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
        await asyncio.gather(copy(reader, forth), copy(back, writer))
        forth.close()
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""

HAPROXY = """
global
    nbthread 1
    {splice}
defaults
    mode tcp
    {option}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen relay
    bind 127.0.0.1:{port}
    server target 127.0.0.1:{target}
"""


def command(name: str, port: int, target: int, folder: str) -> list[str]:
    """Return what starts the relay *name*."""
    if name.startswith("haproxy"):
        splices = name == "haproxy splice"
        path = os.path.join(folder, name.replace(" ", "-"))
        with open(path, "w", encoding="utf-8") as file:
            option = "option splice-request\n    option splice-response" if splices else ""
            file.write(
                HAPROXY.format(
                    splice="" if splices else "nosplice", option=option, port=port, target=target
                )
            )
        return ["haproxy", "-db", "-f", path]
    if name == "socat":
        return [
            "socat",
            "-b262144",
            f"TCP-LISTEN:{port},reuseaddr,bind=127.0.0.1",
            f"TCP:127.0.0.1:{target}",
        ]
    program = OURS if name.startswith("headrace") else ASYNCIO
    return [sys.executable, "-c", program, str(port), str(target)]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def cpu(pid: int) -> float:
    """Return how many seconds of CPU time the process *pid* has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(port: int) -> socket.socket:
    """Return a connection to the relay at *port*, once it listens."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("the relay does not listen")


def measure(name: str, size: int, messages: int, folder: str) -> tuple[float, float]:
    """Return the CPU seconds of *name* for *size* bytes one way, and for each of *messages* of 64
    bytes there and back."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            command(name, port, listener.getsockname()[1], folder), stderr=subprocess.DEVNULL
        )
        try:
            near = connect(port)
            far = listener.accept()[0]
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            before = cpu(process.pid)
            for _ in range(messages):
                near.sendall(b"x" * 64)
                far.recv(64)
                far.sendall(b"y" * 64)
                near.recv(64)
            small = (cpu(process.pid) - before) / messages
            before = cpu(process.pid)
            thread = threading.Thread(target=send, args=(near, size))
            thread.start()
            buffer = bytearray(1 << 20)
            left = size
            while left:
                left -= far.recv_into(buffer)
            thread.join()
            large = cpu(process.pid) - before
            near.close()
            far.close()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return large, small


def send(sock: socket.socket, size: int) -> None:
    """Send *size* bytes."""
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        sock.sendall(piece)


def main() -> None:
    """Measure all relays that are there, in turn, and print the best of each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relay",
        description="CPU of relays: headrace's, asyncio's two tasks, and of HAProxy and socat "
        "where they are installed. Compare figures within one run.",
    )
    parser.add_argument("--gib", type=float, default=1.0, help="GiB that each passes on (1)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of N (3)")
    options = parser.parse_args()
    gib, rounds = options.gib, options.rounds
    names = ["headrace", "asyncio"]
    if shutil.which("haproxy"):
        names += ["haproxy", "haproxy splice"]
    if shutil.which("socat"):
        names.append("socat")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name in names:
                found[name].append(measure(name, int(gib * 1024) << 20, 5000, folder))
    for name, results in found.items():
        large = min(each[0] for each in results) / gib
        small = min(each[1] for each in results)
        print(f"{name:16}{large:8.3f} s/GiB{small * 1e6:8.1f} us for 64 B there and back")


if __name__ == "__main__":
    main()
