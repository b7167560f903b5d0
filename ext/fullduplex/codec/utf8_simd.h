/* Vector UTF-8 validation: our implementation of the lookup method described by
 * J. Keiser and D. Lemire, "Validating UTF-8 in less than one instruction per byte"
 * (Software: Practice and Experience 51, 2021).
 *
 * Every kind of fault but one shows in two neighbouring bytes, and there only in three
 * nibbles: both of the first byte and the upper one of the second. Three 16-entry
 * tables give, for each nibble, the set of faults that it allows (one bit a fault); a
 * fault is there if all three agree, so the tables' AND must be zero. What two bytes
 * cannot tell is whether a continuation that follows a continuation is due. It is if a
 * 3-byte lead stands two before it or a 4-byte lead three before it: FDX_U8_CONT2 says
 * "two continuations", and must be set exactly where that is so (hence the XOR).
 *
 * The functions here start at a character boundary, and stop in front of the first
 * block that has a fault. They do not see a sequence cut off at the end of the input:
 * utf8.h goes back to its lead byte and keeps it in its state.
 */
#ifndef FDX_UTF8_SIMD_H
#define FDX_UTF8_SIMD_H

#include "vec.h"

#ifdef FDX_HAVE_V128

/* What the vector part found out. */
typedef struct {
    size_t done;       /* bytes seen to be valid, but for a cut sequence at their end */
    size_t codepoints; /* lead bytes among them */
    uint8_t max_byte;  /* greatest among them */
} fdx_utf8_span;

enum {
    FDX_U8_LONE = 0x01,      /* ASCII, then a continuation */
    FDX_U8_SHORT = 0x02,     /* a lead byte, then no continuation */
    FDX_U8_OVERLONG2 = 0x04, /* C0 or C1 */
    FDX_U8_OVERLONG3 = 0x08, /* E0 80..9F */
    FDX_U8_SURROGATE = 0x10, /* ED A0..BF */
    FDX_U8_ABOVE = 0x20,     /* F4..FF 90..BF, above U+10FFFF */
    FDX_U8_FOUR_80 = 0x40,   /* F0 80..8F is overlong, F5..FF 80..8F above U+10FFFF */
    FDX_U8_CONT2 = 0x80,     /* two continuations; no fault if they are due */

    /* faults that the low nibble of the first byte has no say in */
    FDX_U8_ANY_LOW = FDX_U8_LONE | FDX_U8_SHORT | FDX_U8_CONT2,
    FDX_U8_ANY_CONT = FDX_U8_LONE | FDX_U8_OVERLONG2 | FDX_U8_CONT2,
    FDX_U8_LOW_F5 = FDX_U8_ANY_LOW | FDX_U8_ABOVE | FDX_U8_FOUR_80
};

static const uint8_t fdx_u8_first_high[16] = {
    FDX_U8_LONE, FDX_U8_LONE, FDX_U8_LONE, FDX_U8_LONE, /* 0x..7x */
    FDX_U8_LONE, FDX_U8_LONE, FDX_U8_LONE, FDX_U8_LONE,
    FDX_U8_CONT2, FDX_U8_CONT2, FDX_U8_CONT2, FDX_U8_CONT2,    /* 8x..Bx */
    FDX_U8_SHORT | FDX_U8_OVERLONG2,                           /* Cx */
    FDX_U8_SHORT,                                              /* Dx */
    FDX_U8_SHORT | FDX_U8_OVERLONG3 | FDX_U8_SURROGATE,        /* Ex */
    FDX_U8_SHORT | FDX_U8_ABOVE | FDX_U8_FOUR_80,              /* Fx */
};

static const uint8_t fdx_u8_first_low[16] = {
    FDX_U8_ANY_LOW | FDX_U8_OVERLONG2 | FDX_U8_OVERLONG3 | FDX_U8_FOUR_80, /* C0 E0 F0 */
    FDX_U8_ANY_LOW | FDX_U8_OVERLONG2,                                     /* C1 */
    FDX_U8_ANY_LOW,
    FDX_U8_ANY_LOW,
    FDX_U8_ANY_LOW | FDX_U8_ABOVE, /* F4 */
    FDX_U8_LOW_F5, FDX_U8_LOW_F5, FDX_U8_LOW_F5, FDX_U8_LOW_F5,
    FDX_U8_LOW_F5, FDX_U8_LOW_F5, FDX_U8_LOW_F5, FDX_U8_LOW_F5,
    FDX_U8_LOW_F5 | FDX_U8_SURROGATE, /* ED FD */
    FDX_U8_LOW_F5, FDX_U8_LOW_F5,
};

static const uint8_t fdx_u8_second_high[16] = {
    FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT, /* 0x..7x */
    FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT,
    FDX_U8_ANY_CONT | FDX_U8_OVERLONG3 | FDX_U8_FOUR_80, /* 8x */
    FDX_U8_ANY_CONT | FDX_U8_OVERLONG3 | FDX_U8_ABOVE,   /* 9x */
    FDX_U8_ANY_CONT | FDX_U8_SURROGATE | FDX_U8_ABOVE,   /* Ax */
    FDX_U8_ANY_CONT | FDX_U8_SURROGATE | FDX_U8_ABOVE,   /* Bx */
    FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT, FDX_U8_SHORT, /* Cx..Fx */
};

