"""serve(): a server over streams, with all that start_server() leaves to its users."""

from __future__ import annotations

import functools
import inspect
import math
import socket
import ssl as ssl_module
from collections.abc import Iterable, Sequence
from typing import Unpack, overload

from headrace._duplex.descriptors import check as check_descriptors
from headrace._duplex.trace import Trace, checked_trace
from headrace._server.certificates import Certificates
from headrace._server.config import Limits, most_connections
from headrace._server.endpoints import Addresses, Endpoint, Inherited, UnixPath
from headrace._server.log import logger
from headrace._server.negotiation import lacks_certificate
from headrace._server.networks import Networks
from headrace._server.options import (
    Handler,
    OnError,
    Options,
    PairHandler,
    ServeOptions,
    StreamHandler,
    takes_stream,
)
from headrace._server.server import LocalServer
from headrace._server.stream_server import StreamServer
from headrace._streams.arguments import (
    MOST_KEEPALIVE_SECONDS,
    check_option,
    check_server_context,
    checked_limit,
)
from headrace._streams.socketfile import Path
from headrace._transport.base import Way


# A lambda has the arguments of the first of these that it fits.
@overload
def serve(
    handler: StreamHandler,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    **options: Unpack[ServeOptions],
) -> StreamServer: ...


@overload
def serve(
    handler: PairHandler,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    **options: Unpack[ServeOptions],
) -> StreamServer: ...


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    path: Path | None = None,
    mode: int | None = None,
    owner: str | int | None = None,
    group: str | int | None = None,
    sockets: Sequence[socket.socket] = (),
    limit: int | None = None,
    ssl: ssl_module.SSLContext | Certificates | None = None,
    ssl_shutdown_timeout: float | None = None,
    max_fds: int = 0,
    proxies: Iterable[str] = (),
    max_connections: int | None = None,
    max_connections_per_peer: int | None = None,
    accept_rate: float | None = None,
    max_buffered_bytes: int | None = None,
    refusal: bytes | None = None,
    handshake_timeout: float | None = 10.0,
    first_byte_timeout: float | None = 60.0,
    idle_timeout: float | None = None,
    stall_timeout: float | None = 60.0,
    minimum_rate: float | None = None,
    keep_alive: float | None = 60.0,
    grace: float = 20.0,
    on_error: OnError | None = None,
    backlog: int = 4096,
    reuse_port: bool = False,
    workers: int | None = None,
    name: str | None = None,
    trace: Trace | None = None,
    way: Way | None = None,
) -> StreamServer:
    """Return a server that calls *handler*, a coroutine function, for every connection; ``async
    with`` starts and stops it.

    A handler that takes one argument gets a Stream. One that can take two gets a StreamReader and a
    StreamWriter, as from start_server().

    ::

        async with headrace.serve(handler, "0.0.0.0", 8888) as server:
            print(await server.serve_forever())

    When the handler returns, the connection is closed after what was written. What the handler
    raises is logged once, to the logger headrace.server with the peer and the connection's number,
    and counted; other connections go on. Each handler has context variables of its own, and
    current_connection() returns its Connection.

    Where to listen; several of these go together:
        host, port: as for start_server(). path: a Unix socket, with *mode* (as for chmod()),
            *owner* and *group* (names or numbers) if they are given. sockets: bound stream sockets,
            such as activated_sockets() returns; they belong to the server from then on.
        reuse_port: SO_REUSEPORT, for several processes on one port. backlog: how many connections
            the system keeps that are not yet accepted; it takes no more than net.core.somaxconn,
            which is 4096 by default.
    How to talk:
        limit, way: as for start_server(). ssl: a context, or Certificates, which can be renewed and
            chosen by name. ssl_shutdown_timeout: as for start_server().
        max_fds: how many descriptors may wait to be received by a connection, up to 253; only with
            Unix sockets in plain text, and a handler that takes a Stream: its send_fds() and
            receive_fds(). 0 for none.
        proxies: networks ("10.0.0.0/8", "unix") whose connections begin with a PROXY header,
            version 1 or 2, before TLS; a connection from there without one is closed. From anywhere
            else such a header is data like any other. The header says who the client is:
            get_extra_info("peername") and ("sockname") return that, and ("proxy") a ProxyHeader.
    Bounds; None is no bound. The server compares counts now and then, so reading and writing cost
    the same, and a timeout may be kept up to a quarter late, never early:
        max_connections: connections that are open at a time. Default: nine tenths of the
            descriptors that this process may have (RLIMIT_NOFILE); beyond those no handler could
            open a file.
        max_connections_per_peer: connections of one address, or one /64 of IPv6, at a time.
            Default: none; proxies and providers put many clients behind one address.
        accept_rate: connections a second that are accepted; a burst may be a second's worth.
            Default: none; what a flood makes expensive is handshakes of TLS, of which a core does
            about 1,000 a second.
        max_buffered_bytes: bytes received and not read, written and not sent, of all connections
            together; above it nothing is accepted, and the connections with the most are ended.
            Default: none; each connection is bounded by twice its limit, and by what its handler
            writes without drain().
        handshake_timeout: seconds for the PROXY header and TLS together. Default: 10; three losses
            on a slow path (RFC 6298) take 7.
        first_byte_timeout: seconds in which neither side has said anything. Default: 60; a client
            that connects wants something, and nginx waits as long.
        idle_timeout: seconds in which the handler waits for the peer and nothing comes. Default:
            none; many protocols rest for hours.
        stall_timeout: seconds in which the peer takes nothing of what was written. Default: 60; a
            peer that reads nothing for so long does not read.
        minimum_rate: bytes a second of a message that has begun (readline(), readuntil(),
            readexactly()), and of what is sent, over ten seconds. Default: none; 100 or so keeps
            out clients that send a byte now and then to keep a connection (slow-loris), and nobody
            else. It is about one read: a request of many lines has as long as all of them, unless
            the handler says otherwise (asyncio.timeout()).
        refusal: bytes for a connection above one of the first two bounds before it is closed, in
            plain text only. Default: above max_connections nothing is accepted, and connections
            wait in the system's queue, which is better for a short while; b"" closes them.
        keep_alive: seconds after which the system asks a silent peer whether it is there (TCP
            keep-alive); gone ones end within one minute more. Default: 60; a peer that vanished is
            no client, and costs a connection for ever without idle_timeout.
        A connection that breaks a bound is closed; a read or drain() of its handler raises
        ConnectionAbortedError, which says why.
    On more than one core:
        workers: so many processes, which this one supervises: one that dies is started again, after
            a pause that grows if that happens again and again, and meanwhile another accepts in its
            place; SIGHUP, or renew(), replaces them one after another by new ones, which read the
            program and the certificates anew, and refuses no connection. Bounds are each worker's.
            The handler, on_error, the class of trace and the function of Certificates have to be
            those of a module that can be imported, and the main program needs
            ``if __name__ == "__main__":``, as for multiprocessing (start method "spawn").
    In the end:
        grace: seconds in which connections may finish in a shutdown. Default 20: Kubernetes kills
            after 30.
        on_error: called with (Connection, exception) for what a handler raises, after it was
            logged.
        name: what logs and metrics call the server; default: where it listens, with the port that
            was bound.
        trace: an object that is told how each connection goes, and how it ends: see Trace.

    Raises: ValueError and TypeError for arguments that are wrong, or contradict each other. For
    what the start raises see StreamServer.start().
    """
    _check_handler(handler)
    if not isinstance(ssl, Certificates):
        check_server_context(ssl)
        if ssl is not None and lacks_certificate(ssl):
            logger.warning(
                "serve(): the context of ssl= has no certificate to show to a client: call its "
                "load_cert_chain()"
            )
    endpoints: list[Endpoint] = []
    if host is not None or port is not None:
        endpoints.append(Addresses(host, port, reuse_port, keep_alive))
    if path is not None:
        endpoints.append(UnixPath(path, mode, owner, group))
    elif (mode, owner, group) != (None, None, None):
        raise ValueError(
            "mode, owner and group are those of the Unix socket at path=…, and there is none"
        )
    if sockets:
        endpoints.append(Inherited(sockets, keep_alive))
    if not endpoints:
        raise ValueError("where to listen? Give host and port, path, or sockets")
    if max_fds:
        _check_descriptors(max_fds, handler, ssl, sockets, host is None and port is None)
    if inspect.iscoroutinefunction(on_error):
        raise TypeError("on_error is called, not awaited: give a function, which may start a task")
    if refusal is not None and not isinstance(refusal, bytes):
        raise TypeError(f"refusal must be bytes, not {type(refusal).__name__!r}")
    if not 0 <= grace < math.inf:
        raise ValueError(f"grace must be 0 or more seconds, not {grace!r}")
    check_option(keep_alive, "keep_alive", MOST_KEEPALIVE_SECONDS)
    limits = Limits(
        max_connections=most_connections() if max_connections is None else max_connections,
        max_connections_per_peer=max_connections_per_peer,
        accept_rate=accept_rate,
        max_buffered_bytes=max_buffered_bytes,
        handshake_timeout=handshake_timeout,
        first_byte_timeout=first_byte_timeout,
        idle_timeout=idle_timeout,
        stall_timeout=stall_timeout,
        minimum_rate=minimum_rate,
    )
    options = Options(
        name=name,
        limit=checked_limit(limit),
        limits=limits,
        ssl=ssl,
        shutdown_timeout=ssl_shutdown_timeout,
        proxies=Networks(proxies),
        refusal=refusal,
        grace=grace,
        on_error=on_error,
        backlog=backlog,
        max_fds=max_fds,
        trace=checked_trace(trace),
        way=way,
    )
    if workers is None:
        return LocalServer(handler, endpoints, options)
    if workers < 1:
        raise ValueError(
            f"workers must be 1 or more processes, or None to serve in this one, not {workers!r}"
        )
    # multiprocessing is not for everybody to import.
    from headrace._server.workers.supervisor import Supervisor

    return Supervisor(handler, endpoints, options, workers)


