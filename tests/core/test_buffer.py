"""ReadBuffer: bytes go in at one end and out at the other. Each is copied and searched once. A
program may hold the buffer itself."""

from __future__ import annotations

import ctypes
import sys
import tracemalloc

import pytest

from headrace._core.buffer import ReadBuffer
from headrace.cli.doctor import build

compiled_only = pytest.mark.skipif(
    build() != "compiled",
    reason="without the compiler a storage is a bytearray, which leaves as a copy",
)


def fresh(size, letter=b"x"):
    """Return *size* bytes in an object that nobody else refers to."""
    return b"".join([letter] * size)


def overwrite(data, at, letter):
    """Change a bytes object in place, unseen: a later read of that byte shows it."""
    ctypes.memset(id(data) + bytes.__basicsize__ - 1 + at, letter[0], 1)


def filled(*pieces):
    buffer = ReadBuffer()
    for piece in pieces:
        buffer.append(piece)
    return buffer


# ---- no copy


def test_what_came_whole_leaves_as_the_same_object():
    """A piece that is taken whole is the very object that was appended; the buffer keeps no
    reference."""
    buffer = ReadBuffer()
    for size in (2, 10, 100_000):
        data = fresh(size)
        before = sys.getrefcount(data)
        buffer.append(data)
        assert sys.getrefcount(data) == before + 1
        assert buffer.take(size) is data
        assert sys.getrefcount(data) == before
        assert buffer.length() == 0


def test_a_piece_is_kept_and_not_copied():
    """Bytes appended to an empty buffer are not copied before they are taken, also after a part of
    them was."""
    buffer = ReadBuffer()
    data = fresh(1_000_000)
    tracemalloc.start()
    try:
        buffer.append(data)
        buffer.skip(1)
        assert buffer.take(10) == b"x" * 10
        buffer.find_one(b"\n")
        buffer.find_first((b"\n", b"\r\n"))
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert buffer.length() == 1_000_000 - 11


