"""Each method that waits, cancelled at each of its waits, or with its time over there: the stream
is usable or closed after that, nothing is lost, and nothing is left open.

A trial lets the method go so many turns of the loop before it is cut short, and there are trials
until it ends by itself. So that a time can be over at a turn, the clock of the loop can be set."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from functools import partial

import pytest
from conftest import LOOP_KINDS, WAYS, new_loop, open_descriptors
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, receive
from support.wires import tcp_pair, turns

import headrace
from headrace import framing

# Every timeout here, in seconds, and how far the clock is set.
TIMEOUT_S = 500.0
JUMP_S = 1000.0
# Above so many turns not each is tried.
EACH_TURN = 10
# So much has to wait, whatever the sockets keep.
FILL_BYTES = 500_000


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be set."""

    skew = 0.0

    def time(self):
        return super().time() + self.skew


class Trial:
    """One try: a method is cut short after *turn* turns, by a cancellation or a timeout.

    ``ended`` is whether it was over before that."""

    def __init__(self, turn, how):
        self.turn = turn
        self.how = how
        self.ended = False
        self.error = None
        self.value = None

    async def of(self, call):
        """Cut short what *call*, a coroutine function of a timeout, does."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(call(TIMEOUT_S if self.how == "timeout" else None))
        for _ in range(self.turn):
            if task.done():
                break
            await asyncio.sleep(0)
        self.ended = task.done()
        if self.how == "cancel":
            task.cancel()
        elif not self.ended:
            loop.skew += JUMP_S
        # By turns: a timer of this wait would be over too.
        for _ in range(200_000):
            if task.done():
                break
            await asyncio.sleep(0)
        assert task.done(), "it goes on"
        if task.cancelled():
            try:
                await task
            except asyncio.CancelledError as error:
                self.error = error
        else:
            self.error = task.exception()
        if self.error is None:
            self.value = task.result()
        else:
            expected = asyncio.CancelledError if self.how == "cancel" else headrace.StreamTimeout
            assert isinstance(self.error, expected), repr(self.error)

    @property
    def never_began(self):
        return self.how == "cancel" and self.turn == 0


def at_each_turn(kind, how, case, *arguments):
    """Run *case*, a coroutine function of a Trial and *arguments*, for each turn."""
    loop = ClockLoop() if kind == "asyncio" else new_loop(kind)
    errors = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def trying(trial):
        await case(trial, *arguments)
        await turns(3)

    async def main():
        # What the loop keeps for itself is open after the first.
        await trying(Trial(0, how))
        before = open_descriptors()
        cuts = turn = 0
        while True:
            trial = Trial(turn, how)
            await trying(trial)
            for _ in range(100):  # a loop may close in a turn of its own
                left = {each for each in open_descriptors() - before if "/dev/null" not in each}
                if not left:  # (libuv opens /dev/null once for each loop)
                    break
                await asyncio.sleep(0.001)
            assert not left, f"left open after turn {turn}: {left}"
            assert errors == []
            if trial.ended:
                return cuts
            cuts += trial.error is not None
            turn = turn + 1 if turn < EACH_TURN else turn * 3 // 2
            assert turn < 100_000

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        cuts = runner.run(main())
    # Some need no wait where the other side is quick.
    assert cuts > 0 or (how == "timeout" and case is of_connect)


@pytest.fixture(params=["cancel", "timeout"])
def each_turn(request):
    """Run a case at each turn: see at_each_turn()."""
    return partial(at_each_turn, "asyncio", request.param)


@pytest.fixture(
    params=[
        ("asyncio", "cancel"),
        ("asyncio", "timeout"),
        *([("uvloop", "cancel")] if "uvloop" in LOOP_KINDS else []),
    ],
    ids="-".join,
)
def each_turn_anywhere(request):
    """The same for what depends on the loop's transports; the clock of uvloop cannot be set."""
    return partial(at_each_turn, *request.param)


@pytest.fixture(params=[*WAYS, "foreign"])
def any_way(request):
    """Each of our ways, and asyncio's own pair."""
    return request.param


@contextlib.asynccontextmanager
async def stream_and_peer(way, over_tcp=True):
    """Give a Stream of *way* and its peer, a socket that does not block: over TCP, or over a Unix
    socket, which keeps little."""
    mine, peer = tcp_pair() if over_tcp else socket.socketpair()
    peer.setblocking(False)
    with peer:
        if way != "foreign":
            stream = await headrace.connect(sock=mine, way=way)
        elif over_tcp:
            stream = headrace.Stream(*await asyncio.open_connection(sock=mine))
        else:
            stream = headrace.Stream(*await asyncio.open_unix_connection(sock=mine))
        try:
            yield stream, peer
        finally:
            await ended(stream)


