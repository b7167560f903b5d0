/* The steps of transcode_simd.h for 32 bytes at a time. Vector unpacking works in
 * halves here: a low one yields positions 0..7 and 16..23, a high one the others. */
#ifndef FDX_TRANSCODE_AVX2_H
#define FDX_TRANSCODE_AVX2_H

#include "transcode_simd.h"
#include "utf8_simd.h"

#ifdef FDX_X86

#define FDX_W FDX_TARGET("avx2,popcnt")

/* As FDX_STEP_UCS2 and so on: the last store has the 8 units from byte 24 on. */
enum {
    FDX_STEP_LATIN1_W = 24 + 1 + 2 * 8,
    FDX_STEP_UCS2_W = 24 + 2 + 3 * 8,
    FDX_STEP_UCS4_W = 24 + 3 + 4 * 8
};

FDX_W FDX_FORCE_INLINE __m256i fdx_w_splat(uint8_t b)
{
    return _mm256_set1_epi8((char)b);
}
FDX_W FDX_FORCE_INLINE __m256i fdx_w_ge(__m256i a, __m256i b)
{
    return _mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a);
}
FDX_W FDX_FORCE_INLINE __m256i fdx_w_select(__m256i mask, __m256i set, __m256i clear)
{
    return _mm256_blendv_epi8(clear, set, mask);
}
/* Bits of a, moved by `by` to the left (or right), `keep` of each byte. */
#define FDX_W_LEFT(a, by, keep) _mm256_and_si256(_mm256_slli_epi16((a), (by)), fdx_w_splat(keep))
#define FDX_W_RIGHT(a, by, keep) _mm256_and_si256(_mm256_srli_epi16((a), (by)), fdx_w_splat(keep))

/* Store the 8 units of one half whose bits in `leads` are set. */
FDX_W FDX_FORCE_INLINE size_t fdx_w_put_ucs2(uint16_t *dst, __m128i units, uint32_t leads)
{
    const __m128i order = _mm_loadl_epi64((const __m128i *)(const void *)&fdx_compress8[leads]);
    const __m128i pairs =
        _mm_or_si128(_mm_unpacklo_epi8(order, order), _mm_set1_epi16(0x0100));

    _mm_storeu_si128((__m128i *)(void *)dst, _mm_shuffle_epi8(units, pairs));
    return (size_t)_mm_popcnt_u32(leads);
}

FDX_W
FDX_NOINLINE size_t fdx_to_ucs2_avx2(uint16_t *dst, const uint8_t *p, size_t n)
{
    size_t out = 0;

    for (; n >= FDX_STEP_UCS2_W; n -= 32, p += 32) {
        const __m256i b0 = fdx_w_load(p), b1 = fdx_w_load(p + 1), b2 = fdx_w_load(p + 2);
        const __m256i three = fdx_w_ge(b0, fdx_w_splat(0xE0));
        const __m256i last = fdx_w_select(three, b2, b1);
        const __m256i before = fdx_w_select(three, b1, b0);
        const __m256i low = _mm256_or_si256(FDX_W_LEFT(before, 6, 0xC0),
                                            _mm256_and_si256(last, fdx_w_splat(0x3F)));
        const __m256i high = _mm256_or_si256(
            FDX_W_RIGHT(before, 2, 0x0F), _mm256_and_si256(three, FDX_W_LEFT(b0, 4, 0xF0)));
        const __m256i unit_low = fdx_w_select(b0, low, b0);
        const __m256i unit_high = fdx_w_select(b0, high, _mm256_setzero_si256());
        const __m256i zip_low = _mm256_unpacklo_epi8(unit_low, unit_high);
        const __m256i zip_high = _mm256_unpackhi_epi8(unit_low, unit_high);
        const uint32_t leads = fdx_w_lead_mask(b0);

        out += fdx_w_put_ucs2(dst + out, _mm256_castsi256_si128(zip_low), leads & 0xFFu);
        out += fdx_w_put_ucs2(dst + out, _mm256_castsi256_si128(zip_high), leads >> 8 & 0xFFu);
        out += fdx_w_put_ucs2(dst + out, _mm256_extracti128_si256(zip_low, 1),
                              leads >> 16 & 0xFFu);
        out += fdx_w_put_ucs2(dst + out, _mm256_extracti128_si256(zip_high, 1), leads >> 24);
    }
    return out + fdx_to_ucs2_v128(dst + out, p, n);
}

/* Store the 8 units whose bits in `leads` are set. */
FDX_W FDX_FORCE_INLINE size_t fdx_w_put_ucs4(uint32_t *dst, __m256i units, uint32_t leads)
{
    const __m256i order = _mm256_srli_epi32(
        _mm256_cvtepu8_epi32(
            _mm_loadl_epi64((const __m128i *)(const void *)&fdx_compress8[leads])),
        1);

    _mm256_storeu_si256((__m256i *)(void *)dst, _mm256_permutevar8x32_epi32(units, order));
    return (size_t)_mm_popcnt_u32(leads);
}

