"""``headrace serve``: a server to try a client on: it echoes, swallows what comes, or sends a
file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import re
import ssl
import sys
import tempfile
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from headrace._server.config import Limits, is_whole, shown_default, summary
from headrace.cli.loops import loop_factory

DESCRIPTION = """\
Serve until Ctrl-C or SIGTERM: echo what comes, swallow it, or send a file; and say who comes and
how it ended.

The first Ctrl-C lets connections finish, for --grace seconds; the second cancels their handlers,
the third cuts them off. SIGHUP reads the certificate again, or replaces the --workers.

examples:
  headrace serve                                     echo on 127.0.0.1:8888
  headrace serve sink 0.0.0.0:9000                   swallow, and count
  headrace serve file ./page.html :8080              send the file to whoever connects
  headrace serve echo :8443 unix:/tmp/echo --tls --cert chain.pem --key key.pem
  headrace serve echo :2525 --starttls smtp          with a certificate made for the occasion
                                                     (needs headrace[demo])
  headrace serve echo :8888 --workers 4 --metrics 9464     then, elsewhere: headrace top
  headrace serve echo :8888 --proxy 127.0.0.0/8 --idle-timeout 60 --max-connections 1000
"""

DEFAULT_PLACE = "127.0.0.1:8888"
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


async def echo(reader: Any, writer: Any) -> None:
    """Send back what comes."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def sink(reader: Any, writer: Any) -> None:
    """Swallow what comes."""
    while await reader.read(CHUNK_BYTES):
        pass


async def send_file(path: Path, reader: Any, writer: Any) -> None:
    """Send the file at *path*."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def upgraded(
    protocol: str, certificates: Any, handler: Any, reader: Any, writer: Any
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what serve() takes to *parser*."""
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        default="echo",
        metavar="echo|sink|file PATH",
        help="what to do with a connection (echo)",
    )
    add(
        "places",
        nargs="*",
        metavar="[HOST]:PORT|unix:PATH",
        help=f"where to listen ({DEFAULT_PLACE}); without HOST on all addresses",
    )
    add("-q", "--quiet", action="store_true", help="say only what is wrong")
    add("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="event loop (asyncio)")
    add("--workers", type=int, metavar="N", help="serve from N processes")
    add(
        "--metrics",
        type=_port,
        metavar="PORT",
        help="figures for Prometheus and headrace top, on 127.0.0.1:PORT (headrace[metrics])",
    )
    secure = parser.add_argument_group("TLS")
    how = secure.add_mutually_exclusive_group()
    how.add_argument("--tls", action="store_true", help="speak TLS from the beginning")
    how.add_argument(
        "--starttls",
        choices=tuple(STARTTLS),
        help="begin in plain text and upgrade, as this protocol does",
    )
    secure.add_argument(
        "--cert",
        metavar="FILE",
        help="certificate chain (PEM); default: one made for the occasion, for localhost",
    )
    secure.add_argument(
        "--key", metavar="FILE", help="its private key (PEM), unless that is in the same file"
    )
    secure.add_argument(
        "--client-ca",
        metavar="FILE",
        help="ask clients for a certificate that one of these authorities has signed (PEM)",
    )
    secure.add_argument(
        "--alpn", metavar="A,B", default="", help="protocols to agree on, the best first"
    )
    bounds = parser.add_argument_group(
        "bounds", "what a connection may do, with the default; headrace.serve() says why"
    )
    for each in fields(Limits):
        bounds.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=int if is_whole(each) else float,
            metavar="N" if is_whole(each) else "X",
            help=f"{summary(each)} ({shown_default(each)})",
        )
    bounds.add_argument(
        "--grace", type=float, metavar="X", help="seconds to finish in, at the end (20)"
    )
    bounds.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="NETWORK",
        help="connections from there begin with a PROXY header",
    )


def serve(options: argparse.Namespace) -> int:
    """Serve as *options* say, which add_arguments() defines; return the exit status: 0, 1 where it
    cannot listen, 2 for wrong arguments."""
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    if not options.quiet:
        logging.getLogger("headrace.server").setLevel(logging.DEBUG)
    with contextlib.ExitStack() as stack:
        try:
            factory = loop_factory(options.loop)
            handler, places = _handler_and_places(options)
            certificates = _certificates(options, stack)
            if options.starttls:
                handler = partial(upgraded, options.starttls, certificates, handler)
        except (ValueError, OSError) as error:
            return _fail(str(error), 2)
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(
                    _run(options, handler, places, None if options.starttls else certificates)
                )
        except OSError as error:
            # The number means nothing to a user, and asyncio's message has it once more inside.
            return _fail(re.sub(r"\[errno \d+\] ", "", str(error), flags=re.IGNORECASE), 1)
        except RuntimeError as error:  # a worker does not start
            return _fail(str(error), 1)
        except (ValueError, ImportError) as error:
            return _fail(str(error), 2)
        except KeyboardInterrupt:
            return 130
    return 0