/* What the last three bytes may be without opening a sequence that goes on behind. */
static const uint8_t fdx_u8_closing[32] = {
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xEF, 0xDF, 0xBF,
};

/* Non-zero where `cur` is at fault, given the bytes 1, 2 and 3 places before. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_u8_faults(fdx_v16 cur, fdx_v16 back1, fdx_v16 back2,
                                                fdx_v16 back3)
{
    const fdx_v16 high1 = fdx_v_lookup(fdx_v_load(fdx_u8_first_high), fdx_v_high_nibble(back1));
    const fdx_v16 low1 = fdx_v_lookup(fdx_v_load(fdx_u8_first_low),
                                      fdx_v_and(back1, fdx_v_splat(0x0F)));
    const fdx_v16 high2 = fdx_v_lookup(fdx_v_load(fdx_u8_second_high), fdx_v_high_nibble(cur));
    /* E0 and up, F0 and up, end at 80 and up: the top bit says "a continuation is due" */
    const fdx_v16 due = fdx_v_or(fdx_v_subs(back2, fdx_v_splat(0xE0 - 0x80)),
                                 fdx_v_subs(back3, fdx_v_splat(0xF0 - 0x80)));

    return fdx_v_xor(fdx_v_and(fdx_v_and(high1, low1), high2),
                     fdx_v_and(due, fdx_v_splat(0x80)));
}

FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_u8_faults_after(fdx_v16 cur, fdx_v16 prev)
{
    return fdx_u8_faults(cur, FDX_V_BACK(cur, prev, 1), FDX_V_BACK(cur, prev, 2),
                         FDX_V_BACK(cur, prev, 3));
}

/* Four to fifteen bytes, from a boundary. */
FDX_V128
FDX_NOINLINE int fdx_utf8_short_v128(const uint8_t *p, size_t n, fdx_utf8_span *span)
{
    const uint32_t mask = (1u << n) - 1u;
    const fdx_v16 cur = fdx_v_load_short(p, n);

    span->done = n;
    span->codepoints = fdx_v_popcount(fdx_v_lead_mask(cur) & mask);
    span->max_byte = fdx_v_max_byte(cur);
    return (fdx_v_nonzero_mask(fdx_u8_faults_after(cur, fdx_v_splat(0))) & mask) == 0;
}

/* 16 bytes and more, from a boundary. */
FDX_V128
FDX_NOINLINE void fdx_utf8_span_v128(const uint8_t *p, size_t n, fdx_utf8_span *span)
{
    const fdx_v16 zero = fdx_v_splat(0);
    const fdx_v16 closing = fdx_v_load(fdx_u8_closing + 16);
    fdx_v16 prev = zero, open = zero, top = zero;
    size_t count = 0, i = 0;

    for (; n - i >= 64; i += 64) {
        const fdx_v16 a = fdx_v_load(p + i), b = fdx_v_load(p + i + 16);
        const fdx_v16 c = fdx_v_load(p + i + 32), d = fdx_v_load(p + i + 48);
        const fdx_v16 all = fdx_v_or(fdx_v_or(a, b), fdx_v_or(c, d));

        if (!fdx_v_any_high(all)) {
            if (fdx_v_any(open))
                break;
            prev = zero;
            count += 64;
            continue;
        }
        if (fdx_v_any(fdx_v_or(
                fdx_v_or(fdx_u8_faults_after(a, prev), fdx_u8_faults_after(b, a)),
                fdx_v_or(fdx_u8_faults_after(c, b), fdx_u8_faults_after(d, c)))))
            break;
        prev = d;
        open = fdx_v_subs(d, closing);
        top = fdx_v_max(fdx_v_max(top, fdx_v_max(a, b)), fdx_v_max(c, d));
        count += fdx_v_popcount(fdx_v_lead_mask(a)) + fdx_v_popcount(fdx_v_lead_mask(b)) +
                 fdx_v_popcount(fdx_v_lead_mask(c)) + fdx_v_popcount(fdx_v_lead_mask(d));
    }
    if (n - i < 64) { /* not broken off */
        for (; n - i >= 16; i += 16) {
            const fdx_v16 a = fdx_v_load(p + i);
            if (fdx_v_any(fdx_u8_faults_after(a, prev)))
                break;
            prev = a;
            top = fdx_v_max(top, a);
            count += fdx_v_popcount(fdx_v_lead_mask(a));
        }
    }
    if (n - i < 16 && n >= 19 && n != i) { /* the last 16 bytes, some of them again */
        const uint8_t *q = p + n - 16;
        const fdx_v16 a = fdx_v_load(q);
        if (!fdx_v_any(fdx_u8_faults(a, fdx_v_load(q - 1), fdx_v_load(q - 2),
                                     fdx_v_load(q - 3)))) {
            top = fdx_v_max(top, a);
            count += fdx_v_popcount(fdx_v_lead_mask(a) >> (16 - (n - i)));
            i = n;
        }
    }
    span->done = i;
    span->codepoints = count;
    span->max_byte = fdx_v_max_byte(top);
}
#endif /* FDX_HAVE_V128 */

