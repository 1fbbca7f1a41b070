"""The clips of a test data folder: one row of its ``MANIFEST.jsonl`` a clip."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError
from stepaudio.files import read_audio
from stepaudio.recognition.base import RATE


@dataclass(frozen=True)
class Clip:
    """A recording with its reference transcript."""

    path: Path
    text: str
    language: str
    seconds: float

    @cached_property
    def audio(self) -> AudioChunk:
        """Mono, 16 kHz."""
        return read_audio(self.path, RATE)


def clips(data: Path, kind: str, *, verified: bool = False) -> list[Clip]:
    """The clips of one kind, in the order of the manifest.

    Args:
        data: folder with a ``MANIFEST.jsonl``.
        kind: as in its rows ("asr_en", "question_fact", …).
        verified: only those whose transcript comes with the corpus.

    Raises:
        ConfigError: there are none.
    """
    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").read_text("utf-8").splitlines()]
    found = [
        Clip(data / row["path"], row["text"], row["lang"], row["seconds"])
        for row in rows
        if row.get("kind") == kind and (not verified or row.get("ref") == "verified-source")
    ]
    if not found:
        raise ConfigError(f"no clips of kind {kind!r} in {data}; name another folder with --data")
    return found