async def _run(
    options: argparse.Namespace, handler: Any, places: list[tuple[str, Any]], certificates: Any
) -> None:
    import headrace

    bounds = {
        name: getattr(options, name)
        for name in ("grace", *(each.name for each in fields(Limits)))
        if getattr(options, name) is not None
    }
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for kind, where in places:
            place = {"path": where} if kind == "unix" else {"host": where[0], "port": where[1]}
            server = headrace.serve(
                handler,
                **place,
                ssl=certificates,
                proxies=options.proxy,
                workers=options.workers,
                **bounds,
            )
            servers.append(await stack.enter_async_context(server))
            for sock in server.sockets:
                _say(options, f"{options.what} on {_words(sock.getsockname())}")
        if options.metrics is not None:
            from headrace.metrics import serve_metrics

            figures = await serve_metrics(*servers, port=options.metrics)
            stack.callback(figures.close)
            _say(
                options,
                f"metrics on http://127.0.0.1:{figures.sockets[0].getsockname()[1]}/metrics",
            )
        # Each takes the signals: a second Ctrl-C hurries all of them, SIGHUP renews all.
        reports = await asyncio.gather(*(server.serve_forever() for server in servers))
        for server, report in zip(servers, reports, strict=True):
            _say(options, f"{server.name}: {report}")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def _handler_and_places(options: argparse.Namespace) -> tuple[Any, list[tuple[str, Any]]]:
    words = [options.what, *options.places]
    handlers: dict[str, Any] = {"echo": echo, "sink": sink}
    if words[0] in handlers:
        handler = handlers[words.pop(0)]
    elif words[0] == "file":
        if len(words) < 2:
            raise ValueError("file: which one? headrace serve file PATH [[HOST]:PORT…]")
        path = Path(words[1])
        with path.open("rb"):  # says what is wrong with it, now and not to every client
            pass
        handler = partial(send_file, path)
        del words[:2]
    elif ":" in words[0]:
        handler = echo
        options.what = "echo"
    else:
        raise ValueError(
            f"{words[0]!r} is nothing that can be served: echo, sink or file PATH, then where: "
            "[HOST]:PORT or unix:PATH"
        )
    return handler, [_place(word) for word in words or [DEFAULT_PLACE]]


def _place(word: str) -> tuple[str, Any]:
    """Return ("unix", path) or ("tcp", (host, port))."""
    if word.startswith("unix:"):
        return "unix", word.removeprefix("unix:")
    host, colon, port = word.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{word!r} is no place to listen at: [HOST]:PORT or unix:PATH")
    return "tcp", (host.strip("[]") or None, int(port))


def _certificates(options: argparse.Namespace, stack: contextlib.ExitStack) -> Any:
    """Return the Certificates that TLS needs; None without TLS."""
    if not options.tls and not options.starttls:
        if options.cert or options.key or options.client_ca or options.alpn:
            raise ValueError("--cert, --key, --client-ca and --alpn are for --tls or --starttls")
        return None
    from headrace._server.certificates import Certificates

    chain = options.cert
    if chain is None:
        chain = _made_certificate(stack)
    alpn = tuple(name for name in options.alpn.split(",") if name)
    try:
        return Certificates(chain, options.key, client_authority=options.client_ca, alpn=alpn)
    except ssl.SSLError as error:
        raise ValueError(str(error)) from error


def _made_certificate(stack: contextlib.ExitStack) -> str:
    """Return the path of a certificate for localhost, with its key, that nobody trusts; it is
    removed in the end."""
    try:
        import trustme
    except ImportError:
        raise ValueError(
            "TLS needs --cert FILE, or trustme to make one for localhost: pip install "
            "'headrace[demo]'"
        ) from None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-")))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    print(
        f"a certificate for localhost was made: headrace connect --ca {folder / 'ca.pem'}",
        file=sys.stderr,
    )
    return str(folder / "server.pem")


def _words(name: Any) -> str:
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)


def _fail(text: str, status: int) -> int:
    print(f"headrace serve: {text}", file=sys.stderr)
    return status
