/* Turns: many threads, each with a descriptor, and a peer thread that sends and wants answers. Some
 * handlers keep their turn for longer than a tick, some leave and join again, some never come back.
 * What is tested is that every message is answered; an alarm ends a run that hangs. */
#define _GNU_SOURCE
#include "fdx_test.h"
#include "turns.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>

#if defined(SYS_futex)

enum { CONNECTIONS = 24, ROUNDS = 400 };

static struct turns *all;
static pthread_mutex_t interpreter = PTHREAD_MUTEX_INITIALIZER;
static atomic_int lost_turns, stuck, writing;

struct connection {
    struct turn turn;
    int fd;
    int kind; /* 0 quick, 1 sometimes slow, 2 leaves and joins again, 3 blocks until told */
    pthread_t thread;
};

static void rejoin(struct connection *self)
{
    pthread_mutex_lock(&interpreter);
    if (self->turn.of != NULL)
        turn_leave(&self->turn);
    CHECK(turn_join(all, &self->turn, self->fd) == 0, "turns");
    pthread_mutex_unlock(&interpreter);
}

static void *handle(void *argument)
{
    struct connection *self = (struct connection *)argument;
    unsigned long count = 0;

    rejoin(self);
    for (;;) {
        char data[64];
        ssize_t got = -1;
        if (turn_wait(&self->turn) != 0) {
            atomic_fetch_add(&lost_turns, 1);
            rejoin(self);
            continue;
        }
        got = recv(self->fd, data, sizeof data, MSG_DONTWAIT);
        if (got < 0) {
            CHECK(errno == EAGAIN, "turns");
            continue;
        }
        if (got == 0)
            break;
        if (got == (ssize_t)sizeof data)
            turn_refill(&self->turn);
        pthread_mutex_lock(&interpreter);
        CHECK(send(self->fd, data, (size_t)got, MSG_NOSIGNAL) == got, "turns");
        pthread_mutex_unlock(&interpreter);
        count++;
        if (self->kind == 1 && count % 100 == 0)
            usleep(TURN_TICK_NS / 1000 * 3);
        if (self->kind == 2 && count % 7 == 0)
            rejoin(self);
        if (self->kind == 2 && count % 5 == 0)
            turn_yield(&self->turn);
        if (self->kind == 3)
            while (atomic_load(&stuck))
                usleep(1000);
    }
    pthread_mutex_lock(&interpreter);
    turn_leave(&self->turn);
    pthread_mutex_unlock(&interpreter);
    close(self->fd);
    return NULL;
}

/* Threads that send on these connections and have to wait give the turn away, whoever reads. */
static void *write_and_wait(void *argument)
{
    struct connection *connections = (struct connection *)argument;

    while (atomic_load(&writing)) {
        for (int i = 0; i < CONNECTIONS; i++) {
            pthread_mutex_lock(&interpreter);
            if (connections[i].turn.of != NULL)
                turn_yield(&connections[i].turn);
            pthread_mutex_unlock(&interpreter);
        }
        usleep(50);
    }
    return NULL;
}

static void converse(int *peers)
{
    unsigned int left[CONNECTIONS], open = CONNECTIONS;
    struct epoll_event event;
    int poll_fd = epoll_create1(0);

    for (int i = 0; i < CONNECTIONS; i++) {
        left[i] = ROUNDS;
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.fd = i;
        CHECK(epoll_ctl(poll_fd, EPOLL_CTL_ADD, peers[i], &event) == 0, "turns");
        CHECK(send(peers[i], "hello", 5, 0) == 5, "turns");
    }
    while (open > 0) {
        char data[256];
        CHECK(epoll_wait(poll_fd, &event, 1, 20000) == 1, "turns");
        int i = event.data.fd;
        CHECK(recv(peers[i], data, sizeof data, 0) > 0, "turns");
        if (i % 4 == 3) { /* it blocks now, until all others are done */
            open--;
            CHECK(epoll_ctl(poll_fd, EPOLL_CTL_DEL, peers[i], NULL) == 0, "turns");
        } else if (--left[i] > 0) {
            /* Now and then more than the room of one read. */
            size_t size = left[i] % 10 == 0 ? 200 : 5;
            memset(data, 'x', sizeof data);
            CHECK(send(peers[i], data, size, 0) == (ssize_t)size, "turns");
            if (size == 200) { /* the answer comes in pieces */
                size_t got = 0;
                while (got < size) {
                    ssize_t more = recv(peers[i], data, sizeof data, 0);
                    CHECK(more > 0, "turns");
                    got += (size_t)more;
                }
                CHECK(send(peers[i], "again", 5, 0) == 5, "turns");
            }
        } else {
            open--;
        }
    }
    close(poll_fd);
}

/* `yielding`: turns are given away from outside, so that none is lost. */
static void run(int yielding)
{
    static struct connection connections[CONNECTIONS];
    int peers[CONNECTIONS];

    all = turns_new();
    CHECK(all != NULL, "turns");
    atomic_store(&stuck, 1);
    for (int i = 0; i < CONNECTIONS; i++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "turns");
        connections[i].fd = pair[0];
        connections[i].kind = i % 4;
        peers[i] = pair[1];
        CHECK(pthread_create(&connections[i].thread, NULL, handle, &connections[i]) == 0, "turns");
    }
    pthread_t writer;
    atomic_store(&writing, yielding);
    CHECK(pthread_create(&writer, NULL, write_and_wait, connections) == 0, "turns");
    converse(peers);
    /* With nothing else going on, no event happens to help a thread that missed its own. */
    for (int round = 0; round < 100; round++) {
        char byte;
        CHECK(send(peers[round % 2], "!", 1, 0) == 1, "turns");
        CHECK(recv(peers[round % 2], &byte, 1, 0) == 1, "turns");
    }
    atomic_store(&writing, 0);
    CHECK(pthread_join(writer, NULL) == 0, "turns");
    atomic_store(&stuck, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        close(peers[i]);
    for (int i = 0; i < CONNECTIONS; i++)
        CHECK(pthread_join(connections[i].thread, NULL) == 0, "turns");
    CHECK(all->members == 0 && all->parked == NULL && all->first == NULL && all->owner == NULL, "turns");
    turns_free(all);
}

int main(void)
{
    alarm(100);
    for (int i = 0; i < 6; i++)
        run(i % 2);
    CHECK(atomic_load(&lost_turns) > 0, "turns");
    printf("turns: ok, %d were lost\n", atomic_load(&lost_turns));
    return 0;
}

#else
int main(void)
{
    return 0;
}
#endif
