/* WebSocket masking (RFC 6455 section 5.3) as a stream operation.
 *
 * The same XOR masks and unmasks. The key is repeated over the whole payload, so a
 * payload that comes in pieces needs one number carried from piece to piece: the
 * phase, the index of the key byte that meets the next payload byte.
 *
 * The remainder of a buffer is never done byte by byte. The vector that ends exactly
 * at the end is used instead, overlapping what the loop does. Where two vectors
 * overlap both produce the same bytes, provided that all of them read the *original*
 * source: in place, whatever overlaps is therefore loaded before anything is stored.
 */
#ifndef FDX_MASK_H
#define FDX_MASK_H

#include "cpu.h"

/* The key as one word whose first byte in memory is key byte `phase`. */
static inline uint32_t fdx_key_rotate(uint32_t key, unsigned phase)
{
    const unsigned bits = (phase & 3u) * 8u;
#ifdef FDX_BIG_ENDIAN
    return (key << bits) | (key >> ((32u - bits) & 31u));
#else
    return (key >> bits) | (key << ((32u - bits) & 31u));
#endif
}

static inline uint64_t fdx_key_double(uint32_t key)
{
    return ((uint64_t)key << 32) | key;
}

/* At most 16 bytes. `key` is already rotated to the first byte. */
static inline void fdx_mask_upto16(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint32_t last_key = fdx_key_rotate(key, (unsigned)n); /* n-8 and n-4 are n modulo 4 */

    if (n >= 8) {
        const uint64_t first = fdx_load64(src) ^ fdx_key_double(key);
        const uint64_t last = fdx_load64(src + n - 8) ^ fdx_key_double(last_key);
        fdx_store64(dst, first);
        fdx_store64(dst + n - 8, last);
    } else if (n >= 4) {
        const uint32_t first = fdx_load32(src) ^ key;
        const uint32_t last = fdx_load32(src + n - 4) ^ last_key;
        fdx_store32(dst, first);
        fdx_store32(dst + n - 4, last);
    } else if (n != 0) {
        uint8_t k[4];
        memcpy(k, &key, 4);
        dst[0] = (uint8_t)(src[0] ^ k[0]);
        if (n > 1)
            dst[1] = (uint8_t)(src[1] ^ k[1]);
        if (n > 2)
            dst[2] = (uint8_t)(src[2] ^ k[2]);
    }
}

/* Any n >= 8, in plain 64-bit words. */
FDX_NOINLINE void fdx_mask_words(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint64_t wide = fdx_key_double(key);
    const uint64_t last =
        fdx_load64(src + n - 8) ^ fdx_key_double(fdx_key_rotate(key, (unsigned)n));
    size_t i = 0;

    for (; n - i >= 32; i += 32) {
        const uint64_t a = fdx_load64(src + i), b = fdx_load64(src + i + 8);
        const uint64_t c = fdx_load64(src + i + 16), d = fdx_load64(src + i + 24);
        fdx_store64(dst + i, a ^ wide);
        fdx_store64(dst + i + 8, b ^ wide);
        fdx_store64(dst + i + 16, c ^ wide);
        fdx_store64(dst + i + 24, d ^ wide);
    }
    for (; n - i >= 8; i += 8)
        fdx_store64(dst + i, fdx_load64(src + i) ^ wide);
    fdx_store64(dst + n - 8, last);
}

#if defined(FDX_X86) || defined(FDX_NEON)

#ifdef FDX_X86
typedef __m128i fdx_m128;

static inline fdx_m128 fdx_m128_key(uint32_t key)
{
    return _mm_set1_epi32((int)key);
}
static inline fdx_m128 fdx_m128_xor(const uint8_t *p, fdx_m128 key)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)p), key);
}
static inline void fdx_m128_put(uint8_t *p, fdx_m128 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, v);
}
#else
typedef uint8x16_t fdx_m128;

static inline fdx_m128 fdx_m128_key(uint32_t key)
{
    return vreinterpretq_u8_u32(vdupq_n_u32(key));
}
static inline fdx_m128 fdx_m128_xor(const uint8_t *p, fdx_m128 key)
{
    return veorq_u8(vld1q_u8(p), key);
}
static inline void fdx_m128_put(uint8_t *p, fdx_m128 v)
{
    vst1q_u8(p, v);
}
#endif

/* 17 to 64 bytes: two or four vectors, the last ones ending at the end. */
static inline void fdx_mask_upto64(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const fdx_m128 k = fdx_m128_key(key);
    const fdx_m128 last_k = fdx_m128_key(fdx_key_rotate(key, (unsigned)n));
    const fdx_m128 a = fdx_m128_xor(src, k);
    const fdx_m128 z = fdx_m128_xor(src + n - 16, last_k);

    if (n > 32) {
        const fdx_m128 b = fdx_m128_xor(src + 16, k);
        const fdx_m128 y = fdx_m128_xor(src + n - 32, last_k);
        fdx_m128_put(dst + 16, b);
        fdx_m128_put(dst + n - 32, y);
    }
    fdx_m128_put(dst, a);
    fdx_m128_put(dst + n - 16, z);
}

