"""The pure-Python twin of `cprims.pyx`: the same functions, for a build without the compiler.

Where the C leaf writes into a bytes object that nobody has seen yet, this one uses a bytearray,
which `piece()` turns into bytes when it leaves.
"""

import operator
import sys
import time
import types
from collections.abc import Callable
from contextvars import Context
from typing import Any
from weakref import ref

Storage = bytes | bytearray


def piece(data: Storage, start: int, size: int) -> bytes:
    """Return *size* bytes of *data* from *start*."""
    return bytes(memoryview(data)[start : start + size])


def front(data: bytearray, size: int) -> bytes:
    """Return a copy of the first *size* bytes of *data*."""
    return bytes(memoryview(data)[:size])


def find(data: Storage, needle: bytes, start: int, end: int) -> int:
    """Return where *needle* (not empty) lies wholly within data[start:end], or -1."""
    return data.find(needle, start, end)


def clipped(number: int) -> int:
    """Return *number*, an integer of any size, or the nearest one that a size can be."""
    return max(-sys.maxsize - 1, min(operator.index(number), sys.maxsize))


def allocate(size: int) -> bytearray:
    """Return *size* bytes whose content is undefined; only their owner, and nobody else yet, may
    write them."""
    return bytearray(size)


def put(storage: bytearray, at: int, data: Storage, start: int, size: int) -> None:
    """Copy data[start:start + size] to storage[at:]; *storage* comes from allocate() and nobody
    else has seen it."""
    storage[at : at + size] = memoryview(data)[start : start + size]


def put_front(storage: bytearray, at: int, data: bytearray, size: int) -> None:
    """Copy the first *size* bytes of *data* to storage[at:], under the same condition as put()."""
    storage[at : at + size] = memoryview(data)[:size]


def number_at(data: Storage, at: int, size: int, big: bool) -> int:
    """Return the unsigned number that is written in data[at:at + size], at most 8 bytes; one of 8
    bytes whose highest bit is set is returned as negative."""
    written = data[at : at + size]
    return int.from_bytes(written, "big" if big else "little", signed=size == 8)


def put_number(storage: bytearray, at: int, number: int, size: int, big: bool) -> None:
    """Write *number*, which fits, to storage[at:at + size], under the same condition as put()."""
    storage[at : at + size] = number.to_bytes(size, "big" if big else "little")


def references(data: object) -> int:
    """Return how many references to *data* there are, those of this very call included (so compare,
    never trust the number)."""
    return sys.getrefcount(data)


def seconds() -> float:
    """Return the monotonic clock, in seconds."""
    return time.monotonic()


def bound_to(callback: object) -> object:
    """Return what the C function *callback* is bound to, or None where it is anything else."""
    return callback.__self__ if isinstance(callback, types.BuiltinFunctionType) else None


def referent(reference: ref[Any]) -> object:
    """Return what the weak reference *reference* refers to, or None where that is gone."""
    return reference()


def version_of(cls: type) -> int:
    """Return a number that changes whenever an attribute of *cls*, or of a class that it inherits
    from, does; 0 where there is none."""
    return 0


def set_attribute(target: object, name: str, value: object) -> None:
    """Do what object.__setattr__() does; that one refuses the types of an extension before Python
    3.12."""
    object.__setattr__(target, name, value)


def enter(context: Context, callback: Callable[[object], object], argument: object) -> bool:
    """Call callback(argument) in *context* and return True, or return False where *context* is
    entered already."""
    entered = False

    def call() -> None:
        nonlocal entered
        entered = True
        callback(argument)

    try:
        context.run(call)
    except RuntimeError:
        if entered:
            raise
    return entered


def hide_vtable(cls: type) -> None:
    """Take the table of C functions out of the attributes of *cls*, which a compiled class has:
    this one has none."""
