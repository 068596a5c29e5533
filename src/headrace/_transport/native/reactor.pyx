# cython: language_level=3
"""The native way: one epoll set for each event loop, hung on the loop as one descriptor.

The loop watches the set by ``add_reader()``, and one call of run() serves what is ready in it:
every ready connection receives, then the tasks that wait for what came are resumed (see Scheduler),
then connections that have ended are taken leave of. What the set watches is edge-triggered and
registered once, for everything. An event is a hint that stays in the Descriptor until the system
has said that there is no more. So pausing, resuming and waiting for room to write cost no system
call, and a descriptor that is ready and not wanted cannot make the loop spin. (Go's and tokio's
pollers do the same: runtime/netpoll_epoll.go, mio.)

Events carry a slot of the table and a generation, never a pointer: a descriptor's number, and its
slot, may have a new owner within one batch. The table is what keeps connections alive, and an
ordinary object that the collector of cycles sees.
"""

import asyncio
import functools
import sys
from contextvars import Context

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free as release, realloc

from headrace._transport.native.linux cimport (
    EINTR,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    errno,
)
from headrace._transport.native.pool cimport Pool
from headrace._transport.receive cimport TURN_BYTES
from headrace._transport.scheduler cimport Scheduler, raise_later, scheduler_of

from headrace._transport.scheduler import ready_handles

cdef extern from *:
    """
    #include <pthread.h>

    /* How many forks lie between this process and the one that loaded the module, and how many
       children it has made. */
    static int headrace_forks = 0;
    static int headrace_children = 0;
    static void headrace_forked(void) { headrace_forks++; }
    static void headrace_has_forked(void) { headrace_children++; }
    static int headrace_watch_forks(void) {
        return pthread_atfork(NULL, headrace_has_forked, headrace_forked);
    }
    """
    int forks "headrace_forks"
    int children "headrace_children"
    int watch_forks "headrace_watch_forks"()
    unsigned long PyThread_get_thread_ident()

cdef enum:
    # How many events a turn of the loop serves, so that whatever else is on the loop has its turn:
    # with 300 connections ready at once, each of which computes for 1 ms, a datagram waited 130 ms
    # without a bound, and 16 to 34 with 16.
    EVENTS = 32


# A timer of this length runs in the loop's next run, where it is being left, and soon, where it is
# not.
LEAVING_SECONDS = 0.001


cdef class Descriptor:
    """What a reactor watches: a connection or a listening socket."""

    def __cinit__(self):
        self.fd = -1
        self.slot = -1

    cdef object on_events(self, uint32_t events):
        """The descriptor is ready for *events*."""
        raise NotImplementedError

    cdef object on_turn(self):
        """Others have had their turn: go on, after continue_later()."""
        raise NotImplementedError

    cdef object on_end(self):
        """Nothing else is on the stack: take leave, after end()."""
        raise NotImplementedError


