/* Vector decoding of valid UTF-8, the way of working being our own.
 *
 * Decoders usually take as many whole characters as a step may hold, and so cannot
 * begin a step before the last one is done. Here a step takes 16 (or 32) bytes,
 * wherever they begin. For *every* byte position the unit is worked out as if a
 * character began there, from this byte and the one, two or three behind it, which
 * come from loads at p+1, p+2 and p+3. Then the positions where no character begins
 * (continuation bytes) are squeezed out by a table lookup. One step depends on the
 * other only in the place where it writes, and nothing depends on the kind of text.
 *
 * A squeezed vector is stored whole: the useful units first, rubbish behind them, which
 * the next store overwrites. The loops therefore end where the rest of the text might
 * be fewer units than one store; that rest is decoded in a buffer on the stack.
 */
#ifndef FDX_TRANSCODE_SIMD_H
#define FDX_TRANSCODE_SIMD_H

#include "compress_table.h"
#include "vec.h"

#ifdef FDX_HAVE_V128

/* Bytes that must be left for a 16-byte step, so that its last store (of 8 units from
 * byte 8 on, or of 4 from byte 12 on) stays within the destination: those before that
 * byte, continuations of a character from before it, and as many of the longest
 * characters as the store has units. */
enum {
    FDX_STEP_LATIN1 = 8 + 1 + 2 * 8,
    FDX_STEP_UCS2 = 8 + 2 + 3 * 8,
    FDX_STEP_UCS4 = 12 + 3 + 4 * 4,
    FDX_REST = 48 /* the rest is shorter, and three steps do it */
};

/* Decode 16 positions; `valid` masks those that may count. Returns the units. */
FDX_V128 FDX_FORCE_INLINE size_t fdx_v_step_latin1(uint8_t *dst, const uint8_t *p,
                                                   uint32_t valid)
{
    const fdx_v16 b0 = fdx_v_load(p), b1 = fdx_v_load(p + 1);
    const fdx_v16 two = fdx_v_or(fdx_v_shl6(b0), fdx_v_and(b1, fdx_v_splat(0x3F)));
    const uint32_t leads = fdx_v_lead_mask(b0) & valid;
    const uint32_t low = leads & 0xFFu, high = leads >> 8;
    const fdx_v16 order = fdx_v_pair(fdx_compress8[low] >> 1,
                                     (fdx_compress8[high] >> 1) + UINT64_C(0x0808080808080808));
    const fdx_v16 units = fdx_v_lookup(fdx_v_select(b0, two, b0), order);
    const size_t count = fdx_v_popcount(low);

    fdx_v_store8(dst, units);
    fdx_v_store8(dst + count, FDX_V_BACK(units, units, 8));
    return count + fdx_v_popcount(high);
}

/* Eight two-byte units without those whose bit in `leads` is clear. */
FDX_V128 FDX_FORCE_INLINE void fdx_v_put_ucs2(uint16_t *dst, fdx_v16 units, uint32_t leads)
{
    const fdx_v16 order = fdx_v_load8(&fdx_compress8[leads]);
    const fdx_v16 odd = fdx_v_pair(UINT64_C(0x0100010001000100), UINT64_C(0x0100010001000100));

    fdx_v_store(dst, fdx_v_lookup(units, fdx_v_or(fdx_v_zip_low(order, order), odd)));
}

