"""The first half of the demo: small programs on real sockets, each telling what it does.

The first three are those of asyncio's Streams documentation, the others what users do next. All of
it is asyncio's API: with ``import asyncio`` for ``headrace`` in front of a name, each line does the
same.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import headrace
from headrace import StreamReader, StreamWriter

Say = Callable[[str], None]


async def _shout(reader: StreamReader, writer: StreamWriter) -> None:
    """Answer each line in capitals."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _ask(reader: StreamReader, writer: StreamWriter, line: str) -> str:
    writer.write(line.encode() + b"\n")
    await writer.drain()
    return (await reader.readline()).decode().rstrip()


async def _hang_up(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def echo_client_and_server(say: Say) -> None:
    """A TCP echo server, and a client that talks to it"""
    async with await headrace.start_server(_shout, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        say(f"start_server() listens on {host}:{port}")
        reader, writer = await headrace.open_connection(host, port)
        say(f"open_connection() connected from port {writer.get_extra_info('sockname')[1]}")
        say(f"sent 'hello, streams', received {await _ask(reader, writer, 'hello, streams')!r}")
        await _hang_up(writer)


async def wait_for_data_on_an_open_socket(say: Say) -> None:
    """A socket that is open already, waiting for data"""
    ours, theirs = socket.socketpair()
    reader, writer = await headrace.open_connection(sock=ours)
    say("open_connection(sock=…) took one end of a socket pair; the other end will write in 50 ms")
    asyncio.get_running_loop().call_later(0.05, theirs.send, b"wake up\n")
    say(f"readline() waited, and returned {await reader.readline()!r}")
    await _hang_up(writer)
    theirs.close()


async def unix_sockets(say: Say) -> None:
    """The same over a unix socket"""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "demo.sock"
        async with await headrace.start_unix_server(_shout, path):
            reader, writer = await headrace.open_unix_connection(path)
            say(f"start_unix_server() listens on {path}")
            say(f"sent 'hello, unix', received {await _ask(reader, writer, 'hello, unix')!r}")
            await _hang_up(writer)


async def tls(say: Say, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """The same over TLS"""
    async with await headrace.start_server(_shout, "127.0.0.1", 0, ssl=server_context) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await headrace.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        version, cipher = (
            writer.get_extra_info("ssl_object").version(),
            writer.get_extra_info("cipher")[0],
        )
        say(
            f"open_connection(ssl=…) speaks {version} with {cipher}; the certificate of "
            "'localhost' was checked"
        )
        say(f"sent 'hello, tls', received {await _ask(reader, writer, 'hello, tls')!r}")
        await _hang_up(writer)


async def start_tls(
    say: Say, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """A connection that begins in plain text and is upgraded: start_tls()"""

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go ahead\n")
        await writer.drain()
        await writer.start_tls(server_context)
        await _shout(reader, writer)

    async with await headrace.start_server(handle, "127.0.0.1", 0) as server:
        reader, writer = await headrace.open_connection(
            "127.0.0.1", server.sockets[0].getsockname()[1]
        )
        say(f"in plain text: sent 'STARTTLS', received {await _ask(reader, writer, 'STARTTLS')!r}")
        await writer.start_tls(client_context, server_hostname="localhost")
        say(f"upgraded to {writer.get_extra_info('ssl_object').version()}")
        say(f"sent 'hello again', received {await _ask(reader, writer, 'hello again')!r}")
        await _hang_up(writer)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """Return TLS contexts for a server called localhost and for its clients, or None where no
    certificate can be made."""
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    try:
        import trustme
    except ImportError:
        return _contexts_by_openssl(server, client)
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def _contexts_by_openssl(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    if shutil.which("openssl") is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = Path(directory) / "key.pem", Path(directory) / "certificate.pem"
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
        ]
        command += [
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        server.load_cert_chain(certificate, key)
        client.load_verify_locations(certificate)
    return server, client


def scenes() -> list[tuple[str, Callable[[Say], Awaitable[None]]]]:
    """Return what is to be shown, in order: a title and a coroutine function to be given
    ``say``."""
    plain = [echo_client_and_server, wait_for_data_on_an_open_socket]
    if hasattr(socket, "AF_UNIX"):
        plain.append(unix_sockets)
    shown: list[tuple[str, Callable[[Say], Awaitable[None]]]] = [
        (scene.__doc__ or "", scene) for scene in plain
    ]
    made = contexts()
    if made is not None:
        server_context, client_context = made
        shown += [
            (
                scene.__doc__ or "",
                functools.partial(
                    scene, server_context=server_context, client_context=client_context
                ),
            )
            for scene in (tls, start_tls)
        ]
    return shown
