# cython: language_level=3
"""Selector: the selector of headrace.EventLoop, whose epoll set is the loop's and its Reactor's.

To the loop it is as selectors.EpollSelector, and waits as exactly as the system can. What it is
told of the Reactor's descriptors is served inside select() where nothing of the loop's is
overtaken, else from a handle like everybody's. While the loop has nothing else to do, select() goes
on with that: a turn is then one epoll_wait() and no Python code of the loop's.

An event carries the descriptor's number where the loop registered it, and the Reactor's slot and
generation, which is never 0, where that did.
"""

import asyncio
import selectors
from collections.abc import Mapping
from selectors import EVENT_READ as PY_READ, EVENT_WRITE as PY_WRITE, SelectorKey

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free as release, realloc

from headrace._transport.native.linux cimport (
    EEXIST,
    EINTR,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    F_DUPFD_CLOEXEC,
    O_CLOEXEC,
    close,
    dup3,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    errno,
    fcntl,
)
from headrace._transport.native.reactor cimport Reactor, fork_count

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <sys/epoll.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    #ifndef SYS_epoll_pwait2
    #define SYS_epoll_pwait2 441  /* Linux 5.11; the number is the same on every architecture */
    #endif

    static int64_t headrace_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static int headrace_only_milliseconds = 0;

    /* epoll_wait() with a timeout in nanoseconds, -1 for ever. A raw system call: glibc has it from
       2.35 on. Older kernels answer ENOSYS, and filters that do not know it EPERM. */
    static int headrace_wait(int epoll, struct epoll_event *events, int most, int64_t left) {
        if (left > 0 && !headrace_only_milliseconds) {
            struct { int64_t seconds, nanoseconds; } timeout = {
                left / 1000000000, left % 1000000000
            };
            int found = syscall(SYS_epoll_pwait2, epoll, events, most, &timeout, NULL, 0);
            if (found >= 0 || (errno != ENOSYS && errno != EPERM))
                return found;
            headrace_only_milliseconds = 1;
        }
        if (left > 0) {
            left = left / 1000000 + (left % 1000000 != 0);
            if (left > INT32_MAX)
                left = INT32_MAX;
        }
        return epoll_wait(epoll, events, most, (int)left);
    }
    """
    int64_t now "headrace_now"() noexcept nogil
    int wait_ns "headrace_wait"(int epoll, epoll_event *events, int most, int64_t left) nogil

cdef enum:
    READ = 1
    WRITE = 2
    # How many events of the Reactor's are taken from the system at once. They wait for their turns
    # here, and so what the loop has registered does not wait behind them there.
    MOST = 1024
    # How often one call of select() waits, while the loop has nothing to do but to serve. The loop
    # looks after its cancelled timers between the calls.
    ROUNDS = 16

if PY_READ != READ or PY_WRITE != WRITE:
    raise ImportError("the events of selectors are not as known")

cdef double NANOSECONDS = 1e9
cdef double LONGEST_SECONDS = 1e9


class SelectorMap(Mapping):
    """What get_map() returns: the keys by their file objects."""

    def __init__(self, selector):
        self._selector = selector

    def __len__(self):
        return len(self._selector._h_keys())

    def __iter__(self):
        return iter(self._selector._h_keys())

    def __getitem__(self, fileobj):
        key = self.get(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def get(self, fileobj, default=None):
        return self._selector._h_key(fileobj, default)


cdef class EpollSet:
    """The whole of a Selector; compiled classes cannot inherit from BaseSelector."""

    # The set, or -1 once it is closed.
    cdef int epoll
    # What fork_count() said when the set was made.
    cdef int forks
    # The keys by descriptor, and what get_map() returns.
    cdef dict keys
    cdef object map
    # The copies that stand in the set for descriptors which the Reactor has in it too: while
    # loop.sendfile() waits for room, for one. A set has a descriptor only once.
    cdef dict copies
    # Where the system puts events, and how many there is room for.
    cdef epoll_event *events
    cdef int room
    # The loop's Reactor, once there is one, and the key by which its handle is called.
    cdef Reactor reactor
    cdef object handle_key
    # What select() returns when it has served: an event that nobody waits for. A clock that is
    # moved on when nothing happens must not think so.
    cdef list served
    # A fact: select() is serving.
    cdef bint inside

    def __cinit__(self):
        self.epoll = -1

    def __init__(self):
        self.keys = {}
        self.copies = {}
        self.map = SelectorMap(self)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            PyErr_SetFromErrno(OSError)
        self.forks = fork_count()

    def __dealloc__(self):
        release(self.events)
        if self.epoll >= 0:
            close(self.epoll)

    # ---- as EpollSelector

    def fileno(self):
        """Return the descriptor of the set."""
        return self.check_open()

    def register(self, fileobj, events, data=None):
        """Watch *fileobj* for *events*: see selectors.BaseSelector."""
        if (not events) or (events & ~(READ | WRITE)):
            raise ValueError(f"Invalid events: {events!r}")
        fd = self.lookup(fileobj)
        key = SelectorKey(fileobj, fd, events, data)
        if fd in self.keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        self.check_open()
        self.control(EPOLL_CTL_ADD, fd, events)
        self.keys[fd] = key
        return key

    def unregister(self, fileobj):
        """Watch *fileobj* no more, which may be closed: see selectors.BaseSelector."""
        fd = self.lookup(fileobj)
        key = self.keys.pop(fd, None)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        self.forget(fd)
        return key

    def modify(self, fileobj, events, data=None):
        """Watch *fileobj* for other events: see selectors.BaseSelector."""
        key = self.keys.get(self.lookup(fileobj))
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        fd = key.fd
        if events != key.events:
            try:
                self.control(EPOLL_CTL_MOD, fd, events)
            except BaseException:
                del self.keys[fd]
                self.drop_copy(fd)
                raise
            key = SelectorKey(key.fileobj, fd, events, data)
        elif data != key.data:
            key = SelectorKey(key.fileobj, fd, events, data)
        self.keys[fd] = key
        return key

    def get_map(self):
        """Return the mapping of file objects to keys, None once it is closed."""
        return self.map

    def close(self):
        """Close the set."""
        cdef int epoll = self.epoll
        self.keys.clear()
        self.map = None
        if epoll >= 0:
            self.epoll = -1
            if self.reactor is not None:
                self.reactor.epoll = -1
            close(epoll)
        for fd in tuple(self.copies):
            close(self.copies.pop(fd))

    def select(self, timeout=None):
        """Wait for events, *timeout* seconds at most, and serve the Reactor's: see
        selectors.BaseSelector."""
        cdef int64_t left = nanoseconds(timeout)
        cdef int64_t deadline = now() + left if left > 0 else -1
        cdef int rounds = ROUNDS
        cdef int found, i
        cdef int place
        cdef bint waited = False
        cdef uint64_t where
        cdef list ready
        cdef dict attributes = None
        cdef object timers = None
        cdef object first = None
        cdef Reactor reactor = self.reactor
        # What is due already would be overtaken.
        cdef bint may_serve = left != 0 and reactor is not None and self.may_serve()
        if may_serve:
            attributes = reactor.loop.__dict__
            timers = attributes.get("_scheduled")
            first = timers[0] if timers else None
        while True:
            self.check_open()
            if self.forks != fork_count():
                self.renew()
            place = -1
            if reactor is not None:
                reactor.turn += 1
                waited = reactor.has_more()
                if waited:
                    left = 0
            found = self.wait(left, deadline)
            ready = []
            for i in range(found):
                where = self.events[i].data.u64
                if where >> 32 == 0:
                    key = self.keys.get(<int>where)
                    if key is not None:
                        ready.append((key, mask_of(self.events[i].events) & key.events))
                elif reactor is not None:
                    reactor.collect(where, self.events[i].events)
                    if place < 0 and not waited:
                        place = len(ready)
            if reactor is None or not reactor.has_more() or reactor.epoll < 0:
                return ready or (self.served if rounds < ROUNDS else ready)
            if (
                ready
                or not may_serve
                or not reactor.scheduler.is_quiet()
                or (deadline >= 0 and now() >= deadline)
            ):
                # In the place of the first of them, but what has had a turn already behind others.
                ready.insert(place if place >= 0 else len(ready), (self.key_of_handle(), READ))
                return ready
            self.inside = True
            try:
                reactor.serve_in_select()
            finally:
                self.inside = False
            rounds -= 1
            if not reactor.scheduler.is_quiet():
                if attributes.get("_stopping") is not False:
                    # The last turn, which calls nothing that was scheduled in it.
                    called = reactor.scheduler.ready
                    scheduled = list(called)
                    called.clear()
                    reactor.loop.call_soon(called.extend, scheduled, context=reactor.context)
                    return self.served
                # Had the loop served, it would look again now, and call what it finds behind what
                # it has to call. So do we.
                may_serve = False
                left = 0
                continue
            # Only where the loop would do nothing but call select() again.
            if (
                rounds == 0
                or timers is None
                or (timers[0] if timers else None) is not first
                or attributes.get("_stopping") is not False
            ):
                return self.served
            left = -1
            if deadline >= 0:
                left = deadline - now()
                if left <= 0:
                    return self.served

    # ---- the set

    cdef int check_open(self) except -1:
        if self.epoll < 0:
            raise ValueError("I/O operation on closed epoll object")
        return self.epoll

    cdef object lookup(self, object fileobj):
        """Return the descriptor of *fileobj*, also of one that is closed and still registered.
        Raises: ValueError."""
        try:
            return descriptor_of(fileobj)
        except ValueError:
            for key in self.keys.values():
                if key.fileobj is fileobj:
                    return key.fd
            raise

    cdef object control(self, int operation, object fd, object events):
        """Tell the system what to watch *fd* for. Raises: OSError."""
        cdef epoll_event event
        if self.forks != fork_count():
            self.renew()
        describe(&event, fd, events)
        if epoll_ctl(self.epoll, operation, self.copies.get(fd, fd), &event) == 0:
            return
        if operation != EPOLL_CTL_ADD or errno != EEXIST:
            PyErr_SetFromErrno(OSError)
        # It is the Reactor's too.
        self.add_copy(fd, events)

    cdef object add_copy(self, object fd, object events):
        cdef epoll_event event
        cdef int copy = fcntl(<int>fd, F_DUPFD_CLOEXEC, 0)
        if copy < 0:
            PyErr_SetFromErrno(OSError)
        describe(&event, fd, events)
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, copy, &event) < 0:
            try:
                PyErr_SetFromErrno(OSError)
            finally:
                close(copy)
        self.copies[fd] = copy

    cdef object forget(self, object fd):
        """Have the system watch *fd* no more, which may be closed."""
        cdef epoll_event event
        if self.epoll < 0:
            return
        if self.forks != fork_count():
            self.renew()
        if fd in self.copies:
            self.drop_copy(fd)
        else:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)

    cdef object drop_copy(self, object fd):
        cdef epoll_event event
        copy = self.copies.pop(fd, None)
        if copy is not None:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, copy, &event)
            close(copy)

    cdef object renew(self):
        """Make a set of its own in a forked child, under the same number, of what the loop has
        registered: what is done to the parent's would be done to the parent."""
        cdef epoll_event event
        cdef int epoll = epoll_create1(EPOLL_CLOEXEC)
        if epoll < 0 or dup3(epoll, self.epoll, O_CLOEXEC) < 0:
            PyErr_SetFromErrno(OSError)
        close(epoll)
        self.forks = fork_count()
        if self.reactor is not None and self.reactor.is_inherited():
            self.reactor.told.clear()
            self.reactor.unfinished.clear()
        for fd in tuple(self.copies):
            close(self.copies.pop(fd))
        for fd, key in self.keys.items():
            describe(&event, fd, key.events)
            epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event)  # or it was closed

    cdef int wait(self, int64_t left, int64_t deadline) except -1:
        """Wait *left* nanoseconds, -1 for ever, and return how many events there are; handlers of
        signals run meanwhile, and may raise."""
        cdef int most = len(self.keys) + 1
        cdef int found
        cdef epoll_event *events
        if self.reactor is not None:
            most += min(<int>len(self.reactor.table), MOST)
        if most > self.room:
            events = <epoll_event *>realloc(self.events, 2 * most * sizeof(epoll_event))
            if events == NULL:
                raise MemoryError
            self.events = events
            self.room = 2 * most
        PyErr_CheckSignals()
        while True:
            if left == 0:
                found = wait_ns(self.epoll, self.events, most, 0)
            else:
                with nogil:
                    found = wait_ns(self.epoll, self.events, most, left)
            if found >= 0:
                return found
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
            if left > 0:
                left = max(deadline - now(), 0)

    # ---- the Reactor

    cdef bint may_serve(self) except -1:
        """Tell whether it is the loop that calls select(), and nothing of ours is on the stack
        already. In debug mode the loop times each handle."""
        loop = self.reactor.loop
        return (
            not self.inside
            and not self.reactor.serving
            and asyncio._get_running_loop() is loop
            and not loop.get_debug()
        )

    cdef object key_of_handle(self):
        """Return the key of a handle that calls run(), in a context that no other is in."""
        reactor = self.reactor
        if self.handle_key is None or reactor.serving:
            handle = asyncio.Handle(reactor.run, (), reactor.loop, reactor.context.copy())
            self.handle_key = SelectorKey(self.epoll, self.epoll, READ, (handle, None))
        return self.handle_key

    def _h_join(self, Reactor reactor):
        """Serve what *reactor* has in the set."""
        self.reactor = reactor
        reactor.copies = self.copies
        self.served = [(SelectorKey(self.epoll, self.epoll, READ, (None, None)), 0)]

    def _h_descriptor(self):
        """Return the set for the Reactor. Raises: RuntimeError once it is closed."""
        if self.epoll < 0:
            raise RuntimeError("Event loop is closed")
        if self.forks != fork_count():
            self.renew()
        return self.epoll

    def _h_give_way(self, fd):
        """Watch *fd* by a copy from now on, where the loop has registered it; return whether."""
        cdef epoll_event event
        key = self.keys.get(fd)
        if key is None or fd in self.copies:
            return False
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)
        self.add_copy(fd, key.events)
        return True

    def _h_drop_copy(self, fd):
        """Keep no copy of *fd*, which is about to be closed."""
        self.drop_copy(fd)

    def _h_keys(self):
        return self.keys

    def _h_key(self, fileobj, default):
        return self.keys.get(self.lookup(fileobj), default)


class Selector(EpollSet, selectors.BaseSelector):
    """A selectors.BaseSelector that is as selectors.EpollSelector: errors, events and all."""


cdef object descriptor_of(object fileobj):
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


cdef int describe(epoll_event *event, int fd, object events) except -1:
    """Make *event* what the loop registers."""
    event.events = (EPOLLIN if events & READ else 0) | (EPOLLOUT if events & WRITE else 0)
    event.data.u64 = <uint32_t>fd
    return 0


cdef int mask_of(uint32_t events) noexcept:
    """Return the events of selectors: an error or a hangup is both."""
    return (WRITE if events & ~EPOLLIN else 0) | (READ if events & ~EPOLLOUT else 0)


cdef int64_t nanoseconds(object timeout) except? -2:
    """Return a timeout in seconds, never shortened; -1 for ever."""
    cdef double seconds
    if timeout is None:
        return -1
    seconds = timeout
    if seconds <= 0:
        return 0
    if seconds >= LONGEST_SECONDS:
        seconds = LONGEST_SECONDS
    return <int64_t>ceil(seconds * NANOSECONDS)