async def ended(*streams):
    """Abort what is open of *streams*, and wait until it is closed."""
    for stream in streams:
        if not stream.closing:
            stream.abort()
        closed = asyncio.ensure_future(stream.writer.wait_closed())
        # asyncio's own never ends after a start_tls() that failed.
        await asyncio.wait([closed], timeout=0.1)
        if not closed.cancel() and not closed.cancelled():
            closed.exception()
    await turns(3)


async def sent(peer, *pieces):
    """Send *pieces*, with some turns of the loop before each, and then the end."""
    for piece in pieces:
        await turns(3)
        await asyncio.get_running_loop().sock_sendall(peer, piece)
    await turns(3)
    peer.shutdown(socket.SHUT_WR)


async def within(stream, timeout, call):
    """Await call() within a deadline of *stream*: for what has no timeout of its own."""
    if timeout is None:
        return await call()
    with stream.deadline(timeout):
        return await call()


# ---- reads

READS = {
    "read": lambda s, t: s.read(3, timeout=t),
    "readexactly": lambda s, t: s.readexactly(8, timeout=t),
    "readuntil": lambda s, t: s.readuntil((b"\n", b"xyz"), limit=100, timeout=t),
    "readline": lambda s, t: s.readline(timeout=t),
    "__anext__": lambda s, t: within(s, t, s.__anext__),
    "read_all": lambda s, t: s.read_all(timeout=t),
    "read_all within a limit": lambda s, t: s.read_all(limit=100, timeout=t),
    "peek": lambda s, t: s.peek(8, timeout=t),
    "skip": lambda s, t: s.skip(8, timeout=t),
    "wait_peer_gone": lambda s, t: s.wait_peer_gone(timeout=t),
}
PIECES = (b"abc", b"defg\n", b"hijk")


async def of_a_read(trial, way, name):
    async with stream_and_peer(way) as (stream, peer):

        async def reading(timeout):
            return await READS[name](stream, timeout)

        sending = asyncio.ensure_future(sent(peer, *PIECES))
        await trial.of(reading)
        await sending
        everything = b"".join(PIECES)
        if name == "skip":
            gone = getattr(trial.error, "transferred", 0) if trial.error else trial.value
            taken = everything[:gone]
        elif name in ("peek", "wait_peer_gone") or trial.error is not None:
            taken = b""
        else:
            taken = trial.value
        assert stream.bytes_read == len(taken)
        assert taken + await stream.read_all() == everything


@pytest.mark.parametrize("name", READS)
def test_reads(each_turn, any_way, name):
    """A read that is cut short has taken nothing, or says what; the stream reads on."""
    each_turn(of_a_read, any_way, name)


async def of_read_into(trial, way):
    async with stream_and_peer(way) as (stream, peer):
        buffer = bytearray(b"?" * 20)

        async def reading(timeout):
            return await stream.read_into(buffer, timeout=timeout)

        sending = asyncio.ensure_future(sent(peer, *PIECES))
        await trial.of(reading)
        await sending
        size = trial.value or 0
        taken = bytes(buffer[:size])
        assert buffer[size:] == b"?" * (20 - size)
        if trial.error is not None:
            trial.error.__traceback__ = None  # uncompiled its frames have the view
        del buffer[:]  # nothing else refers to it
        assert taken + await stream.read_all() == b"".join(PIECES)


def test_read_into(each_turn_anywhere, any_way):
    """The buffer is the caller's after that, and untouched where nothing was read."""
    each_turn_anywhere(of_read_into, any_way)


# ---- frames

CODEC = framing.LengthPrefixed(2, limit=50)
FRAMES = [b"one", b"", b"three" * 5, b"four"]
FRAME_READS = {
    "read": (lambda f, t: f.read(timeout=t), lambda value: [value]),
    "__anext__": (lambda f, t: within(f.stream, t, f.__anext__), lambda value: [value]),
    "read_many": (lambda f, t: f.read_many(2, timeout=t), list),
    "read_many of views": (
        lambda f, t: f.read_many(views=True, timeout=t),
        lambda value: [bytes(each) for each in value],
    ),
}


