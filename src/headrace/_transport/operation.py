"""Operation: one wait, as an awaitable that costs one call.

What ``reader.read()``, ``writer.drain()`` and the like return. It is lazy: it touches nothing until
it is awaited. On its first step it asks its Waitable to do the work at once; only where that is not
possible does it become a waiter. To the world it is a coroutine (``asyncio.iscoroutine``), so
create_task, wait_for, gather and shield take it; nothing about it is a future, or gather would wait
for something that nobody ever starts. The task that awaits it gets a future of the loop's own kind
to wait for, which costs a C task less than any object of ours could.

Nothing is ever delivered *through* an operation, nor through its future. A wake says "try again",
and the work is done in the step of the task that awaits, so a cancelled or timed-out wait has taken
nothing. How the future ends is the Scheduler's matter.

    NEW      ->  PAUSED   the turn of others first: see Scheduler.left
                 WAITING  the attempt does not fit
                 DONE     the attempt fits, fails, or is not wanted any more: close(), throw()
    PAUSED   ->  WAITING, DONE    the same, after a turn
    WAITING  ->  WOKEN    try again
                 DONE     thrown into: the task was cancelled
    WOKEN    ->  WAITING, DONE    the same, after a wake
"""

from __future__ import annotations

import warnings
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._transport.frames import Frame, code_of

NEW = 0
PAUSED = 1
WAITING = 2
WOKEN = 3
DONE = 4
STATES = ("new", "paused", "waiting", "woken", "done")
# What may follow what. Tests compare it with the drawing in docs/internals/operation.md, and watch
# that nothing else happens: a check here would cost every read.
TRANSITIONS = {
    "new": ("paused", "waiting", "done"),
    "paused": ("waiting", "done"),
    "waiting": ("woken", "done"),
    "woken": ("waiting", "done"),
    "done": (),
}

# What Waitable._h_attempt() returns where it cannot do the work yet, and where others shall have
# their turn first.
PENDING = object()
TURN = object()


class Kind:
    """What an operation does, and the name that it shows: one object for each kind."""

    def __init__(self, name: str) -> None:
        self.name = name


class Waitable:
    """What operations work on: a reader, a writer, a protocol. It has the loop's Scheduler."""

    def _h_attempt(self, operation: Operation) -> object:
        """Do the work and return its result, or return PENDING or TURN; an exception is the
        operation's."""
        raise NotImplementedError

    def _h_wait(self, operation: Operation) -> None:
        """Remember *operation*, which waits, to be woken when an attempt is worth while; end() it
        before raising."""
        raise NotImplementedError

    def _h_detach(self, operation: Operation) -> None:
        """Forget *operation* if it is a waiter still."""
        raise NotImplementedError

    def _h_waiting(self) -> list[Operation]:
        """Return the operations that wait, where a Timing bounds them."""
        raise NotImplementedError

    def _h_give_up(self, operation: Operation) -> None:
        """Wake *operation*, one that waits: it has waited for too long."""
        raise NotImplementedError

    def _h_moved(self) -> int:
        """Return how many bytes it has moved, where a Timing looks whether it moves any."""
        raise NotImplementedError


