"""What ``headrace serve`` does with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from headrace import Certificates, StreamReader, StreamWriter

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]

CHUNK_BYTES = 65536

# What a server says before TLS: its greeting; what clients ask for its abilities with, and the
# answer; what asks for TLS, and the answer.
STARTTLS = {
    "smtp": (
        b"220 headrace\r\n",
        (b"EHLO",),
        b"250-headrace\r\n250 STARTTLS\r\n",
        b"STARTTLS",
        b"220 go ahead\r\n",
    ),
    "pop3": (
        b"+OK headrace\r\n",
        (b"CAPA",),
        b"+OK\r\nSTLS\r\n.\r\n",
        b"STLS",
        b"+OK go ahead\r\n",
    ),
    "imap": (
        b"* OK headrace\r\n",
        (b"CAPABILITY",),
        b"* CAPABILITY IMAP4rev1 STARTTLS\r\n%s OK\r\n",
        b"STARTTLS",
        b"%s OK go ahead\r\n",
    ),
    "ftp": (
        b"220 headrace\r\n",
        (b"FEAT",),
        b"211-Features:\r\n AUTH TLS\r\n211 End\r\n",
        b"AUTH TLS",
        b"234 go ahead\r\n",
    ),
}


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def sink(reader: StreamReader, writer: StreamWriter) -> None:
    """Swallow what comes."""
    while await reader.read(CHUNK_BYTES):
        pass


async def send_file(path: Path, reader: StreamReader, writer: StreamWriter) -> None:
    """Send the file at *path*."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def upgraded(
    protocol: str,
    certificates: Certificates,
    handler: Handler,
    reader: StreamReader,
    writer: StreamWriter,
) -> None:
    """Speak *protocol* until the client asks for TLS, then be what *handler* is."""
    greeting, asking, abilities, request, agreed = STARTTLS[protocol]
    writer.write(greeting)
    async for line in reader:
        # IMAP puts a tag in front, and in front of the answer.
        tag, _, rest = (
            line.strip().partition(b" ") if protocol == "imap" else (b"", b"", line.strip())
        )
        command = rest.upper()
        if command.startswith(request):
            writer.write(agreed.replace(b"%s", tag))
            await writer.start_tls(certificates.context)
            await handler(reader, writer)
            return
        if command.startswith(asking):
            writer.write(abilities.replace(b"%s", tag))
        else:
            writer.write(
                b"%s BAD STARTTLS first\r\n" % tag if tag else b"500 -ERR STARTTLS first\r\n"
            )
        await writer.drain()
