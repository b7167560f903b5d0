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

/* 1 if the bytes before `p`, three at least, break off inside a character. */
static inline int fdx_u8_cut(const uint8_t *p)
{
    return p[-1] >= 0x80 && (p[-1] >= 0xC0 || p[-2] >= 0xE0 || p[-3] >= 0xF0);
}

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

/* The 16 bytes at `p`, with three before them. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_u8_faults_at(const uint8_t *p, fdx_v16 cur)
{
    return fdx_u8_faults(cur, fdx_v_load(p - 1), fdx_v_load(p - 2), fdx_v_load(p - 3));
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
    fdx_v16 top = zero;
    size_t count = 0, i = 0;

    for (; n - i >= 64; i += 64) {
        const uint8_t *q = p + i;
        const fdx_v16 a = fdx_v_load(q), b = fdx_v_load(q + 16);
        const fdx_v16 c = fdx_v_load(q + 32), d = fdx_v_load(q + 48);
        fdx_v16 faults;

        if (!fdx_v_any_high(fdx_v_or(fdx_v_or(a, b), fdx_v_or(c, d)))) {
            if (i > 0 && fdx_u8_cut(q))
                break;
            count += 64;
            continue;
        }
        faults = i > 0 ? fdx_u8_faults_at(q, a) : fdx_u8_faults_after(a, zero);
        faults = fdx_v_or(fdx_v_or(faults, fdx_u8_faults_at(q + 16, b)),
                          fdx_v_or(fdx_u8_faults_at(q + 32, c), fdx_u8_faults_at(q + 48, d)));
        if (fdx_v_any(faults))
            break;
        top = fdx_v_max(fdx_v_max(top, fdx_v_max(a, b)), fdx_v_max(c, d));
        count += fdx_v_popcount(fdx_v_lead_mask(a)) + fdx_v_popcount(fdx_v_lead_mask(b)) +
                 fdx_v_popcount(fdx_v_lead_mask(c)) + fdx_v_popcount(fdx_v_lead_mask(d));
    }
    for (; n - i >= 16 && n - i < 64; i += 16) { /* unless a fault ended the loop above */
        const fdx_v16 a = fdx_v_load(p + i);
        if (fdx_v_any(i > 0 ? fdx_u8_faults_at(p + i, a) : fdx_u8_faults_after(a, zero)))
            break;
        top = fdx_v_max(top, a);
        count += fdx_v_popcount(fdx_v_lead_mask(a));
    }
    if (n - i < 16 && n >= 19 && n != i) { /* the last 16 bytes, some of them again */
        const fdx_v16 a = fdx_v_load(p + n - 16);
        if (!fdx_v_any(fdx_u8_faults_at(p + n - 16, a))) {
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

/* What fdx_w_faults() needs and a loop keeps in registers. */
typedef struct {
    __m256i first_high, first_low, second_high; /* the three tables */
    __m256i nibble, e0, f0, top;                /* see fdx_u8_faults() */
} fdx_w_constants;

/* GCC rebuilds constants inside the loop, a quarter of the time it takes. What it cannot
 * see to be a constant it keeps in a register. */
#ifdef __GNUC__
#define FDX_W_KEEP(v) __asm__("" : "+x"(v))
#else
#define FDX_W_KEEP(v) (void)(v)
#endif

FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE fdx_w_constants fdx_w_constants_new(void)
{
    fdx_w_constants c;

    c.first_high = fdx_w_table(fdx_u8_first_high);
    c.first_low = fdx_w_table(fdx_u8_first_low);
    c.second_high = fdx_w_table(fdx_u8_second_high);
    c.nibble = _mm256_set1_epi8(0x0F);
    c.e0 = _mm256_set1_epi8(0xE0 - 0x80);
    c.f0 = _mm256_set1_epi8(0xF0 - 0x80);
    c.top = _mm256_set1_epi8((char)0x80);
    FDX_W_KEEP(c.nibble);
    FDX_W_KEEP(c.e0);
    FDX_W_KEEP(c.f0);
    FDX_W_KEEP(c.top);
    return c;
}

/* fdx_u8_faults() for 32 bytes. */
FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_faults(const fdx_w_constants *c, __m256i cur, __m256i back1,
                                      __m256i back2, __m256i back3)
{
    const __m256i high1 = _mm256_shuffle_epi8(
        c->first_high, _mm256_and_si256(_mm256_srli_epi16(back1, 4), c->nibble));
    const __m256i low1 = _mm256_shuffle_epi8(c->first_low, _mm256_and_si256(back1, c->nibble));
    const __m256i high2 = _mm256_shuffle_epi8(
        c->second_high, _mm256_and_si256(_mm256_srli_epi16(cur, 4), c->nibble));
    const __m256i due =
        _mm256_or_si256(_mm256_subs_epu8(back2, c->e0), _mm256_subs_epu8(back3, c->f0));

    return _mm256_xor_si256(_mm256_and_si256(_mm256_and_si256(high1, low1), high2),
                            _mm256_and_si256(due, c->top));
}

/* The 32 bytes at `p`, with three before them. */
FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_faults_at(const fdx_w_constants *c, const uint8_t *p,
                                         __m256i cur)
{
    return fdx_w_faults(c, cur, fdx_w_load(p - 1), fdx_w_load(p - 2), fdx_w_load(p - 3));
}

/* The first 32 bytes: zeros come before them. */
FDX_TARGET("avx2,popcnt")
FDX_FORCE_INLINE __m256i fdx_w_faults_first(const fdx_w_constants *c, __m256i cur)
{
    const __m256i middle = _mm256_permute2x128_si256(cur, cur, 0x08); /* zeros, lower half */

    return fdx_w_faults(c, cur, _mm256_alignr_epi8(cur, middle, 15),
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
    const fdx_w_constants c = fdx_w_constants_new();
    __m256i top = _mm256_setzero_si256();
    size_t count = 0, i = 0;

    for (; n - i >= 64; i += 64) {
        const uint8_t *q = p + i;
        const __m256i a = fdx_w_load(q), b = fdx_w_load(q + 32);
        __m256i faults;

        if (_mm256_movemask_epi8(_mm256_or_si256(a, b)) == 0) {
            if (i > 0 && fdx_u8_cut(q))
                break;
            count += 64;
            continue;
        }
        faults = i > 0 ? fdx_w_faults_at(&c, q, a) : fdx_w_faults_first(&c, a);
        faults = _mm256_or_si256(faults, fdx_w_faults_at(&c, q + 32, b));
        if (!_mm256_testz_si256(faults, faults))
            break;
        top = _mm256_max_epu8(top, _mm256_max_epu8(a, b));
        count += fdx_w_leads(a, b);
    }
    if (n - i >= 32 && n - i < 64) {
        const __m256i a = fdx_w_load(p + i);
        const __m256i faults = fdx_w_faults_at(&c, p + i, a);

        if (_mm256_testz_si256(faults, faults)) {
            top = _mm256_max_epu8(top, a);
            count += (size_t)_mm_popcnt_u32(fdx_w_lead_mask(a));
            i += 32;
        }
    }
    if (n - i < 32 && n != i) { /* the last 32 bytes, some of them again */
        const __m256i a = fdx_w_load(p + n - 32);
        const __m256i faults = fdx_w_faults_at(&c, p + n - 32, a);

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
