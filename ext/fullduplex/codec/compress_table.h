/* For each mask of 8 bits: twice the position of every set bit, lowest first, one a
 * byte, the lowest byte of the word first. Behind the last one there are zeros.
 *
 * It moves the wanted ones of 8 units to the front: units of two bytes begin at these
 * offsets, units of one byte at half of them. The compiler works the table out: going
 * from bit 7 down to 0, a set bit pushes its entry in at the low end.
 */
#ifndef FDX_COMPRESS_TABLE_H
#define FDX_COMPRESS_TABLE_H

#include <stdint.h>

#define FDX_BIT(m, b) (((m) >> (b)) & 1u)
#define FDX_PUSH(m, b, e) (((e) << (8u * FDX_BIT(m, b))) | (2u * (b) * FDX_BIT(m, b)))
#define FDX_PACK_HIGH(m) \
    FDX_PUSH(m, 4u, FDX_PUSH(m, 5u, FDX_PUSH(m, 6u, FDX_PUSH(m, 7u, UINT64_C(0)))))
#define FDX_PACK(m) \
    FDX_PUSH(m, 0u, FDX_PUSH(m, 1u, FDX_PUSH(m, 2u, FDX_PUSH(m, 3u, FDX_PACK_HIGH(m)))))
#define FDX_PACK4(m) FDX_PACK(m), FDX_PACK((m) + 1u), FDX_PACK((m) + 2u), FDX_PACK((m) + 3u)
#define FDX_PACK16(m) \
    FDX_PACK4(m), FDX_PACK4((m) + 4u), FDX_PACK4((m) + 8u), FDX_PACK4((m) + 12u)
#define FDX_PACK64(m) \
    FDX_PACK16(m), FDX_PACK16((m) + 16u), FDX_PACK16((m) + 32u), FDX_PACK16((m) + 48u)

static const uint64_t fdx_compress8[256] = {
    FDX_PACK64(0u),
    FDX_PACK64(64u),
    FDX_PACK64(128u),
    FDX_PACK64(192u),
};

/* The same for masks of 4 bits and units of four bytes, as byte offsets. */
#define FDX_AT(k) 4 * (k), 4 * (k) + 1, 4 * (k) + 2, 4 * (k) + 3

static const uint8_t fdx_compress4[16][16] = {
    {FDX_AT(0), FDX_AT(0), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(0), FDX_AT(0), FDX_AT(0)},
    {FDX_AT(1), FDX_AT(0), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(1), FDX_AT(0), FDX_AT(0)},
    {FDX_AT(2), FDX_AT(0), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(2), FDX_AT(0), FDX_AT(0)},
    {FDX_AT(1), FDX_AT(2), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(1), FDX_AT(2), FDX_AT(0)},
    {FDX_AT(3), FDX_AT(0), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(3), FDX_AT(0), FDX_AT(0)},
    {FDX_AT(1), FDX_AT(3), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(1), FDX_AT(3), FDX_AT(0)},
    {FDX_AT(2), FDX_AT(3), FDX_AT(0), FDX_AT(0)}, {FDX_AT(0), FDX_AT(2), FDX_AT(3), FDX_AT(0)},
    {FDX_AT(1), FDX_AT(2), FDX_AT(3), FDX_AT(0)}, {FDX_AT(0), FDX_AT(1), FDX_AT(2), FDX_AT(3)},
};

#endif /* FDX_COMPRESS_TABLE_H */
