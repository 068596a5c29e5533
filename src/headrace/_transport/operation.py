"""Operation: one wait, as an awaitable that costs one call.

What ``reader.read()``, ``writer.drain()`` and their like return. It is lazy: it touches nothing until it is awaited. On its first step
it asks its Source to do the work at once; only where that is not possible does it become a waiter and yield itself. To
the world it is a coroutine (``asyncio.iscoroutine``), so create_task, wait_for, gather and shield take it; to the one
task that awaits it, and only while it waits, it is a future (``_asyncio_future_blocking`` is None otherwise: with False,
``asyncio.isfuture`` would be true and gather would wait for something that nobody ever starts).

Nothing is ever delivered *through* an operation. A wake says "try again", and the work is done in the step of the task
that awaits, so a cancelled or timed-out wait has taken nothing.

    NEW -> (attempt) -> DONE                     done at once
    NEW -> PAUSED -> (attempt)                   the turn of others first: see Stepper.left
    NEW -> WAITING -> WOKEN -> (attempt) -> DONE or WAITING again
           WAITING -> CANCELLED -> DONE          the task's cancel() came first
"""

from __future__ import annotations

import warnings
from asyncio import CancelledError, InvalidStateError, _get_running_loop
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if cython.compiled:
    from cython.cimports.headrace._core.cprims import references
else:
    from headrace._core.cprims_py import references

NEW = 0
PAUSED = 1
WAITING = 2
WOKEN = 3
CANCELLED = 4
DONE = 5

# What Source._h_attempt() returns where it cannot do the work yet, and where others shall have their turn first.
PENDING = object()
TURN = object()

# What an operation does, and the name that it shows.
READ = 0
READ_ALL = 1
READEXACTLY = 2
READUNTIL = 3
READLINE = 4
NEXT_LINE = 5
WAIT_FOR_DATA = 6
DRAIN = 7
DRAIN_HELPER = 8

NAMES = (
    "StreamReader.read",
    "StreamReader.read",
    "StreamReader.readexactly",
    "StreamReader.readuntil",
    "StreamReader.readline",
    "StreamReader.__anext__",
    "StreamReader._wait_for_data",
    "StreamWriter.drain",
    "FlowControlMixin._drain_helper",
)


class Source:
    """What operations work on: a reader, a writer, a protocol. The loop's Stepper comes with it."""

    def _h_attempt(self, operation: Operation) -> object:
        """Do the work and return its result, or return PENDING or TURN; an exception is the operation's."""
        raise NotImplementedError

    def _h_wait(self, operation: Operation) -> None:
        """Remember *operation* as a waiter, to be woken when an attempt is worth while."""
        raise NotImplementedError

    def _h_detach(self, operation: Operation) -> None:
        """Forget *operation* if it is a waiter still."""
        raise NotImplementedError


