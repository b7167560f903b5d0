"""DEFLATE (RFC 1951) decoded bit by bit, to see what zlib does not tell: how far back it refers."""

from __future__ import annotations

from dataclasses import dataclass, field

LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99]
LENGTHS += [115, 131, 163, 195, 227, 258]
LENGTH_BITS = [0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0]
DISTANCE_BITS = [0, 0] + [n for n in range(14) for _ in range(2)]
DISTANCES = [1 + sum(1 << bits for bits in DISTANCE_BITS[:index]) for index in range(30)]
CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

Code = dict[tuple[int, int], int]


def canonical(lengths: list[int]) -> Code:
    """Return a Huffman code as a map from (number of bits, bits) to a symbol (§3.2.2)."""
    code = 0
    table = {}
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                table[bits, code] = symbol
                code += 1
        code <<= 1
    return table


FIXED_LITERALS = canonical([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)
FIXED_DISTANCES = canonical([5] * 30)


@dataclass
class Inflated:
    """What a stream says.

    Attributes:
        data: The output of all calls.
        distance: The greatest distance of a back-reference.
        outside: How many bytes before this call's own output it referred to, at most.
    """

    data: bytearray = field(default_factory=bytearray)
    distance: int = 0
    outside: int = 0


def inflate(stream: bytes, before: Inflated | None = None) -> Inflated:
    """Decode a flushed stream, on top of what earlier calls gave."""
    state = before or Inflated()
    state.distance = state.outside = 0
    start = len(state.data)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        index = position >> 3  # at most 16 bits are asked for
        window = int.from_bytes(stream[index : index + 3], "little")
        value = window >> (position & 7) & (1 << count) - 1
        position += count
        return value

    def symbol(code: Code) -> int:
        nonlocal position
        index = position >> 3
        window = int.from_bytes(stream[index : index + 3], "little") >> (position & 7)
        bits = 0
        for length in range(1, 16):
            bits = bits << 1 | window & 1
            window >>= 1
            if (length, bits) in code:
                position += length
                return code[length, bits]
        raise AssertionError("no such code")

    def dynamic() -> tuple[Code, Code]:
        literals, distances, count = take(5) + 257, take(5) + 1, take(4) + 4
        lengths = [0] * 19
        for index in CODE_LENGTH_ORDER[:count]:
            lengths[index] = take(3)
        code = canonical(lengths)
        found: list[int] = []
        while len(found) < literals + distances:
            match symbol(code):
                case 16:
                    found += found[-1:] * (3 + take(2))
                case 17:
                    found += [0] * (3 + take(3))
                case 18:
                    found += [0] * (11 + take(7))
                case length:
                    found.append(length)
        return canonical(found[:literals]), canonical(found[literals:])

    while position < len(stream) * 8:
        take(1)  # BFINAL
        kind = take(2)
        if kind == 0:
            position = (position + 7) // 8 * 8
            size = take(16)
            assert take(16) == size ^ 0xFFFF
            state.data += stream[position // 8 : position // 8 + size]
            position += size * 8
            continue
        literals, distances = (FIXED_LITERALS, FIXED_DISTANCES) if kind == 1 else dynamic()
        while (value := symbol(literals)) != 256:
            if value < 256:
                state.data.append(value)
                continue
            length = LENGTHS[value - 257] + take(LENGTH_BITS[value - 257])
            index = symbol(distances)
            distance = DISTANCES[index] + take(DISTANCE_BITS[index])
            assert distance <= len(state.data)
            state.distance = max(state.distance, distance)
            state.outside = max(state.outside, distance - (len(state.data) - start))
            for _ in range(length):
                state.data.append(state.data[-distance])
    return state