/* 65 to 128 bytes: the same with eight. */
static inline void fdx_mask_upto128(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const fdx_m128 k = fdx_m128_key(key);
    const fdx_m128 last_k = fdx_m128_key(fdx_key_rotate(key, (unsigned)n));
    const fdx_m128 a = fdx_m128_xor(src, k), b = fdx_m128_xor(src + 16, k);
    const fdx_m128 c = fdx_m128_xor(src + 32, k), d = fdx_m128_xor(src + 48, k);
    const fdx_m128 w = fdx_m128_xor(src + n - 64, last_k), x = fdx_m128_xor(src + n - 48, last_k);
    const fdx_m128 y = fdx_m128_xor(src + n - 32, last_k), z = fdx_m128_xor(src + n - 16, last_k);

    fdx_m128_put(dst, a);
    fdx_m128_put(dst + 16, b);
    fdx_m128_put(dst + 32, c);
    fdx_m128_put(dst + 48, d);
    fdx_m128_put(dst + n - 64, w);
    fdx_m128_put(dst + n - 48, x);
    fdx_m128_put(dst + n - 32, y);
    fdx_m128_put(dst + n - 16, z);
}

/* Any n >= 16, 16 bytes a vector; the stores of the loop are aligned. */
FDX_NOINLINE void fdx_mask_base(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const fdx_m128 first = fdx_m128_xor(src, fdx_m128_key(key));
    const fdx_m128 last =
        fdx_m128_xor(src + n - 16, fdx_m128_key(fdx_key_rotate(key, (unsigned)n)));
    size_t i = (16u - ((uintptr_t)dst & 15u)) & 15u; /* bytes left to `first` */
    const fdx_m128 k = fdx_m128_key(fdx_key_rotate(key, (unsigned)i));

    for (; n - i >= 64; i += 64) {
        const fdx_m128 a = fdx_m128_xor(src + i, k), b = fdx_m128_xor(src + i + 16, k);
        const fdx_m128 c = fdx_m128_xor(src + i + 32, k), d = fdx_m128_xor(src + i + 48, k);
        fdx_m128_put(dst + i, a);
        fdx_m128_put(dst + i + 16, b);
        fdx_m128_put(dst + i + 32, c);
        fdx_m128_put(dst + i + 48, d);
    }
    for (; n - i >= 16; i += 16)
        fdx_m128_put(dst + i, fdx_m128_xor(src + i, k));
    fdx_m128_put(dst, first);
    fdx_m128_put(dst + n - 16, last);
}
#endif

#ifdef FDX_X86
FDX_TARGET("avx2")
static inline __m256i fdx_m256_xor(const uint8_t *p, __m256i key)
{
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)p), key);
}

FDX_TARGET("avx2")
static inline void fdx_m256_put(uint8_t *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, v);
}

/* 129 to 256 bytes: eight vectors, the last four ending at the end. */
FDX_TARGET("avx2")
FDX_NOINLINE void fdx_mask_upto256(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const __m256i k = _mm256_set1_epi32((int)key);
    const __m256i last_k = _mm256_set1_epi32((int)fdx_key_rotate(key, (unsigned)n));
    const __m256i a = fdx_m256_xor(src, k), b = fdx_m256_xor(src + 32, k);
    const __m256i c = fdx_m256_xor(src + 64, k), d = fdx_m256_xor(src + 96, k);
    const __m256i w = fdx_m256_xor(src + n - 128, last_k), x = fdx_m256_xor(src + n - 96, last_k);
    const __m256i y = fdx_m256_xor(src + n - 64, last_k), z = fdx_m256_xor(src + n - 32, last_k);

    fdx_m256_put(dst, a);
    fdx_m256_put(dst + 32, b);
    fdx_m256_put(dst + 64, c);
    fdx_m256_put(dst + 96, d);
    fdx_m256_put(dst + n - 128, w);
    fdx_m256_put(dst + n - 96, x);
    fdx_m256_put(dst + n - 64, y);
    fdx_m256_put(dst + n - 32, z);
}

