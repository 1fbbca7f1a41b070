"""GGUF files: whether one is whole, seen from its header before llama.cpp gets it.

llama.cpp refuses most damaged files by itself, with a message that tells a user nothing; a download that
broke off is so common that it should be named.
The layout is that of the GGUF specification (ggml, ``docs/gguf.md``), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path

from stepaudio.core.errors import ConfigError

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Value types of the metadata and their bytes; besides them there are strings and arrays."""
_STRING, _ARRAY = 8, 9

# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 29: (256, 56), 39: (32, 17),
}
# fmt: on
"""Tensor types: numbers in a block, and its bytes (``ggml.h``). Of a newer type only the start is checked."""

_MOST = 1 << 20
"""Tensors or settings that a header may announce; the largest models have some thousands."""

_REPAIR = "if `stepaudio` fetched it, run `stepaudio models verify` and then `stepaudio models pull`"


def check_gguf(path: Path) -> None:
    """See that ``path`` is a whole GGUF file with a language model in it. Takes about 0.2 s.

    Damage within the weights is not seen (the model store compares checksums).

    Raises:
        ConfigError: it is not, or cannot be read; the message says what to do.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                what = "is empty" if not magic else "is not a GGUF file"
                raise ConfigError(f"{path} {what}: name a model in GGUF format; {_REPAIR}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _Header(path, data).check()
    except OSError as error:
        raise ConfigError(f"cannot read the language model {path}: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise _damaged(path, "its header breaks off or is garbled") from error


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} is damaged: {why}. Get the file again; {_REPAIR}")


class _Header:
    """Reads a header front to back. ``struct.error`` is what comes of reading past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 4  # past the magic

    def check(self) -> None:
        version = self.number("<I")
        if version not in (2, 3):
            raise ConfigError(
                f"{self.path} is of GGUF version {version}; versions 2 and 3 can be read, little-endian: "
                f"convert the model anew with llama.cpp; {_REPAIR}"
            )
        tensors, settings = self.number("<Q"), self.number("<Q")
        if max(tensors, settings) > _MOST:
            raise _damaged(self.path, "its header is garbled")
        keys: set[str] = set()
        alignment = 32
        for _ in range(settings):
            key, kind = self.text(), self.number("<I")
            if key == "general.alignment" and kind == 4:
                alignment = struct.unpack_from("<I", self.data, self.at)[0]
            self.skip(kind)
            keys.add(key)
        needed = 0  # bytes of tensor data
        for _ in range(tensors):
            self.text()
            numbers = prod(self.number("<Q") for _ in range(min(self.number("<I"), 8)))
            block, size = _BLOCKS.get(self.number("<I"), (1, 0))
            needed = max(needed, self.number("<Q") + numbers // block * size)

        if not tensors or "tokenizer.ggml.tokens" not in keys:
            raise ConfigError(f"{self.path} holds no language model: name another GGUF file; {_REPAIR}")
        if not alignment:
            raise _damaged(self.path, "its header is garbled")
        end = -(-self.at // alignment) * alignment + needed
        if len(self.data) < end:
            raise _damaged(self.path, f"it has {len(self.data):,} of {end:,} bytes")

    def number(self, kind: str) -> int:
        (number,) = struct.unpack_from(kind, self.data, self.at)
        self.at += struct.calcsize(kind)
        return number

    def text(self) -> str:
        length = self.number("<Q")
        self.move(length)
        return self.data[self.at - length : self.at].decode()

    def skip(self, kind: int, depth: int = 0) -> None:
        """Move past one value."""
        if kind in _SCALARS:
            self.move(_SCALARS[kind])
        elif kind == _STRING:
            self.move(self.number("<Q"))
        elif kind == _ARRAY and depth < 4:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _SCALARS:
                self.move(count * _SCALARS[inner])
                return
            # Hundreds of thousands of strings: the vocabulary, and how its tokens are joined.
            if inner == _STRING:
                data, at, end, length_at = self.data, self.at, len(self.data), struct.Struct("<Q").unpack_from
                for _ in range(count):
                    at += 8 + length_at(data, at)[0]
                    if at > end:
                        raise struct.error("a string past the end")
                self.at = at
                return
            for _ in range(count):
                self.skip(inner, depth + 1)
        else:
            raise struct.error("no such type of value")

    def move(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise struct.error("past the end")
        self.at += length
