"""Scores: a tune with words, read from the files that musicians have.

Pure: bytes in, a ``Score`` out. ``parse`` looks at what a file holds, not at its name, and hands it to the
reader of its format; each reader is a file of its own and knows no other. What they all share, the notes, the
limits and the plain text that people can type, is in ``score``.
"""

from __future__ import annotations

import re

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores import abc, midi, musicxml, score, ultrastar
from stepaudio.tts.scores.score import MOST_BYTES, Lyric, Note, Part, Score, plain

__all__ = ["Lyric", "Note", "Part", "Score", "parse", "plain"]

_ABC = re.compile(r"^(X:\s*\d|K:)", re.MULTILINE)
_ULTRASTAR = re.compile(r"^#(TITLE|BPM|ARTIST|MP3|GAP):", re.MULTILINE | re.IGNORECASE)


def parse(data: bytes) -> Score:
    """Read a score: MusicXML (plain or compressed), MIDI, ABC, UltraStar, or lines of "note beats syllable".

    Raises:
        ScoreError: it is none of these, is damaged, or passes a limit; the message says what to change.
    """
    if len(data) > MOST_BYTES:
        raise ScoreError(f"the score is larger than {MOST_BYTES >> 20} MB; keep the sung part alone in it")
    if not data.strip():
        raise ScoreError("the score is empty; a line such as 'C4 1 Hel-' is one note: pitch, beats, syllable")
    if data.startswith(b"PK"):
        return musicxml.read_compressed(data)
    if data.startswith((b"MThd", b"RIFF")):
        return midi.read(data)
    if data.startswith((b"\xfe\xff", b"\xff\xfe")) and "<" in data[:64].decode("utf-16", "ignore"):
        return musicxml.read(data)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return musicxml.read(data)
    text = score.decoded(data)
    if _ULTRASTAR.search(text):
        return ultrastar.read(text)
    if _ABC.search(text):
        return abc.read(text)
    return plain(text)
