"""Scheduler: one event loop's share of what makes a wait cheap.

In asyncio every task that waits is resumed by a Handle and a Future of its own. Here all tasks
whose bytes came in one turn of the loop are resumed by one handle in the next turn, as early as
asyncio would do it and in the same order, by calling their wake-ups ("a step"); and what a task
writes in its step is out at the step's end. Calling a wake-up is only right under conditions, all
of them checked in resume(): each one, when missing, was seen to hang, to lose a wake or to run user
code in the wrong place. Where they do not hold, the future that the task waits for gets a result,
and the loop does the rest.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from contextvars import Context

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims
    from headrace._transport import future_py as futures

from headrace._transport import receive

try:
    from _asyncio import Task as _CTask  # not asyncio.Task, which others replace (nest_asyncio)
except ImportError:  # an interpreter without the C accelerator never steps
    _CTask = ()

# From Python 3.14 on each thread knows its task, and the dictionary stays empty.
_current_tasks = asyncio.tasks._current_tasks if sys.version_info < (3, 14) else None

# How many operations may complete at once, without a wait, before the loop gets a turn. tokio's
# budget is 128 too (tokio/src/task/coop). A write costs more than a read: see sender.COST_SHIFT.
BUDGET = 128

# Whether a task can be started without a turn of the loop.
EAGER = sys.version_info >= (3, 12)

# How many references a future has that only resume() and its list hold.
_ALONE = 2


class Flushable:
    """Something that has to be flushed at the end of a step in which it was written to: a
    Sender."""

    def flush(self) -> None:
        """Send what was kept, and have the system send what it holds."""
        raise NotImplementedError


class Scheduler:
    """Steps tasks of one loop, ends their writing, and keeps the count that makes the impatient
    wait their turn."""

    def __init__(self, loop: object) -> None:
        self.loop = loop
        self.stepping = False
        self.waking: list = []
        self.woken = None
        self.spare = None
        self.left = BUDGET
        self.dirty = None
        self.more_dirty = None
        self.scratch = None
        self.debug = loop.get_debug()
        self.collecting = False
        self.scheduled = False
        self.reactor = None
        self.ready = None
        self.eager = EAGER and has_usual_tasks(loop)
        # One for all: what a handle runs in must not be the context of whoever was first to wake
        # somebody.
        self.context = Context()

    def renew(self) -> None:
        """Begin a new budget: a task has waited, so the loop has had its turn."""
        self.left = BUDGET

    def future_to_wait_for(self) -> object:
        """Return a pending future of the loop, marked as awaited."""
        future = self.spare
        if future is None:
            future = self.loop.create_future()
        else:
            self.spare = None
        futures.begin_wait(future)
        return future

    def wake(self, future: object) -> None:
        """Have the task that waits for *future* resumed in the loop's next turn."""
        if self.debug:
            # The loop times its callbacks, and would blame ours for a slow task.
            complete(future)
            return
        # On the list first: where another thread feeds, which it should not, the loop may be
        # quicker than this one.
        self.waking.append(future)
        if not self.collecting and not self.scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self.scheduled = True
        self.loop.call_soon(self.resume, context=self.context)

    def end_batch(self) -> None:
        """Resume those that a batch of the reactor woke: now, where nothing that the loop has to do
        is overtaken, else in their turn."""
        self.collecting = False
        if self.waking and not self.scheduled:
            if self.is_quiet():
                self.resume()
            else:
                self._schedule()

    def is_quiet(self) -> bool:
        """Tell whether the loop is known to have nothing else to call at once; only a reactor has
        to know it."""
        return self.ready is not None and not self.ready

    def resume(self) -> None:
        """Resume all that were woken since the last turn; those that are woken meanwhile have to
        wait for the next."""
        self.scheduled = False
        if not self.waking:
            return
        waking = self.waking
        self.waking = []
        # Not where the loop is run again by a task, or inside a step, nor once asyncio was changed
        # so that it can be (nest_asyncio).
        alone = not self.stepping and asyncio.Task is _CTask and self.current_task() is None
        done = 0
        try:
            for future in waking:
                done += 1
                # Nobody but a task may have the future: others would see it pending in the step.
                # There is no callback where somebody drives the operation by hand, where others
                # watch the future, or where the task was cancelled.
                callback = None
                if alone and cprims.references(future) <= _HELD:
                    callback = futures.task_callback(future)
                if callback is not None and is_wake_up(callback):
                    self.step(future, callback, futures.task_context(future))
                else:
                    complete(future)
        finally:
            if done < len(waking):  # Ctrl-C between two of them
                for future in waking[done:]:
                    complete(future)

    def current_task(self) -> object:
        """Return the task of this loop that is in a step, or None."""
        if _current_tasks is not None:
            return _current_tasks.get(self.loop)
        return asyncio.current_task(self.loop)

    def step(self, future: object, callback: object, context: object) -> None:
        """Call *callback*, the one callback of *future*, in *context*, then send what it wrote."""
        if self.woken is None:
            self.woken = self.loop.create_future()
            self.woken.set_result(None)
        self.stepping = True
        self.left = BUDGET
        try:
            if not cprims.enter(context, callback, self.woken):
                complete(future)
            elif futures.forget_task(future):
                # It was never completed. If it is nobody else's it can be waited for again; who
                # holds it shall not see it pending. (Uncompiled, counting references would cost
                # more than it saves.)
                if cython.compiled and self.spare is None and cprims.references(future) <= _ALONE:
                    self.spare = future
                else:
                    future.set_result(None)
        except BaseException as error:
            # SystemExit or KeyboardInterrupt, which a task lets through: after the steps of the
            # others.
            raise_later(self, error)
        finally:
            self._end_step()

    def start(self, coroutine: object) -> object:
        """Return a task of *coroutine*, a handler, after its first step where a reactor accepts,
        Python can, and it overtakes nothing."""
        usual = (
            self.eager
            and not self.debug
            and asyncio.Task is _CTask
            and not makes_its_own_tasks(self.loop)
        )
        if not usual or not self.collecting or not self.is_quiet():
            return self.loop.create_task(coroutine)
        # Nothing but the reactor is on the stack, and what the handler writes first ends as in
        # every other step.
        self.stepping = True
        self.left = BUDGET
        try:
            return _CTask(coroutine, loop=self.loop, eager_start=True)  # type: ignore[call-arg]
        finally:
            self._end_step()

    def _end_step(self) -> None:
        # Still part of the step: what a transport in memory delivers from inside its write() is not
        # sent in its turn.
        while self.dirty is not None:
            self._flush()
        self.stepping = False

    def gather(self, sender: Flushable) -> None:
        """Flush *sender* at the end of the step that goes on."""
        # Nearly every step writes to one connection: no list for that.
        if self.dirty is None or self.dirty is sender:
            self.dirty = sender
        elif self.more_dirty is None:
            self.more_dirty = [sender]
        else:
            self.more_dirty.append(sender)

    def _flush(self) -> None:
        first = self.dirty
        more = self.more_dirty
        self.dirty = None
        self.more_dirty = None
        self._flush_one(first)
        if more is not None:
            for sender in more:
                self._flush_one(sender)

    def _flush_one(self, sender: Flushable) -> None:
        try:
            try:
                sender.flush()
            except Exception as error:
                self.loop.call_exception_handler(
                    {
                        "message": "headrace: sending what a handler wrote failed",
                        "exception": error,
                        "sender": sender,
                    }
                )
        except BaseException as error:
            # Ctrl-C in the transport's write(), or a handler that exits: the step has to end, and
            # the others to be sent.
            raise_later(self, error)

    def receive_buffer(self) -> bytearray:
        """Return the buffer that the loop's connections receive into, one at a time: its bytes are
        owned before user code runs."""
        if self.scratch is None:
            self.scratch = bytearray(receive.MAX_RECEIVE_BYTES)
        return self.scratch


