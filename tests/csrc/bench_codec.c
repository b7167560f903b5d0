/* Speeds of masking, validation and decoding in GB/s of input, the best of many runs.
 *
 * Other processes only ever make a run slower, so the best one is the machine's. Pin
 * it to a processor, and compare lines of one run rather than runs.
 */
#include <time.h>

#include "fdx_test.h"
#include "mask.h"
#include "transcode.h"

#define LARGEST ((size_t)1 << 20)
#define BYTES_A_ROUND 400000 /* of work, in the smallest unit timed: a tenth of a millisecond */
#define ROUNDS 60

/* Short payloads take turns in a window that stays in the first cache: a buffer masked
 * over and over in place would only measure loads that wait for the stores before. Masking in place
 * touches one window, memcpy() two, which from 16 KiB on do not fit into that cache together, where it has
 * 32 KiB. There is no fairer copy: what masking saves by staying in place is the point. */
#define WINDOW ((size_t)16384)

#define BARRIER __asm__ volatile("" ::: "memory")

static uint8_t *source, *target;
static size_t place;
static volatile size_t sink;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef size_t (*work)(size_t n, int cpu);

/* Nanoseconds of one call at best. */
static double best(work run, size_t n, int cpu)
{
    const size_t calls = 1 + BYTES_A_ROUND / (n + 40);
    double least = 1e9;
    int round;

    for (round = 0; round < ROUNDS; round++) {
        const double begin = now();
        size_t i;
        double spent;
        for (i = 0; i < calls; i++) {
            sink += run(n, cpu);
            /* What a call wrote counts as used: nothing of it may be left out, or joined with the next. */
            BARRIER;
        }
        spent = (now() - begin) / (double)calls;
        least = spent < least ? spent : least;
    }
    return least * 1e9;
}

static size_t next_place(size_t n)
{
    place = place + n > WINDOW - n ? 0 : place + n;
    return n > WINDOW / 2 ? 0 : place;
}

static size_t do_memcpy(size_t n, int cpu)
{
    const size_t at = next_place(n);
    (void)cpu;
    memcpy(target + at, source + at, n);
    return at;
}

static size_t do_mask_in_place(size_t n, int cpu)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    const size_t at = next_place(n);
    return fdx_mask(target + at, target + at, n, key, 1, cpu);
}

static size_t do_mask_copy(size_t n, int cpu)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    const size_t at = next_place(n);
    return fdx_mask(target + at, source + at, n, key, 1, cpu);
}

static size_t do_feed(size_t n, int cpu)
{
    fdx_utf8_state s;
    size_t bad = 0;

    fdx_utf8_init(&s);
    return (size_t)fdx_utf8_feed(&s, source, n, &bad, cpu) + s.codepoints + bad;
}

static size_t do_is_ascii(size_t n, int cpu)
{
    return (size_t)fdx_is_ascii(source, n, cpu);
}

static size_t do_count(size_t n, int cpu)
{
    size_t codepoints;
    int kind;

    fdx_utf8_count(source, n, &codepoints, &kind, cpu);
    return codepoints + (size_t)kind;
}

/* Write to what the text needs. */
static size_t do_write(size_t n, int cpu)
{
    static const uint8_t *known;
    static size_t known_n;
    static int kind;
    size_t codepoints;

    if (known != source || known_n != n) {
        fdx_utf8_count(source, n, &codepoints, &kind, cpu);
        known = source;
        known_n = n;
    }
    if (kind <= 1)
        return fdx_utf8_to_latin1(target, source, n, cpu);
    if (kind == 2)
        return fdx_utf8_to_ucs2((uint16_t *)(void *)target, source, n, cpu);
    return fdx_utf8_to_ucs4((uint32_t *)(void *)target, source, n, cpu);
}

static size_t do_count_and_write(size_t n, int cpu)
{
    return do_count(n, cpu) + do_write(n, cpu);
}

static size_t do_all(size_t n, int cpu)
{
    return do_feed(n, cpu) + do_write(n, cpu);
}

#define MASK_SIZES 13
#define SWEEPS 8 /* a disturbance lasts longer than a cell: the table is gone through again */