#ifdef FDX_X86

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* A 16-entry table in both halves, as the lookup works in halves. */
FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_table(const uint8_t *table)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
}

/* fdx_u8_faults() for 32 bytes. */
FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_faults(__m256i cur, __m256i back1, __m256i back2, __m256i back3)
{
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    const __m256i high1 = _mm256_shuffle_epi8(
        fdx_w_table(fdx_u8_first_high), _mm256_and_si256(_mm256_srli_epi16(back1, 4), nibble));
    const __m256i low1 =
        _mm256_shuffle_epi8(fdx_w_table(fdx_u8_first_low), _mm256_and_si256(back1, nibble));
    const __m256i high2 = _mm256_shuffle_epi8(
        fdx_w_table(fdx_u8_second_high), _mm256_and_si256(_mm256_srli_epi16(cur, 4), nibble));
    const __m256i due =
        _mm256_or_si256(_mm256_subs_epu8(back2, _mm256_set1_epi8(0xE0 - 0x80)),
                        _mm256_subs_epu8(back3, _mm256_set1_epi8(0xF0 - 0x80)));

    return _mm256_xor_si256(_mm256_and_si256(_mm256_and_si256(high1, low1), high2),
                            _mm256_and_si256(due, _mm256_set1_epi8((char)0x80)));
}

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_faults_after(__m256i cur, __m256i prev)
{
    const __m256i middle = _mm256_permute2x128_si256(prev, cur, 0x21);

    return fdx_w_faults(cur, _mm256_alignr_epi8(cur, middle, 15),
                        _mm256_alignr_epi8(cur, middle, 14),
                        _mm256_alignr_epi8(cur, middle, 13));
}

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE uint32_t fdx_w_lead_mask(__m256i a)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(a, _mm256_set1_epi8(-65)));
}

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE size_t fdx_w_leads(__m256i a, __m256i b)
{
    return (size_t)_mm_popcnt_u64((uint64_t)fdx_w_lead_mask(b) << 32 | fdx_w_lead_mask(a));
}

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE uint8_t fdx_w_max_byte(__m256i a)
{
    __m128i m = _mm_max_epu8(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 8));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 4));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 2));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 1));
    return (uint8_t)_mm_cvtsi128_si32(m);
}

/* fdx_utf8_span_v128() for 64 bytes and more. */
FDX_TARGET("avx2,popcnt")
FDX_NOINLINE void fdx_utf8_span_avx2(const uint8_t *p, size_t n, fdx_utf8_span *span)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i closing = fdx_w_load(fdx_u8_closing);
    __m256i prev = zero, open = zero, top = zero;
    size_t count = 0, i = 0;

    for (; n - i >= 64; i += 64) {
        const __m256i a = fdx_w_load(p + i), b = fdx_w_load(p + i + 32);
        __m256i faults;

        if (_mm256_movemask_epi8(_mm256_or_si256(a, b)) == 0) {
            if (!_mm256_testz_si256(open, open))
                break;
            prev = zero;
            count += 64;
            continue;
        }
        faults = _mm256_or_si256(fdx_w_faults_after(a, prev), fdx_w_faults_after(b, a));
        if (!_mm256_testz_si256(faults, faults))
            break;
        prev = b;
        open = _mm256_subs_epu8(b, closing);
        top = _mm256_max_epu8(top, _mm256_max_epu8(a, b));
        count += fdx_w_leads(a, b);
    }
    if (n - i >= 32 && n - i < 64) {
        const __m256i a = fdx_w_load(p + i);
        const __m256i faults = fdx_w_faults_after(a, prev);

        if (_mm256_testz_si256(faults, faults)) {
            top = _mm256_max_epu8(top, a);
            count += fdx_w_leads(a, _mm256_set1_epi8((char)0x80));
            i += 32;
        }
    }
    if (n - i < 32 && n != i) { /* the last 32 bytes, some of them again */
        const uint8_t *q = p + n - 32;
        const __m256i a = fdx_w_load(q);
        const __m256i faults =
            fdx_w_faults(a, fdx_w_load(q - 1), fdx_w_load(q - 2), fdx_w_load(q - 3));

        if (_mm256_testz_si256(faults, faults)) {
            top = _mm256_max_epu8(top, a);
            count += (size_t)_mm_popcnt_u32(fdx_w_lead_mask(a) >> (32 - (n - i)));
            i = n;
        }
    }
    span->done = i;
    span->codepoints = count;
    span->max_byte = fdx_w_max_byte(top);
}
#endif /* FDX_X86 */

#endif /* FDX_UTF8_SIMD_H */