def encoded(*frames):
    return b"".join(len(each).to_bytes(2, "big") + each for each in frames)


async def of_a_frame(trial, way, name):
    call, frames_in = FRAME_READS[name]
    data = encoded(*FRAMES)
    async with stream_and_peer(way) as (stream, peer):
        frames = stream.framed(CODEC)

        async def reading(timeout):
            return await call(frames, timeout)

        sending = asyncio.ensure_future(sent(peer, data[:1], data[1:4], data[4:12], data[12:]))
        await trial.of(reading)
        await sending
        taken = [] if trial.error is not None else frames_in(trial.value)
        assert taken + [each async for each in frames] == FRAMES


@pytest.mark.parametrize("name", FRAME_READS)
def test_frames(each_turn, any_way, name):
    """A read of frames that is cut short has taken none, and the next one begins where it did."""
    each_turn(of_a_frame, any_way, name)


async def of_discard(trial, way, codec, too_large):
    """The frame that is too large begins with four bytes that are there already."""
    rest = b"a short one"
    async with stream_and_peer(way) as (stream, peer):
        peer.send(too_large[:4])
        await stream.peek(4)
        frames = stream.framed(codec)

        async def discarding(timeout):
            await frames.discard(timeout=timeout)

        sending = asyncio.ensure_future(sent(peer, too_large[4:9], too_large[9:], rest))
        await trial.of(discarding)
        await sending
        gone = stream.bytes_read
        if trial.error is None:
            assert gone == len(too_large)
        assert (too_large + rest)[gone:] == await stream.read_all()


@pytest.mark.parametrize("kind", ["by length", "by delimiter"])
def test_discard(each_turn, any_way, kind):
    """What discard() has thrown away when it is cut short is counted, and the rest is there."""
    if kind == "by length":
        each_turn(of_discard, any_way, framing.LengthPrefixed(2, limit=5), encoded(b"x" * 20))
    else:
        each_turn(of_discard, any_way, framing.Delimited(b"\n", limit=2), b"x" * 20 + b"\n")


# ---- writes

WRITES = {
    "write": (lambda s, t: s.write(b"12", bytearray(b"345"), timeout=t), b"12345"),
    "write of no pieces": (lambda s, t: s.write(timeout=t), b""),
    "write within a deadline": (lambda s, t: within(s, t, lambda: s.write(b"12")), b"12"),
    "flush": (lambda s, t: s.flush(timeout=t), b""),
    "Framed.write": (
        lambda s, t: s.framed(CODEC).write(b"one", b"two", timeout=t),
        encoded(b"one", b"two"),
    ),
}


async def fill(stream):
    """Write until a write waits; return how much was accepted."""
    while stream.unsent < FILL_BYTES:
        stream.write_nowait(bytes(FILL_BYTES))
    return stream.bytes_written


async def taken_slowly(peer):
    """Receive everything from *peer* up to the end, in pieces; return it, and whether the end is
    none that was sent."""
    await turns(6)
    found = bytearray()
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(peer, 65536):
            found += data
            await turns(1)
    except ConnectionError:
        return bytes(found), True
    return bytes(found), False


async def of_a_write(trial, way, name, behind):
    call, data = WRITES[name]
    async with stream_and_peer(way, over_tcp=False) as (stream, peer):
        limits = stream.writer.transport.get_write_buffer_limits()
        before = await fill(stream)

        async def writing(timeout):
            await call(stream, timeout)

        async def another():
            # The first may have to let others go first, after so many bytes.
            await turns(3)
            await stream.write(b"another")

        taking = asyncio.ensure_future(taken_slowly(peer))
        others = [asyncio.ensure_future(another()) for _ in range(2 * behind)]
        await trial.of(writing)
        for each in others:
            await each
        expected = [data] if trial.error is None else []
        expected += [b"another"] * len(others)
        await stream.write(b"end")
        stream.write_eof()
        found, reset = await taking
        assert not reset
        assert stream.bytes_written == before + len(b"".join(expected)) + 3
        assert found == bytes(before) + b"".join(expected) + b"end"
        assert stream.writer.transport.get_write_buffer_limits() == limits


@pytest.mark.parametrize(
    ("name", "behind"),
    [*((name, False) for name in WRITES), ("write", True), ("flush", True)],
)
def test_writes(each_turn, any_way, name, behind):
    """A write that is cut short was not accepted, and those behind it have their turn."""
    each_turn(of_a_write, any_way, name, behind)


