"""Roles with atomic operations; `fullduplex.roles` documents them."""

import time


cdef class Role:
    def __cinit__(self, changed):
        self.state = 0
        self.waiters = 0
        self.changed = changed

    @property
    def owner(self):
        return fdx_atomic_load(&self.state)

    cpdef int try_acquire(self, int kind=1) noexcept:
        return <int>fdx_atomic_swap_if(&self.state, 0, kind)

    cpdef bint acquire(self, int kind, object timeout=None) except -1:
        if self.try_acquire(kind) == 0:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.changed:
            fdx_atomic_add(&self.waiters, 1)
            try:
                while self.try_acquire(kind) != 0:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self.changed.wait(left)
                return True
            finally:
                fdx_atomic_add(&self.waiters, -1)

    cpdef int release(self) except -1:
        fdx_atomic_store(&self.state, 0)
        # A waiter counts itself before it tries: either it finds the role free, or it is counted here.
        if fdx_atomic_load(&self.waiters):
            with self.changed:
                self.changed.notify_all()
        return 0

    def reset(self, changed):
        self.changed = changed
        fdx_atomic_store(&self.state, 0)
        fdx_atomic_store(&self.waiters, 0)
