/* Masking: every size, alignment and phase at every cpu level, against the definition
 * of RFC 6455 section 5.3, with nothing outside the buffers touched. */
#include "fdx_test.h"
#include "mask.h"

#define MAX_SIZE 300
#define ROOM 400

static const uint8_t KEY[4] = {0x37, 0xFA, 0x21, 0x3D};

static void define_mask(uint8_t *out, const uint8_t *in, size_t n, unsigned phase)
{
    size_t i;
    for (i = 0; i < n; i++)
        out[i] = (uint8_t)(in[i] ^ KEY[(phase + i) % 4]);
}

/* One call, in a page-guarded buffer; the bytes around must stay as they are. */
static void check_one(uint8_t *dst_area, uint8_t *src_area, size_t dst_at, size_t src_at, size_t n,
                      unsigned phase, const test_level *level)
{
    uint8_t want[ROOM], source[ROOM];
    unsigned end;
    size_t i;

    for (i = 0; i < ROOM; i++) {
        dst_area[i] = (uint8_t)(i * 31u + 7u);
        src_area[i] = (uint8_t)(i * 13u + 5u);
    }
    memcpy(source, src_area, ROOM);
    memcpy(want, dst_area, ROOM);
    define_mask(want + dst_at, source + src_at, n, phase);
    end = fdx_mask(dst_area + dst_at, src_area + src_at, n, KEY, phase, level->cpu);
    CHECK(end == (phase + n) % 4, "%s n=%zu phase=%u", level->name, n, phase);
    CHECK(memcmp(dst_area, want, ROOM) == 0, "%s n=%zu at=%zu,%zu phase=%u", level->name, n,
          dst_at, src_at, phase);
    if (dst_area != src_area)
        CHECK(memcmp(src_area, source, ROOM) == 0, "source written, n=%zu", n);
}

static void all_alignments(const test_level *level)
{
    static const size_t other[5] = {0, 1, 5, 16, 31};
    guarded a = guarded_new(ROOM), b = guarded_new(ROOM);
    size_t n, at, k;
    unsigned phase;

    for (n = 0; n <= MAX_SIZE; n++)
        for (at = 0; at < 64; at++)
            for (phase = 0; phase < 4; phase++) {
                check_one(a.begin, a.begin, at, at, n, phase, level);
                if (phase == (n + at) % 4) /* source and destination aligned differently */
                    for (k = 0; k < 5; k++)
                        check_one(a.begin, b.begin, at, other[k], n, phase, level);
            }
}

/* Larger ones, and those around the size at which another loop takes over. */
static void large_sizes(const test_level *level)
{
    static const size_t sizes[] = {319, 383, 384, 385, 511, 512, 1000, 1024, 4099, 16383, 16384, 16385, 16449};
    enum { LARGEST = 16449, SPACE = LARGEST + 64 };
    guarded a = guarded_new(SPACE), b = guarded_new(SPACE);
    uint8_t *want = exact_new(SPACE);
    size_t i, at, k;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (at = 0; at < 64; at += at < 4 ? 1 : 5) {
            const size_t n = sizes[i];
            uint8_t *dst = a.end - n - at, *src = b.end - n - (at * 7) % 64;
            for (k = 0; k < n; k++)
                src[k] = (uint8_t)(k * 29u + at);
            memset(a.end - SPACE, 0xC3, SPACE);
            define_mask(want, src, n, at % 4);
            fdx_mask(dst, src, n, KEY, at % 4, level->cpu);
            CHECK(memcmp(dst, want, n) == 0, "%s n=%zu at=%zu", level->name, n, at);
            CHECK(dst[-1] == 0xC3 && (at == 0 || dst[n] == 0xC3), "%s around n=%zu", level->name, n);
            fdx_mask(src, src, n, KEY, at % 4, level->cpu);
            CHECK(memcmp(src, want, n) == 0, "%s in place n=%zu at=%zu", level->name, n, at);
        }
    free(want);
}

/* The buffer fills guarded memory to its last, and then from its first byte. */
static void at_the_edges(const test_level *level)
{
    guarded a = guarded_new(MAX_SIZE), b = guarded_new(MAX_SIZE);
    uint8_t want[MAX_SIZE];
    size_t n;
    unsigned phase;

    for (n = 0; n <= MAX_SIZE; n++)
        for (phase = 0; phase < 4; phase++) {
            memset(b.end - n, 0x5A, n);
            memset(b.begin, 0x5A, n);
            define_mask(want, b.begin, n, phase);
            fdx_mask(a.end - n, b.end - n, n, KEY, phase, level->cpu);
            CHECK(memcmp(a.end - n, want, n) == 0, "%s end n=%zu", level->name, n);
            fdx_mask(a.begin, b.begin, n, KEY, phase, level->cpu);
            CHECK(memcmp(a.begin, want, n) == 0, "%s begin n=%zu", level->name, n);
        }
}

/* Blocks of exactly the size, for the sanitizer. */
static void exact_blocks(const test_level *level)
{
    size_t n;

    for (n = 0; n <= MAX_SIZE; n++) {
        uint8_t *src = exact_new(n), *dst = exact_new(n), *want = exact_new(n);
        memset(src, (int)(n & 0xFF), n);
        define_mask(want, src, n, 3);
        fdx_mask(dst, src, n, KEY, 3, level->cpu);
        CHECK(memcmp(dst, want, n) == 0, "%s n=%zu", level->name, n);
        fdx_mask(src, src, n, KEY, 3, level->cpu);
        CHECK(memcmp(src, want, n) == 0, "%s in place n=%zu", level->name, n);
        free(src);
        free(dst);
        free(want);
    }
}

/* A long payload in random pieces equals the payload in one. */
static void pieces(const test_level *level)
{
    enum { TOTAL = 20000 };
    uint8_t *whole = exact_new(TOTAL), *cut = exact_new(TOTAL), *want = exact_new(TOTAL);
    uint64_t seed = 11;
    int round;

    for (round = 0; round < 50; round++) {
        const unsigned start = test_random(&seed) & 3u;
        unsigned phase = start;
        size_t i, step;
        for (i = 0; i < TOTAL; i++)
            whole[i] = cut[i] = (uint8_t)test_random(&seed);
        define_mask(want, whole, TOTAL, start);
        fdx_mask(whole, whole, TOTAL, KEY, start, level->cpu);
        CHECK(memcmp(whole, want, TOTAL) == 0, "%s whole", level->name);
        for (i = 0; i < TOTAL; i += step) {
            step = test_random(&seed) % (test_random(&seed) % 7 ? 40u : 3000u);
            step = step < TOTAL - i ? step : TOTAL - i;
            phase = fdx_mask(cut + i, cut + i, step, KEY, phase, level->cpu);
        }
        CHECK(memcmp(cut, want, TOTAL) == 0, "%s pieces", level->name);
        CHECK(phase == (start + TOTAL) % 4, "%s phase", level->name);
    }
    free(whole);
    free(cut);
    free(want);
}

int main(void)
{
    test_level levels[6];
    const size_t count = test_mask_levels(levels);
    size_t i;

    for (i = 0; i < count; i++) {
        all_alignments(&levels[i]);
        large_sizes(&levels[i]);
        at_the_edges(&levels[i]);
        exact_blocks(&levels[i]);
        pieces(&levels[i]);
        printf("test_mask %s: ok\n", levels[i].name);
    }
    return 0;
}
