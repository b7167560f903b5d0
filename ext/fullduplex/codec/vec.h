/* Sixteen bytes at a time: the few vector operations that UTF-8 needs, the same
 * names for SSE4.1 and NEON, so that the algorithms on top are written once.
 *
 * On x86-64 these are compiled for SSE4.1 whatever the build's own target is, and may
 * be called only if `cpu & FDX_CPU_V128`; FDX_V128 marks functions that use them.
 */
#ifndef FDX_VEC_H
#define FDX_VEC_H

#include "cpu.h"

#if defined(FDX_X86)

#define FDX_HAVE_V128 1
#define FDX_CPU_V128 FDX_CPU_SSE4
#define FDX_V128 FDX_TARGET("ssse3,sse4.1,popcnt")

typedef __m128i fdx_v16;

FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_load(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
FDX_V128 FDX_FORCE_INLINE void fdx_v_store(void *p, fdx_v16 v)
{
    _mm_storeu_si128((__m128i *)p, v);
}
/* Eight bytes into the lower half, zeros above. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_load8(const void *p)
{
    return _mm_loadl_epi64((const __m128i *)p);
}
FDX_V128 FDX_FORCE_INLINE void fdx_v_store8(void *p, fdx_v16 v)
{
    _mm_storel_epi64((__m128i *)p, v);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_pair(uint64_t low, uint64_t high)
{
    return _mm_set_epi64x((long long)high, (long long)low);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_splat(uint8_t b)
{
    return _mm_set1_epi8((char)b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_and(fdx_v16 a, fdx_v16 b)
{
    return _mm_and_si128(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_or(fdx_v16 a, fdx_v16 b)
{
    return _mm_or_si128(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_xor(fdx_v16 a, fdx_v16 b)
{
    return _mm_xor_si128(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_max(fdx_v16 a, fdx_v16 b)
{
    return _mm_max_epu8(a, b);
}
/* Saturating a - b. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_subs(fdx_v16 a, fdx_v16 b)
{
    return _mm_subs_epu8(a, b);
}
/* table[index], index below 16 (garbage is allowed where nobody looks). */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_lookup(fdx_v16 table, fdx_v16 index)
{
    return _mm_shuffle_epi8(table, index);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_high_nibble(fdx_v16 a)
{
    return _mm_and_si128(_mm_srli_epi16(a, 4), _mm_set1_epi8(0x0F));
}
/* Each byte shifted by two or six, only the bits named in `keep` being of use. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_shl6(fdx_v16 a)
{
    return _mm_and_si128(_mm_slli_epi16(a, 6), _mm_set1_epi8((char)0xC0));
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_shl4(fdx_v16 a)
{
    return _mm_and_si128(_mm_slli_epi16(a, 4), _mm_set1_epi8((char)0xF0));
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_shr2(fdx_v16 a, uint8_t keep)
{
    return _mm_and_si128(_mm_srli_epi16(a, 2), _mm_set1_epi8((char)keep));
}
/* a >= b for unsigned bytes. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_ge(fdx_v16 a, fdx_v16 b)
{
    return _mm_cmpeq_epi8(_mm_max_epu8(a, b), a);
}
/* Bytes of `set` where the top bit of `mask` is set, else of `clear`. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_select(fdx_v16 mask, fdx_v16 set, fdx_v16 clear)
{
    return _mm_blendv_epi8(clear, set, mask);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_zip_low(fdx_v16 a, fdx_v16 b)
{
    return _mm_unpacklo_epi8(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_zip_high(fdx_v16 a, fdx_v16 b)
{
    return _mm_unpackhi_epi8(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_zip16_low(fdx_v16 a, fdx_v16 b)
{
    return _mm_unpacklo_epi16(a, b);
}
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_zip16_high(fdx_v16 a, fdx_v16 b)
{
    return _mm_unpackhi_epi16(a, b);
}
/* The 16 bytes that end k bytes before the end of `cur`, which follows `prev`. */
#define FDX_V_BACK(cur, prev, k) _mm_alignr_epi8((cur), (prev), 16 - (k))

FDX_V128 FDX_FORCE_INLINE int fdx_v_any(fdx_v16 a)
{
    return !_mm_testz_si128(a, a);
}
FDX_V128 FDX_FORCE_INLINE int fdx_v_any_high(fdx_v16 a)
{
    return _mm_movemask_epi8(a) != 0;
}
/* Bit i is set if byte i is not zero. */
FDX_V128 FDX_FORCE_INLINE uint32_t fdx_v_nonzero_mask(fdx_v16 a)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(a, _mm_setzero_si128())) ^ 0xFFFFu;
}
/* Bit i is set if byte i begins a character (as int8, continuations are < -64). */
FDX_V128 FDX_FORCE_INLINE uint32_t fdx_v_lead_mask(fdx_v16 a)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi8(a, _mm_set1_epi8(-65)));
}
FDX_V128 FDX_FORCE_INLINE uint8_t fdx_v_max_byte(fdx_v16 a)
{
    a = _mm_max_epu8(a, _mm_srli_si128(a, 8));
    a = _mm_max_epu8(a, _mm_srli_si128(a, 4));
    a = _mm_max_epu8(a, _mm_srli_si128(a, 2));
    a = _mm_max_epu8(a, _mm_srli_si128(a, 1));
    return (uint8_t)_mm_cvtsi128_si32(a);
}

#elif defined(FDX_NEON)

#define FDX_HAVE_V128 1
#define FDX_CPU_V128 FDX_CPU_BASE
#define FDX_V128

typedef uint8x16_t fdx_v16;

