"""Scenes of a connection or a server that cannot be opened. See scene.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import child
from scene import LOOPBACK, descriptors, echo, fill_gaps, play, raising

import headrace


def openings(directory: str, tcp: Any, unix: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return all ways to open something, by name; the last two argument is where others listen."""

    def connected() -> socket.socket:
        return socket.create_connection(tcp.getsockname())

    def bound() -> socket.socket:
        sock = socket.socket()
        sock.bind((LOOPBACK, 0))
        return sock

    return {
        "open_connection": lambda: headrace.open_connection(*tcp.getsockname(), way="native"),
        "open_connection, sock": lambda: headrace.open_connection(sock=connected(), way="native"),
        "open_unix_connection": lambda: headrace.open_unix_connection(
            unix.getsockname(), way="native"
        ),
        "start_server": lambda: headrace.start_server(echo, LOOPBACK, 0, way="native"),
        "start_server, sock": lambda: headrace.start_server(echo, sock=bound(), way="native"),
        "start_unix_server": lambda: headrace.start_unix_server(
            echo, f"{directory}/ours", way="native"
        ),
    }


async def opening_fails(opening: str, plan: str) -> None:
    """Without a descriptor or memory for the set, its content, or its place in the loop, an error
    is raised. Nothing is left, and the program can try again."""
    function, _, name = plan.partition("=")
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.create_server((LOOPBACK, 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(f"{directory}/theirs")
        unix.listen()
        open_ = openings(directory, tcp, unix)[opening]
        before = child.open_descriptors()
        if function == "add_reader":
            loop = asyncio.get_running_loop()
            with (
                mock.patch.object(
                    loop, "add_reader", side_effect=OSError(getattr(errno, name), name)
                ),
                raising(name),
            ):
                await open_()
        else:
            child.plan(f"{plan}@1x1")
            with raising(name):
                await open_()
            assert child.faults(function) == 1
        await asyncio.sleep(0)  # a socket is closed when nothing else is on the stack
        await asyncio.sleep(0)
        assert child.open_descriptors() == before
        assert os.listdir(directory) == ["theirs"]
        if opening.startswith("open"):
            theirs = (unix if "unix" in opening else tcp).accept()[0]
            with theirs:
                assert theirs.recv(1) == b""
        opened = await open_()
        if isinstance(opened, tuple):
            opened[1].close()
            await opened[1].wait_closed()
        else:
            opened.close()
            await opened.wait_closed()


async def a_socket_that_was_not_adopted() -> None:
    """A program may close the socket that it passed in vain: the next owner of its number is not
    closed instead."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        sock = socket.create_connection(listening.getsockname())
        number = sock.fileno()
        child.plan("epoll_create1=EMFILE@1x1")
        with raising("EMFILE"):
            await headrace.open_connection(sock=sock, way="native")
        sock.close()
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            assert null == number
            for _ in range(3):
                await asyncio.sleep(0)
                gc.collect()
            assert os.readlink(f"/proc/self/fd/{null}") == "/dev/null"
        finally:
            os.close(null)


class Particular(socket.socket):
    """A socket that has no options, as those of some protocols have not TCP_NODELAY."""

    def setsockopt(self, *arguments: Any) -> Any:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))


async def a_socket_without_options() -> None:
    """A socket that cannot be made to send at once is an error or none; in no case is its
    descriptor closed behind its back."""
    with socket.create_server((LOOPBACK, 0)) as listening, Particular() as sock:
        sock.connect(listening.getsockname())
        number = sock.fileno()
        try:
            _, writer = await headrace.open_connection(sock=sock, way="native")
        except OSError:
            gc.collect()
            await asyncio.sleep(0)
            assert sock.fileno() in (-1, number)
            if sock.fileno() == number:
                assert "socket:" in os.readlink(f"/proc/self/fd/{number}")
        else:
            writer.close()
            await writer.wait_closed()


async def no_descriptor_for_the_set() -> None:
    """The last descriptor went to the socket: open_connection() raises, and has the socket
    closed."""
    with socket.create_server((LOOPBACK, 0)) as listening, contextlib.ExitStack() as stack:
        for number in fill_gaps():
            stack.callback(os.close, number)
        with descriptors(spare=1):
            for _ in range(2):
                with raising("EMFILE"):
                    await headrace.open_connection(*listening.getsockname(), way="native")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        for _ in range(2):
            with listening.accept()[0] as peer:
                assert peer.recv(1) == b""


if __name__ == "__main__":
    play(globals())
