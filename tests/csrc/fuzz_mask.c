/* Fuzz masking: the first bytes choose key, phase, alignment and the pieces; every cpu
 * level must give what the definition gives. */
#include "fuzz_main.h"
#include "mask.h"

enum { HEAD = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    test_level levels[5];
    const size_t count = test_levels(levels);
    const uint8_t *src = data + HEAD;
    size_t k, n, i;

    if (size < HEAD)
        return 0;
    n = size - HEAD;
    for (k = 0; k < count; k++) {
        const size_t shift = data[5] & 63u;
        uint8_t *block = exact_new(shift + n), *p = block + shift;
        const unsigned start = data[4] & 3u;
        unsigned phase = start;
        size_t done = 0, step = 1 + data[6];
        while (done < n) {
            step = step < n - done ? step : n - done;
            phase = fdx_mask(p + done, src + done, step, data, phase, levels[k].cpu);
            done += step;
            step = 1 + (step * 5 + data[7]) % 300;
        }
        CHECK(phase == (start + n) % 4, "%s: phase", levels[k].name);
        for (i = 0; i < n; i++)
            CHECK(p[i] == (uint8_t)(src[i] ^ data[(start + i) % 4]), "%s: byte %zu of %zu",
                  levels[k].name, i, n);
        fdx_mask(p, p, n, data, start, levels[k].cpu);
        CHECK(n == 0 || memcmp(p, src, n) == 0, "%s: unmasking", levels[k].name);
        free(block);
    }
    return 0;
}
