"""Programs as people run them, on a loop that is named: ``python -m benchmarks.program_sides``.

A server says its port as one line of JSON and serves until it is stopped. A client talks to the
runner as canned.py does, and counts its own CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import platform
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .canned import LOOPBACK
from .servers import die_with_parent, tls_context

BODY = b"Hello, World!"
FACTORIES = {
    "asyncio": ("asyncio", "SelectorEventLoop"),
    "uvloop": ("uvloop", "new_event_loop"),
    "headrace": ("headrace", "new_event_loop"),
    "rloop": ("rloop", "new_event_loop"),
    "rsloop": ("rsloop", "new_event_loop"),
}


def factory_of(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop of that name. Raises: ImportError."""
    module, name = FACTORIES[loop]
    factory: Callable[[], asyncio.AbstractEventLoop] = getattr(
        importlib.import_module(module), name
    )
    return factory


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def _versions(loop: str, *packages: str) -> str:
    names = [*packages, *([] if loop == "asyncio" else [loop])]
    parts = [f"CPython {platform.python_version()}"]
    for name in names:
        try:
            parts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{name} from a path")
    return ", ".join(parts)


# ---- servers


async def serve_aiohttp(context: ssl.SSLContext | None, versions: Callable[..., str]) -> None:
    """An answer of 13 bytes by aiohttp's server."""
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=BODY)

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=context)
    await site.start()
    _say(port=runner.addresses[0][1], versions=versions("aiohttp"))
    await asyncio.get_running_loop().create_future()


async def serve_uvicorn(context: ssl.SSLContext | None, versions: Callable[..., str]) -> None:
    """An answer of 13 bytes by uvicorn, with httptools."""
    import uvicorn

    length = str(len(BODY)).encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": BODY})

    config = uvicorn.Config(
        app, LOOPBACK, 0, lifespan="off", http="httptools", access_log=False, log_level="error"
    )
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    _say(port=port, versions=versions("uvicorn", "httptools"))
    await serving


async def serve_websockets(context: ssl.SSLContext | None, versions: Callable[..., str]) -> None:
    """An echo by websockets."""
    from websockets.asyncio.server import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    server = await serve(echo, LOOPBACK, 0, ssl=context, compression=None)
    _say(port=next(iter(server.sockets)).getsockname()[1], versions=versions("websockets"))
    await asyncio.get_running_loop().create_future()


SERVERS = {"aiohttp": serve_aiohttp, "uvicorn": serve_uvicorn, "websockets": serve_websockets}


# ---- clients

Use = Callable[[float], Awaitable[int]]


async def use_aiohttp(port: int, connections: int) -> Use:
    """Requests by aiohttp's client, one after another on each connection."""
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections))
    url = f"http://{LOOPBACK}:{port}/"

    async def one(until: float) -> int:
        count = 0
        while time.monotonic() < until:
            async with session.get(url) as response:
                assert await response.read() == BODY
            count += 1
        return count

    return _many(one, connections)


async def use_redis(port: int, connections: int) -> Use:
    """GETs of 100 bytes by redis-py."""
    import redis.asyncio

    client = redis.asyncio.Redis(host=LOOPBACK, port=port, max_connections=connections)
    await client.set("key", b"x" * 100)

    async def one(until: float) -> int:
        count = 0
        while time.monotonic() < until:
            await client.get("key")
            count += 1
        return count

    return _many(one, connections)


async def use_nats(port: int, connections: int) -> Use:
    """Messages of 100 bytes by nats-py, published and received again."""
    import nats

    publishers = [await nats.connect(f"nats://{LOOPBACK}:{port}") for _ in range(connections)]
    subscriptions = [
        await client.subscribe(f"subject.{number}") for number, client in enumerate(publishers)
    ]

    async def one(number: int, until: float) -> int:
        count = 0
        while time.monotonic() < until:
            await publishers[number].publish(f"subject.{number}", b"x" * 100)
            await subscriptions[number].next_msg()
            count += 1
        return count

    async def use(until: float) -> int:
        return sum(await asyncio.gather(*(one(number, until) for number in range(connections))))

    return use


def _many(one: Callable[[float], Awaitable[int]], tasks: int) -> Use:
    async def use(until: float) -> int:
        return sum(await asyncio.gather(*(one(until) for _ in range(tasks))))

    return use


CLIENTS = {"aiohttp": use_aiohttp, "redis": use_redis, "nats": use_nats}
PACKAGES = {"aiohttp": ("aiohttp",), "redis": ("redis", "hiredis"), "nats": ("nats-py",)}


async def _run_client(options: argparse.Namespace) -> None:
    use = await CLIENTS[options.program](options.port, options.connections)
    await use(time.monotonic() + options.warmup)
    _say(versions=_versions(options.loop, *PACKAGES[options.program]))
    sys.stdin.readline()
    began, began_cpu = time.monotonic(), time.process_time_ns()
    count = await use(began + options.seconds)
    cpu_ns, seconds = time.process_time_ns() - began_cpu, time.monotonic() - began
    _say(messages=count, seconds=seconds, cpu_ns=cpu_ns)
    sys.stdin.readline()


# ---- the command line


def main(arguments: list[str] | None = None) -> int:
    """Be the side that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.program_sides", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("side", choices=("server", "client"))
    parser.add_argument("program", choices=sorted({*SERVERS, *CLIENTS}))
    parser.add_argument("loop", choices=FACTORIES)
    parser.add_argument("--cert", help="a server's key and certificate, for TLS")
    parser.add_argument("--port", type=int, help="where a client goes")
    parser.add_argument("--connections", type=int, default=1, help="a client's")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    options = parser.parse_args(arguments)
    try:
        factory = factory_of(options.loop)
    except ImportError as error:
        _say(missing=str(error))
        return 0
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with asyncio.Runner(loop_factory=factory) as runner:
        if options.side == "client":
            runner.run(_run_client(options))
        else:
            context = tls_context(options.cert) if options.cert else None

            def versions(*packages: str) -> str:
                return _versions(options.loop, *packages)

            try:
                runner.run(SERVERS[options.program](context, versions))
            except ImportError as error:
                _say(missing=str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
