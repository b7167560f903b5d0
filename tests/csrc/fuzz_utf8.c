/* Fuzz validation and decoding: the first byte chooses how the rest is cut. Every cpu
 * level must agree with the oracle, in one feed and in pieces, and what is valid must
 * decode to the same units as portable C gives. */
#include "fuzz_main.h"
#include "oracle.h"
#include "transcode.h"

static oracle_tables *tables;

static void check_pieces(const uint8_t *p, size_t n, size_t step, const oracle_result *want,
                         const test_level *level)
{
    fdx_utf8_state s;
    size_t from = 0, bad = 0;
    int result = 0;

    fdx_utf8_init(&s);
    while (from < n && result == 0) {
        const size_t size = step < n - from ? step : n - from;
        uint8_t *piece = exact_new(size);
        memcpy(piece, p + from, size);
        result = fdx_utf8_feed(&s, piece, size, &bad, level->cpu);
        free(piece);
        if (result < 0)
            break;
        from += size;
        step = 1 + step * 3 % 67;
    }
    CHECK((result < 0) == (want->bad < n), "%s: valid or not", level->name);
    CHECK(s.have == want->open, "%s: open", level->name);
    if (result < 0) {
        CHECK(from + bad == want->bad, "%s: place", level->name);
        return;
    }
    CHECK(s.codepoints == want->codepoints, "%s: code points", level->name);
    CHECK(want->open || fdx_utf8_kind(&s) == oracle_kind(want->greatest), "%s: kind",
          level->name);
}

/* Decode to the narrowest storage that will do, and to the widest. */
static void check_decoding(const uint8_t *p, size_t n, const oracle_result *want,
                           const test_level *level)
{
    const size_t count = want->codepoints;
    uint32_t *reference = (uint32_t *)(void *)exact_new(4 * count);
    uint32_t *wide = (uint32_t *)(void *)exact_new(4 * count);
    uint16_t *half = (uint16_t *)(void *)exact_new(2 * count);
    uint8_t *narrow = exact_new(count);
    size_t codepoints, i;
    int kind;

    CHECK(fdx_utf8_to_ucs4(reference, p, n, FDX_CPU_SCALAR) == count, "scalar");
    fdx_utf8_count(p, n, &codepoints, &kind, level->cpu);
    CHECK(codepoints == count && kind == oracle_kind(want->greatest), "%s: count", level->name);
    CHECK(fdx_utf8_to_ucs4(wide, p, n, level->cpu) == count, "%s: ucs4", level->name);
    for (i = 0; i < count; i++)
        CHECK(wide[i] == reference[i], "%s: ucs4 %zu", level->name, i);
    if (kind < 4) {
        CHECK(fdx_utf8_to_ucs2(half, p, n, level->cpu) == count, "%s: ucs2", level->name);
        for (i = 0; i < count; i++)
            CHECK(half[i] == reference[i], "%s: ucs2 %zu", level->name, i);
    }
    if (kind < 2) {
        CHECK(fdx_utf8_to_latin1(narrow, p, n, level->cpu) == count, "%s: latin1", level->name);
        for (i = 0; i < count; i++)
            CHECK(narrow[i] == reference[i], "%s: latin1 %zu", level->name, i);
    }
    free(reference);
    free(wide);
    free(half);
    free(narrow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    test_level levels[5];
    const size_t count = test_levels(levels);
    oracle_result want;
    uint8_t *exact;
    size_t k, n, valid;

    if (size < 1)
        return 0;
    if (tables == NULL)
        tables = oracle_new();
    n = size - 1;
    exact = exact_new(n);
    memcpy(exact, data + 1, n);
    want = oracle_run(tables, exact, n);
    for (k = 0; k < count; k++) {
        check_pieces(exact, n, n ? n : 1, &want, &levels[k]);
        check_pieces(exact, n, 1 + data[0] % 70u, &want, &levels[k]);
    }
    free(exact);
    valid = want.bad - want.open; /* the whole characters in front of the fault */
    exact = exact_new(valid);
    memcpy(exact, data + 1, valid);
    want = oracle_run(tables, exact, valid);
    for (k = 0; k < count; k++)
        check_decoding(exact, valid, &want, &levels[k]);
    free(exact);
    return 0;
}
