/* The floor's client: client PORT SIZE [PAYLOAD_FILE text|binary]
 *
 * Reads commands from standard input, one a line, and answers "ok NANOSECONDS" to each:
 *   open, close            one connection with an opening handshake
 *   echo N                 send a frame and receive one, N times
 *   receive N              ask the source for N messages and take their bytes
 *   send N                 N messages to the sink, then wait for its word that all have come
 *   handshake N            connect, open, exchange Close frames and disconnect, N times
 * It moves the bytes of WebSocket frames and does nothing else to them. */
#define _GNU_SOURCE
#include "ws.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint16_t port;
static uint8_t *frame, *incoming;
static size_t frame_size, incoming_size;
static int fd = -1;

static void send_text(const char *text)
{
    uint8_t data[64];
    size_t size = strlen(text), header = put_header(data, OP_TEXT, size, 1);
    for (size_t i = 0; i < size; i++)
        data[header + i] = (uint8_t)text[i] ^ data[header - 4 + (i & 3)];
    send_all(fd, data, header + size);
}

static int open_connection(void)
{
    int connection = connect_loopback(port);
    client_handshake(connection, port);
    return connection;
}

static void receive(unsigned long count)
{
    static uint8_t buffer[1 << 20] __attribute__((aligned(ALIGNMENT)));
    /* A buffer that stays in the cache for a stream of small messages. */
    size_t most = incoming_size > 65536 ? sizeof buffer : 65536;
    char text[32];
    uint64_t left = (uint64_t)count * incoming_size;

    snprintf(text, sizeof text, "%lu", count);
    send_text(text);
    while (left > 0) {
        size_t room = left < most ? (size_t)left : most;
        ssize_t got = recv(fd, buffer, room, 0);
        if (got <= 0)
            die("receive");
        left -= (uint64_t)got;
    }
}

static void handshakes(unsigned long count)
{
    static const uint8_t bye[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    uint8_t answer[64];

    for (unsigned long i = 0; i < count; i++) {
        int connection = open_connection();
        send_all(connection, bye, sizeof bye);
        while (recv(connection, answer, sizeof answer, 0) > 0) {
        }
        close(connection);
    }
}

static int run(const char *command, unsigned long count)
{
    if (strcmp(command, "open") == 0) {
        fd = open_connection();
    } else if (strcmp(command, "close") == 0) {
        close(fd);
    } else if (strcmp(command, "echo") == 0) {
        for (unsigned long i = 0; i < count; i++) {
            send_all(fd, frame, frame_size);
            recv_all(fd, incoming, incoming_size);
        }
    } else if (strcmp(command, "receive") == 0) {
        receive(count);
    } else if (strcmp(command, "send") == 0) {
        for (unsigned long i = 0; i < count; i++)
            send_all(fd, frame, frame_size);
        send_text("done");
        recv_all(fd, incoming, 4);
    } else if (strcmp(command, "handshake") == 0) {
        handshakes(count);
    } else {
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    char line[128], command[32];

    if (argc != 3 && argc != 5) {
        errno = EINVAL;
        die("usage: client PORT SIZE [PAYLOAD_FILE text|binary]");
    }
    port = (uint16_t)number(argv[1]);
    size_t size = number(argv[2]);
    unsigned opcode = argc == 5 && strcmp(argv[4], "text") == 0 ? OP_TEXT : OP_BINARY;
    frame = make_frame(argc == 5 ? argv[3] : NULL, size, opcode, 1, &frame_size);
    incoming = make_frame(NULL, size < 4 ? 4 : size, opcode, 0, &incoming_size);
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned long count = 0;
        if (sscanf(line, "%31s %lu", command, &count) < 1)
            continue;
        uint64_t start = now_ns();
        if (run(command, count))
            printf("ok %llu\n", (unsigned long long)(now_ns() - start));
        else
            printf("error unknown command %s\n", command);
        fflush(stdout);
    }
    return 0;
}
