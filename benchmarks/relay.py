"""CPU per GiB, and per small message, of relays: ours and those of others.

    python -m benchmarks.relay --gib 1 --rounds 5

Each relay is a process of its own between a client and a server in this one. What is measured is
the CPU time of the relay's process alone: for bytes from the client to the server, as fast as they
go, and for messages of 64 bytes there and back, one at a time. The relays take turns, each round
begins with another, and the median of the rounds counts. Names with "tls" have the client in TLS
1.3 (AES-128-GCM, RSA 2048) and the server in plain text.

    headrace        relay(), which splices what is much
    headrace loop   a read() and a write() of Stream for each piece, both ways: what relay() adds
    asyncio         read(), write(), drain(), both ways
    haproxy         TCP mode, one thread; "splice" with option splice-request and -response
    socat           buffers of 256 KiB
    pproxy          a tunnel, where `--pproxy` names the program
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import trustme

OURS = """
import asyncio, ssl, sys, headrace
async def main():
    async def copy(a, b):
        while data := await a.read(1 << 18):
            await b.write(data)
        b.write_eof()
    async def serve(reader, writer):
        a = headrace.Stream(reader, writer)
        pair = await headrace.open_connection("127.0.0.1", int(sys.argv[2]))
        async with a, headrace.Stream(*pair) as b:
            if len(sys.argv) > 4:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(sys.argv[4])
                await a.start_tls(context)
            if sys.argv[3].startswith("headrace loop"):
                await asyncio.gather(copy(a, b), copy(b, a))
            else:
                await headrace.relay(a, b)
    async with await headrace.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""

ASYNCIO = """
import asyncio, ssl, sys
async def main():
    context = None
    if len(sys.argv) > 4:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[4])
    async def copy(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    async def serve(reader, writer):
        back, forth = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
        await asyncio.gather(copy(reader, forth), copy(back, writer))
        forth.close()
        writer.close()
    async with await asyncio.start_server(
        serve, "127.0.0.1", int(sys.argv[1]), ssl=context
    ) as server:
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
    bind 127.0.0.1:{port}{secure}
    server target 127.0.0.1:{target}
"""


def command(name: str, port: int, target: int, folder: str, pproxy: str) -> list[str]:
    """Return what starts the relay *name*; the certificate is in *folder*."""
    pem = os.path.join(folder, "pem")
    if name.startswith("haproxy"):
        splices = name == "haproxy splice"
        path = os.path.join(folder, name.replace(" ", "-"))
        with open(path, "w", encoding="utf-8") as file:
            option = "option splice-request\n    option splice-response" if splices else ""
            secure = f" ssl crt {pem}" if name.endswith(" tls") else ""
            file.write(
                HAPROXY.format(
                    splice="" if splices else "nosplice",
                    option=option,
                    port=port,
                    target=target,
                    secure=secure,
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
    if name == "pproxy":
        return [pproxy, "-l", f"tunnel{{127.0.0.1:{target}}}://127.0.0.1:{port}"]
    program = OURS if name.startswith("headrace") else ASYNCIO
    found = [sys.executable, "-c", program, str(port), str(target), name]
    return [*found, pem] if name.endswith(" tls") else found


def certificate(folder: str) -> ssl.SSLContext:
    """Put a certificate with its key into *folder*; return the context of a client that trusts
    it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    issued.private_key_and_cert_chain_pem.write_to_path(os.path.join(folder, "pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority.configure_trust(context)
    return context


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def cpu(pid: int) -> float:
    """Return how many seconds of CPU time the process *pid* has used."""
    spent = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            spent += int(file.read().split()[0])
    return spent / 1e9


def connect(port: int) -> socket.socket:
    """Return a connection to the relay at *port*, once it listens."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("the relay does not listen")


def measure(
    name: str, size: int, messages: int, folder: str, pproxy: str, context: ssl.SSLContext
) -> tuple[float, float]:
    """Return the CPU seconds of *name* for *size* bytes one way, and for each of *messages* of 64
    bytes there and back."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            command(name, port, listener.getsockname()[1], folder, pproxy),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            near = connect(port)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if name.endswith(" tls"):
                near = context.wrap_socket(near, server_hostname="localhost")
            # pproxy connects with the first bytes, and asyncio's loop with the handshake.
            near.sendall(b"x" * 64)
            far = listener.accept()[0]
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receive(far, 64)
            exchange(near, far, messages // 5)  # what is only done once
            before = cpu(process.pid)
            exchange(near, far, messages)
            small = (cpu(process.pid) - before) / messages
            before = cpu(process.pid)
            thread = threading.Thread(target=send, args=(near, size))
            thread.start()
            receive(far, size)
            thread.join()
            large = cpu(process.pid) - before
            near.close()
            far.close()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return large, small


def exchange(near: socket.socket, far: socket.socket, messages: int) -> None:
    """Send so many *messages* of 64 bytes there and back, one at a time."""
    for _ in range(messages):
        near.sendall(b"x" * 64)
        receive(far, 64)
        far.sendall(b"y" * 64)
        receive(near, 64)


def receive(sock: socket.socket, size: int) -> None:
    """Receive *size* bytes."""
    buffer = bytearray(min(size, 1 << 20))
    while size:
        count = sock.recv_into(buffer)
        if not count:
            raise EOFError("the relay has ended")
        size -= count


def send(sock: socket.socket, size: int) -> None:
    """Send *size* bytes."""
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        sock.sendall(piece)


def main() -> None:
    """Measure all relays that are there, in turn, and print the median of each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gib", type=float, default=1.0, help="GiB that each passes on (1)")
    parser.add_argument("--rounds", type=int, default=5, help="the median of N (5)")
    parser.add_argument("--messages", type=int, default=5000, help="small messages of each (5000)")
    parser.add_argument("--pproxy", default=shutil.which("pproxy"), help="the program of pproxy")
    parser.add_argument("--only", default="", help="measure relays whose name has this in it")
    options = parser.parse_args()
    gib, rounds = options.gib, options.rounds
    names = ["headrace", "headrace loop", "asyncio"]
    names += [f"{name} tls" for name in names]
    if shutil.which("haproxy"):
        names += ["haproxy", "haproxy splice", "haproxy tls"]
    if shutil.which("socat"):
        names.append("socat")
    if options.pproxy:
        names.append("pproxy")
    names = [name for name in names if options.only in name]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        context = certificate(folder)
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                size = int(gib * 1024) << 20
                found[name].append(
                    measure(name, size, options.messages, folder, options.pproxy, context)
                )
    for name, results in found.items():
        large = statistics.median(each[0] for each in results) / gib
        small = statistics.median(each[1] for each in results)
        print(f"{name:18}{large:8.3f} s/GiB{small * 1e6:8.1f} us for 64 B there and back")


if __name__ == "__main__":
    main()
