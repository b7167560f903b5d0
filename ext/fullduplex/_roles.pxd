# cython: language_level=3
"""Roles with atomic operations: C-level surface."""

cimport cython

cdef extern from "atomic.h" nogil:
    ctypedef long fdx_atomic
    long fdx_atomic_swap_if(fdx_atomic *at, long expected, long wanted)
    long fdx_atomic_load(fdx_atomic *at)
    void fdx_atomic_store(fdx_atomic *at, long value)
    void fdx_atomic_add(fdx_atomic *at, long value)
    void fdx_atomic_fence()
    void fdx_atomic_order()


@cython.final
cdef class Role:
    cdef fdx_atomic state         # FREE or the kind of the owner
    cdef fdx_atomic waiters       # threads in acquire()
    cdef fdx_atomic queued        # those of them that are in the queue
    cdef size_t thread            # the owner's; 0 if there is none
    cdef bint native              # threads are the system's
    cdef list queue               # those who have waited for long, in order, each with its thread; the condition guards it
    cdef object changed           # the connection's condition

    cdef size_t current(self) noexcept
    cpdef bint contended(self) noexcept
    cpdef int try_acquire(self, int kind=*) noexcept
    cdef bint _wait_for_it(self, int kind, timeout) except -1
    cpdef bint acquire(self, int kind, object timeout=*) except -1
    cpdef int release(self) except -1
    cdef int notify(self) except -1
