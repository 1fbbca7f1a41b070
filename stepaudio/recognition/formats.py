"""A transcript as people keep it: plain text, JSON, SubRip (srt), WebVTT (vtt)."""

from __future__ import annotations

import json
from collections.abc import Callable

from stepaudio.core.errors import unknown
from stepaudio.recognition.base import Segment, Transcript


def as_text(transcript: Transcript) -> str:
    """One line a segment."""
    lines = [segment.text.strip() for segment in transcript.segments] or [transcript.text]
    return "".join(f"{line}\n" for line in lines if line)


def as_json(transcript: Transcript) -> str:
    """One object: ``text``, ``language``, ``segments`` with ``text``, ``start``, ``end`` in seconds, and
    ``words`` likewise where they were asked for."""

    def times(item: Segment) -> dict[str, object]:
        shown: dict[str, object] = {
            "start": item.start_ms / 1000,
            "end": item.end_ms / 1000,
            "text": item.text,
        }
        if item.words:
            shown["words"] = [
                {"word": word.text, "start": word.start_ms / 1000, "end": word.end_ms / 1000}
                for word in item.words
            ]
        return shown

    shown = {
        "text": transcript.text,
        "language": transcript.language,
        "segments": [times(segment) for segment in transcript.segments],
    }
    return json.dumps(shown, ensure_ascii=False, indent=2) + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, comma before the milliseconds."""
    return "".join(
        f"{n}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{cue.text.strip()}\n\n"
        for n, cue in enumerate(transcript.segments, 1)
    )


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): a header, full stop before the milliseconds, ``&`` and ``<`` escaped (section 4.2.2)."""
    cues = "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_escape(cue.text.strip())}\n\n"
        for cue in transcript.segments
    )
    return f"WEBVTT\n\n{cues}"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": as_text,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
}


def write(transcript: Transcript, format: str) -> str:
    """The transcript in one of ``FORMATS``.

    Raises:
        ConfigError: no such format.
    """
    if format not in FORMATS:
        raise unknown("transcript format", format, FORMATS)
    return FORMATS[format](transcript)


def _clock(ms: int, sign: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{sign}{ms:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
