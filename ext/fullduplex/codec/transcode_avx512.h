/* The step of transcode_simd.h for two-byte units where AVX-512 squeezes a whole vector with one
 * instruction (VBMI2): every position in a lane of its own, no table. Squeezed in a register and
 * then stored whole, because a squeezing store takes some processors a hundred times as long. For
 * units of four bytes, of which a vector holds half as many, the same was no faster than AVX2. */
#ifndef FDX_TRANSCODE_AVX512_H
#define FDX_TRANSCODE_AVX512_H

#include "transcode_avx2.h"

#ifdef FDX_X86

#define FDX_Z FDX_TARGET("avx512f,avx512bw,avx512vbmi2,avx2,popcnt")

/* As FDX_STEP_UCS2: a step stores 32 units from its first byte on. */
enum { FDX_STEP_UCS2_Z = 2 + 3 * 32 };

FDX_Z FDX_FORCE_INLINE __m512i fdx_z_words(const uint8_t *p)
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
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

#endif /* FDX_X86 */

#endif /* FDX_TRANSCODE_AVX512_H */
