/* UTF-8 as its definition has it, for comparison: a table of every prefix of every
 * encoded character, built by encoding all of Unicode. It shares nothing with the
 * code under test, and is slow. */
#ifndef FDX_ORACLE_H
#define FDX_ORACLE_H

#include "fdx_test.h"

enum { NO_PREFIX = 0, OPEN = 1, WHOLE = 2 };

typedef struct {
    uint8_t one[256];
    uint8_t two[1 << 16];
    uint8_t *three; /* 1 << 24 */
} oracle_tables;

/* What the first `length` bytes of a character (1 to 4) are. */
static inline int oracle_prefix(const oracle_tables *t, const uint8_t *p, size_t length)
{
    const uint32_t two = (uint32_t)p[0] << 8 | (length > 1 ? p[1] : 0u);

    if (length == 1)
        return t->one[p[0]];
    if (length == 2)
        return t->two[two];
    if (length == 3)
        return t->three[two << 8 | p[2]];
    return t->three[two << 8 | p[2]] == OPEN && p[3] >= 0x80 && p[3] < 0xC0 ? WHOLE : NO_PREFIX;
}

static inline size_t oracle_encode(uint32_t c, uint8_t out[4])
{
    size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t mark[5] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    size_t i;

    for (i = length; i-- > 1; c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)(mark[length] | c);
    return length;
}

static inline oracle_tables *oracle_new(void)
{
    oracle_tables *t = calloc(1, sizeof *t);
    uint32_t c;

    CHECK(t != NULL, "calloc");
    t->three = calloc(1, 1 << 24);
    CHECK(t->three != NULL, "calloc");
    for (c = 0; c < 0x110000; c++) {
        uint8_t u[4];
        size_t length;
        if (c >= 0xD800 && c < 0xE000)
            continue; /* surrogates are not characters */
        length = oracle_encode(c, u);
        t->one[u[0]] = length == 1 ? WHOLE : OPEN;
        if (length > 1)
            t->two[u[0] << 8 | u[1]] = length == 2 ? WHOLE : OPEN;
        if (length > 2)
            t->three[u[0] << 16 | u[1] << 8 | u[2]] = length == 3 ? WHOLE : OPEN;
    }
    return t;
}

static inline void oracle_free(oracle_tables *t)
{
    free(t->three);
    free(t);
}

typedef struct {
    size_t bad;        /* offset of the first hopeless byte, or the length if none */
    size_t open;       /* bytes of the sequence open there (or at the end) */
    size_t codepoints; /* begun before that */
    uint32_t greatest; /* greatest code point that is complete */
} oracle_result;

static inline oracle_result oracle_run(const oracle_tables *t, const uint8_t *p, size_t n)
{
    oracle_result r = {0, 0, 0, 0};
    size_t start = 0, i;

    for (i = 0; i < n; i++) {
        const size_t length = i - start + 1;
        const int what = oracle_prefix(t, p + start, length);
        r.bad = i;
        if (what == NO_PREFIX)
            return r;
        r.codepoints += length == 1;
        r.open = what == WHOLE ? 0 : length;
        if (what == WHOLE) {
            static const uint32_t bits[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
            uint32_t c = p[start] & bits[length];
            for (start++; start <= i; start++)
                c = c << 6 | (p[start] & 0x3Fu);
            r.greatest = c > r.greatest ? c : r.greatest;
        }
    }
    r.bad = n;
    return r;
}

static inline int oracle_kind(uint32_t greatest)
{
    return greatest < 0x80 ? 0 : greatest < 0x100 ? 1 : greatest < 0x10000 ? 2 : 4;
}

/* One random character of at most `limit` (exclusive), all lengths alike likely. */
static inline uint32_t oracle_random(uint64_t *seed, uint32_t limit)
{
    static const uint32_t from[4] = {0, 0x80, 0x800, 0x10000};
    static const uint32_t to[4] = {0x80, 0x800, 0x10000, 0x110000};
    for (;;) {
        const uint32_t k = test_random(seed) & 3u;
        const uint32_t c = from[k] + test_random(seed) % (to[k] - from[k]);
        if (c < limit && (c < 0xD800 || c >= 0xE000))
            return c;
    }
}

#endif /* FDX_ORACLE_H */