def count_held() -> int:
    """Return what references() says, in a loop like that of resume(), of a future that besides only
    the task has which waits for it."""
    waking = [object()]
    for future in waking:
        count = cprims.references(future)
    return count + 1


_HELD = count_held()


def is_wake_up(callback: object) -> bool:
    """Tell whether *callback* enters a task at once and does nothing else: the wake-ups of C tasks
    do."""
    task = cprims.bound_to(callback)
    return type(task) is _CTask or isinstance(task, _CTask)


def complete(future: object) -> None:
    """Resume the task that waits for *future* as asyncio does it, in the loop's next turn."""
    if not future.done():
        future.set_result(None)


def raise_later(scheduler: Scheduler, error: BaseException) -> None:
    """Have the loop raise *error* from a handle of its own: what goes on now has to come to its
    end."""
    # In a child that a task has forked, the tasks of Python 3.14 complain at the end of each step
    # that their loop is not the running one, which hides that the child exits.
    if type(error) is RuntimeError and isinstance(
        error.__context__, (SystemExit, KeyboardInterrupt)
    ):
        error = error.__context__
    scheduler.loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


def ready_handles(loop: object) -> object:
    """Return the queue of what *loop* will call in its next turn, or None where it cannot be found.

    It is the deque that call_soon() puts things into. asyncio's loop has it in an attribute that is
    private, and uvloop's in a field of a C structure, but the collector of cycles sees both.
    """
    handle = loop.call_soon(_nothing)
    handle.cancel()
    for each in gc.get_referents(loop, loop.__dict__):
        if type(each) is deque and handle in each:
            return each
    return None


def _nothing() -> None:
    pass


def has_usual_tasks(loop: object) -> bool:
    """Tell whether the class of *loop* makes tasks as asyncio does: nobody has overridden
    create_task() in it."""
    method = getattr(type(loop), "create_task", None)
    return (
        method is asyncio.BaseEventLoop.create_task
        or type(loop).__module__.partition(".")[0] == "uvloop"
    )


def makes_its_own_tasks(loop: object) -> bool:
    """Tell whether somebody has put a task factory, or a create_task(), into this one *loop*."""
    return loop.get_task_factory() is not None or "create_task" in loop.__dict__


_KEY = "_headrace_scheduler"


def scheduler_of(loop: object) -> Scheduler:
    """Return the one Scheduler of *loop*: an attribute of the loop, so that it lives and dies with
    it.

    Every stream asks for it when it is made, and so that is when a change of the loop's debug mode
    is noticed.
    """
    attributes = loop.__dict__
    scheduler = attributes.get(_KEY)
    if scheduler is None:
        scheduler = attributes[_KEY] = Scheduler(loop)
    else:
        scheduler.debug = loop.get_debug()
    return scheduler
