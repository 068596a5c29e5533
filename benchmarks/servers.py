"""One Python peer serving one load: ``python -m benchmarks.servers PEER LOAD``.

The first line on stdout is JSON. It is the whole contract with the runner:

    {"port": 40123, "versions": "CPython 3.13.0, uvloop 0.23.0", ...}
    {"missing": "no module named 'headrace'"}      the peer is not installed here
    {"skipped": "trio reads no lines"}             the combination makes no sense

It listens on 127.0.0.1 only, and lives until a signal stops it or its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import platform
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from . import server_duplex, server_protocols, server_streams
from .builds import build_of
from .loads import LOADS, Load
from .peers import PEERS, Peer

PR_SET_PDEATHSIG = 1  # Linux <sys/prctl.h>


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def _die_with_parent() -> None:
    """Ask Linux to kill us when the runner goes, however it goes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _all_the_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tls_context(path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    return context


def _versions(peer: Peer) -> str:
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    for package in peer.packages:
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{package} (not installed, imported from a path)")
        if package == "headrace":
            parts[-1] += f" {build_of(package)}"
    return ", ".join(parts)


def _starter(peer: Peer, unix: bool) -> server_streams.Starter:
    """The ``start_server`` of a streams peer, in asyncio's signature."""
    if peer.streams in server_duplex.HANDLERS:
        peer = replace(peer, streams="headrace")
    if unix:
        module: Any = importlib.import_module(peer.streams)
        starter: server_streams.Starter = module.start_unix_server
        return starter
    if peer.streams == "asyncio":
        return asyncio.start_server
    if peer.streams == "serve":
        return _start_service
    module = importlib.import_module(peer.streams)
    if peer.streams == "aiofastnet":  # takes the loop first
        return partial(module.start_server, asyncio.get_running_loop())
    return module.start_server  # type: ignore[no-any-return]


def _handler(peer: Peer, load: Load) -> server_streams.Handler:
    """The handler of a streams peer for the units of *load*."""
    duplex = server_duplex.HANDLERS.get(peer.streams)
    if duplex is None:
        return server_streams.HANDLERS[load.shape]
    return server_duplex.of_pair(duplex[load.shape])


async def _start_service(handler: Any, host: str, port: int, **options: Any) -> Any:
    """``headrace.serve`` in the signature of ``start_server``."""
    import headrace

    server = headrace.serve(handler, host, port, **options)
    await server.start()
    return server


async def _serve_on_asyncio(
    peer: Peer, load: Load, port: int, context: ssl.SSLContext | None
) -> None:
    if peer.streams == "protocol":
        bound = await server_protocols.start(load.shape, port, context)
    elif load.unix:
        bound = await server_streams.start_unix(_starter(peer, True), _handler(peer, load))
    else:
        starter = _starter(peer, False)
        bound = await server_streams.start(starter, _handler(peer, load), port, context)
    _say(port=bound, versions=_versions(peer))
    await asyncio.get_running_loop().create_future()


def _serve(peer: Peer, load: Load, port: int, context: ssl.SSLContext | None) -> None:
    if peer.loop in ("trio", "anyio"):
        from . import server_structured

        run = server_structured.run_trio if peer.loop == "trio" else server_structured.run_anyio
        run(
            load.shape,
            port,
            context,
            lambda bound: _say(port=bound, versions=_versions(peer)),
        )
        return
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if peer.loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve_on_asyncio(peer, load, port, context))


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; return at once, with a reason, where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("peer", choices=[name for name, peer in PEERS.items() if peer.is_python])
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--cert", help="PEM file with key and certificate, for the TLS loads")
    options = parser.parse_args(arguments)
    peer, load = PEERS[options.peer], LOADS[options.load]
    if reason := peer.reason_to_skip(load):
        _say(skipped=reason)
        return 0
    if load.tls and not options.cert:
        parser.error(f"{load.name} needs --cert")
    try:
        for package in peer.packages:
            importlib.import_module(package)
    except ImportError as error:
        _say(missing=str(error))
        return 0
    _die_with_parent()
    _all_the_descriptors()
    # The runner stops us by SIGTERM; a traceback then would only be noise.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(peer, load, options.port, _tls_context(options.cert) if load.tls else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