@compiled_only
@pytest.mark.parametrize("unread", [0, 1, 5000])
def test_what_was_reserved_for_leaves_without_a_copy(unread):
    """A large object that was reserved for is collected in the memory in which it leaves: it is
    there once, never twice."""
    size, piece = 1_000_000, bytes(10_000)
    buffer = filled(fresh(unread)) if unread else ReadBuffer()
    tracemalloc.start()
    try:
        buffer.reserve(unread + size)
        for _ in range(size // len(piece)):
            buffer.append(piece)
        data = buffer.take(unread + size)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * size
    finally:
        tracemalloc.stop()
    assert data == b"x" * unread + bytes(size)


def test_what_was_reserved_for_may_be_taken_otherwise():
    """After reserve() bytes may be taken in any other pieces, and more may come than was reserved
    for."""
    buffer = filled(b"abc")
    buffer.reserve(10)
    buffer.append(b"defghij")
    buffer.append(b"klm")
    assert buffer.take(2) == b"ab"
    buffer.reserve(100)
    assert buffer.take(8) == b"cdefghij"
    assert buffer.take(3) == b"klm"
    assert buffer.length() == 0
    buffer.append(b"new")
    assert buffer.take(3) == b"new"


@pytest.mark.parametrize("total", [2**47, 2**62, sys.maxsize])
def test_reserving_more_than_there_is(total):
    """reserve() for more bytes than memory can hold is no error: the peer may never send them."""
    buffer = filled(b"abc")
    buffer.reserve(total)
    buffer.append(b"def")
    assert buffer.take(6) == b"abcdef"


def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_expecting_much_costs_nothing_yet():
    """reserve() uncompiled takes no memory, and compiled none that is written: a peer's
    announcement is free until its bytes come."""
    before = resident_pages()
    buffer = filled(b"abc")
    buffer.reserve(200 << 20)
    assert resident_pages() - before < 2048
    assert buffer.take(3) == b"abc"


def test_a_trickle_takes_bounded_memory_and_time():
    """Many small pieces cost a copy or two of each byte. Memory stays below four times the bytes,
    and grows a few times only."""
    buffer = ReadBuffer()
    tracemalloc.start()
    try:
        moves, last = 0, 0
        for _ in range(20_000):
            buffer.append(b"piece")
            now = tracemalloc.get_traced_memory()[0]
            # Between two moves to a larger storage nothing is allocated.
            moves += now != last
            last = now
        assert tracemalloc.get_traced_memory()[1] < 4 * 100_000
    finally:
        tracemalloc.stop()
    assert moves < 100
    assert buffer.take(100_000) == b"piece" * 20_000


def test_a_scratch_may_be_used_again():
    """append_front() owns the bytes when it returns: the scratch can be overwritten, and
    resized."""
    buffer = ReadBuffer()
    scratch = bytearray(b"first-----")
    buffer.append_front(scratch, 5)
    scratch[:6] = b"second"
    buffer.append_front(scratch, 6)
    scratch.clear()
    assert buffer.take(11) == b"firstsecond"


# ---- no rescan


def test_a_separator_is_looked_for_once_in_each_byte():
    """A byte that was searched is not looked at again: not by the next search, nor after more
    bytes, takes and moves to other memory."""
    data = fresh(1000)
    buffer = filled(data)
    assert buffer.find_one(b"\n") == -1
    overwrite(data, 500, b"\n")
    assert buffer.find_one(b"\n") == -1
    buffer.append(b"yyy")  # to a storage of its own
    assert buffer.find_one(b"\n") == -1
    buffer.take(100)
    assert buffer.find_one(b"\n") == -1
    buffer.reserve(5000)
    assert buffer.find_one(b"\n") == -1
    buffer.append(b"yy\n")
    assert buffer.find_one(b"\n") == 905
    buffer.take(906)
    assert buffer.length() == 0


def test_the_end_of_what_was_searched_may_be_the_beginning_of_a_separator():
    """Of bytes that were searched only the last len(separator) - 1 are looked at again."""
    data = fresh(100)
    buffer = filled(data)
    assert buffer.find_one(b"\r\n\r\n") == -1
    overwrite(data, 96, b"\r")
    overwrite(data, 97, b"\r")
    overwrite(data, 98, b"\n")
    overwrite(data, 99, b"\r")
    buffer.append(b"\n\n")
    # A separator of five at 96 would be found too late; the one of four that begins at 97 is found.
    assert buffer.find_one(b"\r\n\r\n") == 97


def test_each_separator_of_several_is_looked_for_once_in_each_byte():
    """A separator that never comes costs one look at each byte, though another one is found and
    taken again and again."""
    lines = fresh(10) + b"\n" + fresh(10) + b"\n" + fresh(10)
    buffer = filled(lines)
    separators = (b"\n", b"--")
    assert buffer.find_first(separators) == (10, 11)
    overwrite(lines, 3, b"-")
    overwrite(lines, 4, b"-")
    # The longer one was searched for up to the end of the shorter one.
    assert buffer.find_first(separators) == (10, 11)
    buffer.take(11)
    assert buffer.find_first(separators) == (10, 11)
    buffer.take(11)
    assert buffer.find_first(separators) == (-1, -1)
    overwrite(lines, 24, b"\n")
    overwrite(lines, 25, b"-")
    overwrite(lines, 26, b"-")
    assert buffer.find_first(separators) == (-1, -1)
    buffer.append(b"--")
    assert buffer.find_first(separators) == (10, 12)


def test_another_separator_begins_at_the_front():
    """A search for something else looks at every byte, and so does the first search after that."""
    buffer = filled(b"a;b,c\n")
    assert buffer.find_one(b"\n") == 5
    assert buffer.find_one(b",") == 3
    assert buffer.find_one(b";") == 1
    assert buffer.find_first((b",", b"\n")) == (3, 4)
    assert buffer.find_first((b";", b"\n")) == (1, 2)
    assert buffer.find_one(b"\n") == 5
    assert buffer.find_first((b";", b"\n")) == (1, 2)
    # Equal, and not the same object.
    assert buffer.find_one(bytes(bytearray(b"a;"))) == 0
    assert buffer.find_one(bytes(bytearray(b"a;"))) == 0


@pytest.mark.parametrize(
    ("data", "separators", "expected"),
    [
        pytest.param(b"ab\r\ncd", (b"\n", b"\r\n"), (3, 4), id="the same end: the shortest"),
        pytest.param(
            b"ab\r\ncd", (b"\r", b"\r\n"), (2, 3), id="the same beginning: the first to end"
        ),
        pytest.param(b"abcdef", (b"e", b"bcd"), (1, 4), id="a longer one that ends before"),
        pytest.param(
            b"abcdef", (b"d", b"bcd"), (3, 4), id="a longer one that ends where the shortest does"
        ),
        pytest.param(b"abcdef", (b"cd", b"bcd", b"abcd"), (2, 4), id="three with one end"),
        pytest.param(b"abcdef", (b"f", b"ef", b"abc"), (0, 3), id="the longest ends first"),
        pytest.param(b"abcdef", (b"x", b"yz"), (-1, -1), id="none"),
        pytest.param(b"aab", (b"b", b"ab", b"b"), (2, 3), id="twice the same"),
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_which_of_several_separators_is_found(data, separators, expected, held):
    """The match that ends first is found, and of several that end at one place the shortest: the
    one that leaves most before it."""
    buffer = filled(data)
    holder = buffer.expose() if held else None
    separators = tuple(sorted(separators, key=len))
    assert buffer.find_first(separators) == expected
    assert buffer.find_first(separators) == expected
    whole = [buffer.find_one(separator) for separator in separators]
    assert whole == [data.find(separator) for separator in separators]
    assert holder in (None, data)


# ---- memory


def test_spare_gives_a_large_piece_back():
    """A few bytes that are left of a large piece are copied out of it when a reader waits, and the
    piece is freed."""
    data = fresh(100_000)
    before = sys.getrefcount(data)
    buffer = filled(data)
    buffer.take(99_990)
    assert sys.getrefcount(data) == before + 1
    buffer.spare()
    assert sys.getrefcount(data) == before
    assert buffer.take(10) == b"x" * 10


def test_spare_keeps_what_is_mostly_unread():
    """What is small, or mostly unread, stays where it is: no copy is made for a line, or of a large
    rest."""
    for size, taken in ((1000, 999), (100_000, 50_000)):
        data = fresh(size)
        before = sys.getrefcount(data)
        buffer = filled(data)
        buffer.take(taken)
        buffer.spare()
        assert sys.getrefcount(data) == before + 1
        assert buffer.take(size - taken) == b"x" * (size - taken)


def test_spare_remembers_the_search():
    """After spare() a search goes on where it stood, and finds what it had found."""
    data = fresh(99_980) + b"\n" + fresh(19)
    buffer = filled(data)
    assert buffer.find_one(b"\n") == 99_980
    buffer.take(99_970)
    buffer.spare()
    assert buffer.find_one(b"\n") == 10
    buffer.take(11)
    assert buffer.find_one(b"\n") == -1
    buffer.append(b"\n")
    assert buffer.find_one(b"\n") == 19


def test_an_empty_buffer_holds_nothing():
    """A buffer from which everything was taken holds no memory, however it was filled and
    emptied."""
    for empty in (ReadBuffer.take, ReadBuffer.skip):
        buffer = ReadBuffer()
        tracemalloc.start()
        try:
            for _ in range(10):
                buffer.append(bytes(100_000))
            buffer.reserve(2_000_000)
            empty(buffer, 1_000_000)
            assert tracemalloc.get_traced_memory()[0] < 1000
        finally:
            tracemalloc.stop()
        assert buffer.length() == 0


# ---- the exposed form


def test_exposed_is_the_buffer_itself():
    """What a program does to the bytearray in place is what every method works on, and what comes
    later is in it."""
    buffer = filled(b"one ", b"two ")
    held = buffer.expose()
    assert type(held) is bytearray
    assert held == b"one two "
    assert buffer.expose() is held
    buffer.append(b"three\n")
    buffer.append_front(bytearray(b"four---"), 4)
    assert held == b"one two three\nfour"
    del held[:4]
    assert buffer.length() == 14
    held.insert(0, ord("\n"))
    assert buffer.find_one(b"\n") == 0
    assert buffer.find_first((b"w", b"th")) == (2, 3)
    buffer.skip(1)
    assert buffer.take(4) == b"two "
    assert held == b"three\nfour"
    held.clear()
    assert buffer.length() == 0
    assert buffer.find_one(b"\n") == -1


def test_exposed_for_a_moment_only():
    """Once nobody holds the bytearray any more, the buffer is as fast as before: a piece that is
    taken whole is not copied."""
    buffer = filled(b"abc")
    buffer.expose().extend(b"def")
    assert buffer.take(6) == b"abcdef"
    data = fresh(1000)
    buffer.append(data)
    assert buffer.take(1000) is data


def test_exposed_forgets_the_search():
    """A search after the bytearray was changed sees what was put into the part that had been
    searched."""
    buffer = filled(b"x" * 100)
    assert buffer.find_one(b"\n") == -1
    assert buffer.find_first((b"\n", b"--")) == (-1, -1)
    buffer.expose()[50:51] = b"\n"
    assert buffer.find_one(b"\n") == 50
    assert buffer.find_first((b"\n", b"--")) == (50, 51)


def test_replaced():
    """replace() makes another bytearray the buffer; a holder of the old one keeps it, and it is no
    longer the buffer."""
    buffer = filled(b"old")
    old = buffer.expose()
    new = bytearray(b"new")
    buffer.replace(new)
    old += b"er"
    new += b"er"
    assert buffer.length() == 5
    assert buffer.expose() is new
    assert old == b"older"
    assert buffer.take(5) == b"newer"
    assert new == b""
    del new
    buffer.append(b"again")
    assert buffer.take(5) == b"again"


@pytest.mark.parametrize("held", [False, True])
def test_a_view_of_the_exposed_buffer(held):
    """While a view of the bytearray lives, which nobody may resize then, appending is a BufferError
    and loses nothing that was there."""
    buffer = filled(b"abc")
    live = buffer.expose()
    view = memoryview(live)
    if not held:
        del live
    if held:
        with pytest.raises(BufferError):
            buffer.append(b"def")
    view.release()
    buffer.append(b"ghi")
    assert buffer.take(6) == b"abcghi"


def test_few_bytes_do_not_pin_a_large_storage():
    """A reader that begins to wait with a few bytes in a large storage gives the storage back."""
    tracemalloc.start()
    try:
        buffer = ReadBuffer()
        before = tracemalloc.get_traced_memory()[0]
        buffer.append(b"x")
        buffer.append(bytes(8 << 20))
        buffer.take(8 << 20)
        buffer.spare()
        assert tracemalloc.get_traced_memory()[0] - before < 65536
        assert buffer.take(1) == b"\0"
    finally:
        tracemalloc.stop()
