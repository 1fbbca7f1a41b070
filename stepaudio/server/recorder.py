"""The flight recorder: what a session was told and decided, in one file; ``replay`` decides again.

A session decides by what it is told alone (its clock is the audio, its ids come from a seed), so the same
events in the same order give the same decisions. Voice activity and echo are computed anew from the recorded
audio: nothing between the microphone's samples and a decision is taken on trust. What models said (words,
scores, the answer's audio) is read from the file.

The file holds speech and words: it is off by default, and readable by its owner alone. It is JSON, one
object a line: first ``settings`` and ``seed``; then ``client`` (a frame, as it came), ``engine`` (an event
of ``core.commands``) and ``decided``, in the order in which they happened. Audio that was sent is in it as
16-bit samples.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stepaudio
from stepaudio.core import commands as act
from stepaudio.core import protocol as wire
from stepaudio.core import turns
from stepaudio.core.audio import AudioChunk, float_to_pcm16, pcm16_to_float
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.errors import AudioError
from stepaudio.core.realtime import RealtimeSession
from stepaudio.core.style import SpeechStyle
from stepaudio.recognition.base import VoiceActivity
from stepaudio.server.hearing import Hearing

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the file; another is not read."""
SUFFIX = ".talk.jsonl"

_TYPES = {
    type.__name__: type
    for type in (
        act.Transcribed,
        act.TranscriptionFailed,
        act.ResponseAudio,
        act.ResponseText,
        act.ResponseToolCall,
        act.ResponseFinished,
        act.ResponseTimed,
        act.Played,
        act.Expired,
        act.Closed,
        act.TokenUsage,
        turns.Speech,
        turns.TurnScore,
        turns.Heard,
        turns.Tick,
        Clause,
        SpeechStyle,
        Mark,
    )
}


def ids(seed: int) -> Callable[[str], str]:
    """A maker of ids: with the same seed, the same ones."""
    dice = random.Random(seed)
    return lambda kind: f"{kind}_{dice.getrandbits(96):024x}"


def decision(effect: wire.ServerEvent | act.Command) -> str | None:
    """What was decided about turns, in a line; None for all else that a session says or does."""
    match effect:
        case act.StartResponse(response_id, draft):
            return f"{'draft' if draft else 'answer'} {response_id}"
        case act.ReleaseResponse(response_id):
            return f"release {response_id}"
        case act.StopResponse(response_id):
            return f"stop {response_id}"
        case turns.Duck(response_id):
            return f"duck {response_id}"
        case turns.Unduck(response_id):
            return f"unduck {response_id}"
        case turns.ScoreTurn(start_ms, at_ms):
            return f"score the turn from {start_ms} to {at_ms} ms"
        case turns.Recognize(start_ms, at_ms):
            return f"recognise from {start_ms} to {at_ms} ms"
        case act.Transcribe(item_id, start_ms, end_ms):
            return f"transcribe {item_id} from {start_ms} to {end_ms} ms"
        case wire.SpeechStarted():
            return f"speech started at {effect.audio_start_ms} ms"
        case wire.SpeechStopped():
            return f"speech stopped at {effect.audio_end_ms} ms"
        case wire.TimeoutTriggered():
            return f"nobody spoke from {effect.audio_start_ms} to {effect.audio_end_ms} ms"
        case wire.ItemTruncated():
            return f"cut {effect.item_id} at {effect.audio_end_ms} ms"
        case wire.ResponseDone():
            return f"done {effect.response.id} {effect.response.status}"
    return None