FDX_W
FDX_NOINLINE size_t fdx_to_ucs4_avx2(uint32_t *dst, const uint8_t *p, size_t n)
{
    const __m256i zero = _mm256_setzero_si256();
    size_t out = 0;

    for (; n >= FDX_STEP_UCS4_W; n -= 32, p += 32) {
        const __m256i b0 = fdx_w_load(p), b1 = fdx_w_load(p + 1);
        const __m256i b2 = fdx_w_load(p + 2), b3 = fdx_w_load(p + 3);
        const __m256i three = fdx_w_ge(b0, fdx_w_splat(0xE0)); /* or four */
        const __m256i four = fdx_w_ge(b0, fdx_w_splat(0xF0));
        const __m256i last = fdx_w_select(four, b3, fdx_w_select(three, b2, b1));
        const __m256i before = fdx_w_select(four, b2, fdx_w_select(three, b1, b0));
        const __m256i third = fdx_w_select(four, b1, b0);
        const __m256i low = _mm256_or_si256(FDX_W_LEFT(before, 6, 0xC0),
                                            _mm256_and_si256(last, fdx_w_splat(0x3F)));
        const __m256i mid = _mm256_or_si256(
            FDX_W_RIGHT(before, 2, 0x0F), _mm256_and_si256(three, FDX_W_LEFT(third, 4, 0xF0)));
        const __m256i top = _mm256_and_si256(
            four, _mm256_or_si256(FDX_W_RIGHT(b1, 4, 0x03), FDX_W_LEFT(b0, 2, 0x1C)));
        const __m256i unit_low = fdx_w_select(b0, low, b0);
        const __m256i unit_mid = fdx_w_select(b0, mid, zero);
        const __m256i lows = _mm256_unpacklo_epi8(unit_low, unit_mid);
        const __m256i lows2 = _mm256_unpackhi_epi8(unit_low, unit_mid);
        const __m256i tops = _mm256_unpacklo_epi8(top, zero);
        const __m256i tops2 = _mm256_unpackhi_epi8(top, zero);
        const __m256i u0 = _mm256_unpacklo_epi16(lows, tops); /* 0..3 and 16..19 */
        const __m256i u4 = _mm256_unpackhi_epi16(lows, tops);
        const __m256i u8 = _mm256_unpacklo_epi16(lows2, tops2);
        const __m256i u12 = _mm256_unpackhi_epi16(lows2, tops2);
        const uint32_t leads = fdx_w_lead_mask(b0);

        out += fdx_w_put_ucs4(dst + out, _mm256_permute2x128_si256(u0, u4, 0x20), leads & 0xFFu);
        out += fdx_w_put_ucs4(dst + out, _mm256_permute2x128_si256(u8, u12, 0x20),
                              leads >> 8 & 0xFFu);
        out += fdx_w_put_ucs4(dst + out, _mm256_permute2x128_si256(u0, u4, 0x31),
                              leads >> 16 & 0xFFu);
        out += fdx_w_put_ucs4(dst + out, _mm256_permute2x128_si256(u8, u12, 0x31), leads >> 24);
    }
    return out + fdx_to_ucs4_v128(dst + out, p, n);
}

/* One pair of 8 positions each: two stores of 8 bytes. Returns the units. */
FDX_W FDX_FORCE_INLINE size_t fdx_w_put_latin1(uint8_t *dst, __m128i units, uint32_t leads)
{
    const uint32_t low = leads & 0xFFu, high = leads >> 8;
    const __m128i order =
        _mm_set_epi64x((long long)((fdx_compress8[high] >> 1) + UINT64_C(0x0808080808080808)),
                       (long long)(fdx_compress8[low] >> 1));
    const __m128i packed = _mm_shuffle_epi8(units, order);
    const size_t count = (size_t)_mm_popcnt_u32(low);

    _mm_storel_epi64((__m128i *)(void *)dst, packed);
    _mm_storel_epi64((__m128i *)(void *)(dst + count), _mm_unpackhi_epi64(packed, packed));
    return count + (size_t)_mm_popcnt_u32(high);
}

FDX_W
FDX_NOINLINE size_t fdx_to_latin1_avx2(uint8_t *dst, const uint8_t *p, size_t n)
{
    size_t out = 0;

    for (; n >= FDX_STEP_LATIN1_W; n -= 32, p += 32) {
        const __m256i b0 = fdx_w_load(p), b1 = fdx_w_load(p + 1);
        const __m256i two = _mm256_or_si256(FDX_W_LEFT(b0, 6, 0xC0),
                                            _mm256_and_si256(b1, fdx_w_splat(0x3F)));
        const __m256i units = fdx_w_select(b0, two, b0);
        const uint32_t leads = fdx_w_lead_mask(b0);

        if (leads == 0xFFFFFFFFu && _mm256_movemask_epi8(b0) == 0) {
            _mm256_storeu_si256((__m256i *)(void *)(dst + out), b0);
            out += 32;
            continue;
        }
        out += fdx_w_put_latin1(dst + out, _mm256_castsi256_si128(units), leads & 0xFFFFu);
        out += fdx_w_put_latin1(dst + out, _mm256_extracti128_si256(units, 1), leads >> 16);
    }
    return out + fdx_to_latin1_v128(dst + out, p, n);
}

/* fdx_count_v128() for 64 bytes and more. */
FDX_W
FDX_NOINLINE size_t fdx_count_avx2(const uint8_t *p, size_t n, unsigned *max_byte)
{
    const __m256i end = fdx_w_load(p + n - 32), end2 = fdx_w_load(p + n - 64);
    const uint64_t last = (uint64_t)fdx_w_lead_mask(end) << 32 | fdx_w_lead_mask(end2);
    __m256i top = _mm256_max_epu8(end, end2);
    size_t count = n % 64 ? (size_t)_mm_popcnt_u64(last >> (64 - n % 64)) : 0;
    size_t i;

    for (i = 0; n - i >= 64; i += 64) {
        const __m256i a = fdx_w_load(p + i), b = fdx_w_load(p + i + 32);
        top = _mm256_max_epu8(top, _mm256_max_epu8(a, b));
        count += fdx_w_leads(a, b);
    }
    *max_byte = fdx_w_max_byte(top);
    return count;
}

#endif /* FDX_X86 */

#endif /* FDX_TRANSCODE_AVX2_H */
