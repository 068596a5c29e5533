"""Unix sockets: paths of every kind on every loop, and the file that a server leaves or removes."""

import asyncio
import errno
import functools
import os
import pathlib
import socket
import sys

import pytest
from support.refusals import OF_UNIX, refuses


async def echo(reader, writer):
    writer.write(await reader.read())
    writer.close()
    await writer.wait_closed()


async def say(streams, path, **options):
    """Return what the server at *path* answers."""
    reader, writer = await streams.open_unix_connection(path, **options)
    writer.write(b"hello")
    writer.write_eof()
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return data


def no_cleanup(streams):
    """Skip asyncio's own server where it leaves the file behind."""
    if streams.name == "stock" and sys.version_info < (3, 13):
        pytest.skip("cleanup_socket is new in Python 3.13")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "socket")


@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "Path"])
def test_paths(run, streams, path, form):
    """A path may be text, bytes or path-like, for a server and for a client."""

    async def main():
        async with await streams.start_unix_server(echo, form(path)):
            return await say(streams, form(path))

    assert run(main) == b"hello"


@pytest.mark.parametrize("form", [str, str.encode], ids=["str", "bytes"])
def test_abstract_names(run, streams, loop_kind, form):
    """A name that begins with NUL is no file; stock uvloop cannot connect to one."""
    if streams.name == "stock" and loop_kind == "uvloop":
        pytest.skip("uvloop takes it for a C string")
    name = form(f"\0headrace-{os.getpid()}-{loop_kind}")

    async def main():
        async with await streams.start_unix_server(echo, name):
            return await say(streams, name)

    assert run(main) == b"hello"


def test_stale_file_is_replaced(run, streams, path):
    """The socket file of a server that is gone does not stop the next one."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)

    async def main():
        async with await streams.start_unix_server(echo, path):
            return await say(streams, path)

    assert run(main) == b"hello"


def test_other_file_is_not_replaced(run, streams, path):
    """A file that is no socket stays, and the error names it."""
    pathlib.Path(path).write_text("precious")

    async def main():
        with pytest.raises(OSError, match=f"Address {path!r} is already in use") as info:
            await streams.start_unix_server(echo, path)
        assert info.value.errno == errno.EADDRINUSE

    run(main)
    assert pathlib.Path(path).read_text() == "precious"


def test_file_is_removed(run, streams, path):
    """Closing the server removes its file; the second close does nothing."""
    no_cleanup(streams)

    async def main():
        server = await streams.start_unix_server(echo, path)
        assert os.path.exists(path)
        server.close()
        assert not os.path.exists(path)
        server.close()

    run(main)


def test_file_stays_on_request(run, streams, path):
    """cleanup_socket=False leaves the file."""
    no_cleanup(streams)

    async def main():
        server = await streams.start_unix_server(echo, path, cleanup_socket=False)
        server.close()
        assert os.path.exists(path)

    run(main)


def test_file_that_was_replaced_stays(run, streams, path):
    """A file that another program put in the place of ours is not removed; one that is gone is no
    error."""
    no_cleanup(streams)

    async def main():
        first = await streams.start_unix_server(echo, path)
        second = await streams.start_unix_server(echo, path)
        first.close()
        assert os.path.exists(path)
        os.unlink(path)
        second.close()

    run(main)


@pytest.mark.parametrize("cleanup", [True, False])
def test_file_of_a_bound_socket(run, streams, path, cleanup):
    """A server on a socket that was passed removes its file as well, and closes the socket."""
    no_cleanup(streams)

    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = await streams.start_unix_server(echo, sock=sock, cleanup_socket=cleanup)
        assert await say(streams, path) == b"hello"
        server.close()
        assert os.path.exists(path) != cleanup
        await asyncio.sleep(0)
        assert sock.fileno() == -1

    run(main)


def test_file_of_a_bound_socket_is_its_makers(run, streams, path):
    """Before Python 3.13 a server that is told nothing leaves the file of a socket that was passed;
    then asyncio's removes it."""

    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = await streams.start_unix_server(echo, sock=sock)
        server.close()
        assert os.path.exists(path) == (sys.version_info < (3, 13))

    run(main)


def test_file_that_cannot_be_seen(run, ours, tmp_path, monkeypatch):
    """A socket that was passed may have a path that leads nowhere from here: that is no error, and
    nothing is removed."""
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "name").write_bytes(b"")
    (tmp_path / "there" / "name").mkdir()

    async def main():
        monkeypatch.chdir(tmp_path / "there")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("name/socket")
        monkeypatch.chdir(tmp_path / "here")
        server = await ours.start_unix_server(echo, sock=sock)
        assert await say(ours, str(tmp_path / "there" / "name" / "socket")) == b"hello"
        server.close()
        assert (tmp_path / "there" / "name" / "socket").exists()

    run(main)


