#define _GNU_SOURCE
#include "ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

void *buffer_of(size_t size)
{
    void *buffer = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (buffer == NULL)
        die("aligned_alloc");
    memset(buffer, 0, size);
    return buffer;
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

unsigned long number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text)
        die("not a number");
    return value;
}

/* --- sockets --------------------------------------------------------------------------------- */

static void no_delay(int fd)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
        die("TCP_NODELAY");
}

int listen_loopback(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    *port = ntohs(address.sin_port);
    return fd;
}

int accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        die("accept");
    no_delay(fd);
    return fd;
}

int connect_loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    no_delay(fd);
    return fd;
}

void send_all(int fd, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0)
            die("send");
        at += sent;
        size -= (size_t)sent;
    }
}

void recv_all(int fd, void *data, size_t size)
{
    uint8_t *at = data;
    while (size > 0) {
        ssize_t got = recv(fd, at, size, 0);
        if (got < 0)
            die("recv");
        if (got == 0) {
            errno = ECONNRESET;
            die("recv: the peer closed");
        }
        at += got;
        size -= (size_t)got;
    }
}

/* --- the opening handshake (RFC 6455, 4.2.2) ------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else
            f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* SHA-1 of at most 119 bytes, which is twice what a key and the GUID need. */
static void sha1_short(const char *text, uint8_t digest[20])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[128] = {0};
    size_t size = strlen(text), total = size < 56 ? 64 : 128;

    memcpy(block, text, size);
    block[size] = 0x80;
    for (int i = 0; i < 8; i++)
        block[total - 1 - (size_t)i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < total; at += 64)
        sha1_block(state, block + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *data, size_t size, char *out)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16;
        if (i + 1 < size)
            bits |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < size)
            bits |= data[i + 2];
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *out++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    *out = '\0';
}

size_t upgrade_answer(const char *request, char *answer, size_t size)
{
    static const char name[] = "sec-websocket-key:";
    char text[112], accept[32];
    uint8_t digest[20];
    const char *key = strcasestr(request, name);

    if (key == NULL)
        die("no Sec-WebSocket-Key");
    key += sizeof name - 1;
    key += strspn(key, " ");
    snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
             (int)strcspn(key, " \r\n"), key);
    sha1_short(text, digest);
    base64(digest, sizeof digest, accept);
    return (size_t)snprintf(answer, size,
                            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                            accept);
}

/* Neither side sends frames before the other's head has arrived, so one head is all there is. */
static void read_head(int fd, char *head, size_t size)
{
    size_t used = 0;
    do {
        ssize_t got = recv(fd, head + used, size - 1 - used, 0);
        if (got <= 0)
            die("reading the head of a handshake");
        used += (size_t)got;
        head[used] = '\0';
    } while (strstr(head, "\r\n\r\n") == NULL);
}

void server_handshake(int fd)
{
    char head[8192], answer[256];
    read_head(fd, head, sizeof head);
    send_all(fd, answer, upgrade_answer(head, answer, sizeof answer));
}

void client_handshake(int fd, uint16_t port)
{
    char head[8192];
    int size = snprintf(head, sizeof head,
                        "GET / HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        port);
    send_all(fd, head, (size_t)size);
    read_head(fd, head, sizeof head);
    if (strncmp(head, "HTTP/1.1 101", 12) != 0 ||
        strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == NULL) {
        errno = EPROTO;
        die("the server refused the upgrade");
    }
}

/* --- frames (RFC 6455, 5.2) ------------------------------------------------------------------ */

size_t put_header(uint8_t *out, unsigned opcode, size_t size, int masked)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t mask_bit = masked ? 0x80 : 0;
    size_t used = 2;

    out[0] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        out[1] = (uint8_t)(mask_bit | size);
    } else {
        int bytes = size < 65536 ? 2 : 8;
        out[1] = (uint8_t)(mask_bit | (bytes == 2 ? 126 : 127));
        for (int i = bytes - 1; i >= 0; i--)
            out[used++] = (uint8_t)((uint64_t)size >> 8 * i);
    }
    if (masked) {
        memcpy(out + used, key, 4);
        used += 4;
    }
    return used;
}

int get_header(const uint8_t *data, size_t available, struct frame *frame)
{
    if (available < 2)
        return 0;
    size_t short_size = data[1] & 0x7f, extended = 0;
    if (short_size == 126)
        extended = 2;
    else if (short_size == 127)
        extended = 8;
    frame->header = 2 + extended + (data[1] & 0x80 ? 4 : 0);
    if (available < frame->header)
        return 0;
    frame->opcode = data[0] & 0x0f;
    frame->size = short_size;
    if (extended > 0) {
        frame->size = 0;
        for (size_t i = 0; i < extended; i++)
            frame->size = frame->size << 8 | data[2 + i];
    }
    return 1;
}

uint8_t *make_frame(const char *payload_file, size_t size, unsigned opcode, int masked,
                    size_t *frame_size)
{
    uint8_t *data = buffer_of(MAX_HEADER + size);
    size_t header = put_header(data, opcode, size, masked);
    memset(data + header, 'f', size);
    if (payload_file != NULL) {
        FILE *file = fopen(payload_file, "rb");
        if (file == NULL || fread(data + header, 1, size, file) != size)
            die(payload_file);
        fclose(file);
    }
    if (masked)
        for (size_t i = 0; i < size; i++)
            data[header + i] ^= data[header - 4 + (i & 3)];
    *frame_size = header + size;
    return data;
}
