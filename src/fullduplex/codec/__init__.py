"""The codec: bytes to messages and back, in two implementations behind one surface.

``_compiled`` and its neighbours (Cython over small C headers) are used where they were built;
``pure`` is the reference that the tests hold them to. Which one runs is in `IMPLEMENTATION`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

IMPLEMENTATION: str

if TYPE_CHECKING:
    from .masking import apply_mask
    from .pure import (
        Assembler,
        Decoder,
        Encoder,
        Utf8Validator,
        build_frame,
        decode_text,
        is_ascii,
    )
else:
    try:
        from ._assembler import Assembler, Utf8Validator, apply_mask, decode_text, is_ascii
        from ._compiled import Decoder
        from ._encoder import Encoder, build_frame

        IMPLEMENTATION = "compiled"
    except ImportError:
        from .masking import apply_mask
        from .pure import (
            Assembler,
            Decoder,
            Encoder,
            Utf8Validator,
            build_frame,
            decode_text,
            is_ascii,
        )

        IMPLEMENTATION = "pure"

__all__ = [
    "IMPLEMENTATION",
    "Assembler",
    "Decoder",
    "Encoder",
    "Utf8Validator",
    "apply_mask",
    "build_frame",
    "decode_text",
    "is_ascii",
]