FDX_FORCE_INLINE fdx_v16 fdx_v_load(const void *p)
{
    return vld1q_u8((const uint8_t *)p);
}
FDX_FORCE_INLINE void fdx_v_store(void *p, fdx_v16 v)
{
    vst1q_u8((uint8_t *)p, v);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_load8(const void *p)
{
    return vcombine_u8(vld1_u8((const uint8_t *)p), vdup_n_u8(0));
}
FDX_FORCE_INLINE void fdx_v_store8(void *p, fdx_v16 v)
{
    vst1_u8((uint8_t *)p, vget_low_u8(v));
}
FDX_FORCE_INLINE fdx_v16 fdx_v_pair(uint64_t low, uint64_t high)
{
    return vcombine_u8(vcreate_u8(low), vcreate_u8(high));
}
FDX_FORCE_INLINE fdx_v16 fdx_v_splat(uint8_t b)
{
    return vdupq_n_u8(b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_and(fdx_v16 a, fdx_v16 b)
{
    return vandq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_or(fdx_v16 a, fdx_v16 b)
{
    return vorrq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_xor(fdx_v16 a, fdx_v16 b)
{
    return veorq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_max(fdx_v16 a, fdx_v16 b)
{
    return vmaxq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_subs(fdx_v16 a, fdx_v16 b)
{
    return vqsubq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_lookup(fdx_v16 table, fdx_v16 index)
{
    return vqtbl1q_u8(table, index);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_high_nibble(fdx_v16 a)
{
    return vshrq_n_u8(a, 4);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_shl6(fdx_v16 a)
{
    return vshlq_n_u8(a, 6);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_shl4(fdx_v16 a)
{
    return vshlq_n_u8(a, 4);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_shr2(fdx_v16 a, uint8_t keep)
{
    return vandq_u8(vshrq_n_u8(a, 2), vdupq_n_u8(keep));
}
FDX_FORCE_INLINE fdx_v16 fdx_v_ge(fdx_v16 a, fdx_v16 b)
{
    return vcgeq_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_select(fdx_v16 mask, fdx_v16 set, fdx_v16 clear)
{
    return vbslq_u8(vcgeq_u8(mask, vdupq_n_u8(0x80)), set, clear);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_zip_low(fdx_v16 a, fdx_v16 b)
{
    return vzip1q_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_zip_high(fdx_v16 a, fdx_v16 b)
{
    return vzip2q_u8(a, b);
}
FDX_FORCE_INLINE fdx_v16 fdx_v_zip16_low(fdx_v16 a, fdx_v16 b)
{
    return vreinterpretq_u8_u16(vzip1q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}
FDX_FORCE_INLINE fdx_v16 fdx_v_zip16_high(fdx_v16 a, fdx_v16 b)
{
    return vreinterpretq_u8_u16(vzip2q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}
#define FDX_V_BACK(cur, prev, k) vextq_u8((prev), (cur), 16 - (k))

FDX_FORCE_INLINE int fdx_v_any(fdx_v16 a)
{
    return vmaxvq_u8(a) != 0;
}
FDX_FORCE_INLINE int fdx_v_any_high(fdx_v16 a)
{
    return vmaxvq_u8(a) >= 0x80;
}
/* One bit a byte from a vector of 0x00 and 0xFF. */
FDX_FORCE_INLINE uint32_t fdx_v_bits(uint8x16_t flags)
{
    const uint8x8_t weight = vcreate_u8(UINT64_C(0x8040201008040201));
    const uint8x16_t bits = vandq_u8(flags, vcombine_u8(weight, weight));
    return (uint32_t)vaddv_u8(vget_low_u8(bits)) | (uint32_t)vaddv_u8(vget_high_u8(bits)) << 8;
}
FDX_FORCE_INLINE uint32_t fdx_v_nonzero_mask(fdx_v16 a)
{
    return fdx_v_bits(vtstq_u8(a, a));
}
FDX_FORCE_INLINE uint32_t fdx_v_lead_mask(fdx_v16 a)
{
    return fdx_v_bits(vcgtq_s8(vreinterpretq_s8_u8(a), vdupq_n_s8(-65)));
}
FDX_FORCE_INLINE uint8_t fdx_v_max_byte(fdx_v16 a)
{
    return vmaxvq_u8(a);
}

#endif

#ifdef FDX_HAVE_V128
/* Four to fifteen bytes and zeros behind them: two words that overlap. */
FDX_V128 FDX_FORCE_INLINE fdx_v16 fdx_v_load_short(const uint8_t *p, size_t n)
{
    uint64_t low, high;

    if (n >= 8) {
        low = fdx_load64(p);
        high = fdx_load64(p + n - 8) >> 1 >> (8 * (16 - n) - 1); /* by 64 if n is 8 */
    } else {
        low = fdx_load32(p + n - 4);
        low = fdx_load32(p) | (low >> (8 * (8 - n))) << 32;
        high = 0;
    }
    return fdx_v_pair(low, high);
}

/* Set bits of a mask of at most 16 bits. */
FDX_V128 FDX_FORCE_INLINE size_t fdx_v_popcount(uint32_t mask)
{
#if defined(FDX_X86)
    return (size_t)_mm_popcnt_u32(mask);
#elif defined(_MSC_VER) && !defined(__clang__)
    mask = mask - ((mask >> 1) & 0x5555u);
    mask = (mask & 0x3333u) + ((mask >> 2) & 0x3333u);
    mask = (mask + (mask >> 4)) & 0x0F0Fu;
    return (mask + (mask >> 8)) & 0x1Fu;
#else
    return (size_t)__builtin_popcount(mask);
#endif
}
#endif

#endif /* FDX_VEC_H */
