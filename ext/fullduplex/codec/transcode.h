/* From valid UTF-8 to the storage of a str: count first, then write exactly that many
 * units. None of these functions validates; see utf8.h for that. */
#ifndef FDX_TRANSCODE_H
#define FDX_TRANSCODE_H

#include "cpu.h"
#include "transcode_avx2.h"
#include "transcode_avx512.h"
#include "transcode_simd.h"
#include "utf8.h"

/* Below this size the vectors' fixed cost is more than plain decoding (measured). */
#define FDX_VECTOR_WORTH 40

/* Decode the character at `p` (valid, complete), tell how many bytes it took. */
static inline uint32_t fdx_utf8_one(const uint8_t *p, size_t *taken)
{
    const uint32_t lead = p[0];

    if (lead < 0x80) {
        *taken = 1;
        return lead;
    }
    if (lead < 0xE0) {
        *taken = 2;
        return (lead & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (lead < 0xF0) {
        *taken = 3;
        return (lead & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *taken = 4;
    return (lead & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

/* Code points of valid UTF-8 and the width of str it needs (0, 1, 2 or 4, see
 * fdx_utf8_kind_of). */
static inline void fdx_utf8_count(const uint8_t *p, size_t n, size_t *codepoints, int *kind,
                                  int cpu)
{
    size_t count = 0;
    unsigned max_byte = 0;
    size_t i;

    (void)cpu;
#ifdef FDX_X86
    if (n >= 64 && (cpu & FDX_CPU_AVX2))
        count = fdx_count_avx2(p, n, &max_byte);
    else
#endif
#ifdef FDX_HAVE_V128
    if (n >= 16 && (cpu & FDX_CPU_V128))
        count = fdx_count_v128(p, n, &max_byte);
    else if (n >= 4 && (cpu & FDX_CPU_V128))
        count = fdx_count_short_v128(p, n, &max_byte);
    else
#endif
        for (i = 0; i < n; i++) {
            count += (p[i] & 0xC0u) != 0x80u;
            max_byte = p[i] > max_byte ? p[i] : max_byte;
        }
    *codepoints = count;
    *kind = fdx_utf8_kind_of(max_byte);
}

/* Write the text's code points, each below 0x100, to `dst`, which holds exactly
 * fdx_utf8_count() units; returns that number. */
static inline size_t fdx_utf8_to_latin1(uint8_t *dst, const uint8_t *p, size_t n, int cpu)
{
    size_t i = 0, out = 0, taken;

    (void)cpu;
#ifdef FDX_X86
    if (n >= FDX_STEP_LATIN1_W && (cpu & FDX_CPU_AVX2))
        return fdx_to_latin1_avx2(dst, p, n);
#endif
#ifdef FDX_HAVE_V128
    if (n >= FDX_VECTOR_WORTH && (cpu & FDX_CPU_V128))
        return fdx_to_latin1_v128(dst, p, n);
#endif
    for (; i < n; i += taken)
        dst[out++] = (uint8_t)fdx_utf8_one(p + i, &taken);
    return out;
}

/* The same for code points below 0x10000. */
static inline size_t fdx_utf8_to_ucs2(uint16_t *dst, const uint8_t *p, size_t n, int cpu)
{
    size_t i = 0, out = 0, taken;

    (void)cpu;
#ifdef FDX_X86
    if (n >= FDX_STEP_UCS2_Z && (cpu & FDX_CPU_AVX512))
        return fdx_to_ucs2_avx512(dst, p, n);
    if (n >= FDX_STEP_UCS2_W && (cpu & FDX_CPU_AVX2))
        return fdx_to_ucs2_avx2(dst, p, n);
#endif
#ifdef FDX_HAVE_V128
    if (n >= FDX_VECTOR_WORTH && (cpu & FDX_CPU_V128))
        return fdx_to_ucs2_v128(dst, p, n);
#endif
    for (; i < n; i += taken)
        dst[out++] = (uint16_t)fdx_utf8_one(p + i, &taken);
    return out;
}

/* The same for any code points. */
static inline size_t fdx_utf8_to_ucs4(uint32_t *dst, const uint8_t *p, size_t n, int cpu)
{
    size_t i = 0, out = 0, taken;

    (void)cpu;
#ifdef FDX_X86
    if (n >= FDX_STEP_UCS4_W && (cpu & FDX_CPU_AVX2))
        return fdx_to_ucs4_avx2(dst, p, n);
#endif
#ifdef FDX_HAVE_V128
    if (n >= FDX_VECTOR_WORTH && (cpu & FDX_CPU_V128))
        return fdx_to_ucs4_v128(dst, p, n);
#endif
    for (; i < n; i += taken)
        dst[out++] = fdx_utf8_one(p + i, &taken);
    return out;
}

#endif /* FDX_TRANSCODE_H */
