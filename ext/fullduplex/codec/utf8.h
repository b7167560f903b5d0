/* Incremental UTF-8 validation (RFC 3629) that fails on the first hopeless byte.
 *
 * A text message arrives in chunks that may be cut inside a character. The state
 * carries the open sequence as "how many continuation bytes are missing, and in what
 * range must the next byte lie". A byte outside that range can never be mended by
 * what follows, so it is reported in the chunk that brings it (RFC 6455 section 8.1).
 *
 * The same pass counts the code points and keeps the greatest byte. The greatest byte
 * of valid UTF-8 is a lead byte and tells how wide a str the text needs.
 */
#ifndef FDX_UTF8_H
#define FDX_UTF8_H

#include "cpu.h"
#include "utf8_simd.h"

/* All zero is the start of a message. */
typedef struct {
    size_t codepoints; /* begun so far, an open sequence included */
    uint8_t max_byte;  /* greatest byte so far */
    uint8_t need;      /* continuation bytes that the open sequence still misses */
    uint8_t have;      /* bytes of the open sequence already seen, 0 if none is open */
    uint8_t low, high; /* bounds of the next byte, meaningful while need > 0 */
} fdx_utf8_state;

static inline void fdx_utf8_init(fdx_utf8_state *s)
{
    memset(s, 0, sizeof *s);
}

/* 1 if no sequence is open: the message may end here. */
static inline int fdx_utf8_done(const fdx_utf8_state *s)
{
    return s->need == 0;
}

/* Width of str for text with this greatest byte: 0 ASCII, 1 Latin-1, 2 UCS-2, 4 UCS-4. */
static inline int fdx_utf8_kind_of(unsigned max_byte)
{
    if (max_byte < 0x80)
        return 0;
    if (max_byte < 0xC4) /* C3 BF is U+00FF */
        return 1;
    return max_byte < 0xF0 ? 2 : 4;
}

static inline int fdx_utf8_kind(const fdx_utf8_state *s)
{
    return fdx_utf8_kind_of(s->max_byte);
}

/* Begin a sequence with a byte >= 0x80. The bounds of the second byte rule out
 * overlong forms (E0, F0), surrogates (ED) and what lies above U+10FFFF (F4). */
static inline int fdx_utf8_lead(fdx_utf8_state *s, uint8_t byte)
{
    if (byte < 0xC2 || byte > 0xF4)
        return -1;
    s->low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    s->high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    s->need = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    s->have = 1;
    s->codepoints++;
    if (byte > s->max_byte)
        s->max_byte = byte;
    return 0;
}

/* One more byte of the open sequence. */
static inline int fdx_utf8_continue(fdx_utf8_state *s, uint8_t byte)
{
    if (byte < s->low || byte > s->high)
        return -1;
    s->low = 0x80;
    s->high = 0xBF;
    s->need--;
    s->have = s->need ? (uint8_t)(s->have + 1) : 0;
    return 0;
}

/* The validator in plain C; also finds the exact place of a fault for the fast ones. */
FDX_NOINLINE int fdx_utf8_feed_scalar(fdx_utf8_state *s, const uint8_t *p, size_t n, size_t *bad)
{
    size_t i = 0;

    while (i < n) {
        if (s->need != 0) {
            if (fdx_utf8_continue(s, p[i]) < 0)
                goto invalid;
            i++;
        } else if (p[i] >= 0x80) {
            if (fdx_utf8_lead(s, p[i]) < 0)
                goto invalid;
            i++;
        } else if (n - i >= 8 && (fdx_load64(p + i) & UINT64_C(0x8080808080808080)) == 0) {
            s->codepoints += 8;
            i += 8;
        } else {
            s->codepoints++;
            i++;
        }
    }
    return 0;
invalid:
    *bad = i;
    return -1;
}

/* Feed the next `n` bytes of the message.
 *
 * Returns 0 if everything so far is or can still become valid. Returns -1 if not, with
 * `*bad` the offset in this chunk of the first byte that cannot be; the state then
 * holds the sequence that was open before that byte (`have` bytes of it, perhaps from
 * the chunk before) and must not be fed again.
 */
static inline int fdx_utf8_feed(fdx_utf8_state *s, const uint8_t *p, size_t n, size_t *bad,
                                int cpu)
{
    (void)cpu;
    return fdx_utf8_feed_scalar(s, p, n, bad);
}

/* 1 if all bytes are below 0x80. */
static inline int fdx_is_ascii(const uint8_t *p, size_t n, int cpu)
{
    size_t i;
    (void)cpu;
    for (i = 0; n - i >= 8; i += 8)
        if (fdx_load64(p + i) & UINT64_C(0x8080808080808080))
            return 0;
    for (; i < n; i++)
        if (p[i] >= 0x80)
            return 0;
    return 1;
}

#endif /* FDX_UTF8_H */
