/* The steps of transcode_simd.h where AVX-512 squeezes a whole vector with one instruction
 * (VBMI2): every position in a lane of its own, no table. Squeezed in a register and then stored
 * whole, because a squeezing store takes some processors a hundred times as long. */
#ifndef FDX_TRANSCODE_AVX512_H
#define FDX_TRANSCODE_AVX512_H

#include "transcode_avx2.h"

#ifdef FDX_X86

#define FDX_Z FDX_TARGET("avx512f,avx512bw,avx512vbmi2,avx2,popcnt")

/* As FDX_STEP_UCS2: a step stores 32 (or 16) units from its first byte on. */
enum { FDX_STEP_UCS2_Z = 2 + 3 * 32, FDX_STEP_UCS4_Z = 3 + 4 * 16 };

FDX_Z FDX_FORCE_INLINE __m512i fdx_z_words(const uint8_t *p)
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
FDX_Z FDX_FORCE_INLINE __m512i fdx_z_dwords(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* For _mm512_ternarylogic_epi32(a, b, c): (a & b) | c. */
#define FDX_Z_AND_OR 0xEA

FDX_Z
FDX_NOINLINE size_t fdx_to_ucs2_avx512(uint16_t *dst, const uint8_t *p, size_t n)
{
    const __m512i six = _mm512_set1_epi16(0x3F), five = _mm512_set1_epi16(0x7C0);
    size_t out = 0;

    for (; n >= FDX_STEP_UCS2_Z; n -= 32, p += 32) {
        const __m512i b0 = fdx_z_words(p);
        const __m512i b1 = _mm512_and_si512(fdx_z_words(p + 1), six);
        const __m512i b2 = fdx_z_words(p + 2);
        const __mmask32 longer = _mm512_cmpge_epu16_mask(b0, _mm512_set1_epi16(0xC0));
        const __mmask32 three = _mm512_cmpge_epu16_mask(b0, _mm512_set1_epi16(0xE0));
        const __mmask32 leads = longer | _mm512_cmplt_epu16_mask(b0, _mm512_set1_epi16(0x80));
        const __m512i unit2 =
            _mm512_ternarylogic_epi32(_mm512_slli_epi16(b0, 6), five, b1, FDX_Z_AND_OR);
        const __m512i back = _mm512_ternarylogic_epi32(b2, six, _mm512_slli_epi16(b1, 6),
                                                       FDX_Z_AND_OR);
        const __m512i unit3 = _mm512_or_si512(_mm512_slli_epi16(b0, 12), back);
        const __m512i units = _mm512_mask_mov_epi16(_mm512_mask_mov_epi16(b0, longer, unit2),
                                                    three, unit3);

        _mm512_storeu_si512((void *)(dst + out), _mm512_maskz_compress_epi16(leads, units));
        out += (size_t)_mm_popcnt_u32(leads);
    }
    return out + fdx_to_ucs2_avx2(dst + out, p, n);
}

FDX_Z
FDX_NOINLINE size_t fdx_to_ucs4_avx512(uint32_t *dst, const uint8_t *p, size_t n)
{
    const __m512i six = _mm512_set1_epi32(0x3F);
    size_t out = 0;

    for (; n >= FDX_STEP_UCS4_Z; n -= 16, p += 16) {
        const __m512i b0 = fdx_z_dwords(p);
        const __m512i b1 = _mm512_and_si512(fdx_z_dwords(p + 1), six);
        const __m512i b2 = _mm512_and_si512(fdx_z_dwords(p + 2), six);
        const __m512i b3 = fdx_z_dwords(p + 3);
        const __mmask16 longer = _mm512_cmpge_epu32_mask(b0, _mm512_set1_epi32(0xC0));
        const __mmask16 three = _mm512_cmpge_epu32_mask(b0, _mm512_set1_epi32(0xE0));
        const __mmask16 four = _mm512_cmpge_epu32_mask(b0, _mm512_set1_epi32(0xF0));
        const __mmask16 leads =
            (__mmask16)(longer | _mm512_cmplt_epu32_mask(b0, _mm512_set1_epi32(0x80)));
        const __m512i unit2 = _mm512_ternarylogic_epi32(
            _mm512_slli_epi32(b0, 6), _mm512_set1_epi32(0x7C0), b1, FDX_Z_AND_OR);
        const __m512i back = _mm512_or_si512(_mm512_slli_epi32(b1, 6), b2);
        const __m512i unit3 = _mm512_ternarylogic_epi32(
            _mm512_slli_epi32(b0, 12), _mm512_set1_epi32(0xF000), back, FDX_Z_AND_OR);
        const __m512i tail = _mm512_ternarylogic_epi32(b3, six, _mm512_slli_epi32(back, 6),
                                                       FDX_Z_AND_OR);
        const __m512i unit4 = _mm512_ternarylogic_epi32(
            _mm512_slli_epi32(b0, 18), _mm512_set1_epi32(0x1C0000), tail, FDX_Z_AND_OR);
        __m512i units = _mm512_mask_mov_epi32(b0, longer, unit2);

        units = _mm512_mask_mov_epi32(units, three, unit3);
        units = _mm512_mask_mov_epi32(units, four, unit4);
        _mm512_storeu_si512((void *)(dst + out), _mm512_maskz_compress_epi32(leads, units));
        out += (size_t)_mm_popcnt_u32(leads);
    }
    return out + fdx_to_ucs4_avx2(dst + out, p, n);
}

#endif /* FDX_X86 */

#endif /* FDX_TRANSCODE_AVX512_H */
