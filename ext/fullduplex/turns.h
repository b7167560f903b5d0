/* Turns: many threads that wait for their descriptors, and want to run one after the other.
 *
 * Threads that share an interpreter lock get into each other's way when the bytes of many come at once:
 * each wakes, finds the lock taken, sleeps again, and is woken again. Here they wait, before they ask
 * for that lock, until it is their turn. A thread whose message is done passes the turn to the next one
 * whose bytes have come, and sleeps: one switch between threads for each message. When no bytes are
 * there, the thread with the turn leads: it waits for all descriptors in one epoll_wait().
 *
 * A turn is not a lock. Who holds it for longer than a tick (its handler computes, or waits for
 * something else) loses it to a thread that keeps watch, and is told so at its next turn_wait(). What is
 * promised: while a thread is parked, either somebody leads, or some parked thread keeps watch.
 *
 * Edge-triggered: a reader takes everything (a read shorter than its room), or says turn_refill().
 * Linux only. A `struct turns` belongs to one interpreter of one process; a forked child makes its own. */
#ifndef FDX_TURNS_H
#define FDX_TURNS_H

#include <stddef.h>

struct turns;

/* One descriptor and the one thread at a time that waits for it. All but `awake` is guarded by the lock
 * of `of`; `of` itself is changed by the waiting thread only. */
struct turn {
    struct turns *of; /* NULL: not joined */
    int fd;
    int awake;              /* futex: 1 when the thread is to look */
    unsigned int alone;     /* how many times in a row nobody else was ready */
    unsigned char parked;   /* its thread sleeps or leads, in turn_wait() */
    unsigned char queued;   /* in the queue of those whose bytes have come */
    unsigned char ready;    /* bytes may be there */
    unsigned char ended;    /* the end has come: no further edge may */
    unsigned char lost;     /* the turn was taken away */
    struct turn *next;      /* in the queue */
    struct turn *before, *after; /* among the parked */
};

#if defined(__linux__)
#include <sys/syscall.h>
#endif
#if defined(SYS_futex)

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* How long a turn may last before it is looked at: between one and two ticks. */
#define TURN_TICK_NS 5000000L
#define TURN_EVENTS 128

struct turns {
    /* Guards all that follows, and every turn. Held for a few instructions; under it nothing is waited
     * for, and the interpreter lock is not asked for. */
    pthread_mutex_t lock;
    int epoll_fd;
    struct turn **joined; /* by descriptor */
    size_t room;
    struct turn *first, *last; /* the queue: parked, and their bytes have come */
    struct turn *parked;       /* all that are parked */
    struct turn *owner;        /* whose turn it is */
    struct turn *watcher;      /* parked; looks every tick while `armed` */
    unsigned long members;
    unsigned long count;       /* of turns so far */
    unsigned char leading;     /* the owner is in epoll_wait() */
    unsigned char armed;
};

static inline struct turns *turns_new(void)
{
    struct turns *turns = (struct turns *)calloc(1, sizeof *turns);
    if (turns == NULL)
        return NULL;
    turns->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (turns->epoll_fd < 0 || pthread_mutex_init(&turns->lock, NULL) != 0) {
        if (turns->epoll_fd >= 0)
            close(turns->epoll_fd);
        free(turns);
        return NULL;
    }
    return turns;
}

/* Only when nothing is joined any more, or in a forked child, where no thread of it lives. */
static inline void turns_free(struct turns *turns)
{
    close(turns->epoll_fd);
    pthread_mutex_destroy(&turns->lock);
    free(turns->joined);
    free(turns);
}

static inline void turn_wake_(struct turn *turn)
{
    /* Stored under the lock: afterwards the turn may be gone with its thread, and the address with it.
     * To wake whoever sleeps there then does no harm. */
    __atomic_store_n(&turn->awake, 1, __ATOMIC_RELEASE);
}