class Recorder:
    """Writes one file. Close it.

    Args:
        path: of the file, which must not exist.
        settings: that the session began with.
        seed: of its ids.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: wire.Settings, seed: int) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "w", encoding="utf-8")
        self._failed = False
        self._line({
            "format": FORMAT,
            "stepaudio": stepaudio.__version__,
            "seed": seed,
            "settings": settings.model_dump(mode="json"),
        })  # fmt: skip

    def received(self, event: str | bytes | act.EngineEvent) -> None:
        """What the session is told next."""
        if isinstance(event, str | bytes):
            text = event if isinstance(event, str) else event.decode("utf-8", "replace")
            self._line({"client": text})
        else:
            self._line({"engine": _plain(event)})

    def did(self, effect: wire.ServerEvent | act.Command) -> None:
        """What came of it."""
        if (line := decision(effect)) is not None:
            self._line({"decided": line})

    def close(self) -> None:
        """No more comes."""
        try:
            self._file.close()
        except OSError as error:
            self._give_up(error)

    def _line(self, row: Mapping[str, Any]) -> None:
        if self._failed:
            return
        try:
            self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A full disk ends the recording, not the talk."""
        self._failed = True
        log.error("the recording of a talk ends early: %s", error.strerror)


@dataclass(frozen=True, slots=True)
class Replay:
    """A talk decided again.

    Attributes:
        decisions: each with the audio time in ms at which it fell.
        difference: the first one that fell otherwise than then (what was decided then, and now); None: all
            are the same.
        frames: frames of the user's audio that were heard again.
        changed: of those, whose probability of speech or echo is not that of then, to the bit.
    """

    decisions: tuple[tuple[int, str], ...]
    difference: tuple[str, str] | None
    frames: int
    changed: int


def replay(path: Path | str, activity: VoiceActivity) -> Replay:
    """Decide a recorded talk again.

    Args:
        path: of the file.
        activity: the voice activity model.

    Raises:
        AudioError: the file cannot be read, or is no recording of a talk.
    """
    rows = _rows(path)
    first = next(rows, {})
    if first.get("format") != FORMAT:
        raise AudioError(f"{path} is no recording of a talk, or of another version of stepaudio")
    given = first["settings"]
    kind = wire.TranscriptionSettings if given["type"] == "transcription" else wire.RealtimeSettings
    session = RealtimeSession(kind.model_validate(given), ids(first["seed"]))
    hearing = Hearing(activity)
    then: list[str] = []
    now: list[tuple[int, str]] = []
    frames = changed = 0

    def do(effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, act.AppendAudio):
                hearing.push(effect.chunk)
            if (line := decision(effect)) is not None:
                now.append((hearing.now_ms, line))

    do(session.start())
    for row in rows:
        if "client" in row:
            do(session.receive_text(row["client"]))
        elif "decided" in row:
            then.append(row["decided"])
        else:
            event = _whole(row["engine"])
            if isinstance(event, turns.Speech):
                frames += 1
                heard = hearing.hear()
                again = heard[0] if heard else None
                changed += again != event
                event = again or event
            elif isinstance(event, act.ResponseAudio):
                hearing.sent(event.audio)
            do(session.receive(event))
    pairs = zip(
        [*then, *[""] * (len(now) - len(then))], [line for _, line in now] + [""] * len(then), strict=False
    )
    difference = next(((a, b) for a, b in pairs if a != b), None)
    return Replay(tuple(now), difference, frames, changed)


def _rows(path: Path | str) -> Iterator[dict[str, Any]]:
    try:
        with Path(path).open(encoding="utf-8") as source:
            for line in source:
                if line.endswith("\n"):  # else the server was stopped in the middle of it
                    yield json.loads(line)
    except (OSError, ValueError) as error:
        raise AudioError(f"{path} cannot be read as a recording of a talk: {type(error).__name__}") from error


def _plain(value: Any) -> Any:
    """An event as JSON has it."""
    if isinstance(value, AudioChunk):
        octets = float_to_pcm16(value.samples).astype("<i2").tobytes()
        return {"pcm16": base64.b64encode(octets).decode(), "rate": value.rate, "start": value.start}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _whole(value: Any) -> Any:
    """``_plain``, back."""
    if isinstance(value, list):
        return tuple(_whole(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "pcm16" in value:
        samples = pcm16_to_float(np.frombuffer(base64.b64decode(value["pcm16"]), "<i2"))
        return AudioChunk(samples, value["rate"], value["start"])
    if "is" in value:
        return _TYPES[value["is"]](**{k: _whole(v) for k, v in value.items() if k != "is"})
    return value