# ---- the end


async def of_aclose(trial, way):
    async with stream_and_peer(way) as (stream, peer):
        before = await fill(stream)

        async def closing(timeout):
            await stream.aclose(timeout=timeout)

        taking = asyncio.ensure_future(taken_slowly(peer))
        await trial.of(closing)
        assert stream.closing != trial.never_began
        await ended(stream)
        found, reset = await taking
        assert len(found) == before or trial.error is not None
        assert not (reset and trial.error is None)
        # Less than all does not look like all.
        assert reset or len(found) == before


def test_aclose(each_turn_anywhere, any_way):
    """The stream is closed: cleanly, or by a reset where something was unsent."""
    each_turn_anywhere(of_aclose, any_way)


async def of_a_block(trial, way):
    async with stream_and_peer(way) as (stream, peer):

        async def block(timeout):
            async with stream:
                return await within(stream, timeout, lambda: stream.readexactly(8))

        sending = asyncio.ensure_future(sent(peer, *PIECES))
        await trial.of(block)
        with contextlib.suppress(OSError):  # it is reset
            await sending
        sending.cancel()
        assert stream.closing != trial.never_began


def test_async_with(each_turn_anywhere, any_way):
    """A block that is cut short closes the stream."""
    each_turn_anywhere(of_a_block, any_way)


# ---- TLS


async def answer_tls(peer, context):
    """Do the handshake, and send back four bytes."""
    other = TlsPeer(peer, context)
    with contextlib.suppress(OSError):  # the other side gave up
        await other.handshake()
        await other.write(await other.read(4))


async def of_start_tls(trial, way, tls):
    async with stream_and_peer(way) as (stream, peer):

        async def upgrading(timeout):
            await stream.start_tls(tls.client, server_hostname=HOST, timeout=timeout)

        answering = asyncio.ensure_future(answer_tls(peer, tls.server))
        await trial.of(upgrading)
        if trial.error is None:
            await stream.write(b"ping")
            assert await stream.readexactly(4) == b"ping"
        else:
            assert stream.closing or trial.never_began
        await ended(stream)
        answering.cancel()
        await asyncio.wait([answering])


def test_start_tls(each_turn_anywhere, any_way, tls):
    """A handshake that is cut short closes the connection."""
    each_turn_anywhere(of_start_tls, any_way, tls)


# ---- connect()


async def resolved(host, port, *, family, type):
    """A resolver that needs some turns."""
    await turns(2)
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]


async def accepted(listener, context):
    """Accept a connection, with TLS where there is a context, and send back four bytes."""
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        if context is not None:
            await answer_tls(sock, context)
        else:
            await loop.sock_sendall(sock, await receive(sock, 4))
        await receive(sock)


async def of_connect(trial, way, listener, options, context):
    async def connecting(timeout):
        return await headrace.connect(**options(), timeout=timeout, way=way)

    accepting = asyncio.ensure_future(accepted(listener, context))
    await trial.of(connecting)
    if trial.error is None:
        stream = trial.value
        await stream.write(b"ping")
        assert await stream.readexactly(4) == b"ping"
        await ended(stream)
    # It was connected perhaps, and nobody has accepted that yet.
    await turns(5)
    accepting.cancel()
    await asyncio.wait([accepting])
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


@pytest.mark.parametrize("kind", ["host", "tls", "path", "fds", "sock"])
def test_connect(each_turn_anywhere, way, tls, tmp_path, kind):
    """What connect() has opened when it is cut short is closed."""
    path = str(tmp_path / "socket")
    unix = kind in ("path", "fds")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as listener:
        listener.bind(path if unix else (LOOPBACK, 0))
        listener.listen(10)
        listener.setblocking(False)
        context = tls.server if kind == "tls" else None
        given = []

        def options():
            if unix:
                return {"path": path, "max_fds": 5 * (kind == "fds")}
            host, port = listener.getsockname()
            if kind == "sock":
                given.append(socket.create_connection((host, port)))
                return {"sock": given[-1]}
            secure = {"tls": tls.client, "server_hostname": HOST} if context else {}
            return {"host": host, "port": port, "resolver": resolved, **secure}

        each_turn_anywhere(of_connect, way, listener, options, context)
        assert all(each.fileno() == -1 for each in given)


# ---- files, descriptors, relays