class Operation:
    """One wait of a Waitable: lazy, awaited once, and a coroutine to the world. start() makes it;
    it belongs to the thread of its loop."""

    def __init__(self, *_: object) -> None:
        self.state = DONE  # nobody has to await what was never made
        raise TypeError("operations are made by the methods of a stream")

    def _advance(self) -> object:
        """Go one step: return the result, or PENDING (yield the future) or TURN (yield None)."""
        global _spare
        state = self.state
        waitable = self.waitable
        if state == NEW:
            if waitable._h_scheduler.left <= 0:
                waitable._h_scheduler.renew()
                self.state = PAUSED
                return TURN
            waitable._h_scheduler.left -= 1
        elif state == WOKEN or state == PAUSED:
            waitable._h_scheduler.renew()
        elif state == WAITING:
            if self.is_waiting():
                raise RuntimeError(f"{self.kind.name} is being awaited already")
            # Somebody else ended the wait: try, as after a wake.
            waitable._h_detach(self)
        else:
            raise RuntimeError("cannot reuse already awaited operation")
        # Over, and free of what it refers to, unless the attempt says otherwise: whatever it raises
        # ends the operation.
        self.waitable = None
        self.future = None
        self.state = DONE
        result = waitable._h_attempt(self)
        if result is PENDING:
            self.future = waitable._h_scheduler.future_to_wait_for()
            self.waitable = waitable
            self.state = WAITING
            waitable._h_wait(self)
        elif result is TURN:
            self.waitable = waitable
            self.state = PAUSED
        elif cython.compiled:
            self.bounds = None
            _spare = self
        return result

    # ---- a coroutine to the world

    def __await__(self) -> Operation:
        if self.state == NEW:
            return self
        if self.state == DONE:
            raise RuntimeError("cannot reuse already awaited operation")
        raise RuntimeError(f"{self.kind.name} is being awaited already")

    def __iter__(self) -> Operation:
        # Also of one that somebody has started by hand, for ``yield from`` to go on with.
        return self

    def __next__(self) -> object:
        result = self._advance()
        if result is PENDING:
            return self.future
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
        self.end()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        elif not isinstance(value, BaseException):
            value = kind(value)
        if traceback is not None:
            value = value.with_traceback(traceback)
        raise value

    def close(self) -> None:
        """End the operation; it has taken nothing."""
        self.end()

    def end(self) -> None:
        """Be over, and no waiter any more; one that was woken may still have its place in a
        queue."""
        if self.state == WAITING or self.state == WOKEN:
            self.waitable._h_detach(self)
        self.future = None
        self.waitable = None
        self.state = DONE

    @property
    def cr_running(self) -> bool:
        return False

    @property
    def cr_suspended(self) -> bool:
        return self.state != NEW and self.state != DONE

    @property
    def cr_state(self) -> str:
        # New in Python 3.15, and what inspect.getcoroutinestate() asks for there.
        return (
            "CORO_CREATED"
            if self.state == NEW
            else "CORO_CLOSED"
            if self.state == DONE
            else "CORO_SUSPENDED"
        )

    @property
    def cr_await(self) -> object:
        return self.future

    @property
    def cr_frame(self) -> object:
        return None if self.state == DONE else Frame(self, code_of(self.kind.name))

    @property
    def cr_code(self) -> object:
        return code_of(self.kind.name)

    def __repr__(self) -> str:
        # Never the waitable: a reader's repr shows its waiter, which is an operation.
        return f"<{self.kind.name}() {STATES[self.state]}>"

    # ---- waking, by the waitable

    def is_waiting(self) -> bool:
        """Return whether somebody waits still; not once the task was cancelled, though its step
        with the cancellation is to come."""
        return self.state == WAITING and not self.future.done()

    def woken(self) -> object:
        """Be worth trying again; return the future that the task waits for, which is to be
        completed."""
        future = self.future
        self.future = None
        self.state = WOKEN
        return future


def start(waitable: Waitable, kind: Kind, amount: int, argument: object) -> Any:
    """Return a new Operation of *waitable*; nothing happens until it is awaited. (Any: each caller
    knows what it will return.)"""
    global _spare
    operation = _spare
    if operation is not None and cprims.references(operation) <= _ALONE:
        # Kept, it would not be freed when it is dropped, and nobody would hear that it was never
        # awaited.
        _spare = None
    else:
        operation = Operation.__new__(Operation)
        operation.future = None
        operation.bounds = None
    operation.waitable = waitable
    operation.kind = kind
    operation.amount = amount
    operation.argument = argument
    operation.state = NEW
    return operation


def by_hand(waitable: Waitable, kind: Kind, amount: int, argument: object) -> Operation:
    """Return an Operation that nobody awaits: a coroutine attempts it, and does its waiting."""
    operation = start(waitable, kind, amount, argument)
    operation.state = DONE
    return operation


# The operation that was over last. Nobody else refers to most of them when the next one is wanted:
# one object then serves a whole handler. (Uncompiled, counting references would cost more than it
# saves.)
_spare: Operation | None = None
_ALONE = 2


def woken(operation: Operation) -> object:
    """Call Operation.woken() of an *operation* that comes out of something untyped."""
    return operation.woken()


def name_of(operation: Operation, name: str) -> str:
    """Return the ``__name__`` or ``__qualname__`` that a coroutine would have. (In the class they
    would be the class's own.)"""
    qualified = operation.kind.name
    return qualified if name == "__qualname__" else qualified.rpartition(".")[2]


def warn_never_awaited(kind: Kind) -> None:
    """Warn of an operation that is freed without having been started, as Python does of a
    coroutine."""
    warnings.warn(f"operation {kind.name!r} was never awaited", RuntimeWarning, stacklevel=2)


if not cython.compiled:
    # Compiled, the type's own deallocation does it: a finalizer would cost every operation. See
    # opslots.pyx.

    def _finalize(operation: Operation) -> None:
        if operation.state == NEW:
            warn_never_awaited(operation.kind)

    def _name(operation: Operation, name: str) -> str:
        if name in ("__name__", "__qualname__"):
            return name_of(operation, name)
        raise AttributeError(f"{type(operation).__name__!r} object has no attribute {name!r}")

    Operation.__del__ = _finalize
    Operation.__getattr__ = _name
