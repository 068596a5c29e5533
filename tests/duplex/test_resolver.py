"""Names are looked up in threads of our own: how many, in which order, after a fork, and that
nobody waits for one that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest
from support.connections import until

from headrace._duplex import resolver

LONG = 30.0
MOST = resolver.MOST_THREADS
TCP = {"family": 0, "type": socket.SOCK_STREAM}


class Names:
    """Stands in for socket.getaddrinfo(): a name hangs until it is let go. ``began`` has the names
    in the order in which they were looked up."""

    def __init__(self):
        self.real = socket.getaddrinfo
        self.changed = threading.Condition()
        self.began = []
        self.threads = set()
        self.free = set()
        self.all_free = False

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):
        if flags & socket.AI_NUMERICHOST:
            return self.real(host, port, family, type, proto, flags)
        with self.changed:
            self.began.append(host)
            self.threads.add(threading.current_thread())
            self.changed.wait_for(lambda: self.all_free or host in self.free, LONG)
        if host.startswith("no"):
            raise socket.gaierror(socket.EAI_NONAME, host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    def let_go(self, *names):
        """Let *names* be found; all, where none is given."""
        with self.changed:
            self.free.update(names)
            self.all_free = self.all_free or not names
            self.changed.notify_all()


@pytest.fixture
def names(monkeypatch):
    """Names that hang, and threads that nothing else has used, which end with the test."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(resolver, "_threads", resolver.Threads())
    monkeypatch.setattr(resolver, "IDLE_SECONDS", 0.05)
    yield names
    names.let_go()
    for thread in names.threads:
        thread.join(LONG)
        assert not thread.is_alive()


def look_up(name):
    """Begin to look up *name*."""
    return asyncio.ensure_future(resolver.look_up(name, 7, **TCP))


async def found(*tasks):
    """Return the names that *tasks* have found."""
    return [each[0][4][0] for each in await asyncio.gather(*tasks)]


def test_a_name_that_hangs_holds_up_no_other(run, names):
    """Look-ups that are begun together are each in a thread of their own, also beside one that has
    nothing to do."""

    async def main():
        first = look_up("first")
        names.let_go("first")
        assert await found(first) == ["first"]
        # Its thread waits for more: one of these is for it.
        hangs, answers = look_up("hangs"), look_up("answers")
        names.let_go("answers")
        assert await found(answers) == ["answers"]
        assert not hangs.done()
        names.let_go()
        assert await found(hangs) == ["hangs"]

    run(main)


def test_threads_are_used_again(run, names):
    """One look-up after another takes one thread, or two where the next comes before the first is
    idle; without work they end."""
    names.let_go()

    async def main():
        for each in range(20):
            assert await found(look_up(f"name{each}")) == [f"name{each}"]
            await asyncio.sleep(0.001)
        assert len(names.threads) <= 2
        await until(lambda: not any(each.is_alive() for each in names.threads))
        # The next begins anew.
        assert await found(look_up("again")) == ["again"]

    run(main)


def test_more_than_there_are_threads_for(run, names):
    """What is more than MOST_THREADS waits, and is served in order; what is given up while it waits
    is never begun."""

    async def main():
        working = [look_up(f"working{each}") for each in range(MOST)]
        waiting = [look_up(f"waiting{each}") for each in range(40)]
        await until(lambda: len(names.began) == MOST)
        await asyncio.sleep(0.05)
        assert sorted(names.began) == sorted(f"working{each}" for each in range(MOST))
        assert len(names.threads) == MOST
        for each in waiting[::2]:
            each.cancel()
        # One thread does the rest, so that there is an order.
        names.let_go("working5", *(f"waiting{each}" for each in range(40)))
        expected = [f"waiting{each}" for each in range(1, 40, 2)]
        assert await found(*waiting[1::2]) == expected
        assert names.began[MOST:] == expected
        assert not any(each.done() for each in working if each is not working[5])
        names.let_go()
        assert await found(*working) == [f"working{each}" for each in range(MOST)]

    run(main)


