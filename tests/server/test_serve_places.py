"""serve(): where a server listens, and its states: addresses, Unix sockets, sockets that were
given; starts that fail."""

import asyncio
import contextlib
import errno
import grp
import inspect
import os
import resource
import socket
import stat

import pytest
from support.connections import LOOPBACK, receive, until
from support.handlers import who
from support.serving import ask, connected

import headrace
from headrace._server.process import systemd
from headrace._streams import binding


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def test_unix_path(run, ours, tmp_path):
    """The file of a Unix socket has the mode and the owners that were asked for, tells who
    connects, and is gone in the end."""
    path = tmp_path / "socket"
    seen = []

    async def handler(reader, writer):
        seen.append((headrace.current_connection(), headrace.current_connection().credentials))

    async def main():
        # Only root can give something away.
        owner = os.getuid() or 1
        group = grp.getgrgid(os.getgid() or 1)
        async with headrace.serve(
            handler, path=path, mode=0o640, owner=owner, group=group.gr_name
        ) as server:
            assert server.name == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            assert (path.stat().st_uid, path.stat().st_gid) == (owner, group.gr_gid)
            assert await ask(str(path)) == b""
            await until(lambda: not server.connections)
        assert not path.exists()
        [(connection, credentials)] = seen
        assert credentials == headrace.Credentials(os.getpid(), os.getuid(), os.getgid())
        assert connection.credentials is None
        seen.clear()

    run(main)


class Own(socket.socket):
    """A socket that means to see what it receives."""

    def recv(self, *arguments):
        return super().recv(*arguments)


@pytest.mark.parametrize("kinds", [(socket.socket, Own), (Own, socket.socket)])
def test_sockets_that_go_different_ways(run, ours, kinds):
    """Each of several sockets is served as if it were alone, whichever comes last: the loop keeps
    those of a class that must stay there."""

    async def served(kinds):
        """Return which transport and which form of the protocol connections get at a socket of each
        of *kinds*."""
        found = []

        async def handler(reader, writer):
            found.append((type(writer.transport), type(writer.transport.get_protocol())))
            await echo(reader, writer)

        with contextlib.ExitStack() as stack:
            given = [
                stack.enter_context(kind(socket.AF_INET, socket.SOCK_STREAM)) for kind in kinds
            ]
            for sock in given:
                sock.bind((LOOPBACK, 0))
            async with headrace.serve(handler, sockets=given) as server:
                for sock in server.sockets:
                    assert await ask(sock.getsockname(), b"hello" * 1000) == b"hello" * 1000
        return found

    async def main():
        assert await served(kinds) == [*await served(kinds[:1]), *await served(kinds[1:])]

    run(main)


def test_several_places(run, ours, tmp_path):
    """One server serves addresses, a Unix socket, and a socket that listens already, with a client
    who waits; it owns them all."""

    async def main():
        given = socket.create_server((LOOPBACK, 0))
        waiting = socket.create_connection(given.getsockname())
        waiting.setblocking(False)
        async with headrace.serve(
            echo, [LOOPBACK, "127.0.0.2"], 0, path=tmp_path / "socket", sockets=[given]
        ) as server:
            addresses = [sock.getsockname() for sock in server.sockets]
            assert {address[0] for address in addresses if isinstance(address, tuple)} == {
                LOOPBACK,
                "127.0.0.2",
            }
            assert len(addresses) == 4
            for address in addresses:
                assert await ask(address, b"hello") == b"hello"
            with waiting:
                await asyncio.get_running_loop().sock_sendall(waiting, b"first")
                assert await receive(waiting, 5) == b"first"
            await until(lambda: not server.connections)
        assert server.sockets == ()
        assert given.fileno() == -1

    run(main)


def test_activated_sockets(run, ours, monkeypatch):
    """Sockets of a service manager are served; those who connect after the server's end wait in the
    manager's socket."""

    async def main():
        with socket.create_server((LOOPBACK, 0)) as managers:
            monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", managers.fileno())
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "1")
            for word in (b"first", b"second"):
                async with headrace.serve(echo, sockets=headrace.activated_sockets()):
                    assert await ask(managers.getsockname(), word) == word
            with socket.create_connection(managers.getsockname()):
                pass

    run(main)


def test_a_place_that_is_taken(run, ours, closed_port, tmp_path):
    """Where one address cannot be had the start raises, and the other places are free again:
    sockets that were given are closed."""

    async def main():
        given = socket.create_server((LOOPBACK, 0))
        server = headrace.serve(
            echo, LOOPBACK, closed_port, path=tmp_path / "socket", sockets=[given]
        )
        with pytest.raises(OSError, match="in use"):
            await server.start()
        assert server.sockets == ()
        assert not (tmp_path / "socket").exists()
        assert given.fileno() == -1
        (tmp_path / "socket").write_text("a file that is no socket")
        with pytest.raises(OSError, match="in use"):
            await headrace.serve(echo, LOOPBACK, 0, path=tmp_path / "socket").start()

    run(main)


def test_a_start_that_fails_serves_nobody(run, ours):
    """Where a later place cannot listen, clients who wait at an earlier one get no handler, and
    nothing is left open."""
    handled = []

    async def handler(reader, writer):
        handled.append(reader)

    async def main():
        first, second = socket.create_server((LOOPBACK, 0)), socket.socket()
        with (
            socket.create_connection(first.getsockname()),
            socket.create_server((LOOPBACK, 0)) as other,
        ):
            second.connect(other.getsockname())
            server = headrace.serve(handler, sockets=[first, second])
            with pytest.raises(OSError, match="Invalid argument"):
                await server.start()
            await asyncio.sleep(0.05)
            assert (len(handled), len(server.connections)) == (0, 0)

    run(main)


