"""Damaged GGUF files are found before llama.cpp sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from stepaudio.core.errors import ConfigError
from stepaudio.llm.gguf import check_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def setting(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, *items: bytes) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


VOCABULARY = setting("tokenizer.ggml.tokens", 9, array(8, text("a"), text("字")))


def gguf(
    *settings: bytes,
    version: int = 3,
    tensors: tuple[tuple[int, tuple[int, ...], int], ...] = ((0, (4, 2), 32),),
) -> bytes:
    """A file; each tensor is its type, shape and bytes of data."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings)) + b"".join(settings)
    offset = 0
    for kind, shape, size in tensors:
        head += text("t") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += size
    return head + bytes(-len(head) % 32) + bytes(offset)


def check(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(data)
    check_gguf(file)


@pytest.mark.parametrize("version", [2, 3])
def test_a_whole_file_is_accepted(tmp_path: Path, version: int) -> None:
    settings = (
        setting("general.alignment", 4, struct.pack("<I", 32)),
        setting("general.name", 8, text("tiny")),
        setting("scores", 9, array(6, bytes(4), bytes(4))),
        setting("nested", 9, array(9, array(0, b"1"), array(8, text("x")))),
        VOCABULARY,
    )
    tensors = ((0, (4, 2), 32), (12, (256, 2), 288), (99, (7,), 32))  # F32, Q4_K, and one that is not known
    check(tmp_path, gguf(*settings, version=version, tensors=tensors))


def test_every_file_that_breaks_off_is_found(tmp_path: Path) -> None:
    whole = gguf(VOCABULARY)
    for length in range(len(whole)):
        with pytest.raises(ConfigError, match="models pull"):
            check(tmp_path, whole[:length])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (gguf(VOCABULARY, version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "version"),  # big-endian
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1) + bytes(99), "damaged"),
        (gguf(setting("k", 77, b"")), "damaged"),
        (
            gguf(text("\ud800k".encode("utf-8", "surrogatepass").decode("latin1")) + struct.pack("<I", 9)),
            "damaged",
        ),
        (gguf(setting("k", 9, struct.pack("<IQ", 8, 1 << 62))), "damaged"),
        (gguf(setting("k", 9, struct.pack("<IQ", 0, 1 << 62))), "damaged"),
        (gguf(setting("k", 8, struct.pack("<Q", 1 << 63))), "damaged"),
        (gguf(text("k")[:8] + b"\xff" + struct.pack("<I", 0) + b"1"), "damaged"),  # a key that is no UTF-8
        (gguf(setting("general.alignment", 4, bytes(4)), VOCABULARY), "damaged"),
        (gguf(), "holds no language model"),  # such as a vision encoder
        (gguf(VOCABULARY, tensors=()), "holds no language model"),
    ],
)
def test_damage(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(tmp_path, data)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            check_gguf(path)
