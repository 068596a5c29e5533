"""``chaos``: connections with one or two ends of headrace's, whose other ends and own handlers do
the worst that they can.

Every connection follows a script (plan.py) that the seed and its number decide, and is judged when
it is over (judge.py). The time is cut into rounds; after each round everything is closed, and the
process has to hold no more than after the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import io
import itertools
import os
import random
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import headrace
from headrace._transport import backend
from tests.system.soak import figures
from tests.system.soak.channel import Channel, child
from tests.system.soak.end import Deliberate, End
from tests.system.soak.judge import judge
from tests.system.soak.ledger import MOST_FAILURES, Ledger
from tests.system.soak.peer import HELLO, LOOPBACK
from tests.system.soak.plan import LIMITS, SIDES, Plan
from tests.system.soak.servers import Link, Listening

TICK_S = 5.0
# How many connections a round ends with that are alone.
ALONE = 10


@dataclass
class Options:
    """The command line."""

    seconds: float
    loop: str
    way: str
    seed: int
    connections: int
    patience: float
    only: int | None


class Chaos:
    """A run of ``chaos``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ledger = Ledger(options.way == "native")
        self.numbers = itertools.count()
        self.links: dict[int, Link] = {}
        self.stopping = False
        self.listening: dict[tuple[str, int], Listening] = {}
        # Where the peers listen.
        self.peers: dict[str, Any] = {}

    # ---- the run

    async def run(self) -> int:
        """Run for the time that was asked for; print the summary, and return the exit status."""
        loop = asyncio.get_running_loop()
        self.ledger.hear(loop)
        options = self.options
        seconds = options.seconds
        rounds = max(4, round(seconds / 60))
        only = -1 if options.only is None else options.only
        with (
            tempfile.TemporaryDirectory() as directory,
            child("tests.system.soak.peer", options.seed, only, options.patience, directory) as (
                channel,
                process,
            ),
        ):
            self.channel = channel
            received = channel.receive()
            assert received is not None
            self.peers = received[0]["listening"]
            loop.add_reader(channel.sock, self.listen, channel)
            ticking = asyncio.create_task(self.tick())
            # libuv opens a descriptor of its own with the first stream, for good.
            (await loop.create_server(asyncio.Protocol, LOOPBACK, 0)).close()
            await asyncio.sleep(0)
            before = figures.descriptors()
            for number in range(rounds):
                await self.round(directory, self.ledger.began + seconds * (number + 1) / rounds)
                left = {
                    name: what
                    for name, what in figures.descriptors().items()
                    if before.get(name) != what
                }
                if left:
                    self.ledger.fail(f"descriptors left open after a round: {left}")
            ticking.cancel()
            loop.remove_reader(channel.sock)
            if process.poll() is not None:
                self.ledger.fail(
                    f"the process of the peers has died with status {process.returncode}"
                )
        faulthandler.cancel_dump_traceback_later()
        self.ledger.progress(0)
        return self.ledger.summary(
            f"chaos: {options.loop} loop, {options.way} way, seed {options.seed}, "
            f"{options.connections} connections at a time"
        )

    async def tick(self) -> None:
        """Print the progress now and then; a loop that does not come round to it is killed, with
        the stacks of its threads."""
        patience = max(60.0, 2 * self.options.patience)
        while True:
            faulthandler.dump_traceback_later(patience, exit=True)
            await asyncio.sleep(TICK_S)
            # What was dropped within a cycle is found by the collector, and its peer waits.
            gc.collect()
            self.ledger.progress(len(self.links))

    async def round(self, directory: str, until: float) -> None:
        """Keep the connections going *until* then; close everything, and take the figures."""
        self.stopping = False
        self.listening = {
            (by, limit): Listening(by, limit, directory, self.connected, self.ledger.operations)
            for by in ("tcp", "unix")
            for limit in LIMITS
        }
        for each in self.listening.values():
            await each.start()
        restarting = asyncio.create_task(self.restart())
        workers = [asyncio.create_task(self.work()) for _ in range(self.options.connections)]
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        self.stopping = True
        await asyncio.gather(*workers)
        restarting.cancel()
        await asyncio.wait([restarting])
        gc.collect()
        for each in self.listening.values():
            try:
                await asyncio.wait_for(each.stop(), self.options.patience)
            except TimeoutError:
                self.ledger.fail(f"wait_closed() hangs: {each.server!r} {each.server.__dict__}")
        self.listening.clear()
        # Now that nothing is listening: one connection at a time, so that nothing at all is watched
        # between two.
        if self.options.only is None:
            for plan in itertools.islice(
                (each for each in self.plans() if each.is_quick_pair), ALONE
            ):
                await self.connect(plan)
        workers.clear()
        del workers, restarting
        self.ledger.rest(await figures.at_rest())

    async def restart(self) -> None:
        """Start one server after another anew."""
        rng = random.Random(f"{self.options.seed}:restarts")
        while not self.stopping:
            await asyncio.sleep(rng.uniform(0.1, 1.0))
            await rng.choice(list(self.listening.values())).restart(rng)

    async def work(self) -> None:
        """Make one connection after another."""
        while not self.stopping and self.ledger.failed < MOST_FAILURES:
            await self.connect(next(self.plans()))

    def plans(self) -> Iterator[Plan]:
        """Return the next plans, without end."""
        return (Plan(self.options.seed, number, self.options.only) for number in self.numbers)

    # ---- a connection

    async def connect(self, plan: Plan) -> None:
        """Make the connection of *plan*, wait for both ends, and judge."""
        link = self.links[plan.number] = Link(plan)
        listening = (
            self.listening.get((plan.by, plan.roles["s"].limit))
            if plan.roles["s"].kind == "headrace"
            else None
        )
        if listening is not None:
            listening.links.add(link)
        tasks: list[asyncio.Task[None]] = []
        try:
            restarts = 0 if listening is None else listening.restarts
            async with asyncio.timeout(self.options.patience + 5):
                cut = await self.begin(link, listening, tasks)
            if cut and listening is not None and restarts != listening.restarts:
                self.ledger.operations["cut off by a restart"] += 1
            elif cut:
                self.ledger.fail(f"{cut} while it was made: {plan}")
            else:
                reports = {side: await link.reports[side] for side in SIDES}
                await asyncio.gather(*tasks)
                self.conclude(link, reports)
        except TimeoutError:
            self.ledger.fail(self.hang(link, tasks))
        except Exception as error:
            self.ledger.fail(f"{type(error).__name__} in {plan}\n{traceback.format_exc()}")
        finally:
            for task in tasks:
                task.cancel()
            for end in link.ends.values():
                end.reader = end.writer = None
            del self.links[plan.number]
            if listening is not None:
                listening.links.discard(link)

    async def begin(
        self, link: Link, listening: Listening | None, tasks: list[asyncio.Task[None]]
    ) -> str:
        """Connect, and wait until both ends have reported; return the error where there was no
        connection."""
        plan = link.plan
        cut = link.cut
        if plan.by == "pair":
            for side, sock in zip(SIDES, socket.socketpair(), strict=True):
                if plan.roles[side].kind == "headrace":
                    limit = plan.roles[side].limit
                    streams = [*await headrace.open_unix_connection(sock=sock, limit=limit)]
                    tasks.append(asyncio.create_task(self.play(link, side, streams)))
                else:
                    with sock:
                        self.channel.send({"number": plan.number}, [sock.fileno()])
        elif plan.roles["c"].kind == "plain":
            assert listening is not None
            self.channel.send({"number": plan.number, "address": listening.address})
        else:
            try:
                streams = await self.dial(plan, listening)
            except (OSError, asyncio.IncompleteReadError) as error:
                return repr(error)
            tasks.append(asyncio.create_task(self.play(link, "c", streams)))
        waiting = [*link.reports.values(), cut]
        while not (cut.done() or all(each.done() for each in link.reports.values())):
            await asyncio.wait(
                [each for each in waiting if not each.done()], return_when=asyncio.FIRST_COMPLETED
            )
        return cut.result() if cut.done() else ""

    async def dial(self, plan: Plan, listening: Listening | None) -> list[Any]:
        """Return a reader and a writer of headrace's, connected; the other side has answered."""
        role = plan.roles["c"]
        until = time.monotonic() + self.options.patience
        while True:
            if listening is not None:
                address = listening.address
            else:
                address = self.peers[
                    "unix" if plan.by == "unix" else "small" if plan.roles["s"].small else "tcp"
                ]
            try:
                if plan.by == "unix":
                    reader, writer = await headrace.open_unix_connection(address, limit=role.limit)
                else:
                    reader, writer = await headrace.open_connection(*address, limit=role.limit)
            except (ConnectionRefusedError, FileNotFoundError):
                if listening is None or time.monotonic() > until:
                    raise
                self.ledger.operations["connection refused"] += 1
                await asyncio.sleep(0.02)
                continue
            break
        try:
            End.prepare(plan, "c", writer)
            hello = HELLO.pack(plan.number)
            writer.write(hello)
            answer = await reader.readexactly(len(hello))
            if answer != hello:
                self.ledger.fail(f"the answer was {answer!r}, not {hello!r}: {plan}")
        except BaseException:
            writer.close()
            raise
        return [reader, writer]

    def connected(self, reader: Any, writer: Any) -> Any:
        """Be the callback of all servers."""
        # In a list that can be emptied: a coroutine's arguments live as long as it does.
        return self.serve([reader, writer])

    async def serve(self, streams: list[Any]) -> None:
        """Find out which connection this is, and play its server's end."""
        reader, writer = streams
        try:
            hello = await reader.readexactly(HELLO.size)
        except (OSError, asyncio.IncompleteReadError):
            self.ledger.operations["nobody's connection"] += 1
            writer.close()
            return
        link = self.links.get(HELLO.unpack(hello)[0])
        if link is None or link.reports["s"].done() or "s" in link.ends:
            writer.close()
            return
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # the server may just have ended it
            End.prepare(link.plan, "s", writer)
        writer.write(hello)
        del reader, writer
        await self.play(link, "s", streams)

    async def play(self, link: Link, side: str, streams: list[Any]) -> None:
        """Play one end of headrace's. *streams* is emptied: nobody else shall have them."""
        end = link.ends[side] = End(link.plan, side, *streams, self.ledger.operations)
        streams.clear()
        try:
            await end.run()
        except Deliberate:
            self.ledger.raised += 1
            raise
        except Exception as error:
            end.wrong.append(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        finally:
            self.ledger.dropped += link.plan.roles[side].ending == "drop"
            link.tell(side, end.report())

    def listen(self, channel: Channel) -> None:
        """Take what the peers tell."""
        for _ in range(20):
            try:
                received = channel.receive(wait=False)
            except BlockingIOError:
                return
            if received is None:
                asyncio.get_running_loop().remove_reader(channel.sock)
                self.ledger.fail("the process of the peers is gone")
                return
            report, _ = received
            link = self.links.get(report["number"])
            if link is None:
                continue
            if "cut" in report:
                if not link.cut.done():
                    link.cut.set_result(report["cut"])
            else:
                link.tell(report["side"], report)

    def conclude(self, link: Link, reports: dict[str, dict[str, Any]]) -> None:
        """Judge a connection that is over."""
        self.ledger.done += 1
        for report in reports.values():
            self.ledger.bytes += report["received"]
            self.ledger.theirs.update(report.get("operations", ()))
        wrong = judge(link.plan, reports, link.excused, self.ledger.native)
        if wrong:
            words = [f"{link.plan}{' (excused)' if link.excused else ''}", *wrong]
            for side in SIDES:
                words += [
                    f"  history of {side}:",
                    *(f"    {line}" for line in reports[side]["history"]),
                ]
            self.ledger.fail("\n".join(words))

    def hang(self, link: Link, tasks: list[asyncio.Task[None]]) -> str:
        """Say what hangs: the plan, the histories, and the stacks of all tasks of the
        connection."""
        words = io.StringIO()
        print(
            f"nothing came of {link.plan} in {self.options.patience + 5:.0f} "
            f"s{' (excused)' if link.excused else ''}",
            file=words,
        )
        for side, end in link.ends.items():
            print(
                f"  history of {side}, now {time.monotonic() - end.began:.3f}:",
                *end.told(),
                sep="\n    ",
                file=words,
            )
            print(f"  {side}: {end.reader!r}\n  {end.writer!r}", file=words)
        for side, report in link.reports.items():
            if report.done():
                print(f"  {side} has reported: {report.result()}", file=words)
        names = tuple(f"{link.plan.number}{side} " for side in SIDES)
        mine = [
            each
            for each in asyncio.all_tasks()
            if each in tasks or each.get_name().startswith(names)
        ]
        for task in mine:
            print(f"  {task!r}", file=words)
            task.print_stack(file=words)
        for end in link.ends.values():
            if end.writer is not None:
                with contextlib.suppress(AttributeError):
                    end.writer.transport.abort()
        return words.getvalue()


def run(options: Options, loop_factory: Any) -> int:
    """Run ``chaos``; return the exit status."""
    figures.raise_descriptor_limit()
    os.environ[backend.VARIABLE] = options.way
    faulthandler.enable()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(Chaos(options).run())
