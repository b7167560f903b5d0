/* Shared by the C tests: checks, random numbers, guarded memory, cpu levels. */
#ifndef FDX_TEST_H
#define FDX_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu.h"

#define CHECK(condition, ...)                                             \
    do {                                                                  \
        if (!(condition)) {                                               \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                 \
            fputc('\n', stderr);                                          \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

/* A linear congruential generator: seeded, the same on every machine. */
static inline uint32_t test_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

/* `size` bytes with unreadable memory directly before (`begin`) and behind (`end`). The
 * size is rounded up to whole pages, so place data at the one side or the other. */
typedef struct {
    uint8_t *begin, *end;
} guarded;

static inline guarded guarded_new(size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inner = (size + page - 1) / page * page;
    uint8_t *base = mmap(NULL, inner + 2 * page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    guarded g;

    CHECK(base != MAP_FAILED, "mmap");
    CHECK(mprotect(base, page, PROT_NONE) == 0, "mprotect");
    CHECK(mprotect(base + page + inner, page, PROT_NONE) == 0, "mprotect");
    g.begin = base + page;
    g.end = g.begin + inner;
    return g;
}

/* A block of exactly `size` bytes, so that a sanitizer sees one byte too many. */
static inline uint8_t *exact_new(size_t size)
{
    uint8_t *p = malloc(size ? size : 1);
    CHECK(p != NULL, "malloc");
    return p;
}

typedef struct {
    const char *name;
    int cpu;
} test_level;

/* The cpu values that this machine can be asked for, portable C first. */
static inline size_t test_levels(test_level levels[5])
{
    static const test_level all[5] = {
        {"scalar", FDX_CPU_SCALAR},
        {"base", FDX_CPU_BASE},
        {"sse4", FDX_CPU_BASE | FDX_CPU_SSE4},
        {"avx2", FDX_CPU_BASE | FDX_CPU_SSE4 | FDX_CPU_AVX2},
        {"avx512", FDX_CPU_BASE | FDX_CPU_SSE4 | FDX_CPU_AVX2 | FDX_CPU_AVX512},
    };
    const int have = fdx_cpu_detect();
    size_t count = 0, i;

    for (i = 0; i < 5; i++)
        if ((all[i].cpu & ~have) == 0)
            levels[count++] = all[i];
    return count;
}

/* The same for masking, whose loop for AVX-512 is not used on all processors that have what it needs. */
static inline size_t test_mask_levels(test_level levels[6])
{
    size_t count = test_levels(levels);

#if defined(FDX_X86) && defined(__GNUC__)
    if (!(fdx_cpu_detect() & FDX_CPU_AVX512) && __builtin_cpu_supports("avx512f")) {
        levels[count].name = "avx512f";
        levels[count++].cpu = fdx_cpu_detect() | FDX_CPU_AVX512;
    }
#endif
    return count;
}

#endif /* FDX_TEST_H */
