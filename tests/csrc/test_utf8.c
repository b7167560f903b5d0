/* UTF-8 validation against the oracle: every combination of four boundary-class bytes
 * around the borders of the vectors, every split of them, and random text in random
 * chunks, at every cpu level. */
#include "oracle.h"
#include "utf8.h"

/* The bytes at the edges of every range that the grammar of RFC 3629 names. */
static const uint8_t CLASS[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
#define CLASSES (sizeof CLASS)

/* Places at which each combination of four bytes is tried. */
#define TURNS 5

/* Feed `n` bytes in pieces cut at the set bits of `cuts` (bit i: before byte i), each
 * piece at the end of guarded memory, and compare with the oracle. */
static void check_feed(const guarded *g, const uint8_t *p, size_t n, uint64_t cuts,
                       const oracle_result *want, const test_level *level)
{
    fdx_utf8_state s;
    size_t from = 0, to, bad = SIZE_MAX;
    int result = 0;

    fdx_utf8_init(&s);
    for (to = 1; to <= n && result == 0; to++) {
        if (to < n && !(to < 64 && (cuts >> to & 1u)))
            continue;
        memcpy(g->end - (to - from), p + from, to - from);
        result = fdx_utf8_feed(&s, g->end - (to - from), to - from, &bad, level->cpu);
        if (result == 0)
            from = to;
    }
    if (want->bad < n) {
        CHECK(result == -1, "%s: fault at %zu of %zu not seen", level->name, want->bad, n);
        CHECK(from + bad == want->bad, "%s: fault at %zu, want %zu", level->name, from + bad,
              want->bad);
        CHECK(s.have == want->open, "%s: open %u, want %zu", level->name, s.have, want->open);
        return;
    }
    CHECK(result == 0, "%s: fault at %zu of %zu, want none", level->name, from + bad, n);
    CHECK(s.have == want->open, "%s: open %u, want %zu", level->name, s.have, want->open);
    CHECK(fdx_utf8_done(&s) == (want->open == 0), "%s: done", level->name);
    CHECK(s.codepoints == want->codepoints, "%s: %zu code points, want %zu (n=%zu)", level->name,
          s.codepoints, want->codepoints, n);
    if (want->open == 0)
        CHECK(fdx_utf8_kind(&s) == oracle_kind(want->greatest), "%s: kind", level->name);
}

static const char *const FILL[4] = {"a", "\xD1\x8F", "\xE4\xB8\xAD", "\xF0\x9F\x98\x80"};

/* `n` bytes of whole characters of one kind, padded with ASCII in front. */
static void fill(uint8_t *p, size_t n, size_t which)
{
    const size_t length = strlen(FILL[which]);
    size_t i = n % length;

    memset(p, 'x', i);
    for (; i < n; i += length)
        memcpy(p + i, FILL[which], length);
}

static void four_bytes_at(const oracle_tables *t, const guarded *g, const uint8_t four[4],
                          size_t before, size_t after, size_t round, const test_level *level)
{
    uint8_t buffer[512];
    oracle_result want;

    fill(buffer, before, round / 5 % 4);
    memcpy(buffer + before, four, 4);
    fill(buffer + before + 4, after, round / 7 % 4);
    want = oracle_run(t, buffer, before + 4 + after);
    check_feed(g, buffer, before + 4 + after, 0, &want, level);
}

/* Text before and behind the four bytes, so that they straddle each border. The places
 * take turns: all bytes meet all places, though not in all combinations of four. */
static void four_bytes(const oracle_tables *t, const test_level *level)
{
    static const size_t at[] = {0, 1, 13, 14, 15, 16, 29, 30, 31, 32, 45, 61, 62, 63, 64, 94, 125};
    static const size_t behind[] = {0, 1, 12, 16, 31, 64, 100};
    const guarded g = guarded_new(512);
    size_t a, b, c, d, round = 0;

    for (a = 0; a < CLASSES; a++)
        for (b = 0; b < CLASSES; b++)
            for (c = 0; c < CLASSES; c++)
                for (d = 0; d < CLASSES; d++) {
                    const uint8_t four[4] = {CLASS[a], CLASS[b], CLASS[c], CLASS[d]};
                    size_t turn;
                    for (turn = 0; turn < TURNS; turn++, round++)
                        four_bytes_at(t, &g, four, at[round % 17], behind[round / 17 % 7],
                                      round, level);
                }
}

/* All three-byte combinations, at every one of the places and in all splits. */
static void splits(const oracle_tables *t, const test_level *level)
{
    const guarded g = guarded_new(512);
    uint8_t buffer[128];
    size_t a, b, c, before;
    uint64_t cuts;

    for (a = 0; a < CLASSES; a++)
        for (b = 0; b < CLASSES; b++)
            for (c = 0; c < CLASSES; c++)
                for (before = 0; before < 2; before++) {
                    const size_t at = before ? 15 + (a + b) % 3 + c % 2 * 16 : 0;
                    oracle_result want;
                    fill(buffer, at, c % 4);
                    buffer[at] = CLASS[a];
                    buffer[at + 1] = CLASS[b];
                    buffer[at + 2] = CLASS[c];
                    fill(buffer + at + 3, 6, a % 4);
                    want = oracle_run(t, buffer, at + 9);
                    for (cuts = 0; cuts < 64; cuts++)
                        check_feed(&g, buffer, at + 9, cuts << at, &want, level);
                }
}

/* Every character of Unicode, one after the other, and cut at every place. */
static void all_characters(const oracle_tables *t, const test_level *level)
{
    const guarded g = guarded_new(64);
    uint32_t c;

    for (c = 0; c < 0x110000; c += c % 256 < 3 ? 1 : 127) {
        uint8_t p[36];
        oracle_result want;
        size_t n, i;
        memset(p, 'x', sizeof p);
        n = oracle_encode(c, p + c % 32); /* surrogates too: then it must be refused */
        for (i = 1; i <= n; i++) {
            want = oracle_run(t, p, c % 32 + i);
            check_feed(&g, p, c % 32 + i, 0, &want, level);
        }
    }
}

/* Random valid text, sometimes spoilt in one byte, whole and in random chunks. */
static void random_text(const oracle_tables *t, const test_level *level)
{
    const guarded g = guarded_new(4096);
    uint64_t seed = 29;
    int round;

    for (round = 0; round < 20000; round++) {
        uint8_t text[700];
        const size_t size = test_random(&seed) % (round % 10 ? 90u : 690u);
        const uint32_t limit = test_random(&seed) % 3 ? 0x110000u : 0x100u;
        size_t n = 0;
        uint64_t cuts;
        uint8_t *exact;
        oracle_result want;
        fdx_utf8_state s;
        size_t bad;

        while (n < size) {
            uint32_t run = test_random(&seed) % 20, ascii = test_random(&seed) % 40;
            for (; run && n < size; run--)
                n += oracle_encode(oracle_random(&seed, limit), text + n);
            for (; ascii && n < size; ascii--)
                text[n++] = 'y';
        }
        if (n && test_random(&seed) % 2)
            text[test_random(&seed) % n] = (uint8_t)test_random(&seed);
        if (n && test_random(&seed) % 4 == 0)
            n -= test_random(&seed) % (n < 4 ? n : 4u);
        want = oracle_run(t, text, n);
        cuts = (uint64_t)test_random(&seed) << 32 | test_random(&seed);
        check_feed(&g, text, n, 0, &want, level);
        check_feed(&g, text, n, cuts & cuts >> 3, &want, level);
        exact = exact_new(n);
        memcpy(exact, text, n);
        fdx_utf8_init(&s);
        CHECK((fdx_utf8_feed(&s, exact, n, &bad, level->cpu) == 0) == (want.bad == n), "exact");
        free(exact);
        memcpy(g.begin, text, n); /* nothing before the text may be read either */
        fdx_utf8_init(&s);
        CHECK((fdx_utf8_feed(&s, g.begin, n, &bad, level->cpu) == 0) == (want.bad == n), "begin");
    }
}

/* One byte >= 0x80 anywhere, or none. */
static void ascii(const test_level *level)
{
    const guarded g = guarded_new(300);
    size_t n, i;

    for (n = 0; n <= 300; n++) {
        uint8_t *p = g.end - n;
        memset(p, 0x7F, n);
        CHECK(fdx_is_ascii(p, n, level->cpu), "%s n=%zu", level->name, n);
        for (i = 0; i < n; i++) {
            p[i] = 0x80;
            CHECK(!fdx_is_ascii(p, n, level->cpu), "%s n=%zu i=%zu", level->name, n, i);
            p[i] = 0x7F;
        }
    }
}

int main(void)
{
    oracle_tables *t = oracle_new();
    test_level levels[5];
    const size_t count = test_levels(levels);
    size_t i;

    for (i = 0; i < count; i++) {
        four_bytes(t, &levels[i]);
        splits(t, &levels[i]);
        all_characters(t, &levels[i]);
        random_text(t, &levels[i]);
        ascii(&levels[i]);
        printf("test_utf8 %s: ok\n", levels[i].name);
    }
    oracle_free(t);
    return 0;
}
