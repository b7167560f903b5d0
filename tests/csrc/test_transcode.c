/* Decoding valid UTF-8: every length, alignment and mixture against the code points
 * that the text was made of, into storage of exactly the right size. */
#include "oracle.h"
#include "transcode.h"

#define MOST 400 /* code points of a sample */

typedef struct {
    uint32_t points[MOST];
    size_t count;
    uint8_t bytes[4 * MOST];
    size_t n;
} sample;

static void add(sample *s, uint32_t c)
{
    s->points[s->count++] = c;
    s->n += oracle_encode(c, s->bytes + s->n);
}

/* Decode at the end of guarded memory; the destination is an exact block, or ends at a
 * guard page too. */
static void check_units(const guarded *g, const guarded *out, const sample *s, size_t width,
                        const test_level *level)
{
    uint8_t *p = g->end - s->n;
    uint8_t *exact = exact_new(s->count * width);
    uint8_t *dst[2];
    size_t k, i, got;

    dst[0] = exact;
    dst[1] = out->end - s->count * width;
    memcpy(p, s->bytes, s->n);
    for (k = 0; k < 2; k++) {
        void *to = dst[k];
        if (width == 1)
            got = fdx_utf8_to_latin1(to, p, s->n, level->cpu);
        else if (width == 2)
            got = fdx_utf8_to_ucs2(to, p, s->n, level->cpu);
        else
            got = fdx_utf8_to_ucs4(to, p, s->n, level->cpu);
        CHECK(got == s->count, "%s: %zu units, want %zu (n=%zu)", level->name, got, s->count,
              s->n);
        for (i = 0; i < s->count; i++) {
            uint32_t c = 0;
            uint16_t c2;
            if (width == 1)
                c = dst[k][i];
            else if (width == 2) {
                memcpy(&c2, dst[k] + 2 * i, 2);
                c = c2;
            } else
                memcpy(&c, dst[k] + 4 * i, 4);
            CHECK(c == s->points[i], "%s: width %zu unit %zu of %zu is %X, want %X", level->name,
                  width, i, s->count, c, s->points[i]);
        }
    }
    free(exact);
}

static void check_sample(const guarded *g, const guarded *out, const sample *s,
                         const test_level *level)
{
    uint32_t greatest = 0;
    size_t i, codepoints;
    int kind;

    for (i = 0; i < s->count; i++)
        greatest = s->points[i] > greatest ? s->points[i] : greatest;
    memcpy(g->end - s->n, s->bytes, s->n);
    fdx_utf8_count(g->end - s->n, s->n, &codepoints, &kind, level->cpu);
    CHECK(codepoints == s->count, "%s: %zu counted, want %zu", level->name, codepoints, s->count);
    CHECK(kind == oracle_kind(greatest), "%s: kind %d of %X", level->name, kind, greatest);
    if (greatest < 0x100)
        check_units(g, out, s, 1, level);
    if (greatest < 0x10000)
        check_units(g, out, s, 2, level);
    check_units(g, out, s, 4, level);
}

/* Runs of one kind of character of every length, behind some ASCII and before some. */
static void runs(const guarded *g, const guarded *out, const test_level *level)
{
    static const uint32_t kinds[] = {'a', 0x80, 0xFF, 0x100, 0x7FF, 0x800, 0xFFFF, 0x10000,
                                     0x10FFFF};
    size_t k, length, before;

    for (k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (length = 0; length <= 100; length++)
            for (before = 0; before < 40; before += length > 40 ? 7u : 1u) {
                sample s;
                size_t i;
                s.count = s.n = 0;
                for (i = 0; i < before; i++)
                    add(&s, 'x');
                for (i = 0; i < length; i++)
                    add(&s, kinds[k]);
                for (i = 0; i < length % 37; i++)
                    add(&s, 'z');
                check_sample(g, out, &s, level);
            }
}

/* Every character of Unicode, at changing places. */
static void all_characters(const guarded *g, const guarded *out, const test_level *level)
{
    uint32_t c = 0;

    while (c < 0x110000) {
        sample s;
        s.count = s.n = 0;
        while (s.count < 101 && c < 0x110000) {
            add(&s, c);
            c = c == 0xD7FF ? 0xE000 : c + 1;
        }
        check_sample(g, out, &s, level);
    }
}

static void random_mixtures(const guarded *g, const guarded *out, const test_level *level)
{
    static const uint32_t limits[] = {0x100, 0x800, 0x10000, 0x110000};
    uint64_t seed = 17;
    int round;

    for (round = 0; round < 20000; round++) {
        const uint32_t limit = limits[test_random(&seed) & 3u];
        const size_t size = test_random(&seed) % (round % 8 ? 60u : MOST);
        const uint32_t words = test_random(&seed) & 1u;
        sample s;
        s.count = s.n = 0;
        while (s.count < size) {
            uint32_t ascii = words ? test_random(&seed) % 12 : 0;
            add(&s, oracle_random(&seed, limit));
            for (; ascii && s.count < size; ascii--)
                add(&s, 'w');
        }
        check_sample(g, out, &s, level);
    }
}

int main(void)
{
    const guarded g = guarded_new(4 * MOST), out = guarded_new(4 * MOST);
    test_level levels[5];
    const size_t count = test_levels(levels);
    size_t i;

    for (i = 0; i < count; i++) {
        runs(&g, &out, &levels[i]);
        all_characters(&g, &out, &levels[i]);
        random_mixtures(&g, &out, &levels[i]);
        printf("test_transcode %s: ok\n", levels[i].name);
    }
    return 0;
}