def test_given_up_in_the_same_turn(run, names):
    """A look-up that is cancelled, and whose thread is free before the loop turns, is not begun."""

    async def main():
        working = [look_up(f"working{each}") for each in range(MOST)]
        waiting = look_up("waiting")
        await until(lambda: len(names.began) == MOST)
        waiting.cancel()
        await asyncio.sleep(0)
        names.let_go("working0")
        # The loop does not turn here.
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline and len(names.began) == MOST:
            time.sleep(0.01)
        assert len(names.began) == MOST
        names.let_go()
        await found(*working)

    run(main)


def test_errors(run, names):
    """What the look-up raises is raised, and the thread goes on."""
    names.let_go()

    async def main():
        with pytest.raises(socket.gaierror, match="nowhere"):
            await look_up("nowhere")
        assert await found(look_up("somewhere")) == ["somewhere"]

    run(main)


def test_the_loop_is_gone(run, names):
    """An answer for a loop that is closed, and a question of one that has waited, are forgotten;
    the next loop is served."""

    async def leave():
        for each in range(MOST):
            look_up(f"left{each}")
        look_up("waiting")
        await until(lambda: len(names.began) == MOST)

    async def main():
        assert await found(look_up("next")) == ["next"]

    run(leave)
    names.let_go()
    run(main)
    assert names.began[MOST:] == ["next"]


def test_no_thread_is_to_be_had(run, names, monkeypatch):
    """Where the system gives no thread, and there is none, it is told; where there is one, it does
    the work."""
    names.let_go()

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="no thread"):
                await look_up("one")
        names.all_free = False
        hangs = look_up("hangs")
        await until(lambda: "hangs" in names.began)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            waits = look_up("waits")
            await asyncio.sleep(0.02)
            assert not waits.done()
        names.let_go()
        assert await found(hangs, waits) == ["hangs", "waits"]

    run(main)
    assert "one" not in names.began


def refuse(thread):
    raise RuntimeError("no thread")


def forked(child):
    """Run child() in a fork of this process, and return its exit status: 0 where it ends well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(10)  # a deadlock kills it
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_after_a_fork(names):
    """A child looks names up in threads of its own, though all threads of its parent were busy, one
    of which had the lock; the parent goes on."""

    def child():
        names.all_free = True
        names.changed = threading.Condition()
        assert asyncio.run(found_one("inside")) == ["inside"]

    async def found_one(name):
        return await asyncio.wait_for(found(look_up(name)), 5)

    async def main():
        working = [look_up(f"working{each}") for each in range(MOST)]
        waiting = look_up("waiting")
        await until(lambda: len(names.began) == MOST)
        threads = resolver._threads
        held, release = threading.Event(), threading.Event()

        def hold():
            with threads._ready:
                held.set()
                release.wait(LONG)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(LONG)
        # In a thread: a process that forks in a running loop has that loop in the child, too.
        status = await asyncio.get_running_loop().run_in_executor(None, forked, child)
        release.set()
        holder.join()
        assert status == 0
        assert resolver._threads is threads
        names.let_go()
        assert await found(*working, waiting) == [
            *(f"working{each}" for each in range(MOST)),
            "waiting",
        ]

    asyncio.run(main())


def test_a_program_ends_at_once():
    """asyncio.run(), and the program, end while a look-up hangs, which a timeout has given up."""
    program = """
        import asyncio, socket, time
        real = socket.getaddrinfo
        def slow(host, port, family=0, type=0, proto=0, flags=0):
            if not flags & socket.AI_NUMERICHOST:
                print("asked", flush=True)
                time.sleep(60)
            return real(host, port, family, type, proto, flags)
        socket.getaddrinfo = slow
        import headrace
        async def main():
            try:
                await headrace.connect("name.invalid", 7, timeout=0.2)
            except headrace.ConnectTimeout as error:
                print(error.phase)
        asyncio.run(main())
        print("over")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["asked", "resolving name.invalid", "over", ""]
