from libc.stdint cimport uint32_t

from headrace._transport.native.pool cimport Pool
from headrace._transport.scheduler cimport Scheduler

cdef class Descriptor:
    # The descriptor, or -1 where it is closed.
    cdef int fd
    # The place in the reactor's table, or -1 where it is not watched.
    cdef int slot
    # Which of the users of that place, one after another, this is.
    cdef uint32_t generation
    # What it is watched for.
    cdef uint32_t events
    # How many children the process had made when the watching began.
    cdef int children
    # A fact: it is on the list of what is to have a turn: see Reactor.continue_later().
    cdef bint queued
    cdef Reactor reactor

    cdef object on_events(self, uint32_t events)
    cdef object on_turn(self)
    cdef object on_end(self)

cdef class Reactor:
    cdef readonly object loop
    cdef Scheduler scheduler
    cdef int epoll
    # What headrace_forks said when the set was made.
    cdef int forks
    # The thread that the loop was last seen in.
    cdef unsigned long thread
    # What is watched, by slot.
    cdef list table
    # A stack of the slots that are free, in C: as Python numbers, made among the objects of their
    # connections, they would keep the memory of all of those from being given back.
    cdef int *free
    cdef Py_ssize_t free_count
    # The last generation that was given to a descriptor.
    cdef uint32_t generation
    # How often in a row looking for more events in the same turn has found none, or was not done
    # for that reason.
    cdef unsigned int misses
    # How many connections this batch has accepted: each has had a step of its handler, which is as
    # much as an event.
    cdef int accepted
    # How many bytes this turn has received.
    cdef Py_ssize_t received
    # A fact: a batch of events is being served.
    cdef bint serving
    # A fact: something in the batch raised what the loop has to raise.
    cdef bint interrupted
    # What may have more to read than it was allowed to at once.
    cdef list unfinished
    # What has come to its end, and on_end() was not called.
    cdef list ended
    # The connections by their descriptors: nobody may watch one of these by hand.
    cdef dict owners
    # What connections receive into.
    cdef Pool pool
    # What is scheduled runs in this, and not in the context of the first user.
    cdef object context

    cdef bint is_inherited(self) noexcept
    cdef object check_thread(self)
    cdef object watch(self, Descriptor descriptor, uint32_t events)
    cdef object unwatch(self, Descriptor descriptor, bint closing)
    cdef object rearm(self, Descriptor descriptor)
    cdef object interrupt(self, object error)
    cdef object continue_later(self, Descriptor descriptor)
    cdef object end(self, Descriptor descriptor)
    cdef object _open(self)
    cdef object _release(self)
    cdef object _add_slot(self)
    cdef object _vacate(self, Descriptor descriptor)
    cpdef object end_all(self)
    cdef int _serve(self, int most) except -1

cdef Reactor reactor_of(object loop)
