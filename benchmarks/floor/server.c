/* The floor's server: server MODE SIZE [PAYLOAD_FILE text|binary]
 *
 *   echo       one connection at a time; takes the bytes of a masked frame of SIZE, sends those of an
 *              unmasked one. Nothing is parsed or unmasked: this is what the kernel alone costs.
 *   source     any client; a message with a decimal number N is answered with N messages.
 *   sink       any client; swallows messages until a text of 4 bytes comes, then answers "ok".
 *   many       any clients; epoll; echoes messages of SIZE, answers Close frames.
 *   broadcast  the same, but each message is answered with one message of SIZE to every client.
 *
 * Prints "ready PORT" when it listens. */
#define _GNU_SOURCE
#include "ws.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 65536, SINK_BUFFER = 1 << 20, MAX_FDS = 65536 };

/* Like recv_all, but 0 when the peer closed instead. */
static int recv_or_end(int fd, uint8_t *data, size_t size)
{
    ssize_t got = recv(fd, data, size, 0);
    if (got <= 0)
        return 0;
    if ((size_t)got < size)
        recv_all(fd, data + got, size - (size_t)got);
    return 1;
}

static void echo(int fd, size_t size)
{
    uint8_t header[MAX_HEADER];
    size_t in = put_header(header, OP_BINARY, size, 1) + size;
    size_t out = put_header(header, OP_BINARY, size, 0) + size;
    uint8_t *buffer = buffer_of(in);

    while (recv_or_end(fd, buffer, in))
        send_all(fd, buffer, out);
    free(buffer);
}

static void source(int fd, const uint8_t *frame, size_t frame_size)
{
    /* Small frames go out many to a call, so that the receiver is what is measured. */
    size_t per_batch = frame_size < BATCH ? BATCH / frame_size : 1;
    uint8_t *batch = buffer_of(per_batch * frame_size), request[64];

    for (size_t i = 0; i < per_batch; i++)
        memcpy(batch + i * frame_size, frame, frame_size);
    for (;;) {
        struct frame head;
        char digits[32] = {0};
        if (!recv_or_end(fd, request, 6) || !get_header(request, 6, &head) ||
            head.opcode == OP_CLOSE || head.size >= sizeof digits)
            break;
        recv_all(fd, request + 6, head.size);
        for (size_t i = 0; i < head.size; i++)
            digits[i] = (char)(request[6 + i] ^ request[2 + (i & 3)]);
        for (unsigned long left = number(digits); left > 0;) {
            size_t count = left < per_batch ? left : per_batch;
            send_all(fd, batch, count * frame_size);
            left -= count;
        }
    }
    free(batch);
}

static void sink(int fd)
{
    static uint8_t buffer[SINK_BUFFER] __attribute__((aligned(ALIGNMENT)));
    size_t used = 0, skip = 0; /* skip: bytes of a payload that are still to come */

    for (;;) {
        ssize_t got = recv(fd, buffer + used, sizeof buffer - used, 0);
        if (got <= 0)
            return;
        size_t end = used + (size_t)got, at = 0;
        while (at < end) {
            struct frame head;
            size_t step = skip < end - at ? skip : end - at;
            at += step;
            skip -= step;
            if (skip > 0 || !get_header(buffer + at, end - at, &head))
                break;
            if (head.opcode == OP_CLOSE)
                return;
            if (head.opcode == OP_TEXT && head.size == 4)
                send_all(fd, "\x81\x02ok", 4);
            at += head.header;
            skip = head.size;
        }
        used = end - at;
        memmove(buffer, buffer + at, used);
    }
}

/* --- many connections ------------------------------------------------------------------------ */

struct client {
    int open;       /* the handshake is done */
    size_t used;    /* bytes in `buffer` */
    char *buffer;   /* an incomplete head or frame, NULL most of the time */
};

static struct client clients[MAX_FDS];
static int highest;

static void drop(int fd)
{
    free(clients[fd].buffer);
    memset(&clients[fd], 0, sizeof clients[fd]);
    close(fd);
}

/* Returns 0 when the connection is over. */
static int answer(int fd, const struct frame *head, const uint8_t *reply, size_t reply_size,
                  int everybody)
{
    if (head->opcode == OP_CLOSE) {
        send(fd, "\x88\x02\x03\xe8", 4, MSG_NOSIGNAL);
        return 0;
    }
    if (!everybody) {
        send_all(fd, reply, reply_size);
        return 1;
    }
    for (int other = 0; other <= highest; other++)
        if (clients[other].open)
            send_all(other, reply, reply_size);
    return 1;
}

static void readable(int fd, const uint8_t *reply, size_t reply_size, int everybody)
{
    char data[16384];
    struct client *client = &clients[fd];
    ssize_t got;

    if (client->used > 0)
        memcpy(data, client->buffer, client->used);
    got = recv(fd, data + client->used, sizeof data - 1 - client->used, 0);
    if (got <= 0) {
        drop(fd);
        return;
    }
    size_t end = client->used + (size_t)got, at = 0;
    if (!client->open) {
        char out[256];
        data[end] = '\0';
        if (strstr(data, "\r\n\r\n") != NULL) {
            send_all(fd, out, upgrade_answer(data, out, sizeof out));
            client->open = 1;
            at = end;
        }
    } else {
        struct frame head;
        while (get_header((uint8_t *)data + at, end - at, &head) &&
               end - at >= head.header + head.size) {
            if (!answer(fd, &head, reply, reply_size, everybody)) {
                drop(fd);
                return;
            }
            at += head.header + head.size;
        }
    }
    client->used = end - at;
    if (client->used > 0) {
        if (client->buffer == NULL && (client->buffer = malloc(sizeof data)) == NULL)
            die("malloc");
        memcpy(client->buffer, data + at, client->used);
    } else if (client->buffer != NULL) {
        free(client->buffer);
        client->buffer = NULL;
    }
}

static void many(int listener, const uint8_t *reply, size_t reply_size, int everybody)
{
    struct epoll_event events[512], event = {.events = EPOLLIN, .data.fd = listener};
    int poll = epoll_create1(EPOLL_CLOEXEC);

    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    for (;;) {
        int count = epoll_wait(poll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                readable(fd, reply, reply_size, everybody);
                continue;
            }
            event.data.fd = accept_one(listener);
            if (event.data.fd >= MAX_FDS)
                die("too many connections");
            if (event.data.fd > highest)
                highest = event.data.fd;
            if (epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
                die("epoll_ctl");
        }
    }
}

int main(int argc, char **argv)
{
    uint16_t port;
    if (argc != 3 && argc != 5) {
        errno = EINVAL;
        die("usage: server MODE SIZE [PAYLOAD_FILE text|binary]");
    }
    const char *mode = argv[1];
    size_t size = number(argv[2]), frame_size;
    unsigned opcode = argc == 5 && strcmp(argv[4], "text") == 0 ? OP_TEXT : OP_BINARY;
    uint8_t *frame = make_frame(argc == 5 ? argv[3] : NULL, size, opcode, 0, &frame_size);
    int listener = listen_loopback(&port);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    printf("ready %u\n", port);
    fflush(stdout);
    if (strcmp(mode, "many") == 0 || strcmp(mode, "broadcast") == 0)
        many(listener, frame, frame_size, mode[0] == 'b');
    for (;;) {
        int fd = accept_one(listener);
        server_handshake(fd);
        if (strcmp(mode, "echo") == 0)
            echo(fd, size);
        else if (strcmp(mode, "source") == 0)
            source(fd, frame, frame_size);
        else
            sink(fd);
        close(fd);
    }
}
