"""open_connection(): arguments, what loops lack, and who owns the socket."""

import asyncio
import contextlib
import gc
import socket
import ssl
import sys

import pytest
from support.connections import LOOPBACK, until
from support.refusals import OF_TCP, SOME, refuses

import headrace
from headrace._transport.backend import choose

NAME = "name.invalid"


def lacks(streams, loop_kind, since=(3, 11), race=False):
    """Skip asyncio's own functions where the loop or the version does not have what the test is
    about."""
    if streams.name == "stock" and (loop_kind == "uvloop" or sys.version_info < since):
        pytest.skip("not in asyncio's streams here")
    if streams.name == "stock" and loop_kind == "eager" and race:
        pytest.skip("asyncio's race fails with eager tasks (gh-124309)")


@contextlib.contextmanager
def silent_port():
    """A port of loopback that answers no connection request: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def resolve_to(*addresses):
    """Make the running loop resolve NAME to *addresses*, (host, port) each."""
    loop = asyncio.get_running_loop()
    original = loop.getaddrinfo

    async def getaddrinfo(host, port, **hints):
        if host != NAME:
            return await original(host, port, **hints)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (*address, 0, 0))
            if ":" in address[0]
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in addresses
        ]

    loop.getaddrinfo = getaddrinfo


@contextlib.asynccontextmanager
async def greeting(streams, **options):
    """A server that tells each client its address; yields the port."""

    async def serve(reader, writer):
        writer.write(repr(writer.get_extra_info("peername")[:2]).encode())
        writer.close()
        await writer.wait_closed()

    async with await streams.start_server(serve, LOOPBACK, 0, **options) as server:
        yield server.sockets[0].getsockname()[1]


async def greeted(connection):
    reader, writer = connection
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return data


CONTRADICTIONS = [
    *OF_TCP,
    (dict(), ValueError, "host and port was not specified and no sock specified"),
    (
        dict(host=LOOPBACK, port=1, server_hostname="x"),
        ValueError,
        "server_hostname is only meaningful with ssl",
    ),
    (
        dict(port=1, ssl=True),
        ValueError,
        "You must set server_hostname when using ssl without a host",
    ),
    (
        dict(sock=SOME, ssl=True),
        ValueError,
        "You must set server_hostname when using ssl without a host",
    ),
    (dict(host=LOOPBACK, port=1, limit=0), ValueError, "Limit cannot be <= 0"),
]


@pytest.mark.parametrize(("options", "error", "message"), CONTRADICTIONS)
def test_contradictions_are_refused(run, streams, options, error, message):
    """Arguments that contradict each other raise asyncio's errors, and a socket that was passed
    stays open."""

    async def main():
        await refuses(streams.open_connection, options, error, message)

    run(main)


def test_wrong_kind_of_socket_is_refused(run, streams):
    """A datagram socket cannot become a stream."""

    async def main():
        with (
            socket.socket(type=socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match="A Stream Socket was expected"),
        ):
            await streams.open_connection(sock=sock)

    run(main)


def test_socket_of_the_ssl_module_is_refused(run, streams, loop_kind, tls):
    """An ssl.SSLSocket does its own TLS in blocking calls: TypeError."""
    lacks(streams, loop_kind)

    async def main():
        with (
            tls.client.wrap_socket(
                socket.socket(), server_hostname="x", do_handshake_on_connect=False
            ) as sock,
            pytest.raises(TypeError, match="SSLSocket"),
        ):
            await streams.open_connection(sock=sock)

    run(main)


def test_outside_a_loop_nothing_starts(ours):
    """Without a running loop the call raises RuntimeError."""
    coroutine = ours.open_connection(LOOPBACK, 1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_limit_is_the_readers(run, ours):
    """limit reaches the reader; None and no limit are 64 KiB, as the documentation prints it."""

    async def main():
        async with greeting(ours) as port:
            found = []
            for options in ({}, {"limit": None}, {"limit": 77}):
                reader, writer = await ours.open_connection(LOOPBACK, port, **options)
                found.append(reader._limit)
                await greeted((reader, writer))
            return found

    assert run(main) == [65536, 65536, 77]


def test_socket_belongs_to_the_writer(run, streams):
    """A connected socket that is passed is used, and closed with the writer."""

    async def main():
        async with greeting(streams) as port:
            sock = socket.create_connection((LOOPBACK, port))
            mine = sock.getsockname()
            assert await greeted(await streams.open_connection(sock=sock)) == repr(mine).encode()
            await until(lambda: sock.fileno() == -1)

    run(main)


def test_nobody_listens(run, streams, closed_port):
    """A refused connection raises ConnectionRefusedError and leaves no socket behind."""

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await streams.open_connection(LOOPBACK, closed_port)

    run(main)


def test_unknown_name(run, streams):
    """A name that nobody knows raises socket.gaierror, which is an OSError, with and without a
    race."""

    async def main():
        loop = asyncio.get_running_loop()

        async def getaddrinfo(*args, **options):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        loop.getaddrinfo = getaddrinfo
        for options in ({}, {"happy_eyeballs_delay": 0.1}) if streams.name == "headrace" else ({},):
            with pytest.raises(socket.gaierror):
                await streams.open_connection("host name with spaces", 1, **options)

    run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 10}, {"interleave": 1}], ids=str)
def test_second_address_is_tried(run, streams, loop_kind, options, closed_port):
    """Where the first address refuses, the next is tried at once, however the addresses are
    raced."""
    lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        async with greeting(streams) as port:
            resolve_to((LOOPBACK, closed_port), (LOOPBACK, port))
            if loop_kind == "uvloop":
                # Its own create_connection() does not ask the method.
                options.setdefault("interleave", 1)
            return await greeted(await streams.open_connection(NAME, port, **options))

    assert LOOPBACK.encode() in run(main)


def test_silent_address_is_overtaken(run, streams, loop_kind):
    """happy_eyeballs_delay: the next address is tried while the first one has not answered, whose
    socket is then closed."""
    lacks(streams, loop_kind, race=True)

    async def main():
        with silent_port() as silent:
            async with greeting(streams) as port, asyncio.timeout(5):
                resolve_to((LOOPBACK, silent), (LOOPBACK, port))
                return await greeted(
                    await streams.open_connection(NAME, port, happy_eyeballs_delay=0.01)
                )

    assert LOOPBACK.encode() in run(main)


def test_families_alternate(run, streams, loop_kind, closed_port):
    """interleave=1 tries the families in turn; all_errors=True raises what every attempt said, in
    that order."""
    lacks(streams, loop_kind, (3, 12))

    async def main():
        resolve_to(("127.0.0.1", closed_port), ("127.0.0.2", closed_port), ("::1", closed_port))
        with pytest.raises(ExceptionGroup, match="create_connection failed") as info:
            await streams.open_connection(NAME, closed_port, interleave=1, all_errors=True)
        return [str(error) for error in info.value.exceptions]

    first, second, third = run(main)
    assert "127.0.0.1" in first
    assert "::1" in second
    assert "127.0.0.2" in third


@pytest.mark.parametrize("options", [{"interleave": 1}, {"happy_eyeballs_delay": 0.01}], ids=str)
def test_different_errors_come_as_one(run, streams, loop_kind, options, closed_port):
    """Addresses that fail differently raise one OSError with every message; one that fails alone
    raises its own error."""
    lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        resolve_to(("127.0.0.1", closed_port), ("127.0.0.2", closed_port))
        with pytest.raises(OSError, match=r"Multiple exceptions: .*127\.0\.0\.1.*127\.0\.0\.2"):
            await streams.open_connection(NAME, closed_port, **options)
        resolve_to(("127.0.0.1", closed_port))
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1"):
            await streams.open_connection(NAME, closed_port, **options)

    run(main)


@pytest.mark.defect("gh-135836")
def test_race_tells_what_was_wrong(run, streams, loop_kind):
    """An argument that no address can be right with raises its own error from a race, not
    IndexError."""
    if loop_kind == "uvloop":
        pytest.skip("uvloop resolves the address once more, and finds one")

    async def main():
        resolve_to((LOOPBACK, 70000), (LOOPBACK, 70001))
        with pytest.raises(OverflowError):
            await streams.open_connection(NAME, 70000, happy_eyeballs_delay=0.01)

    run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}, {"interleave": 1}], ids=str)
def test_local_address(run, streams, loop_kind, options):
    """local_addr is where the connection comes from."""
    if options:
        lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        async with greeting(streams) as port:
            return await greeted(
                await streams.open_connection(
                    LOOPBACK, port, local_addr=("127.0.0.9", 0), **options
                )
            )

    assert b"127.0.0.9" in run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}], ids=str)
def test_local_address_that_is_taken(run, streams, loop_kind, options):
    """A local address that cannot be bound is named in the error."""
    lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        async with greeting(streams) as port:
            with pytest.raises(OSError, match="error while attempting to bind on address"):
                await streams.open_connection(
                    LOOPBACK, port, local_addr=(LOOPBACK, port), **options
                )

    run(main)


def test_local_address_of_another_family(run, ours, closed_port):
    """Where no local address has the family of the remote one, the error says so."""

    async def main():
        resolve_to(("::1", closed_port))
        with pytest.raises(OSError, match="no matching local address"):
            await ours.open_connection(NAME, 1, local_addr=(LOOPBACK, 0), interleave=1)

    run(main)


@pytest.mark.parametrize(
    "options", [{}, {"happy_eyeballs_delay": 0.001}, {"interleave": 1}], ids=str
)
def test_cancelled_while_connecting(run, streams, loop_kind, options):
    """A connect that is cancelled, or times out, leaves no socket behind."""
    if options:
        lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        with silent_port() as port:
            if options:
                resolve_to((LOOPBACK, port), (LOOPBACK, port))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await streams.open_connection(NAME if options else LOOPBACK, port, **options)

    run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}], ids=str)
def test_cancelled_while_shaking_hands(run, streams, loop_kind, tls, options):
    """A connect that is cancelled during the TLS handshake closes its connection."""
    if options:
        lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server((LOOPBACK, 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            task = asyncio.create_task(
                streams.open_connection(
                    LOOPBACK, port, ssl=tls.client, server_hostname="localhost", **options
                )
            )
            accepted, _ = await loop.sock_accept(listener)
            with accepted:
                assert await loop.sock_recv(accepted, 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with contextlib.suppress(ConnectionResetError):
                    while await loop.sock_recv(accepted, 65536):
                        pass

    run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}], ids=str)
def test_handshake_that_fails(run, streams, loop_kind, tls, options):
    """A certificate that nobody vouches for raises ssl.SSLCertVerificationError and leaves nothing
    behind."""
    if options:
        lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)
    # In debug mode the loop of the server tells of the handshake that the client broke off.
    run.expect_errors()

    async def main():
        async with greeting(streams, ssl=tls.server) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await streams.open_connection(
                    LOOPBACK,
                    port,
                    ssl=tls.stranger,
                    server_hostname="localhost",
                    ssl_shutdown_timeout=1,
                    **options,
                )
        gc.collect()

    run(main)


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}], ids=str)
def test_tls_verifies_the_hosts_name(run, streams, loop_kind, tls, options):
    """With ssl the name to verify is the host's, raced or not, unless server_hostname says
    otherwise."""
    if options:
        lacks(streams, loop_kind, race="happy_eyeballs_delay" in options)
    run.expect_errors()

    async def main():
        async with greeting(streams, ssl=tls.server) as port:
            options["family"] = socket.AF_INET
            assert await greeted(
                await streams.open_connection("localhost", port, ssl=tls.client, **options)
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await streams.open_connection(LOOPBACK, port, ssl=tls.client, **options)

    run(main)


def test_loop_gets_only_what_was_asked(run, ours):
    """A loop that lacks an argument is not asked for it: nothing but what the caller passed reaches
    it."""

    async def main():
        loop = asyncio.get_running_loop()
        asked = []

        async def create_connection(factory, *args, **options):
            asked.append((args, options))
            raise ConnectionRefusedError

        loop.create_connection = create_connection
        for options in ({}, {"family": socket.AF_INET, "flags": socket.AI_NUMERICHOST}):
            with pytest.raises(ConnectionRefusedError):
                await ours.open_connection(LOOPBACK, 1, way="portable", **options)
        return asked

    assert run(main) == [
        ((LOOPBACK, 1), {}),
        ((LOOPBACK, 1), {"family": socket.AF_INET, "flags": socket.AI_NUMERICHOST}),
    ]


@pytest.mark.parametrize("limit", [1024, 65536])
def test_form_of_the_protocol(run, ours, loop_kind, limit):
    """On the portable way asyncio's selector loop gets a protocol that brings its buffer, uvloop
    one only where the limit is small."""

    async def main():
        async with greeting(ours) as port:
            reader, writer = await ours.open_connection(LOOPBACK, port, limit=limit)
            buffered = isinstance(writer._protocol, asyncio.BufferedProtocol)
            await greeted((reader, writer))
            choice = await choose(asyncio.get_running_loop(), limit)
            assert buffered == (choice.form == "buffered")
            return choice

    choice = run(main)
    if choice.way == "portable":
        assert (choice.form == "buffered") == (loop_kind != "uvloop" or limit < 65536)
    else:
        assert choice.form == "direct"
    assert choice.reason


def test_unknown_loop_gets_bytes():
    """A loop that is neither asyncio's selector loop nor uvloop may fill a buffer while others run:
    it gets none of ours."""
    with pytest.raises(StopIteration) as choice:
        choose(asyncio.AbstractEventLoop(), 1024, way="portable").send(None)
    assert choice.value.value.form == "data_received"


@pytest.mark.parametrize("wrong", [-1, 65536, 65536 + 80, "70000"])
def test_a_number_that_is_no_port(run, streams, loop_kind, wrong):
    """It is refused, and not taken modulo 65536."""
    lacks(streams, loop_kind)

    async def main():
        with pytest.raises(OverflowError, match=r"^connect\(\): port must be 0-65535\.$"):
            await streams.open_connection(LOOPBACK, wrong)
        with pytest.raises(OverflowError, match=r"^bind\(\): port must be 0-65535\.$"):
            await streams.open_connection(LOOPBACK, 80, local_addr=(LOOPBACK, wrong))
        with pytest.raises(OverflowError, match=r"^bind\(\): port must be 0-65535\.$"):
            await streams.start_server(print, LOOPBACK, wrong)

    run(main)


def test_serve_at_no_port(run):
    """The same of headrace.serve()."""

    async def main():
        with pytest.raises(OverflowError, match="port must be 0-65535"):
            async with headrace.serve(print, LOOPBACK, 99999):
                pass

    run(main)


def link_local():
    """Return a link-local address of this machine with its interface, or skip the test."""
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as lines:
        for line in lines:
            digits, _, _, scope, flags, name = line.split()
            if scope == "20" and not int(flags, 16) & 0x48:  # neither tentative nor failed
                return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{name}"
    pytest.skip("no interface has a link-local address")


def test_an_address_with_a_scope(run, ours):
    """A link-local address is one of an interface, which no loop may lose."""
    host = link_local()

    async def main():
        async def hello(reader, writer):
            writer.write(b"hello")
            writer.close()

        async with await ours.start_server(hello, "::", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await ours.open_connection(host, port, happy_eyeballs_delay=1)
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

    assert run(main) == b"hello"


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
@pytest.mark.parametrize("all_errors", [False, True])
def test_a_refusal_leaves_no_cycles(run, ours, host, all_errors):
    """What a refused connection leaves needs no collector."""

    async def attempt(port):
        with contextlib.suppress(OSError, ExceptionGroup):
            await ours.open_connection(host, port, all_errors=all_errors)

    async def main():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
            port = sock.getsockname()[1]
            await attempt(port)
            await asyncio.sleep(0)
            gc.collect()
            gc.disable()
            try:
                await attempt(port)
                await asyncio.sleep(0)
                return gc.collect()
            finally:
                gc.enable()

    assert run(main) == 0
