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

/* Not zero if one of 8 to 64 bytes is >= 0x80: words that overlap. */
static inline uint64_t fdx_any_high_upto64(const uint8_t *p, size_t n)
{
    uint64_t all = fdx_load64(p) | fdx_load64(p + n - 8);

    if (n > 16)
        all |= fdx_load64(p + 8) | fdx_load64(p + n - 16);
    if (n > 32)
        all |= fdx_load64(p + 16) | fdx_load64(p + 24) | fdx_load64(p + n - 24) |
               fdx_load64(p + n - 32);
    return all & UINT64_C(0x8080808080808080);
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

#ifdef FDX_HAVE_V128

/* Where to go on behind `done` bytes seen by the vector part: `done` itself, or the
 * lead byte of the sequence that its end cuts off, at most three bytes before. */
static inline size_t fdx_utf8_resume(const uint8_t *p, size_t done)
{
    size_t length;

    for (length = 1; length <= 3 && length <= done; length++) {
        const uint8_t byte = p[done - length];
        if (byte < 0x80)
            break;
        if (byte >= 0xC0) {
            const size_t whole = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
            return whole > length ? done - length : done;
        }
    }
    return done;
}

/* Four bytes and more, no sequence open. */
FDX_NOINLINE int fdx_utf8_feed_vector(fdx_utf8_state *s, const uint8_t *p, size_t n, size_t *bad,
                                      int cpu)
{
    fdx_utf8_span span = {0, 0, 0};
    size_t from;

#ifdef FDX_X86
    if (n >= 64 && (cpu & FDX_CPU_AVX2))
        fdx_utf8_span_avx2(p, n, &span);
    else
#endif
    if (n >= 16)
        fdx_utf8_span_v128(p, n, &span);
    else if (!fdx_utf8_short_v128(p, n, &span))
        span = (fdx_utf8_span){0, 0, 0};
    (void)cpu;
    s->codepoints += span.codepoints;
    if (span.max_byte > s->max_byte)
        s->max_byte = span.max_byte;
    from = fdx_utf8_resume(p, span.done);
    if (from == n)
        return 0;
    if (from < span.done)
        s->codepoints--; /* its lead is counted again below */
    if (fdx_utf8_feed_scalar(s, p + from, n - from, bad) < 0) {
        *bad += from;
        return -1;
    }
    return 0;
}
#endif

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
    size_t carried = 0;

    if (s->need == 0 && n >= 8 && n <= 64 && fdx_any_high_upto64(p, n) == 0) {
        s->codepoints += n; /* short and ASCII, the commonest text of all */
        return 0;
    }
    for (; s->need != 0 && carried < n; carried++) {
        if (fdx_utf8_continue(s, p[carried]) < 0) {
            *bad = carried;
            return -1;
        }
    }
    p += carried;
    n -= carried;
#ifdef FDX_HAVE_V128
    if (n >= 4 && (cpu & FDX_CPU_V128)) {
        if (fdx_utf8_feed_vector(s, p, n, bad, cpu) == 0)
            return 0;
        *bad += carried;
        return -1;
    }
#endif
    (void)cpu;
    if (fdx_utf8_feed_scalar(s, p, n, bad) == 0)
        return 0;
    *bad += carried;
    return -1;
}

#ifdef FDX_HAVE_V128
/* 16 bytes and more. */
FDX_V128
FDX_NOINLINE int fdx_is_ascii_v128(const uint8_t *p, size_t n)
{
    size_t i = 0;

    for (; n - i >= 64; i += 64)
        if (fdx_v_any_high(fdx_v_or(
                fdx_v_or(fdx_v_load(p + i), fdx_v_load(p + i + 16)),
                fdx_v_or(fdx_v_load(p + i + 32), fdx_v_load(p + i + 48)))))
            return 0;
    for (; n - i >= 16; i += 16)
        if (fdx_v_any_high(fdx_v_load(p + i)))
            return 0;
    return !fdx_v_any_high(fdx_v_load(p + n - 16));
}
#endif

#ifdef FDX_X86
/* 128 bytes and more. */
FDX_TARGET("avx2")
FDX_NOINLINE int fdx_is_ascii_avx2(const uint8_t *p, size_t n)
{
    const __m256i *q = (const __m256i *)(const void *)p;
    __m256i all;
    size_t left = n;

    for (; left >= 128; left -= 128, q += 4) {
        all = _mm256_or_si256(
            _mm256_or_si256(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)),
            _mm256_or_si256(_mm256_loadu_si256(q + 2), _mm256_loadu_si256(q + 3)));
        if (_mm256_movemask_epi8(all) != 0)
            return 0;
    }
    q = (const __m256i *)(const void *)(p + n - 128);
    all = _mm256_or_si256(_mm256_or_si256(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)),
                          _mm256_or_si256(_mm256_loadu_si256(q + 2), _mm256_loadu_si256(q + 3)));
    return _mm256_movemask_epi8(all) == 0;
}
#endif

/* 1 if all bytes are below 0x80. */
static inline int fdx_is_ascii(const uint8_t *p, size_t n, int cpu)
{
    size_t i;

    if (n >= 8 && n <= 64)
        return fdx_any_high_upto64(p, n) == 0;
#ifdef FDX_X86
    if (n >= 128 && (cpu & FDX_CPU_AVX2))
        return fdx_is_ascii_avx2(p, n);
#endif
#ifdef FDX_HAVE_V128
    if (n >= 16 && (cpu & FDX_CPU_V128))
        return fdx_is_ascii_v128(p, n);
#endif
    (void)cpu;
    for (i = 0; n - i >= 64; i += 64)
        if (fdx_any_high_upto64(p + i, 64) != 0)
            return 0;
    if (i > 0)
        return fdx_any_high_upto64(p + n - 64, 64) == 0;
    for (; i < n; i++)
        if (p[i] >= 0x80)
            return 0;
    return 1;
}

#endif /* FDX_UTF8_H */