/* Any n >= 32, 32 bytes a vector; the stores of the loop are aligned. */
FDX_TARGET("avx2")
FDX_NOINLINE void fdx_mask_avx2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const __m256i first = fdx_m256_xor(src, _mm256_set1_epi32((int)key));
    const __m256i last = fdx_m256_xor(
        src + n - 32, _mm256_set1_epi32((int)fdx_key_rotate(key, (unsigned)n)));
    size_t i = (32u - ((uintptr_t)dst & 31u)) & 31u; /* bytes left to `first` */
    const __m256i k = _mm256_set1_epi32((int)fdx_key_rotate(key, (unsigned)i));

    for (; n - i >= 128; i += 128) {
        const __m256i a = fdx_m256_xor(src + i, k), b = fdx_m256_xor(src + i + 32, k);
        const __m256i c = fdx_m256_xor(src + i + 64, k), d = fdx_m256_xor(src + i + 96, k);
        fdx_m256_put(dst + i, a);
        fdx_m256_put(dst + i + 32, b);
        fdx_m256_put(dst + i + 64, c);
        fdx_m256_put(dst + i + 96, d);
    }
    for (; n - i >= 32; i += 32)
        fdx_m256_put(dst + i, fdx_m256_xor(src + i, k));
    fdx_m256_put(dst, first);
    fdx_m256_put(dst + n - 32, last);
}

/* Above this many bytes the loads and stores of whole cache lines gain nothing more, or lose: see
 * docs/codec-measurements.md. */
#define FDX_MASK_AVX512_MAX 16384

FDX_TARGET("avx512f")
static inline __m512i fdx_m512_xor(const uint8_t *p, __m512i key)
{
    return _mm512_xor_si512(_mm512_loadu_si512((const void *)p), key);
}

FDX_TARGET("avx512f")
static inline void fdx_m512_put(uint8_t *p, __m512i v)
{
    _mm512_storeu_si512((void *)p, v);
}

/* Any n > 256, 64 bytes a vector; the stores of the loop are aligned, the last two vectors apart.
 *
 * Needs AVX512F only, but is called on processors with VBMI2: those before them lower their clock for vectors of this
 * size, for everything else that runs there, too. */
FDX_TARGET("avx512f")
FDX_NOINLINE void fdx_mask_avx512(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const __m512i last_k = _mm512_set1_epi32((int)fdx_key_rotate(key, (unsigned)n));
    const __m512i first = fdx_m512_xor(src, _mm512_set1_epi32((int)key));
    const __m512i y = fdx_m512_xor(src + n - 128, last_k), z = fdx_m512_xor(src + n - 64, last_k);
    size_t i = 64u - ((uintptr_t)dst & 63u); /* bytes left to `first` */
    const __m512i k = _mm512_set1_epi32((int)fdx_key_rotate(key, (unsigned)i));

    do {
        const __m512i a = fdx_m512_xor(src + i, k), b = fdx_m512_xor(src + i + 64, k);
        fdx_m512_put(dst + i, a);
        fdx_m512_put(dst + i + 64, b);
        i += 128;
    } while (i < n - 128);
    fdx_m512_put(dst, first);
    fdx_m512_put(dst + n - 128, y);
    fdx_m512_put(dst + n - 64, z);
}
#endif

/* XOR `n` bytes of `src` with the repeated key into `dst`, from key byte `phase` on.
 *
 * `dst` is either `src` itself or does not overlap it. Nothing outside the two
 * buffers is read or written; both may have any alignment. Returns the phase for
 * the byte behind the last one.
 */
static inline unsigned fdx_mask(uint8_t *dst, const uint8_t *src, size_t n,
                                const uint8_t key[4], unsigned phase, int cpu)
{
    const uint32_t k = fdx_key_rotate(fdx_load32(key), phase);

    if (n <= 16)
        fdx_mask_upto16(dst, src, n, k);
#if defined(FDX_X86) || defined(FDX_NEON)
    else if (n <= 64 && (cpu & FDX_CPU_BASE))
        fdx_mask_upto64(dst, src, n, k);
    else if (n <= 128 && (cpu & FDX_CPU_BASE))
        fdx_mask_upto128(dst, src, n, k);
#endif
#ifdef FDX_X86
    else if (n <= 256 && (cpu & FDX_CPU_AVX2))
        fdx_mask_upto256(dst, src, n, k);
    else if (n <= FDX_MASK_AVX512_MAX && (cpu & FDX_CPU_AVX512))
        fdx_mask_avx512(dst, src, n, k);
    else if (cpu & FDX_CPU_AVX2)
        fdx_mask_avx2(dst, src, n, k);
#endif
#if defined(FDX_X86) || defined(FDX_NEON)
    else if (cpu & FDX_CPU_BASE)
        fdx_mask_base(dst, src, n, k);
#endif
    else
        fdx_mask_words(dst, src, n, k);
    (void)cpu;
    return (unsigned)((phase + n) & 3u);
}

#endif /* FDX_MASK_H */