static void masking(const test_level *levels, size_t count)
{
    static const size_t sizes[MASK_SIZES] = {2,    16,   32,    60,    125,    256,    512,
                                             1024, 4096, 16384, 65536, 262144, 1048576};
    static double least[MASK_SIZES][1 + 2 * 6];
    size_t i, k, sweep;

    for (sweep = 0; sweep < SWEEPS; sweep++)
        for (i = 0; i < MASK_SIZES; i++)
            for (k = 0; k < 1 + 2 * count; k++) {
                const work run = k == 0 ? do_memcpy : k % 2 ? do_mask_in_place : do_mask_copy;
                const double ns = best(run, sizes[i], k ? levels[(k - 1) / 2].cpu : 0);
                if (sweep == 0 || ns < least[i][k])
                    least[i][k] = ns;
            }
    printf("masking, GB/s (ratio to memcpy)\n%8s %8s", "bytes", "memcpy");
    for (k = 0; k < count; k++)
        printf(" | %6s in place       copying", levels[k].name);
    printf("\n");
    for (i = 0; i < MASK_SIZES; i++) {
        const double n = (double)sizes[i], copy = least[i][0];
        printf("%8zu %8.1f", sizes[i], n / copy);
        for (k = 1; k < 1 + 2 * count; k += 2)
            printf(" | %7.1f (%4.2f) %6.1f (%4.2f)", n / least[i][k], copy / least[i][k],
                   n / least[i][k + 1], copy / least[i][k + 1]);
        printf("\n");
    }
}

/* Fill `source` with `text` again and again up to n bytes; instead of a character that
 * does not fit there is ASCII at the end. */
static void set_text(const char *text, size_t n)
{
    const size_t length = strlen(text);
    size_t i;

    for (i = 0; i < n; i++)
        source[i] = (uint8_t)text[i % length];
    if ((text[n % length] & 0xC0) == 0x80) { /* cut */
        for (i = n; (source[i - 1] & 0xC0) == 0x80; i--)
            source[i - 1] = 'x';
        source[i - 1] = 'x';
    }
}

static void texts(const test_level *levels, size_t count)
{
    static const struct {
        const char *name, *text;
    } samples[] = {
        {"ASCII", "The quick brown fox jumps over the lazy dog; "},
        {"Latin-1", "Voil\xC3\xA0 un texte tr\xC3\xA8s fran\xC3\xA7"
                    "ais, o\xC3\xB9 l'accent n'est gu\xC3\xA8re rare. "},
        {"Cyrillic", "\xD0\xAD\xD1\x82\xD0\xBE \xD0\xBE\xD0\xB1\xD1\x8B\xD1\x87\xD0\xBD\xD1\x8B"
                     "\xD0\xB9 \xD1\x80\xD1\x83\xD1\x81\xD1\x81\xD0\xBA\xD0\xB8\xD0\xB9. "},
        {"Chinese", "\xE8\xBF\x99\xE6\x98\xAF\xE4\xB8\x80\xE4\xB8\xAA\xE6\x99\xAE\xE9\x80\x9A"
                    "\xE7\x9A\x84\xE4\xB8\xAD\xE6\x96\x87\xE5\x8F\xA5\xE5\xAD\x90\xE3\x80\x82"},
        {"mixed 1/2/3", "websocket \xD0\xBF\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 frame "
                        "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C ok \xD0\xBC\xD0\xB8"
                        "\xD1\x80 \xE3\x81\x93\xE3\x82\x93 "},
        {"with emoji", "nice \xF0\x9F\x98\x80\xF0\x9F\x9A\x80 work \xE2\x9C\x85 "
                       "\xD0\xB4\xD0\xB0 \xF0\x9F\x91\x8D, see you! "},
    };
    static const struct {
        const char *name;
        work run;
    } works[] = {
        {"validate", do_feed},    {"is_ascii", do_is_ascii}, {"count", do_count},
        {"write", do_write},      {"count+write", do_count_and_write},
        {"validate+write", do_all},
    };
    static const size_t sizes[] = {12, 24, 40, 125, 1000, 16384, 262144};
    size_t i, j, k, t;

    for (i = 0; i < sizeof samples / sizeof *samples; i++)
        for (t = 0; t < sizeof works / sizeof *works; t++) {
            printf("\n%s, %s, GB/s (ns a call)\n", samples[i].name, works[t].name);
            for (k = 0; k < count; k++) {
                printf("%8s", levels[k].name);
                for (j = 0; j < sizeof sizes / sizeof *sizes; j++) {
                    double ns;
                    set_text(samples[i].text, sizes[j]);
                    ns = best(works[t].run, sizes[j], levels[k].cpu);
                    printf(" | %zu: %5.2f (%.0f)", sizes[j], (double)sizes[j] / ns, ns);
                }
                printf("\n");
            }
        }
}

int main(int argc, char **argv)
{
    test_level levels[5];
    const size_t count = test_levels(levels);

    source = aligned_alloc(64, LARGEST + 64);
    target = aligned_alloc(64, 4 * LARGEST);
    CHECK(source != NULL && target != NULL, "memory");
    memset(source, 'x', LARGEST);
    memset(target, 0, 4 * LARGEST);
    if (argc < 2 || strcmp(argv[1], "mask") == 0) {
        test_level masks[6];
        masking(masks, test_mask_levels(masks));
    }
    if (argc < 2 || strcmp(argv[1], "utf8") == 0)
        texts(levels, count);
    free(source);
    free(target);
    return 0;
}
