/* Pieces: how a large payload is masked on its way to the kernel, which must not change the caller's bytes.
 *
 * Either at once, into memory that the process keeps for this, and sent with one call; or in pieces that stay in
 * the first-level cache, each sent with a call of its own. Which of them is cheaper depends on the machine (what a
 * system call costs, how large the caches are) and on the peer (whether it sleeps between two pieces, and what waking
 * it costs): in one place the one takes half as long again, in another the other. So every connection measures, and
 * tries the other way now and then.
 *
 * `struct pieces` belongs to one connection and is guarded by its writer role. */
#ifndef FDX_PIECES_H
#define FDX_PIECES_H

#include "atomic.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum {
    PIECES_LEAST = 131072,  /* payloads up to this size always go at once */
    PIECES_PART = 49152,    /* size of a piece */
    PIECES_WHOLE = 1048576, /* what goes at once at most */
    PIECES_LEAD = 64,       /* room for the frame's header before the payload, which stays aligned */
    PIECES_PAGE = 2097152,  /* a huge page, which the kernel copies from faster; elsewhere only what is used is touched */

    PIECES_TRIAL = 4,     /* messages of a trial; the first, which finds the peer in the other rhythm, is not counted */
    PIECES_SOON = 8,      /* messages before the first trial */
    PIECES_SELDOM = 1024, /* messages between two trials, at most: each that fails doubles the distance */
    PIECES_WEIGHT = 8,    /* a message counts for one part of this in the mean cost */
    PIECES_MARGIN = 16,   /* a trial is won by more than one part of this */
};

enum pieces_way { PIECES_AT_ONCE, PIECES_APART };

struct pieces {
    double cost[2];    /* of each way: mean CPU time in ns for 1 KiB; 0: not known */
    unsigned int left; /* messages until a trial begins or, in a trial, ends */
    unsigned int rest; /* messages between two trials */
    unsigned char way; /* the cheaper one, as far as is known */
    unsigned char trial;
};

static inline void pieces_init(struct pieces *pieces)
{
    pieces->cost[0] = pieces->cost[1] = 0.0;
    pieces->left = pieces->rest = PIECES_SOON;
    pieces->way = PIECES_AT_ONCE;
    pieces->trial = 0;
}

/* The way to take for the next message. */
static inline int pieces_next(const struct pieces *pieces)
{
    return pieces->trial ? !pieces->way : pieces->way;
}

/* Note that a message of `size` bytes took `ns` of CPU time in the way that pieces_next() told. */
static inline void pieces_note(struct pieces *pieces, size_t size, double ns)
{
    double *const cost = &pieces->cost[pieces_next(pieces)];
    double found = ns * 1024.0 / (double)size;

    if (!pieces->trial || pieces->left < PIECES_TRIAL) {
        /* What an interruption took is not the message's. */
        if (*cost > 0.0 && found > 2.0 * *cost)
            found = 2.0 * *cost;
        *cost += (found - *cost) / (*cost > 0.0 ? PIECES_WEIGHT : 1);
    }
    if (--pieces->left > 0)
        return;
    if (!pieces->trial) {
        pieces->trial = 1;
        pieces->left = PIECES_TRIAL;
        pieces->cost[!pieces->way] = 0.0; /* what it was at the last trial says little */
        return;
    }
    pieces->trial = 0;
    if (*cost * (PIECES_MARGIN + 1) < pieces->cost[pieces->way] * PIECES_MARGIN) {
        pieces->way = !pieces->way;
        pieces->rest = PIECES_SOON;
    } else if (pieces->rest < PIECES_SELDOM) {
        pieces->rest *= 2;
    }
    pieces->left = pieces->rest;
}

/* CPU time of the calling thread in ns; 0 where there is no such clock, and then nothing is learnt. */
static inline double pieces_clock(void)
{
    struct timespec now = {0, 0};
#ifdef CLOCK_THREAD_CPUTIME_ID
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
#endif
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Memory for PIECES_LEAD + PIECES_WHOLE bytes, a page, of which the process keeps one: whoever finds none there is not the
 * only one that sends, and makes do with smaller pieces. */
static fdx_pointer pieces_kept_ = NULL;
static fdx_atomic pieces_made_ = 0;

static inline void *pieces_make_(void)
{
    void *memory = NULL;

    if (posix_memalign(&memory, PIECES_PAGE, PIECES_PAGE) != 0)
        return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(memory, PIECES_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
}

/* NULL if another thread has it, or if there is no memory. */
static inline uint8_t *pieces_take(void)
{
    void *memory = fdx_pointer_swap(&pieces_kept_, NULL);

    if (memory == NULL && fdx_atomic_swap_if(&pieces_made_, 0, 1) == 0) {
        memory = pieces_make_();
        if (memory == NULL)
            fdx_atomic_store(&pieces_made_, 0);
    }
    return (uint8_t *)memory;
}

static inline void pieces_give(uint8_t *memory)
{
    /* There is another one only if the process is the child of one in which a thread had this one. */
    free(fdx_pointer_swap(&pieces_kept_, memory));
}

/* In a forked child: if a thread of the parent had the memory, nobody gives it back here. */
static inline void pieces_forked(void)
{
    if (fdx_pointer_peek(&pieces_kept_) == NULL)
        fdx_atomic_store(&pieces_made_, 0);
}

#endif
