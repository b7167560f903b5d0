/* What the processor can do, and the few compiler differences the codec meets.
 *
 * There is no global state here: fdx_cpu_detect() computes a bit mask once, the
 * caller keeps it (per module, say) and hands it to every fdx_ function as `cpu`.
 * Any mask is safe as long as the processor really has what it claims; the tests
 * force lower ones to reach every path on one machine.
 */
#ifndef FDX_CPU_H
#define FDX_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* FDX_PORTABLE: leave all vector code out, as on a processor that has none here. */
#if defined(FDX_PORTABLE)
#elif (defined(__x86_64__) || defined(_M_X64)) && !defined(_M_ARM64EC)
#define FDX_X86 1
#include <immintrin.h>
#elif (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define FDX_NEON 1
#include <arm_neon.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define FDX_TARGET(features)
#define FDX_NOINLINE static __declspec(noinline)
#define FDX_FORCE_INLINE static __forceinline
#else
#define FDX_TARGET(features) __attribute__((target(features)))
#define FDX_NOINLINE static __attribute__((noinline, unused))
#define FDX_FORCE_INLINE static inline __attribute__((always_inline, unused))
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FDX_BIG_ENDIAN 1
#endif

enum {
    FDX_CPU_SCALAR = 0, /* portable C only */
    FDX_CPU_BASE = 1,   /* what the architecture guarantees: SSE2 (x86-64), NEON (aarch64) */
    FDX_CPU_SSE4 = 2,   /* SSSE3, SSE4.1 and POPCNT (implies BASE) */
    FDX_CPU_AVX2 = 4,   /* AVX2 with the operating system's consent (implies SSE4) */
    FDX_CPU_AVX512 = 8  /* the same of AVX-512 F, BW and VBMI2 (implies AVX2) */
};

#if defined(FDX_X86) && defined(_MSC_VER) && !defined(__clang__)

static inline int fdx_cpu_detect(void)
{
    int r[4];
    int found = FDX_CPU_BASE;
    const int sse4 = (1 << 9) | (1 << 19) | (1 << 23); /* leaf 1 ecx: SSSE3, SSE4.1, POPCNT */
    const int avx = (1 << 27) | (1 << 28);             /* leaf 1 ecx: OSXSAVE, AVX */
    int leaves, ecx;

    __cpuid(r, 0);
    leaves = r[0];
    __cpuid(r, 1);
    ecx = r[2];
    if ((ecx & sse4) != sse4)
        return found;
    found |= FDX_CPU_SSE4;
    if (leaves < 7 || (ecx & avx) != avx || (_xgetbv(0) & 6) != 6)
        return found;
    __cpuidex(r, 7, 0);
    if (!(r[1] & (1 << 5)))
        return found;
    found |= FDX_CPU_AVX2;
    /* leaf 7: ebx has AVX-512 F and BW, ecx VBMI2; XCR0 says what the system saves */
    if ((r[1] & (1 << 16)) && (r[1] & (1 << 30)) && (r[2] & (1 << 6)) && (_xgetbv(0) & 0xE6) == 0xE6)
        found |= FDX_CPU_AVX512;
    return found;
}

#elif defined(FDX_X86)

static inline int fdx_cpu_detect(void)
{
    int found = FDX_CPU_BASE;

    __builtin_cpu_init();
    if (!__builtin_cpu_supports("ssse3") || !__builtin_cpu_supports("sse4.1") ||
        !__builtin_cpu_supports("popcnt"))
        return found;
    found |= FDX_CPU_SSE4;
    if (!__builtin_cpu_supports("avx2"))
        return found;
    found |= FDX_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vbmi2"))
        found |= FDX_CPU_AVX512;
    return found;
}

#elif defined(FDX_NEON)

static inline int fdx_cpu_detect(void)
{
    return FDX_CPU_BASE;
}

#else

static inline int fdx_cpu_detect(void)
{
    return FDX_CPU_SCALAR;
}

#endif

/* Unaligned loads and stores that the compiler turns into one instruction. */
static inline uint64_t fdx_load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t fdx_load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void fdx_store64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void fdx_store32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

#endif /* FDX_CPU_H */
