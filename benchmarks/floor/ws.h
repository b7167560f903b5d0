/* What the floor programs share: sockets, the opening handshake, frame headers, a clock.
 *
 * Everything here fails by ending the process with a message: a benchmark that goes on after an
 * error would measure something else. */
#ifndef FLOOR_WS_H
#define FLOOR_WS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9 };

/* The longest frame header: 2 bytes, 8 of extended length, 4 of masking key (RFC 6455, 5.2). */
enum { MAX_HEADER = 14 };

struct frame {
    unsigned opcode;
    size_t header; /* bytes of the header, the masking key included */
    size_t size;   /* bytes of the payload */
};

/* Large buffers are page-aligned. Where the user's address and the kernel's differ by less than a
 * cache line modulo 4096, as malloc's addresses do, some processors copy at a third of their speed;
 * a floor that does that is none. */
enum { ALIGNMENT = 4096 };
void *buffer_of(size_t size);

void die(const char *what) __attribute__((noreturn));
uint64_t now_ns(void);
unsigned long number(const char *text);

int listen_loopback(uint16_t *port);
int accept_one(int listener);
int connect_loopback(uint16_t port);
void send_all(int fd, const void *data, size_t size);
void recv_all(int fd, void *data, size_t size);

/* Build the answer to an upgrade request; returns its length. `size` is room in `answer`. */
size_t upgrade_answer(const char *request, char *answer, size_t size);
void server_handshake(int fd);
void client_handshake(int fd, uint16_t port);

size_t put_header(uint8_t *out, unsigned opcode, size_t size, int masked);
/* Parse the header at `data`; returns 0 when `available` bytes are too few to hold it. */
int get_header(const uint8_t *data, size_t available, struct frame *frame);

/* A whole frame in new memory; the payload comes from the file, or is `size` fixed bytes. */
uint8_t *make_frame(const char *payload_file, size_t size, unsigned opcode, int masked,
                    size_t *frame_size);

#endif