class Operation:
    """See the module's documentation. Made by start(); belongs to the thread of its loop."""

    def __init__(self, *_: object) -> None:
        self.state = DONE  # nobody has to await what was never made
        raise TypeError("operations are made by the methods of a stream")

    def _advance(self) -> object:
        """Go one step: return the result, or PENDING (yield self) or TURN (yield None)."""
        global _spare
        state = self.state
        if state == NEW:
            if self.source._h_stepper.left <= 0:
                self.source._h_stepper.renew()
                self.state = PAUSED
                return TURN
            self.source._h_stepper.left -= 1
        elif state == WOKEN or state == PAUSED:
            self.source._h_stepper.renew()
        elif state == CANCELLED:
            error = self._cancelled_error()
            self._end()
            raise error
        elif state == WAITING:
            raise RuntimeError(f"{NAMES[self.kind]} is being awaited already")
        else:
            raise RuntimeError("cannot reuse already awaited operation")
        # Over, and free of what it refers to, unless the attempt says otherwise: whatever it raises ends the operation.
        source = self.source
        self.source = None
        self.state = DONE
        result = source._h_attempt(self)
        if result is PENDING:
            source._h_wait(self)
            self.source = source
            self.blocking = True
            self.state = WAITING
        elif result is TURN:
            self.source = source
            self.state = PAUSED
        elif cython.compiled:
            _spare = self
        return result

    # ---- a coroutine to the world

    def __await__(self) -> Operation:
        if self.state == NEW:
            return self
        if self.state == DONE:
            raise RuntimeError("cannot reuse already awaited operation")
        raise RuntimeError(f"{NAMES[self.kind]} is being awaited already")

    def __iter__(self) -> Operation:
        return self.__await__()

    def __next__(self) -> object:
        result = self._advance()
        if result is PENDING:
            return self
        if result is TURN:
            return None
        raise StopIteration(result)

    def send(self, value: object) -> object:
        """Resume; what a task does on each of its steps."""
        return self.__next__()

    def throw(self, kind: object, value: object = None, traceback: object = None) -> object:
        """End the operation with an exception; it has taken nothing."""
        if self.state == DONE:
            raise RuntimeError("cannot reuse already awaited operation")
        self._end()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        elif not isinstance(value, BaseException):
            value = kind(value)
        if traceback is not None:
            value = value.with_traceback(traceback)
        raise value

    def close(self) -> None:
        """End the operation; it has taken nothing."""
        self._end()

    def _end(self) -> None:
        source = self.source
        if self.state == WAITING and source is not None:  # None where the collector of cycles came first
            source._h_detach(self)
        self.callback = None
        self.context = None
        self.source = None
        self.state = DONE

    @property
    def cr_running(self) -> bool:
        return False

    @property
    def cr_suspended(self) -> bool:
        return self.state != NEW and self.state != DONE

    @property
    def cr_await(self) -> None:
        return None

    @property
    def cr_frame(self) -> None:
        return None

    @property
    def cr_code(self) -> None:
        return None

    def __repr__(self) -> str:
        # Never the source: a reader's repr shows its waiter, which is an operation.
        return f"<{NAMES[self.kind]}() {STATES[self.state]}>"

    # ---- a future to its task, while it waits

    @property
    def _asyncio_future_blocking(self) -> bool | None:
        return self.blocking if self.state == WAITING else None

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        self.blocking = value

    def get_loop(self) -> object:
        """Return the event loop of the stream; once the operation is over, and has let go of the stream, the running one."""
        source = self.source
        return _get_running_loop() if source is None else source._loop

    def add_done_callback(self, callback: object, *, context: object = None) -> None:
        """Call callback(operation) once the operation is worth resuming; a task does this, and nobody else need."""
        if self.state != WAITING:
            self.get_loop().call_soon(callback, self, context=context)
        elif self.callback is None:
            self.callback = callback
            self.context = context
        else:
            if self.others is None:
                self.others = []
            self.others.append((callback, context))

    def remove_done_callback(self, callback: object) -> int:
        """Take back add_done_callback(*callback*); return how many were removed."""
        removed = 0
        if self.others is not None:
            kept = [other for other in self.others if other[0] != callback]
            removed = len(self.others) - len(kept)
            self.others = kept
        if self.callback is not None and self.callback == callback:
            self.callback = None
            self.context = None
            removed += 1
        return removed

    def done(self) -> bool:
        """Return whether the wait, not the work, is over."""
        return self.state >= WOKEN

    def cancelled(self) -> bool:
        """Return whether cancel() ended the wait."""
        return self.state == CANCELLED

    def result(self) -> None:
        """Return None once woken: the work is done by the awaiting task."""
        if self.state == CANCELLED:
            raise self._cancelled_error()
        if self.state < WOKEN:
            raise InvalidStateError("the operation still waits")

    def exception(self) -> None:
        """Return None once woken, as result() does."""
        self.result()

    def cancel(self, msg: object = None) -> bool:
        """End the wait with CancelledError; False where there is no wait (any more). Takes nothing, never raises."""
        if self.state != WAITING:
            return False
        self.source._h_detach(self)
        self.state = CANCELLED
        self.argument = msg
        self._schedule()
        return True

    # ---- waking, by the source

    def wake_later(self) -> None:
        """Let the awaiting task try again in the loop's next turn."""
        self.state = WOKEN
        self._schedule()

    def wake_now(self) -> None:
        """Let the awaiting task try again at once where the stepper can, else in the loop's next turn.

        Only for the top of headrace's own callback from the loop, where no other task can be in a step.
        """
        self.state = WOKEN
        callback = self.callback
        if callback is not None and self.source._h_stepper.may_step(callback):
            context = self.context
            self.callback = None
            self.context = None
            if not self.source._h_stepper.step(callback, context):
                self.source._loop.call_soon(callback, self, context=context)
        self._schedule()

    def _schedule(self) -> None:
        """Have whoever waits called in the loop's next turn; a waiter without a callback is only recorded as woken."""
        callback = self.callback
        if callback is not None:
            context = self.context
            self.callback = None
            self.context = None
            self.source._loop.call_soon(callback, self, context=context)
        if self.others is not None:
            others = self.others
            self.others = None
            for callback, context in others:
                self.source._loop.call_soon(callback, self, context=context)

    def _cancelled_error(self) -> CancelledError:
        return CancelledError() if self.argument is None else CancelledError(self.argument)


STATES = ("new", "paused", "waiting", "woken", "cancelled", "done")


def start(source: Source, kind: int, amount: int, argument: object) -> Any:
    """Return a new Operation of *source*; nothing happens until it is awaited. (Any: each caller knows what it will return.)"""
    global _spare
    operation = _spare
    if operation is not None and references(operation) <= _ALONE:
        # Kept, it would not be freed when it is dropped, and nobody would hear that it was never awaited.
        _spare = None
    else:
        operation = Operation.__new__(Operation)
        operation.blocking = False
        operation.callback = None
        operation.context = None
        operation.others = None
    operation.source = source
    operation.kind = kind
    operation.amount = amount
    operation.argument = argument
    operation.state = NEW
    return operation


# The operation that was over last. Nobody else refers to most of them when the next one is wanted: one object then serves a
# whole handler. (Uncompiled, counting references would cost more than it saves.)
_spare: Operation | None = None
_ALONE = 2


def name_of(operation: Operation, name: str) -> str:
    """Return the ``__name__`` or ``__qualname__`` that a coroutine would have. (In the class they would be the class's own.)"""
    qualified = NAMES[operation.kind]
    return qualified if name == "__qualname__" else qualified.rpartition(".")[2]


def warn_never_awaited(kind: int) -> None:
    """Warn of an operation that is freed without having been started, as Python does of a coroutine."""
    warnings.warn(f"operation {NAMES[kind]!r} was never awaited", RuntimeWarning, stacklevel=2)


if not cython.compiled:
    # Compiled, the type's own deallocation does it: a finalizer would cost every operation. See opslots.pyx.

    def _finalize(operation: Operation) -> None:
        if operation.state == NEW:
            warn_never_awaited(operation.kind)

    def _name(operation: Operation, name: str) -> str:
        if name in ("__name__", "__qualname__"):
            return name_of(operation, name)
        raise AttributeError(f"{type(operation).__name__!r} object has no attribute {name!r}")

    Operation.__del__ = _finalize
    Operation.__getattr__ = _name