def test_a_way_that_cannot_be(run, monkeypatch):
    """A way that the sockets refuse is raised by the start, which leaves no socket open."""

    class Own(socket.socket):
        def accept(self):
            raise NotImplementedError

    async def main():
        given = Own()
        given.bind((LOOPBACK, 0))
        with pytest.raises(ValueError, match="native' cannot be"):
            await headrace.serve(echo, sockets=[given], way="native").start()
        assert given.fileno() == -1

    run(main)


def test_arguments_that_contradict_each_other():
    """serve() says at once what cannot be: no place, a mode without a path, a grace below 0, a
    bound of 0."""
    for arguments in (
        {},
        {"port": 0, "mode": 0o600},
        {"port": 0, "grace": -1},
        {"port": 0, "max_connections": 0},
        {"port": 0, "workers": 0},
    ):
        with pytest.raises(ValueError, match=r"where|mode|grace|max_connections|workers"):
            headrace.serve(echo, **arguments)


def test_states(run, ours):
    """A server runs once: before the start it has no loop and no sockets, a second start is
    refused; repr() counts connections."""

    async def main():
        server = headrace.serve(echo, LOOPBACK, 0)
        assert server.sockets == ()
        with pytest.raises(RuntimeError, match="was not started"):
            server.get_loop()
        async with server as entered:
            assert entered is server
            assert server.get_loop() is asyncio.get_running_loop()
            with pytest.raises(RuntimeError, match="runs once"):
                await server.start()
            assert await ask(server) == b""
            await until(lambda: not server.connections)
            with await connected(server):
                await until(lambda: server.connections)
                assert repr(server) == f"<StreamServer {server.name} with 1 connections>"
        with pytest.raises(RuntimeError, match="runs once"):
            await server.start()

    run(main)


def test_leaving_by_an_error(run, ours):
    """Who leaves the block by an error does not wait for connections to finish: handlers are
    cancelled at once."""
    ends = []

    async def handler(reader, writer):
        try:
            await reader.read()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def main():
        with contextlib.suppress(ArithmeticError):
            async with headrace.serve(handler, LOOPBACK, 0, grace=15) as server:
                sock = await connected(server)
                await until(lambda: server.connections)
                await asyncio.sleep(0)
                raise ArithmeticError
        sock.close()
        assert ends == ["cancelled"]
        assert server.statistics().drain_seconds < 1

    run(main)


def test_default_of_max_connections(ours):
    """Without a bound, nine tenths of the descriptors that the process may have are for
    connections."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = headrace.serve(echo, LOOPBACK, 0)._options.limits.max_connections
    assert allowed * 0.85 - 50 <= most <= allowed * 0.9


@pytest.mark.parametrize("workers", [None, 2])
def test_one_of_several_hosts_is_not_here(run_on, workers):
    """A host that the server was told to listen at, and cannot, is named by the error, also where
    there are others; nothing stays bound."""

    async def main():
        with socket.create_server((LOOPBACK, 0)) as found:
            port = found.getsockname()[1]
        # 192.0.2.0/24 is for documentation, and nobody's (RFC 5737).
        with pytest.raises(
            OSError, match="could not listen at '192.0.2.1'.*cannot assign requested address"
        ) as told:
            await headrace.serve(who, [LOOPBACK, "192.0.2.1"], port, workers=workers).start()
        assert told.value.errno == errno.EADDRNOTAVAIL
        async with headrace.serve(who, [LOOPBACK, "localhost"], port):
            pass

    run_on(main)


def test_one_of_several_hosts_has_no_address(run, ours, monkeypatch):
    """A host that stands for no address is named by the error."""
    resolve = binding.resolve

    async def found(loop, name, *rest):
        if name == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await resolve(loop, name, *rest)

    monkeypatch.setattr(binding, "resolve", found)

    async def main():
        with pytest.raises(socket.gaierror, match="Name or service not known: 'nowhere.invalid'"):
            await headrace.serve(echo, [LOOPBACK, "nowhere.invalid"], 0).start()

    run(main)


@pytest.mark.parametrize("workers", [None, 1])
def test_names_of_servers(run_on, workers, tmp_path):
    """A server has the given name, or the place where it listens. For port 0 that is the bound
    port, so two servers have different names."""

    async def main():
        async with (
            headrace.serve(who, LOOPBACK, 0, workers=workers) as one,
            headrace.serve(who, LOOPBACK, 0, workers=workers) as two,
        ):
            for server in (one, two):
                assert server.name == f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
            assert one.name != two.name
            port = one.sockets[0].getsockname()[1]
        server = headrace.serve(who, [LOOPBACK, "127.0.0.2"], None, workers=workers)
        assert server.name == "127.0.0.1,127.0.0.2:0"
        async with server:
            # Each once: the system may give both hosts the same.
            ports = dict.fromkeys(str(sock.getsockname()[1]) for sock in server.sockets)
            assert server.name == f"127.0.0.1,127.0.0.2:{','.join(ports)}"
        assert headrace.serve(who, port=port).name == f"*:{port}"
        assert headrace.serve(who, LOOPBACK, 0, name="lines").name == "lines"
        assert headrace.serve(who, LOOPBACK, 1, path=tmp_path / "socket").name == "127.0.0.1:1"

    run_on(main)


def test_what_help_says():
    """What is for everybody of a server and its connections has a docstring."""
    for cls in headrace.StreamServer, headrace.Connection:
        for name in vars(cls):
            assert name.startswith("_") or inspect.getdoc(getattr(cls, name)), name
    assert "asyncio.Event" in inspect.getdoc(headrace.StreamServer.draining)
    assert "StreamServer" in inspect.getdoc(headrace.Connection.server)