cdef class Reactor:
    """The epoll set of one loop, and everything in it. reactor_of() makes it; the set exists while
    something is watched."""

    def __cinit__(self):
        self.epoll = -1

    def __init__(self, loop):
        self.loop = loop
        self.scheduler = scheduler_of(loop)
        self.scheduler.ready = ready_handles(loop)
        self.pool = Pool()
        self.table = []
        self.owners = {}
        self.unfinished = []
        self.ended = []
        self.context = Context()
        self.forks = forks
        self.thread = PyThread_get_thread_ident()

    def __dealloc__(self):
        release(self.free)
        if self.epoll >= 0:
            close(self.epoll)

    cdef bint is_inherited(self) noexcept:
        """Tell whether this process is a fork of the one that made the set, and so must leave it
        alone."""
        return self.forks != forks

    cdef object check_thread(self):
        """Raise RuntimeError where the loop runs in another thread, or belongs to the parent
        process."""
        if self.thread != PyThread_get_thread_ident():
            if asyncio._get_running_loop() is self.loop:
                # a loop that was stopped may be run again in another thread
                self.thread = PyThread_get_thread_ident()
            elif self.loop.is_running():
                raise RuntimeError(
                    "this stream belongs to an event loop in another thread: "
                    "use loop.call_soon_threadsafe() to reach it there"
                )
        if self.is_inherited():
            raise RuntimeError(
                "this stream belongs to the parent process: "
                "a child that was forked has to open its own"
            )

    def refuse(self, fd):
        """Raise RuntimeError where *fd*, a descriptor or what has a fileno(), is that of a
        connection of ours, in asyncio's words."""
        owner = self.owners.get(fd if isinstance(fd, int) else fd.fileno())
        if owner is not None and not owner.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {owner!r}")

    # ---- what is watched

    cdef object watch(self, Descriptor descriptor, uint32_t events):
        """Have *descriptor* told of *events* from now on, what has happened already included."""
        cdef epoll_event event
        if self.epoll < 0:
            self._open()
        if self.free_count == 0:
            self._add_slot()
        self.free_count -= 1
        descriptor.slot = self.free[self.free_count]
        self.generation += 1
        descriptor.generation = self.generation
        descriptor.children = children
        descriptor.events = events
        self.table[descriptor.slot] = descriptor
        event.events = events
        event.data.u64 = <uint64_t>descriptor.generation << 32 | <uint32_t>descriptor.slot
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, descriptor.fd, &event) < 0:
            # First what needs errno.
            try:
                PyErr_SetFromErrno(OSError)
            finally:
                self._vacate(descriptor)

    cdef object unwatch(self, Descriptor descriptor, bint closing):
        """Forget *descriptor*; *closing* says that its number, which nobody else has seen, is
        about to be closed.

        The system takes a descriptor that is closed from the set by itself, unless there is a copy
        of it, which would keep it there, out of reach: one that was shown to somebody, or that a
        child may have, is taken out first.
        """
        cdef epoll_event event
        if descriptor.slot < 0:
            return
        if (
            self.epoll >= 0
            and not self.is_inherited()
            and not (closing and descriptor.children == children)
        ):
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, descriptor.fd, &event)
        self._vacate(descriptor)

    cdef object _vacate(self, Descriptor descriptor):
        self.table[descriptor.slot] = None
        self.free[self.free_count] = descriptor.slot
        self.free_count += 1
        descriptor.slot = -1
        if self.free_count == len(self.table) and self.epoll >= 0:
            self._release()

    cdef object _add_slot(self):
        cdef Py_ssize_t count = len(self.table) + 1
        cdef int *free = <int *>realloc(self.free, count * sizeof(int))
        if free == NULL:
            raise MemoryError
        self.free = free
        self.table.append(None)
        self.free[0] = count - 1
        self.free_count = 1

    cdef object rearm(self, Descriptor descriptor):
        """Have *descriptor* told once more what it is ready for."""
        cdef epoll_event event
        if descriptor.slot < 0 or self.is_inherited():
            return
        event.events = descriptor.events
        event.data.u64 = <uint64_t>descriptor.generation << 32 | <uint32_t>descriptor.slot
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, descriptor.fd, &event)

    cdef object _open(self):
        """Make the set and hang it on the loop, in a context of its own: what runs from it must not
        see its first user's variables."""
        cdef int epoll = epoll_create1(EPOLL_CLOEXEC)
        if epoll < 0:
            PyErr_SetFromErrno(OSError)
        self.epoll = epoll
        self.forks = forks
        try:
            self.context.copy().run(self.loop.add_reader, epoll, self.run)
        except BaseException:
            self.epoll = -1
            close(epoll)
            raise

    cdef object _release(self):
        """Take the set from the loop and close it, in this order: the loop must not know a
        descriptor that is somebody else's next."""
        cdef int epoll = self.epoll
        self.table.clear()
        release(self.free)
        self.free = NULL
        self.free_count = 0
        self.pool.clear()
        self.epoll = -1
        try:
            if not self.is_inherited() and not self.loop.is_closed():
                self.loop.remove_reader(epoll)
        finally:
            close(epoll)

    # ---- a turn

    def run(self):
        """Serve what is ready; the loop calls this when the set is."""
        cdef int left = EVENTS
        cdef int served
        if self.epoll < 0:
            return
        if self.is_inherited():
            # Nobody here may serve what is ready, and while it is ready the loop spins. From Python
            # 3.14 on a forked child cannot step a task of this loop anyway, not even to exit.
            if sys.version_info >= (3, 14) and asyncio._get_running_loop() is not self.loop:
                self.loop.stop()
            return
        self.thread = PyThread_get_thread_ident()
        self.serving = True
        self.received = 0
        try:
            while True:
                self.scheduler.collecting = True
                try:
                    served = self._serve(left)
                finally:
                    self.scheduler.end_batch()
                    if self.ended:
                        self.scheduler.collecting = True
                        self.end_all()
                        self.scheduler.end_batch()
                if self.interrupted:
                    break
                if served == 0:
                    self.misses += 1
                    break
                if left < EVENTS:
                    self.misses = 0
                left -= served
                if (
                    left <= 0
                    or self.received >= TURN_BYTES
                    or self.epoll < 0
                    or not self.scheduler.is_quiet()
                ):
                    break
                # Looking again spares a turn of the loop if it finds something, and is in vain
                # where one connection at a time is ready: after a miss, only one such turn in eight
                # looks again.
                if (
                    served == 1
                    and not self.unfinished
                    and self.misses != 0
                    and self.misses % 8 != 0
                ):
                    self.misses += 1
                    break
        finally:
            self.serving = False
            if self.ended:
                # By what ran when the last ones had taken leave: nothing else need ever happen.
                self.loop.call_soon(self.end_all, context=self.context)
            if self.interrupted:
                # First the loop is left, which uvloop does after one more look at its descriptors.
                # It may be run again.
                self.interrupted = False
                self.loop.call_later(LEAVING_SECONDS, self.go_on, context=self.context)
            else:
                self.go_on()

    def go_on(self):
        """Have what is not finished told again what it is ready for."""
        if self.unfinished:
            unfinished = self.unfinished
            self.unfinished = []
            for descriptor in unfinished:
                (<Descriptor>descriptor).queued = False
                self.rearm(<Descriptor>descriptor)

    cdef int _serve(self, int most) except -1:
        """Let what is ready receive, *most* events at once; return how many there were. Nothing
        that it raises keeps others waiting."""
        cdef epoll_event events[EVENTS]
        cdef Descriptor descriptor
        cdef uint64_t where
        cdef int found, i, served = 0
        self.accepted = 0
        if self.unfinished:
            unfinished = self.unfinished
            self.unfinished = []
            for each in unfinished:
                served += 1
                (<Descriptor>each).queued = False
                try:
                    (<Descriptor>each).on_turn()
                except BaseException as error:
                    self.interrupt(error)
        if served >= most or self.epoll < 0:
            return served
        found = epoll_wait(self.epoll, events, most - served, 0)
        if found < 0:
            if errno == EINTR:
                return served
            PyErr_SetFromErrno(OSError)
        for i in range(found):
            where = events[i].data.u64
            if <uint32_t>where >= <size_t>len(self.table):
                continue
            descriptor = self.table[<uint32_t>where]
            if descriptor is None or descriptor.generation != <uint32_t>(where >> 32):
                continue  # its connection was closed by an earlier one of this batch
            try:
                descriptor.on_events(events[i].events)
            except BaseException as error:
                self.interrupt(error)
        return served + found + self.accepted

    cdef object interrupt(self, object error):
        """Have the loop raise *error* when this batch is served."""
        self.interrupted = True
        raise_later(self.scheduler, error)

    cdef object continue_later(self, Descriptor descriptor):
        """Call on_turn() of *descriptor* when others have had their turn."""
        if descriptor.queued:
            return
        if self.serving:
            descriptor.queued = True
            self.unfinished.append(descriptor)
        else:
            self.rearm(descriptor)

    cdef object end(self, Descriptor descriptor):
        """Call on_end() of *descriptor* when nothing else is on the stack: in this turn where a
        batch is served, else in the next."""
        if not self.serving and not self.ended:
            self.loop.call_soon(self.end_all, context=self.context)
        self.ended.append(descriptor)

    cpdef object end_all(self):
        """Take leave of what has ended; the loop calls this where end() came from outside a
        batch."""
        while self.ended:
            ended = self.ended
            self.ended = []
            for descriptor in ended:
                try:
                    (<Descriptor>descriptor).on_end()
                except BaseException as error:
                    raise_later(self.scheduler, error)


