/* A fuzz target either gets its inputs from libFuzzer (FUZZ_LIBFUZZER), or is a program
 * that replays files named on its command line, or else a seeded random corpus. */
#ifndef FUZZ_MAIN_H
#define FUZZ_MAIN_H

#include "fdx_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef FUZZ_LIBFUZZER

#define FUZZ_ROUNDS 40000
#define FUZZ_SIZE 600

/* Bytes in runs of one flavour each, as uniformly random ones are hardly ever UTF-8. */
static void fuzz_input(uint64_t *seed, uint8_t *p, size_t n)
{
    static const char *const flavour[8] = {"abcdefgh", "\xC3\xA9\xC2\x80", "\xD0\xB6\xDF\xBF",
                                           "\xE4\xB8\xAD\xE0\xA0\x80", "\xED\x9F\xBF\xEE\x80\x80",
                                           "\xF0\x9F\x98\x80\xF0\x90\x80\x80",
                                           "\xF4\x8F\xBF\xBF", "\x80\xBF\xC0\xF5\xFF"};
    size_t i = 0;

    while (i < n) {
        const char *f = flavour[test_random(seed) & 7u];
        size_t run = 1 + test_random(seed) % 60;
        size_t k = 0;
        for (; run && i < n; run--, i++, k = f[k + 1] ? k + 1 : 0)
            p[i] = (uint8_t)f[k];
    }
    for (i = test_random(seed) % 3; i && n; i--)
        p[test_random(seed) % n] = (uint8_t)test_random(seed);
}

static void fuzz_file(const char *name)
{
    uint8_t *data = exact_new(1 << 20);
    FILE *file = fopen(name, "rb");
    size_t n;

    CHECK(file != NULL, "cannot open %s", name);
    n = fread(data, 1, 1 << 20, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
}

int main(int argc, char **argv)
{
    uint64_t seed = 5;
    int i;

    for (i = 1; i < argc; i++)
        fuzz_file(argv[i]);
    for (i = 0; i < FUZZ_ROUNDS && argc == 1; i++) {
        uint8_t data[FUZZ_SIZE];
        const size_t n = test_random(&seed) % FUZZ_SIZE;
        fuzz_input(&seed, data, n);
        LLVMFuzzerTestOneInput(data, n);
    }
    printf("%s: ok\n", argv[0]);
    return 0;
}

#endif /* FUZZ_LIBFUZZER */

#endif /* FUZZ_MAIN_H */