def _check_descriptors(
    max_fds: int,
    handler: Handler,
    ssl: object,
    sockets: Sequence[socket.socket],
    is_unix: bool,
) -> None:
    """Raise ValueError where descriptors cannot be passed, and TypeError where *handler* could not
    take any."""
    if not is_unix or ssl is not None:
        raise ValueError("max_fds is for Unix sockets in plain text: path=, or sockets=")
    unknown: Sequence[socket.socket | None] = [None]
    for sock in sockets or unknown:
        check_descriptors(sock, max_fds)
    if not takes_stream(handler):
        raise TypeError("max_fds is for a handler that takes a Stream: one parameter")


def _check_handler(handler: object) -> None:
    """Raise TypeError where *handler* is surely no coroutine function, nor anything else that
    returns what can be awaited."""
    if not callable(handler):
        raise TypeError(f"handler must be a coroutine function, not {type(handler).__name__!r}")
    takes_stream(handler)
    plain = inspect.unwrap(handler)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    plain = getattr(plain, "__func__", plain)
    # A lambda, or a function that says that it returns something, may return a coroutine.
    if (
        inspect.isfunction(plain)
        and not inspect.iscoroutinefunction(plain)
        and plain.__name__ != "<lambda>"
        and plain.__annotations__.get("return") in (None, "None")
    ):
        raise TypeError(
            f"handler must be a coroutine function: write 'async def {plain.__name__}(stream)'"
        )