FDX_V128 FDX_FORCE_INLINE size_t fdx_v_step_ucs2(uint16_t *dst, const uint8_t *p,
                                                 uint32_t valid)
{
    const fdx_v16 b0 = fdx_v_load(p), b1 = fdx_v_load(p + 1), b2 = fdx_v_load(p + 2);
    const fdx_v16 three = fdx_v_ge(b0, fdx_v_splat(0xE0));
    const fdx_v16 last = fdx_v_select(three, b2, b1);
    const fdx_v16 before = fdx_v_select(three, b1, b0);
    const fdx_v16 low = fdx_v_or(fdx_v_shl6(before), fdx_v_and(last, fdx_v_splat(0x3F)));
    const fdx_v16 high = fdx_v_or(fdx_v_shr2(before, 0x0F), fdx_v_and(three, fdx_v_shl4(b0)));
    const fdx_v16 unit_low = fdx_v_select(b0, low, b0);
    const fdx_v16 unit_high = fdx_v_select(b0, high, fdx_v_splat(0));
    const uint32_t leads = fdx_v_lead_mask(b0) & valid;
    const size_t count = fdx_v_popcount(leads & 0xFFu);

    fdx_v_put_ucs2(dst, fdx_v_zip_low(unit_low, unit_high), leads & 0xFFu);
    fdx_v_put_ucs2(dst + count, fdx_v_zip_high(unit_low, unit_high), leads >> 8);
    return count + fdx_v_popcount(leads >> 8);
}

/* Four four-byte units from four two-byte halves each; returns the units kept. */
FDX_V128 FDX_FORCE_INLINE size_t fdx_v_put_ucs4(uint32_t *dst, fdx_v16 units, uint32_t leads)
{
    fdx_v_store(dst, fdx_v_lookup(units, fdx_v_load(fdx_compress4[leads & 15u])));
    return fdx_v_popcount(leads & 15u);
}

FDX_V128 FDX_FORCE_INLINE size_t fdx_v_step_ucs4(uint32_t *dst, const uint8_t *p,
                                                 uint32_t valid)
{
    const fdx_v16 b0 = fdx_v_load(p), b1 = fdx_v_load(p + 1);
    const fdx_v16 b2 = fdx_v_load(p + 2), b3 = fdx_v_load(p + 3);
    const fdx_v16 three = fdx_v_ge(b0, fdx_v_splat(0xE0)); /* or four */
    const fdx_v16 four = fdx_v_ge(b0, fdx_v_splat(0xF0));
    const fdx_v16 last = fdx_v_select(four, b3, fdx_v_select(three, b2, b1));
    const fdx_v16 before = fdx_v_select(four, b2, fdx_v_select(three, b1, b0));
    const fdx_v16 third = fdx_v_select(four, b1, b0); /* from the end */
    const fdx_v16 low = fdx_v_or(fdx_v_shl6(before), fdx_v_and(last, fdx_v_splat(0x3F)));
    const fdx_v16 mid = fdx_v_or(fdx_v_shr2(before, 0x0F), fdx_v_and(three, fdx_v_shl4(third)));
    /* bits 16 to 20: two of b1 and three of b0 (F0 to F4: bit 2 of its shifted self) */
    const fdx_v16 top = fdx_v_and(
        four, fdx_v_or(fdx_v_and(fdx_v_high_nibble(b1), fdx_v_splat(0x03)),
                       fdx_v_shr2(fdx_v_shl4(b0), 0x1C)));
    const fdx_v16 unit_low = fdx_v_select(b0, low, b0);
    const fdx_v16 unit_mid = fdx_v_select(b0, mid, fdx_v_splat(0));
    const fdx_v16 lows = fdx_v_zip_low(unit_low, unit_mid);
    const fdx_v16 lows2 = fdx_v_zip_high(unit_low, unit_mid);
    const fdx_v16 tops = fdx_v_zip_low(top, fdx_v_splat(0));
    const fdx_v16 tops2 = fdx_v_zip_high(top, fdx_v_splat(0));
    const uint32_t leads = fdx_v_lead_mask(b0) & valid;
    size_t out = fdx_v_put_ucs4(dst, fdx_v_zip16_low(lows, tops), leads);

    out += fdx_v_put_ucs4(dst + out, fdx_v_zip16_high(lows, tops), leads >> 4);
    out += fdx_v_put_ucs4(dst + out, fdx_v_zip16_low(lows2, tops2), leads >> 8);
    return out + fdx_v_put_ucs4(dst + out, fdx_v_zip16_high(lows2, tops2), leads >> 12);
}

