/* The load generator: load PORT SIZE
 *
 * A single-threaded epoll client that holds many real WebSocket connections (each with its opening
 * handshake; frames masked). Commands on standard input, one a line, answered "ok NANOSECONDS":
 *   open N         N more connections
 *   pingpong N     every connection sends a message of SIZE and, when the answer has come, the
 *                  next, until N answers have come in all
 *   broadcast N    N times: the first connection sends a message; wait until every connection has
 *                  received one of SIZE
 *   close          drop all connections */
#define _GNU_SOURCE
#include "ws.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 60000, EVENTS = 512 };

static uint16_t port;
static uint8_t *frame;
static size_t frame_size, answer_size;
static int poll_fd, fds[MAX_CONNECTIONS];
static size_t left[MAX_CONNECTIONS]; /* bytes of the answer that are still to come */
static unsigned long connections;

static void open_more(unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = connections};
        if (connections >= MAX_CONNECTIONS)
            die("too many connections");
        int fd = connect_loopback(port);
        client_handshake(fd, port);
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
        fds[connections++] = fd;
    }
}

/* Take what is there; returns 1 when the answer is complete. */
static int take(size_t index)
{
    uint8_t data[65536];
    ssize_t got = recv(fds[index], data, left[index] < sizeof data ? left[index] : sizeof data, 0);

    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0)
        die("a connection was lost");
    left[index] -= (size_t)got;
    return left[index] == 0;
}

static void pingpong(unsigned long total)
{
    struct epoll_event events[EVENTS];
    unsigned long sent = 0, done = 0;

    for (unsigned long i = 0; i < connections && sent < total; i++, sent++) {
        left[i] = answer_size;
        send_all(fds[i], frame, frame_size);
    }
    while (done < total) {
        int count = epoll_wait(poll_fd, events, EVENTS, 10000);
        if (count <= 0)
            die("no answer for 10 seconds");
        for (int i = 0; i < count; i++) {
            size_t index = (size_t)events[i].data.u64;
            if (!take(index))
                continue;
            done++;
            if (sent < total) {
                sent++;
                left[index] = answer_size;
                send_all(fds[index], frame, frame_size);
            }
        }
    }
}

static void broadcast(unsigned long rounds)
{
    static const uint8_t go[] = {0x82, 0x82, 0, 0, 0, 0, 'g', 'o'};
    struct epoll_event events[EVENTS];

    for (unsigned long round = 0; round < rounds; round++) {
        unsigned long waiting = connections;
        for (unsigned long i = 0; i < connections; i++)
            left[i] = answer_size;
        send_all(fds[0], go, sizeof go);
        while (waiting > 0) {
            int count = epoll_wait(poll_fd, events, EVENTS, 10000);
            if (count <= 0)
                die("no broadcast for 10 seconds");
            for (int i = 0; i < count; i++)
                waiting -= (unsigned long)take((size_t)events[i].data.u64);
        }
    }
}

static void close_all(void)
{
    while (connections > 0)
        close(fds[--connections]);
}

int main(int argc, char **argv)
{
    char line[128], command[32];

    if (argc != 3) {
        errno = EINVAL;
        die("usage: load PORT SIZE");
    }
    port = (uint16_t)number(argv[1]);
    frame = make_frame(NULL, number(argv[2]), OP_BINARY, 1, &frame_size);
    answer_size = frame_size - 4; /* the same frame without a masking key */
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned long count = 0;
        if (sscanf(line, "%31s %lu", command, &count) < 1)
            continue;
        uint64_t start = now_ns();
        if (strcmp(command, "open") == 0)
            open_more(count);
        else if (strcmp(command, "pingpong") == 0)
            pingpong(count);
        else if (strcmp(command, "broadcast") == 0)
            broadcast(count);
        else if (strcmp(command, "close") == 0)
            close_all();
        printf("ok %llu\n", (unsigned long long)(now_ns() - start));
        fflush(stdout);
    }
    return 0;
}