static inline void turn_call_(int *futex)
{
    syscall(SYS_futex, futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Sleep until woken, or for a tick; the lock is not held. */
static inline void turn_doze_(struct turn *turn, int timed)
{
    /* What the call takes, also where time_t has more bits than long. */
    const long tick[2] = {0, TURN_TICK_NS};
    while (__atomic_load_n(&turn->awake, __ATOMIC_ACQUIRE) == 0) {
        long got = syscall(SYS_futex, &turn->awake, FUTEX_WAIT_PRIVATE, 0, timed ? tick : NULL, NULL, 0);
        if (got < 0 && errno == ETIMEDOUT)
            return;
    }
}

static inline void turn_queue_(struct turns *turns, struct turn *turn)
{
    turn->queued = 1;
    turn->next = NULL;
    if (turns->first == NULL)
        turns->first = turn;
    else
        turns->last->next = turn;
    turns->last = turn;
}

static inline void turn_park_(struct turns *turns, struct turn *turn)
{
    turn->parked = 1;
    turn->awake = 0;
    turn->before = NULL;
    turn->after = turns->parked;
    if (turns->parked != NULL)
        turns->parked->before = turn;
    turns->parked = turn;
}

/* Make it this one's turn. */
static inline void turn_own_(struct turns *turns, struct turn *turn)
{
    turns->owner = turn;
    turns->count++;
    if (turns->watcher == turn)
        turns->watcher = NULL;
}

/* The next whose bytes have come, no longer parked, and with the turn; NULL if there is none. */
static inline struct turn *turn_next_(struct turns *turns)
{
    struct turn *turn = turns->first;
    if (turn == NULL)
        return NULL;
    turns->first = turn->next;
    turn->queued = turn->ready = turn->parked = 0;
    if (turn->before != NULL)
        turn->before->after = turn->after;
    else
        turns->parked = turn->after;
    if (turn->after != NULL)
        turn->after->before = turn->before;
    turn_own_(turns, turn);
    return turn;
}

/* Let some parked thread keep watch; `volunteer` is one that is about to sleep anyway, or NULL. */
static inline void turn_watch_(struct turns *turns, struct turn *volunteer)
{
    if (turns->watcher == NULL) {
        turns->watcher = volunteer != NULL ? volunteer : turns->parked;
        if (turns->watcher == NULL)
            return;
        turns->armed = 0;
    }
    if (!turns->armed) {
        turns->armed = 1;
        if (turns->watcher != volunteer) {
            turn_wake_(turns->watcher);
            turn_call_(&turns->watcher->awake);
        }
    }
}

static inline void turn_look_(struct turns *turns)
{
    struct epoll_event events[TURN_EVENTS];

    turns->leading = 1;
    pthread_mutex_unlock(&turns->lock);
    int count = epoll_wait(turns->epoll_fd, events, TURN_EVENTS, -1);
    pthread_mutex_lock(&turns->lock);
    turns->leading = 0;
    for (int i = 0; i < count; i++) {
        /* A descriptor may have left meanwhile, and its number been given anew: a turn too many. */
        size_t fd = (size_t)events[i].data.fd;
        struct turn *turn = fd < turns->room ? turns->joined[fd] : NULL;
        if (turn == NULL)
            continue;
        turn->ready = 1;
        if (events[i].events & (EPOLLRDHUP | EPOLLHUP))
            turn->ended = 1;
        if (turn->parked && !turn->queued)
            turn_queue_(turns, turn);
    }
}

/* With the lock, the turn, and parked: pass the turn on. When this returns, it is another's turn, or the
 * own bytes have come and `me` is no longer parked. */
static inline void turn_lead_(struct turns *turns, struct turn *me)
{
    struct turn *next;

    while ((next = turn_next_(turns)) == NULL)
        turn_look_(turns);
    if (next == me) {
        me->alone = turns->first == NULL ? me->alone + 1 : 0;
        turn_watch_(turns, NULL);
        return;
    }
    me->alone = 0;
    turn_watch_(turns, me);
    turn_wake_(next);
    pthread_mutex_unlock(&turns->lock);
    turn_call_(&next->awake);
    pthread_mutex_lock(&turns->lock);
}

/* With the lock, and parked: sleep until the own bytes have come. */
static inline void turn_sleep_(struct turns *turns, struct turn *me)
{
    while (me->parked) {
        if (turns->owner == me) {
            turn_lead_(turns, me);
            continue;
        }
        int timed = turns->watcher == me && turns->armed;
        unsigned long count = turns->count;
        pthread_mutex_unlock(&turns->lock);
        turn_doze_(me, timed);
        pthread_mutex_lock(&turns->lock);
        int woken = __atomic_load_n(&me->awake, __ATOMIC_RELAXED);
        me->awake = 0;
        if (!me->parked || !timed || woken || turns->watcher != me)
            continue;
        if (turns->leading) {
            turns->armed = 0; /* who leads arms it again */
        } else if (turns->count == count) {
            if (turns->owner != NULL)
                turns->owner->lost = 1;
            turn_own_(turns, me);
        }
    }
}

/* Wait, without the interpreter lock, until bytes or the end may have come: at least once for each edge.
 * Returns 1 instead if the turn was taken away since the last time; then leave, or wait again. */
static inline int turn_wait(struct turn *me)
{
    struct turns *turns = me->of;

    pthread_mutex_lock(&turns->lock);
    if (me->lost) {
        me->lost = 0;
        pthread_mutex_unlock(&turns->lock);
        return 1;
    }
    if (turns->owner == NULL)
        turn_own_(turns, me);
    /* Nobody is there to be let go first; or somebody leads, who does not see the queue. */
    if ((me->ready || me->ended) && (turns->owner == me ? turns->first == NULL : turns->leading)) {
        me->ready = 0;
        pthread_mutex_unlock(&turns->lock);
        return 0;
    }
    turn_park_(turns, me);
    if (me->ready || me->ended)
        turn_queue_(turns, me);
    if (turns->owner != me && !turns->leading)
        turn_watch_(turns, me);
    turn_sleep_(turns, me);
    pthread_mutex_unlock(&turns->lock);
    return 0;
}

/* A read filled its room: there may be more without a further edge. */
static inline void turn_refill(struct turn *me)
{
    pthread_mutex_lock(&me->of->lock);
    me->ready = 1;
    pthread_mutex_unlock(&me->of->lock);
}

/* With the lock and the turn, and not parked: give the turn to another. */
static inline void turn_pass_(struct turns *turns)
{
    struct turn *next = turn_next_(turns);

    if (next == NULL) {
        next = turns->owner = turns->parked;
        if (next == NULL)
            return;
        turn_own_(turns, next); /* still parked: it will lead */
    } else {
        turn_watch_(turns, NULL);
    }
    turn_wake_(next);
    turn_call_(&next->awake);
}

/* Before the thread waits for something else. */
static inline void turn_yield(struct turn *me)
{
    struct turns *turns = me->of;

    pthread_mutex_lock(&turns->lock);
    /* A writer may call this while the connection's reader is parked, and leads perhaps: then the turn
     * is in use. */
    if (turns->owner == me && !me->parked)
        turn_pass_(turns);
    pthread_mutex_unlock(&turns->lock);
}

/* Returns 0, or -1 with errno. */
static inline int turn_join(struct turns *turns, struct turn *me, int fd)
{
    struct epoll_event event;
    int result = -1;

    pthread_mutex_lock(&turns->lock);
    if ((size_t)fd >= turns->room) {
        size_t room = (size_t)fd + (size_t)fd / 2 + 64;
        struct turn **joined = (struct turn **)realloc(turns->joined, room * sizeof *joined);
        if (joined == NULL) {
            pthread_mutex_unlock(&turns->lock);
            errno = ENOMEM;
            return -1;
        }
        memset(joined + turns->room, 0, (room - turns->room) * sizeof *joined);
        turns->joined = joined;
        turns->room = room;
    }
    struct turn *const before = turns->joined[fd];
    memset(me, 0, sizeof *me);
    memset(&event, 0, sizeof event);
    me->fd = fd;
    turns->joined[fd] = me;
    event.events = (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP | (uint32_t)EPOLLET;
    event.data.fd = fd;
    if (epoll_ctl(turns->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        turns->joined[fd] = before;
    } else {
        me->of = turns;
        turns->members++;
        result = 0;
    }
    pthread_mutex_unlock(&turns->lock);
    return result;
}

/* Before the descriptor is closed; not while a thread is in turn_wait(). */
static inline void turn_leave(struct turn *me)
{
    struct turns *turns = me->of;

    pthread_mutex_lock(&turns->lock);
    /* If somebody else closed the descriptor, its number may already be another's. */
    if (turns->joined[me->fd] == me) {
        epoll_ctl(turns->epoll_fd, EPOLL_CTL_DEL, me->fd, NULL);
        turns->joined[me->fd] = NULL;
    }
    if (turns->owner == me)
        turn_pass_(turns);
    turns->members--;
    me->of = NULL;
    pthread_mutex_unlock(&turns->lock);
}

#else /* elsewhere nobody joins */

struct turns {
    int epoll_fd;
    unsigned long members;
};

static inline struct turns *turns_new(void)
{
    return NULL;
}
static inline void turns_free(struct turns *turns)
{
    (void)turns;
}
static inline int turn_join(struct turns *turns, struct turn *me, int fd)
{
    (void)turns, (void)me, (void)fd;
    return -1;
}
static inline int turn_wait(struct turn *me)
{
    (void)me;
    return 1;
}
static inline void turn_refill(struct turn *me)
{
    (void)me;
}
static inline void turn_yield(struct turn *me)
{
    (void)me;
}
static inline void turn_leave(struct turn *me)
{
    (void)me;
}
#endif
#endif