cdef Reactor reactor_of(object loop):
    """Return the one Reactor of *loop*, kept by the loop's Scheduler."""
    cdef Scheduler scheduler = scheduler_of(loop)
    if scheduler.reactor is None:
        scheduler.reactor = Reactor(loop)
        take_watching(loop, scheduler.reactor)
        if not isinstance(loop, asyncio.BaseEventLoop):
            take_start_tls(loop)
    return <Reactor>scheduler.reactor


def take_watching(loop, reactor):
    """Have the loop refuse to watch a descriptor of our connections, as it does with those of its
    own."""
    for name in ("add_reader", "add_writer", "remove_reader", "remove_writer"):
        setattr(loop, name, _refusing(reactor, getattr(loop, name)))


def _refusing(reactor, method):
    def watch(fd, *arguments):
        reactor.refuse(fd)
        return method(fd, *arguments)

    return functools.update_wrapper(watch, method)


def take_start_tls(loop):
    """Have loop.start_tls() take our transports too: loops other than asyncio's refuse every one
    that is not their own.

    asyncio's works with any transport, on any loop. The loop object gets an attribute; its class
    stays as it is.
    """
    theirs = loop.start_tls
    ours = functools.partial(asyncio.BaseEventLoop.start_tls, loop)

    def start_tls(transport, protocol, sslcontext, **options):
        upgrade = ours if isinstance(transport, Descriptor) else theirs
        return upgrade(transport, protocol, sslcontext, **options)

    loop.start_tls = functools.update_wrapper(start_tls, theirs)


if watch_forks() != 0:
    raise MemoryError("pthread_atfork() failed")
