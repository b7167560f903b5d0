"""Roles with atomic operations; `fullduplex.roles` documents them."""

import threading
import time
from types import BuiltinFunctionType

from .conditions import LOOK_AGAIN, wait_for_change

cdef extern from *:
    """
    #ifdef __linux__
    #include <pthread.h>
    /* What Python's function gives, without the detour. */
    #define fdx_thread() ((size_t)pthread_self())
    #else
    #define fdx_thread() ((size_t)PyThread_get_thread_ident())
    #endif
    """
    size_t fdx_thread() noexcept

cdef enum:
    PATIENCE = 5  # milliseconds; as in fullduplex.roles, which imports this module

# Without the interpreter lock: who cannot take a role leaves a note for its owner in a plain attribute (_due, _watch), and
# the owner looks at that once it has let go. Each must do the one before the other, which is what the fences are for.


cdef class Role:
    def __cinit__(self, changed):
        self.state = 0
        self.waiters = 0
        self.queued = 0
        self.thread = 0
        self.queue = []
        self.changed = changed
        # gevent and others put a function of theirs in its place: their threads share one of the system.
        self.native = type(threading.get_ident) is BuiltinFunctionType

    cdef size_t current(self) noexcept:
        """Give the calling thread's number."""
        return fdx_thread() if self.native else <size_t>threading.get_ident()

    @property
    def owner(self):
        fdx_atomic_fence()
        return fdx_atomic_load(&self.state)

    @property
    def mine(self):
        # Whoever else takes the role does so after its last owner has taken its name away.
        return self.thread == self.current()

    cpdef bint contended(self) noexcept:
        return fdx_atomic_load(&self.queued) != 0

    cpdef int try_acquire(self, int kind=1) noexcept:
        cdef int owner
        fdx_atomic_order()
        owner = <int>fdx_atomic_swap_if(&self.state, 0, kind)
        if owner == 0:
            self.thread = self.current()
        return owner

    cpdef bint acquire(self, int kind, object timeout=None) except -1:
        if not self.contended() and self.try_acquire(kind) == 0:
            return True
        mine = self.mine
        try:
            return self._wait_for_it(kind, timeout)
        except BaseException:
            # A signal's handler raised. Was it when we had the role already, nobody would give it back.
            if self.mine and not mine:
                self.release()
            raise

    cdef bint _wait_for_it(self, int kind, timeout) except -1:
        cdef list queue = self.queue
        cdef bint waiting = False  # in the queue
        thread = self.current()
        place = (thread, object())
        begin = time.monotonic()
        deadline = None if timeout is None else begin + timeout
        with self.changed:
            fdx_atomic_add(&self.waiters, 1)
            try:
                while True:
                    # A place of this thread's: this one, or that of what a signal's handler has interrupted here, and
                    # which cannot go on before it.
                    if (not queue or queue[0][0] == thread) and self.try_acquire(kind) == 0:
                        return True
                    now = time.monotonic()
                    left = None if deadline is None else deadline - now
                    if left is not None and left <= 0:
                        return False
                    if not waiting:
                        if now >= begin + 0.001 * PATIENCE:
                            queue.append(place)
                            fdx_atomic_add(&self.queued, 1)
                            waiting = True
                            continue
                        left = 0.001 * PATIENCE if left is None else min(left, 0.001 * PATIENCE)
                    # Not longer: a handler that raises in release() may keep it from waking us.
                    left = LOOK_AGAIN if left is None else min(left, LOOK_AGAIN)
                    wait_for_change(self.changed, left)
            finally:
                fdx_atomic_add(&self.waiters, -1)
                if waiting:
                    fdx_atomic_add(&self.queued, -1)
                    queue.remove(place)
                    self.changed.notify_all()  # the next one is the first now

    cpdef int release(self) except -1:
        self.thread = 0
        fdx_atomic_store(&self.state, 0)
        fdx_atomic_order()
        # A waiter counts itself before it tries: either it finds the role free, or it is counted here.
        if fdx_atomic_load(&self.waiters):
            try:
                self.notify()
            except BaseException:  # a signal's handler, perhaps before anybody was woken
                self.notify()
                raise
        return 0

    cdef int notify(self) except -1:
        with self.changed:
            self.changed.notify_all()
        return 0

    def reset(self, changed):
        self.changed = changed
        self.thread = 0
        self.queue = []
        fdx_atomic_store(&self.state, 0)
        fdx_atomic_store(&self.waiters, 0)
        fdx_atomic_store(&self.queued, 0)
