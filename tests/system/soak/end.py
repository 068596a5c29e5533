"""End: one end of a connection that is headrace's. It does what its role says, is cancelled at
random, and checks every byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tests.system.soak.content import Content
from tests.system.soak.judge import name_of
from tests.system.soak.plan import Plan, other

LINGER_NONE = struct.pack("ii", 1, 0)
SMALL_BYTES = 4096
# A write of this size or more is sent at once; a smaller one may be gathered. The last is more than
# asyncio's high-water mark.
WRITES = (1, 10, 100, 1000, 10_000, 70_000, 300_000)
READS = (1, 7, 100, 4096, 65536, 1 << 20)
SEPARATORS = ((b"\n",), (b"e",), (b"ab", b"\r\n", b"\n"))
TINY_S = (0.0, 0.0, 0.0001, 0.001, 0.01)

KEPT = 5

NO_RESULT = object()


class Deliberate(Exception):
    """What a handler raises because its role says so."""


class End:
    """One end of a connection: plays its role and checks every byte. Only it refers to the reader
    and the writer."""

    def __init__(
        self, plan: Plan, side: str, reader: Any, writer: Any, operations: Counter[str]
    ) -> None:
        self.plan = plan
        self.side = side
        self.role = plan.roles[side]
        self.reader = reader
        self.writer = writer
        self.operations = operations
        self.rng = random.Random(f"{plan.script}:{side}:end")
        self.out = Content(plan.script, plan.number, side)
        self.into = Content(plan.script, plan.number, other(side))
        self.sent = self.received = 0
        self.slow = self.role.slow
        self.read_end = self.write_error = self.eof_error = self.close_error = ""
        self.broken = False
        self.ended = False
        self.wrong: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.history: deque[tuple[float, str, int, int]] = deque(maxlen=120)
        # Some of what was read, and where it belongs: it must not change while others receive.
        self.kept: deque[tuple[int, bytes]] = deque()
        self.began = time.monotonic()

    def report(self) -> dict[str, Any]:
        """Return what there is to tell of it."""
        while self.kept:
            self.check("kept", *self.kept.popleft())
        names = ("sent", "received", "read_end", "write_error", "eof_error", "close_error")
        told = {name: getattr(self, name) for name in names}
        return told | {
            "wrong": self.wrong[:10],
            "history": self.told(),
            "stuck": "",
            "acknowledged": 0,
        }

    def told(self) -> list[str]:
        """Return the history, in lines."""
        return [
            f"{at - self.began:.3f} {what} sent={sent} received={received}"
            for at, what, sent, received in self.history
        ]

    def note(self, what: str) -> None:
        self.operations[what] += 1
        self.history.append((time.monotonic(), what, self.sent, self.received))

    # ---- the whole

    @staticmethod
    def prepare(plan: Plan, side: str, writer: Any) -> None:
        """Set the options of the socket, before anything is said."""
        sock = writer.get_extra_info("socket")
        if plan.roles[side].small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
        if plan.roles[other(side)].urgent == "inline":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    async def run(self) -> None:
        """Play the role to its end."""
        if self.rng.random() < 0.2:
            # Whoever takes the transport has nothing gathered any more.
            self.writer.transport.set_write_buffer_limits(high=self.rng.choice((0, 1000, 1 << 20)))
            self.note("set_write_buffer_limits")
        if self.role.style == "turns":
            await self.keep_going("both", self.in_turns)
        else:
            await asyncio.gather(
                self.keep_going("read", self.read_on), self.keep_going("write", self.write_on)
            )
        if self.role.ending == "raise":
            self.note("raise")
            raise Deliberate
        if self.role.ending == "drop":
            self.note("drop")
            # A cancelled task keeps its exception, and that keeps the frames in which the writer
            # is.
            self.tasks.clear()
            self.reader = self.writer = None
            return
        self.writer.close()
        self.note("close")
        try:
            await self.writer.wait_closed()
        except OSError as error:
            self.close_error = name_of(error)
        self.note("wait_closed")
        if not self.writer.is_closing():
            self.wrong.append("wait_closed() has returned, and is_closing() is false")
        self.reader = self.writer = None

    async def keep_going(self, name: str, half: Callable[[], Any]) -> None:
        """Run *half* to its end; now and then it is cancelled from outside and begun again."""
        cancellations = self.rng.choice((0, 1, 3)) if self.role.disturbed else 0
        while True:
            task = self.tasks[name] = asyncio.create_task(
                half(), name=f"{self.plan.number}{self.side} {name}"
            )
            try:
                if cancellations:
                    cancellations -= 1
                    await asyncio.wait([task], timeout=self.rng.choice((0.0, 0.001, 0.01, 0.05)))
                    if task.cancel():
                        self.note(f"{name}: cancelled")
                await asyncio.wait([task])
            finally:
                task.cancel()
            if not task.cancelled():
                task.result()
                return
            if self.ended:
                return

    def end_now(self) -> None:
        """Do what the role says is the last thing, in the middle of whatever goes on."""
        if self.ended:
            return
        self.ended = True
        ending = self.role.ending
        self.note(f"now: {ending}")
        if ending == "close":
            self.writer.close()
        elif ending in ("abort", "reset"):
            if ending == "reset":
                with contextlib.suppress(
                    OSError, ValueError, AttributeError
                ):  # it is closed already: each loop says so in its own way
                    self.writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE
                    )
            with contextlib.suppress(
                AttributeError
            ):  # asyncio's own transports, once closed, have no loop to abort with
                self.writer.transport.abort()
        else:
            # Nobody shall read or write any more when the writer is dropped.
            current = asyncio.current_task()
            for task in self.tasks.values():
                if task is not current:
                    task.cancel()

    def is_due(self) -> bool:
        """Tell whether the time of the ending has come."""
        role = self.role
        if role.ending == "eof":
            return False
        if role.trigger == "read":
            return self.received >= role.at
        return self.sent >= (role.total if role.trigger == "all" else role.at)

    async def in_turns(self) -> None:
        """Read something, answer as much, in one task; at the end of the other say the rest."""
        while not self.is_due():
            before = self.received
            if not await self.read_once():
                break
            if (
                self.sent < self.role.total
                and self.received > before
                and not await self.write_once(self.received - before)
            ):
                break
        await self.write_on()
        if self.role.ending != "eof":
            self.end_now()
            if self.role.ending in ("drop", "raise"):
                return
        while await self.read_once():
            pass

    async def read_on(self) -> None:
        while True:
            if self.is_due():
                self.end_now()
                if self.role.ending in ("drop", "raise"):
                    return
            if not await self.read_once():
                break
        if self.role.ending != "eof" and self.role.trigger == "read":
            self.end_now()

    async def write_on(self) -> None:
        role = self.role
        while self.sent < role.total and not self.ended and not self.is_due():
            if not await self.write_once(role.total):
                break
        if role.ending == "eof":
            if not self.writer.is_closing():
                try:
                    self.writer.write_eof()
                except OSError as error:
                    self.eof_error = name_of(error)
                self.note("write_eof")
        elif role.trigger != "read":
            self.end_now()

    # ---- waiting, and being disturbed in it

    async def perform(self, make: Callable[[], Any], what: str) -> Any:
        """Return what make() is awaited for, or NO_RESULT where that was cancelled; where both come
        at once, nothing is lost."""
        if self.rng.random() >= self.role.disturbed:
            return await make()
        way = self.rng.choice(("wait_for", "timeout", "cancel"))
        tiny = self.rng.choice(TINY_S)
        if way == "wait_for":
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(make(), tiny)
        elif way == "timeout":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tiny):
                    return await make()
        else:
            task = asyncio.create_task(
                make(), name=f"{self.plan.number}{self.side} {what}, to be cancelled"
            )
            interrupted = False
            try:
                await asyncio.sleep(tiny)
            except asyncio.CancelledError:
                interrupted = True
            task.cancel()
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    interrupted = True
            if not task.cancelled():
                return task.result()
            if interrupted:
                raise asyncio.CancelledError
        self.operations[f"{what} cancelled"] += 1
        return NO_RESULT

    async def dawdle(self) -> None:
        """Be slow for a while, if that is the role."""
        if self.slow > 0 and self.rng.random() < 0.3:
            pause = self.rng.uniform(0, 0.1)
            self.slow -= pause
            await asyncio.sleep(pause)

    # ---- reading

    def take(self, what: str, data: bytes) -> None:
        """Check *data*, which *what* has returned."""
        self.check(what, self.received, data)
        if self.rng.random() < 0.3:
            if len(self.kept) == KEPT:
                self.check("kept", *self.kept.popleft())
            self.kept.append((self.received, data))
        self.received += len(data)
        self.note(what)

    def check(self, what: str, offset: int, data: bytes) -> None:
        complaint = self.into.complaint(offset, data)
        if complaint:
            self.wrong.append(f"{what}: {complaint}")

    async def read_once(self) -> bool:
        """Read something, if it is not cancelled; return whether there may be more."""
        if self.ended and self.role.ending in ("drop", "raise"):
            return False
        await self.dawdle()
        try:
            if self.broken:
                return await self.read_some()
            if self.role.trigger == "read" and not self.ended:
                # It ends at a certain byte, and must not wait for more: the other may wait for
                # that.
                return await (
                    self.read_some()
                    if self.rng.random() < 0.5
                    else self.read_exactly(self.role.at - self.received)
                )
            return await self.rng.choice(self.READERS)(self)
        except OSError as error:
            # What is buffered can still be read; an error that comes when nothing is, is the end.
            if self.broken:
                self.read_end = name_of(error)
                self.note(f"read: {self.read_end}")
                return False
            self.broken = True
            self.note(f"first {name_of(error)}")
            return True

    def end_of_reading(self, what: str) -> bool:
        if not self.reader.at_eof():
            self.wrong.append(f"{what} found the end, and at_eof() is false")
        self.read_end = "eof"
        self.note(f"{what}: the end")
        return False

    async def read_some(self) -> bool:
        size = self.rng.choice(READS)
        data = await self.perform(lambda: self.reader.read(size), "read")
        if data is NO_RESULT:
            return True
        self.take("read", data)
        if len(data) > size:
            self.wrong.append(f"read({size}) returned {len(data)} bytes")
        return True if data else self.end_of_reading("read")

    async def read_exactly(self, most: int = 1 << 20) -> bool:
        size = min(self.rng.choice((*READS, 200_000)), most)
        try:
            data = await self.perform(lambda: self.reader.readexactly(size), "readexactly")
        except asyncio.IncompleteReadError as error:
            self.take("readexactly, partial", error.partial)
            return self.end_of_reading("readexactly")
        if data is not NO_RESULT:
            self.take("readexactly", data)
            if len(data) != size:
                self.wrong.append(f"readexactly({size}) returned {len(data)} bytes")
        return True

    async def read_until(self) -> bool:
        separators = self.rng.choice(SEPARATORS)
        argument = separators if len(separators) > 1 else separators[0]
        wanted = self.into.end_of(self.received, separators)
        try:
            data = await self.perform(lambda: self.reader.readuntil(argument), "readuntil")
        except asyncio.IncompleteReadError as error:
            self.take("readuntil, partial", error.partial)
            return self.end_of_reading("readuntil")
        except asyncio.LimitOverrunError as error:
            if error.consumed <= self.role.limit:
                self.wrong.append(
                    f"LimitOverrunError after {error.consumed} bytes, limit={self.role.limit}"
                )
            self.take("readuntil, overrun", await self.reader.readexactly(error.consumed))
            return True
        if data is not NO_RESULT:
            self.take("readuntil", data)
            if len(data) != wanted:
                self.wrong.append(
                    f"readuntil({argument!r}) returned {len(data)} bytes, not {wanted}"
                )
        return True

    async def read_line(self) -> bool:
        wanted = self.into.end_of(self.received, (b"\n",))
        try:
            data = await self.perform(self.reader.readline, "readline")
        except ValueError as error:
            self.skip_line(str(error), wanted)
            return True
        if data is NO_RESULT:
            return True
        self.take("readline", data)
        if not data.endswith(b"\n"):
            return self.end_of_reading("readline")
        if len(data) != wanted:
            self.wrong.append(f"readline() returned {len(data)} bytes, not {wanted}")
        return True

    def skip_line(self, message: str, wanted: int) -> None:
        """Count what readline() has dropped because the line was too long: the line, or as much of
        it as had come."""
        found = re.search(r"\((\d+) bytes (before it|searched)", message)
        if found is None:
            self.wrong.append(f"readline() raised ValueError({message!r})")
            return
        dropped = int(found[1]) + (found[2] == "before it")
        if found[2] == "before it" and dropped != wanted:
            self.wrong.append(
                f"readline() dropped a line of {dropped} bytes, and {wanted} is what it has"
            )
        self.received += dropped
        self.note("readline, overrun")

    async def read_lines(self) -> bool:
        left = self.rng.randint(1, 5)
        while left:
            wanted = self.into.end_of(self.received, (b"\n",))
            try:
                line = await anext(self.reader)
            except StopAsyncIteration:
                return self.end_of_reading("async for")
            except ValueError as error:
                self.skip_line(str(error), wanted)
                return True
            self.take("async for", line)
            if line.endswith(b"\n") and len(line) != wanted:
                self.wrong.append(f"async for: {len(line)} bytes, not {wanted}")
            left -= 1
        return True

    async def read_all(self) -> bool:
        if self.rng.random() < 0.8:
            return await self.read_some()
        data = await self.perform(self.reader.read, "read(-1)")
        if data is NO_RESULT:
            return True
        self.take("read(-1)", data)
        return self.end_of_reading("read(-1)")

    READERS = (read_some, read_some, read_exactly, read_until, read_line, read_lines, read_all)

    # ---- writing

    async def write_once(self, most: int) -> bool:
        """Write something, and drain it or not; return whether more can be written."""
        rng = self.rng
        size = min(rng.choice(WRITES), most, self.role.total - self.sent)
        data = self.out.piece(self.sent, size)
        way = rng.randrange(5)
        self.sent += size
        if way == 0:
            self.writer.write(data)
            self.note("write")
        elif way == 1:
            mutable = bytearray(data)
            self.writer.write(mutable)
            mutable[:] = bytes(size)
            self.note("write, bytearray")
        elif way == 2:
            mutable = bytearray(b"?" + data)
            with memoryview(mutable)[1:] as view:
                self.writer.write(view)
            mutable[:] = bytes(size + 1)
            self.note("write, memoryview")
        elif way == 3:
            if size % 4 == 0:
                self.writer.write(memoryview(data).cast("I"))
            else:
                self.writer.write(memoryview(data))
            self.note("write, memoryview of ints")
        else:
            cuts = sorted(rng.randint(0, size) for _ in range(rng.randint(0, 200)))
            pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, size], strict=True)]
            self.writer.writelines(pieces)
            self.note("writelines")
        if rng.random() < self.role.drains:
            try:
                if await self.perform(self.writer.drain, "drain") is not NO_RESULT:
                    self.note("drain")
            except OSError as error:
                self.write_error = name_of(error)
                self.note(f"drain: {self.write_error}")
                return False
        elif rng.random() < 0.3:
            await asyncio.sleep(rng.choice(TINY_S))
        return not self.writer.is_closing()