/* The n lowest of the 16 bits of the step that begins at position i. */
static inline uint32_t fdx_step_valid(size_t n, size_t i)
{
    if (n <= i)
        return 0;
    return n - i >= 16 ? 0xFFFFu : (1u << (n - i)) - 1u;
}

/* Decode `n` bytes, which may begin inside a character whose lead byte has been seen
 * to, and end with a character. Each returns the number of units. */
FDX_V128
FDX_NOINLINE size_t fdx_to_latin1_v128(uint8_t *dst, const uint8_t *p, size_t n)
{
    uint8_t in[FDX_REST + 16] = {0};
    uint8_t units[FDX_REST + 16];
    size_t out = 0, rest = 0, i;

    for (; n >= FDX_STEP_LATIN1; n -= 16, p += 16)
        out += fdx_v_step_latin1(dst + out, p, 0xFFFFu);
    memcpy(in, p, n);
    for (i = 0; i < n; i += 16)
        rest += fdx_v_step_latin1(units + rest, in + i, fdx_step_valid(n, i));
    memcpy(dst + out, units, rest);
    return out + rest;
}

FDX_V128
FDX_NOINLINE size_t fdx_to_ucs2_v128(uint16_t *dst, const uint8_t *p, size_t n)
{
    uint8_t in[FDX_REST + 16] = {0};
    uint16_t units[FDX_REST + 16];
    size_t out = 0, rest = 0, i;

    for (; n >= FDX_STEP_UCS2; n -= 16, p += 16)
        out += fdx_v_step_ucs2(dst + out, p, 0xFFFFu);
    memcpy(in, p, n);
    for (i = 0; i < n; i += 16)
        rest += fdx_v_step_ucs2(units + rest, in + i, fdx_step_valid(n, i));
    memcpy(dst + out, units, rest * sizeof *units);
    return out + rest;
}

FDX_V128
FDX_NOINLINE size_t fdx_to_ucs4_v128(uint32_t *dst, const uint8_t *p, size_t n)
{
    uint8_t in[FDX_REST + 16] = {0};
    uint32_t units[FDX_REST + 16];
    size_t out = 0, rest = 0, i;

    for (; n >= FDX_STEP_UCS4; n -= 16, p += 16)
        out += fdx_v_step_ucs4(dst + out, p, 0xFFFFu);
    memcpy(in, p, n);
    for (i = 0; i < n; i += 16)
        rest += fdx_v_step_ucs4(units + rest, in + i, fdx_step_valid(n, i));
    memcpy(dst + out, units, rest * sizeof *units);
    return out + rest;
}

/* Lead bytes and the greatest byte of 4 to 15 bytes. */
FDX_V128
FDX_NOINLINE size_t fdx_count_short_v128(const uint8_t *p, size_t n, unsigned *max_byte)
{
    const fdx_v16 a = fdx_v_load_short(p, n);

    *max_byte = fdx_v_max_byte(a);
    return fdx_v_popcount(fdx_v_lead_mask(a) & ((1u << n) - 1u));
}

/* The same of 16 bytes and more. */
FDX_V128
FDX_NOINLINE size_t fdx_count_v128(const uint8_t *p, size_t n, unsigned *max_byte)
{
    const fdx_v16 end = fdx_v_load(p + n - 16);
    fdx_v16 top = end;
    size_t count = fdx_v_popcount(fdx_v_lead_mask(end) >> (16 - n % 16) & 0xFFFFu);
    size_t i;

    for (i = 0; n - i >= 16; i += 16) {
        const fdx_v16 a = fdx_v_load(p + i);
        top = fdx_v_max(top, a);
        count += fdx_v_popcount(fdx_v_lead_mask(a));
    }
    *max_byte = fdx_v_max_byte(top);
    return count;
}

#endif /* FDX_HAVE_V128 */

#endif /* FDX_TRANSCODE_SIMD_H */
