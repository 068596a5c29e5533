"""Programs that do what no program should, each in a process of its own: headrace neither crashes,
nor hangs, nor loses what it holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORGOTTEN_AWAITS = """
import asyncio, gc, sys, warnings, headrace
warnings.simplefilter("always")
warnings.showwarning = lambda *a, **k: gc.collect()
async def main():
    reader, keep = headrace.StreamReader(), []
    for index in range(20000):
        keep.append([index])
        reader.read(5) if index % 400 == 0 else reader.read(0).close()
    operations = [reader.read(index) for index in range(100)]
    assert len({id(each) for each in operations}) == 100
    for each in operations:
        each.close()
asyncio.run(main())
"""

WARNINGS_AS_ERRORS = """
import sys, warnings, headrace, asyncio
warnings.simplefilter("error")
heard = []
sys.unraisablehook = lambda it: heard.append(("unraisable", it.exc_type))
sys.excepthook = lambda kind, *rest: heard.append(("excepthook", kind))
async def main():
    headrace.StreamReader().read(5)
asyncio.run(main())
assert heard == [("unraisable", RuntimeWarning)], heard
"""

FED_BY_A_THREAD_WHILE_THE_LOOP_RUNS = """
import asyncio, threading, time, headrace
class Loop(asyncio.SelectorEventLoop):
    def call_soon(self, *arguments, **options):
        handle = super().call_soon(*arguments, **options)
        if threading.get_ident() != self._thread_id:
            time.sleep(0.05)  # what a scheduler may do here
        return handle
async def main():
    loop = asyncio.get_running_loop()
    victim, other = headrace.StreamReader(), headrace.StreamReader()
    waiting = asyncio.create_task(victim.read(100))
    await asyncio.sleep(0)
    thread = threading.Thread(target=victim.feed_data, args=(b"x",))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.002)
    loop.call_soon(other.feed_data, b"abc")
    assert await asyncio.wait_for(other.readexactly(3), 5) == b"abc"
    assert await asyncio.wait_for(waiting, 5) == b"x"
with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
"""

LOOP_RUN_AGAIN_INSIDE_A_TASK = """
import asyncio, warnings, headrace
warnings.simplefilter("ignore")
async def main():
    import nest_asyncio
    loop, accepted = asyncio.get_running_loop(), []
    server = await headrace.start_server(lambda *both: accepted.append(both), "127.0.0.1", 0)
    clients = [await headrace.open_connection(*server.sockets[0].getsockname()) for _ in range(2)]
    while len(accepted) < 2:
        await asyncio.sleep(0.001)
    nest_asyncio.apply()
    accepted[0][1].write(b"abc")
    assert await clients[0][0].readexactly(3) == b"abc"
    async def other():
        accepted[1][1].write(b"def")
        return await clients[1][0].readexactly(3)
    assert loop.run_until_complete(asyncio.wait_for(other(), 5)) == b"def"
    accepted[0][1].write(b"ghi")
    assert await asyncio.wait_for(clients[0][0].readexactly(3), 5) == b"ghi"
    for _, writer in [*clients, *accepted]:
        writer.close()
    server.close()
asyncio.run(main())
"""

LOOPS_IN_THREADS_WITH_SEPARATORS_OF_THEIR_OWN = """
import asyncio, sys, threading, headrace
sys.setswitchinterval(1e-6)
wrong = []
async def work(separators, data):
    reader = headrace.StreamReader()
    for _ in range(20000):
        reader.feed_data(data)
        got = await reader.readuntil(separators)
        if got != data:
            wrong.append((separators, got))
            return
jobs = [((b"1", b"22"), b"xxA1"), ((b"A", b"BB"), b"x1xA")]
threads = [threading.Thread(target=lambda job=job: asyncio.run(work(*job))) for job in jobs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""

NO_MEMORY_FOR_WHAT_IS_BUFFERED = """
import asyncio, resource, headrace
async def main():
    reader = headrace.StreamReader(limit=1 << 40)
    reader.feed_data(b"x" * 1000)
    reader.feed_data(b"y" * (200 << 20))
    assert await reader.read(1) == b"x"
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (50 << 20), -1))
    try:
        await reader.read(1 << 40)
    except MemoryError:
        pass
    else:
        raise SystemExit("there was memory")
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert len(await reader.read(1 << 40)) == 999 + (200 << 20)
asyncio.run(main())
"""

WAITER_HELD_AND_COMPLETED_BY_SOMEBODY_ELSE = """
import asyncio, headrace
async def main(end):
    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    reader, held, got = headrace.StreamReader(), [], []
    async def reading():
        while data := await reader.read(10):
            got.append(data)
            if held:
                assert held[0].done()
                getattr(held.pop(), end)()
    task = asyncio.create_task(reading())
    await asyncio.sleep(0)
    held.append(task._fut_waiter)
    for data in (b"one", b"two"):
        reader.feed_data(data)
        await asyncio.sleep(0.01)
    reader.feed_eof()
    await asyncio.wait_for(task, 5)
    assert got == [b"one", b"two"] and not failures, (got, failures)
asyncio.run(main("cancel"))
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FORGOTTEN_AWAITS, id="a collection inside the warning of a forgotten await"),
        pytest.param(WARNINGS_AS_ERRORS, id="that warning as an error"),
        pytest.param(FED_BY_A_THREAD_WHILE_THE_LOOP_RUNS, id="fed by a thread while the loop runs"),
        pytest.param(LOOP_RUN_AGAIN_INSIDE_A_TASK, id="the loop run again inside a task"),
        pytest.param(
            LOOPS_IN_THREADS_WITH_SEPARATORS_OF_THEIR_OWN,
            id="loops in threads with separators of their own",
        ),
        pytest.param(NO_MEMORY_FOR_WHAT_IS_BUFFERED, id="no memory for what is buffered"),
        pytest.param(
            WAITER_HELD_AND_COMPLETED_BY_SOMEBODY_ELSE,
            id="the future of a wait held and cancelled by somebody else",
        ),
    ],
)
def test_program(program):
    """The program ends with status 0."""
    if "nest_asyncio" in program:
        pytest.importorskip("nest_asyncio")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