def test_file_is_found_from_another_directory(run, ours, tmp_path, monkeypatch):
    """A relative path means the directory that the server was started in, also when it is closed
    elsewhere."""

    async def main():
        monkeypatch.chdir(tmp_path)
        server = await ours.start_unix_server(echo, "socket")
        monkeypatch.chdir("/")
        server.close()

    run(main)
    assert not (tmp_path / "socket").exists()


def test_failed_start_leaves_no_file(run, ours, path):
    """A server that the loop refuses to make leaves neither file nor descriptor."""

    async def main():
        loop = asyncio.get_running_loop()

        async def create_unix_server(*args, **options):
            raise OSError("no")

        loop.create_unix_server = create_unix_server
        with pytest.raises(OSError, match="no"):
            await ours.start_unix_server(echo, path, way="portable")

    run(main)
    assert not os.path.exists(path)


CONTRADICTIONS = [
    *(
        (name, *refused)
        for name in ("open_unix_connection", "start_unix_server")
        for refused in OF_UNIX
    ),
    ("open_unix_connection", {}, ValueError, "no path and sock were specified"),
    (
        "open_unix_connection",
        {"path": "x", "ssl": True},
        ValueError,
        "you have to pass server_hostname when using ssl",
    ),
    (
        "open_unix_connection",
        {"path": "x", "server_hostname": "x"},
        ValueError,
        "only meaningful with ssl",
    ),
    ("open_unix_connection", {"path": "x", "limit": -1}, ValueError, "Limit cannot be <= 0"),
    ("start_unix_server", {}, ValueError, "path was not specified, and no sock specified"),
    (
        "start_unix_server",
        {"path": "x", "ssl": True},
        TypeError,
        "ssl argument must be an SSLContext or None",
    ),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), CONTRADICTIONS)
def test_contradictions_are_refused(run, streams, loop_kind, name, options, error, message):
    """Arguments that contradict each other raise asyncio's errors, and a socket that was passed
    stays open."""
    if streams.name == "stock" and loop_kind == "uvloop" and "you have" in message:
        pytest.skip("uvloop has other words")

    async def main():
        call = getattr(streams, name)
        if name == "start_unix_server":
            call = functools.partial(call, echo)
        await refuses(call, options, error, message, socket.AF_UNIX)

    run(main)


def test_nobody_listens(run, streams, path):
    """A path without a server raises FileNotFoundError, one whose server is gone
    ConnectionRefusedError; nothing leaks."""

    async def main():
        with pytest.raises(FileNotFoundError):
            await streams.open_unix_connection(path)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await streams.open_unix_connection(path)

    run(main)


def test_connected_socket(run, streams, path):
    """A connected socket that is passed is used, and closed with the writer."""

    async def main():
        async with await streams.start_unix_server(echo, path):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            assert await say(streams, None, sock=sock) == b"hello"
            await asyncio.sleep(0)
            assert sock.fileno() == -1

    run(main)


def test_tls(run, streams, path, tls):
    """TLS works over a Unix socket, with the name to verify given."""

    async def serve(reader, writer):
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await streams.start_unix_server(serve, path, ssl=tls.server):
            reader, writer = await streams.open_unix_connection(
                path, ssl=tls.client, server_hostname="localhost"
            )
            writer.write(b"hello")
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

    assert run(main) == b"hello"


def test_cancelled_during_the_handshake(run, streams, path, tls):
    """A connect that is cancelled during the TLS handshake leaves no socket behind."""

    async def main():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await streams.open_unix_connection(
                        path, ssl=tls.client, server_hostname="localhost"
                    )
            await asyncio.sleep(0)

    run(main)


def test_limits(run, ours, path):
    """limit reaches the readers of both sides; None is 64 KiB."""

    async def main():
        limits = []

        async def serve(reader, writer):
            limits.append(reader._limit)
            writer.close()

        for limit in (None, 77):
            async with await ours.start_unix_server(serve, path, limit=limit):
                reader, writer = await ours.open_unix_connection(path, limit=limit)
                await reader.read()
                limits.append(reader._limit)
                writer.close()
                await writer.wait_closed()
        return limits

    assert run(main) == [65536, 65536, 77, 77]
