/* Atomic operations, sequentially consistent but for fdx_pointer_peek(). */
#ifndef FDX_ATOMIC_H
#define FDX_ATOMIC_H

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
typedef volatile long fdx_atomic;

static __inline long fdx_atomic_swap_if(fdx_atomic *at, long expected, long wanted)
{
    return _InterlockedCompareExchange(at, wanted, expected);
}
static __inline long fdx_atomic_load(fdx_atomic *at)
{
    return _InterlockedOr(at, 0);
}
static __inline void fdx_atomic_store(fdx_atomic *at, long value)
{
    _InterlockedExchange(at, value);
}
/* Returns what was there. */
static __inline long fdx_atomic_add(fdx_atomic *at, long value)
{
    return _InterlockedExchangeAdd(at, value);
}
typedef void *volatile fdx_pointer;

static __inline void *fdx_pointer_swap_if(fdx_pointer *at, void *expected, void *wanted)
{
    return _InterlockedCompareExchangePointer(at, wanted, expected);
}
static __inline void *fdx_pointer_swap(fdx_pointer *at, void *wanted)
{
    return _InterlockedExchangePointer(at, wanted);
}
static __inline void *fdx_pointer_peek(fdx_pointer *at)
{
    return *at;
}
static __inline void fdx_atomic_fence(void)
{
    long at = 0;

    _InterlockedExchange(&at, 1);
}
static __inline void fdx_atomic_order(void)
{
}
#else
typedef long fdx_atomic;

/* Returns what was there; `wanted` was stored if that equals `expected`. */
static inline long fdx_atomic_swap_if(fdx_atomic *at, long expected, long wanted)
{
    __atomic_compare_exchange_n(at, &expected, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
static inline long fdx_atomic_load(fdx_atomic *at)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
static inline void fdx_atomic_store(fdx_atomic *at, long value)
{
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}
/* Returns what was there. */
static inline long fdx_atomic_add(fdx_atomic *at, long value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
typedef void *fdx_pointer;

/* As fdx_atomic_swap_if(). */
static inline void *fdx_pointer_swap_if(fdx_pointer *at, void *expected, void *wanted)
{
    __atomic_compare_exchange_n(at, &expected, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
/* Returns what was there. */
static inline void *fdx_pointer_swap(fdx_pointer *at, void *wanted)
{
    return __atomic_exchange_n(at, wanted, __ATOMIC_SEQ_CST);
}
/* Relaxed: for a pointer to what the calling thread has come to know in another way. */
static inline void *fdx_pointer_peek(fdx_pointer *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}
/* Plain stores before it come before plain loads after it. */
static inline void fdx_atomic_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
/* The same where it stands before fdx_atomic_swap_if() or after fdx_atomic_store(), which do so themselves on x86. */
static inline void fdx_atomic_order(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    fdx_atomic_fence();
#endif
}
#endif
#endif