async def of_send_file(trial, way, path, buffered):
    data = path.read_bytes()
    async with stream_and_peer(way, over_tcp=False) as (stream, peer):
        before = await fill(stream)
        with path.open("rb", buffering=-1 if buffered else 0) as file:

            async def sending(timeout):
                return await stream.send_file(file, timeout=timeout)

            taking = asyncio.ensure_future(taken_slowly(peer))
            await trial.of(sending)
            gone = trial.value if trial.error is None else getattr(trial.error, "transferred", 0)
            assert file.tell() == gone
        await stream.write(b"end")
        stream.write_eof()
        assert await taking == (bytes(before) + data[:gone] + b"end", False)
        assert stream.bytes_written == before + gone + 3


def test_send_file(each_turn_anywhere, any_way, tmp_path):
    """What of the file has gone is told, and is where its position is; others write behind it."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(700_001))
    each_turn_anywhere(of_send_file, any_way, path, True)


async def of_receive_fds(trial):
    mine, peer = socket.socketpair()
    with peer:
        stream = await headrace.connect(sock=mine, max_fds=5)

        async def receiving(timeout):
            return await within(stream, timeout, lambda: stream.receive_fds(10))

        async def passing():
            await turns(3)
            socket.send_fds(peer, [b"abc"], [peer.fileno()])

        sending = asyncio.ensure_future(passing())
        await trial.of(receiving)
        await sending
        data, fds = await stream.receive_fds(10) if trial.error is not None else trial.value
        assert (data, len(fds)) == (b"abc", 1)
        os.close(fds[0])
        await ended(stream)


def test_receive_fds(each_turn_anywhere):
    """Descriptors that come when it is cut short are there the next time."""
    each_turn_anywhere(of_receive_fds)


async def of_send_fds(trial):
    mine, peer = socket.socketpair()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    with peer:
        peer.setblocking(False)
        stream = await headrace.connect(sock=mine, max_fds=5)
        before = await fill(stream)

        async def passing(timeout):
            await within(stream, timeout, lambda: stream.send_fds(b"xy", [peer.fileno()]))

        async def taking():
            await turns(4)
            found, came = bytearray(), []
            while not found.endswith(b"end"):
                with contextlib.suppress(BlockingIOError):
                    data, fds, _, _ = socket.recv_fds(peer, 65536, 5)
                    found += data
                    came += fds
                await turns(1)
            return bytes(found), came

        taken = asyncio.ensure_future(taking())
        await trial.of(passing)
        await stream.write(b"end")
        found, fds = await taken
        for each in fds:
            os.close(each)
        is_sent = trial.error is None
        assert found == bytes(before) + b"xy" * is_sent + b"end"
        assert len(fds) == is_sent
        assert stream.bytes_written == len(found)
        await ended(stream)


def test_send_fds(each_turn_anywhere):
    """What is cut short was not accepted: neither bytes nor descriptors come, nor are any left."""
    each_turn_anywhere(of_send_fds)


async def of_relay(trial, way, size):
    forth, back = os.urandom(size), os.urandom(size // 2)
    async with (
        stream_and_peer(way, over_tcp=False) as (a, left),
        stream_and_peer(way, over_tcp=False) as (b, right),
    ):

        async def relaying(timeout):
            return await within(a, timeout, lambda: headrace.relay(a, b))

        helping = [
            asyncio.ensure_future(each)
            for each in (
                sent(left, forth[:1000], forth[1000:]),
                sent(right, back[:1000], back[1000:]),
                taken_slowly(left),
                taken_slowly(right),
            )
        ]
        await trial.of(relaying)
        result = trial.value if trial.error is None else getattr(trial.error, "transferred", None)
        # What was not passed on is read from the streams, and each peer sees the end of the rest.
        rest_forth, rest_back = await asyncio.gather(a.read_all(), b.read_all())
        for stream in (a, b):
            stream.write_eof()
        _, _, (to_left, _), (to_right, _) = await asyncio.gather(*helping)
        assert to_right + rest_forth == forth
        assert to_left + rest_back == back
        if result is None:
            assert trial.never_began
        else:
            assert (result.a_to_b, result.b_to_a) == (len(to_right), len(to_left))
        assert b.bytes_written == len(to_right)


@pytest.mark.parametrize("size", [10_000, 1_000_000], ids=["copied", "spliced"])
def test_relay(each_turn_anywhere, any_way, size):
    """What was received and not passed on is read from its stream next, however it was passed."""
    each_turn_anywhere(of_relay, any_way, size)
