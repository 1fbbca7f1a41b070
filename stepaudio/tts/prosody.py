"""The prosody plan: how something is to sound, as data that can be changed, kept and spoken again.

Kokoro and Hibari read the same alphabet of phonemes (misaki's), give each a length in frames of 25 ms, draw
pitch and energy every 12.5 ms, and make audio of 24 kHz. What lies between is here: words laid out as
phonemes, cut into runs, timed; and the plan of a run. What a style makes of it is in ``expression``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from stepaudio.core.clauses import Mark
from stepaudio.core.errors import TextError

T = TypeVar("T")

RATE = 24_000
FRAME = 600
"""Samples in a frame (25 ms)."""
STEP = FRAME // 2
"""Samples in a half frame (12.5 ms): pitch, energy and what is done to the audio are given for each."""
VOICED_HZ = 40.0
"""Pitch below this has no voice. The networks draw 3 to 12 Hz there, never exactly 0 (VOICE: overriding)."""
LEAD = 2
"""Frames kept before the first sound. The models make some 14, 350 ms for which people would wait. They need
them to find their voice, so they are left out only where they cost: in the decoder."""

PHRASE_ENDS = ".!?…;:,—"
_NOT_SIGNS = ' "()“”'
SILENT = PHRASE_ENDS + _NOT_SIGNS

_TAILS = dict.fromkeys(".!?…", 10) | dict.fromkeys(",;:—", 3)
"""Frames kept after the last sound, by the sign that follows it. With the next clause's lead, clauses are
0.3 s and 0.15 s apart. The models would make 0.5 s after any sign."""
_TAIL = 2
"""The same where there is no sign."""
_FAINT = -2.0
"""Energy below this is not heard: the audio is under -50 dB there (seven sentences of af_heart). What the
last phoneme is said to last does not tell: it takes in most of the silence after it."""


@dataclass(frozen=True, slots=True)
class PlannedWord:
    """A written word and its symbols in a plan: the first, and one past the last, signs after it left out."""

    written: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class ProsodyPlan:
    """How a run of phonemes is to sound. Any voice that knows the symbols can render it.

    Attributes:
        symbols: n phonemes and signs of the voices' alphabet.
        lengths: (n + 2,) int64, frames of 25 ms, each at least 1; the silences before and after come first
            and last.
        pitch: (2 * frames,) float32, Hz; below ``VOICED_HZ`` there is no voice.
        energy: (2 * frames,) float32, the networks' own measure of loudness: vowels have 0.6 to 7.5, silence
            less than -2.
        gain: (2 * frames,) float32, dB that the audio is made louder.
        tilt: (2 * frames,) float32, dB that what lies above 1.5 kHz is made louder.
        breath: (2 * frames,) float32, 0 to 1, how much of the voice is replaced by breath (whisper).
        words: in order.
        heard: first and past last of the frames that are rendered: silence at the ends is left out.
        stretch: times that the audio is played faster, for tempi that whole frames cannot give.
        sounds: frames at which something that is no word begins, and its name ("breath").
    """

    symbols: str
    lengths: np.ndarray
    pitch: np.ndarray
    energy: np.ndarray
    gain: np.ndarray
    tilt: np.ndarray
    breath: np.ndarray
    words: tuple[PlannedWord, ...]
    heard: tuple[int, int]
    stretch: float = 1.0
    sounds: tuple[tuple[int, str], ...] = ()

    @property
    def frames(self) -> int:
        """Frames of the plan, the silences at the ends included."""
        return int(self.lengths.sum())

    @property
    def bounds(self) -> np.ndarray:
        """(n + 1,) frame at which each symbol begins; the last is where the last symbol ends."""
        return np.cumsum(self.lengths)[:-1]

    @property
    def seconds(self) -> float:
        """Length of what is heard."""
        return (self.heard[1] - self.heard[0]) * FRAME / RATE / self.stretch

    def edit(self, **changes: Any) -> ProsodyPlan:
        """The plan with some of its fields changed.

        Raises:
            TextError: they do not fit together; the message says what to change.
        """
        changed = replace(self, **changes)
        changed.check()
        return changed

    def marks(self, base_ms: float = 0.0) -> list[Mark]:
        """Times of its words in what is heard, in ms after ``base_ms``."""
        bounds = (np.clip(self.bounds, *self.heard) - self.heard[0]) * (1000 * FRAME / RATE) / self.stretch
        last = len(self.symbols)
        return [
            Mark(
                word.written,
                round(base_ms + bounds[min(word.begin, last)]),
                round(base_ms + bounds[min(word.end, last)]),
            )
            for word in self.words
        ]

    def steps(self, per_symbol: np.ndarray) -> np.ndarray:
        """A number for every symbol ((n + 2,), the silences included), spread over its half frames."""
        return np.repeat(per_symbol, 2 * self.lengths)

    def check(self) -> None:
        """See ``edit``."""
        n = len(self.symbols)
        if len(self.lengths) != n + 2:
            raise TextError(
                f"lengths: {n} symbols and two silences want {n + 2} numbers, not {len(self.lengths)}"
            )
        if n == 0 or self.lengths.min() < 1:
            raise TextError("lengths: every symbol lasts at least one frame (25 ms)")
        if self.frames > MOST_FRAMES:
            raise TextError(f"lengths: {self.frames} frames of 25 ms; a plan holds at most {MOST_FRAMES}")
        for name, (low, high) in RANGES.items():
            curve = getattr(self, name)
            if curve.shape != (2 * self.frames,):
                raise TextError(
                    f"{name}: {self.frames} frames of 25 ms want {2 * self.frames} numbers, not {len(curve)}"
                )
            if not np.isfinite(curve).all() or curve.min() < low or curve.max() > high:
                raise TextError(f"{name}: numbers must lie between {low:g} and {high:g}")
        first, stop = self.heard
        if not 0 <= first < stop <= self.frames:
            raise TextError(f"heard: must be two frames in order, within 0 and {self.frames}")
        if not 0.25 <= self.stretch <= 4:  # nor nan
            raise TextError("stretch: must lie between 0.25 and 4")
        for frame, name in self.sounds:
            if name not in SOUNDS or not 0 <= frame <= self.frames:
                raise TextError(f"sounds: a frame within 0 and {self.frames}, and one of {', '.join(SOUNDS)}")
        at = 0
        for word in self.words:
            if not at <= word.begin <= word.end <= n:
                raise TextError(
                    f"words: {word.written!r} must lie after the word before it, within 0 and {n}"
                )
            at = word.begin

    def to_json(self) -> dict[str, Any]:
        """As plain data, exactly."""
        plain: dict[str, Any] = {"symbols": self.symbols, "lengths": self.lengths.tolist()}
        plain |= {name: [float(f"{x:.9g}") for x in getattr(self, name)] for name in RANGES}
        plain["words"] = [[word.written, word.begin, word.end] for word in self.words]
        plain["sounds"] = [list(sound) for sound in self.sounds]
        return plain | {"heard": list(self.heard), "stretch": self.stretch}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ProsodyPlan:
        """Raises ``TextError`` for what is no plan; the message says what to change."""
        if not isinstance(plain, Mapping):
            raise TextError("a plan is an object with symbols, lengths, pitch, …")
        names = {field.name for field in fields(ProsodyPlan)}
        if missing := sorted(names - set(plain)):
            raise TextError(f"the plan lacks {', '.join(missing)}")
        if others := sorted(set(plain) - names):
            raise TextError(f"a plan has no {', '.join(others)}")
        if not isinstance(plain["symbols"], str):
            raise TextError("symbols: must be a string of phonemes")
        numbers = "a list of numbers"
        plan = ProsodyPlan(
            symbols=plain["symbols"],
            lengths=_read(plain, "lengths", "a list of whole numbers of frames", _whole_numbers),
            words=_read(
                plain,
                "words",
                "a list of [word, its first symbol, one past its last]",
                lambda words: tuple(PlannedWord(str(w), int(b), int(e)) for w, b, e in words),
            ),
            heard=_read(plain, "heard", "two frames, [first, one past the last]", _pair),
            stretch=_read(plain, "stretch", "a number", float),
            sounds=_read(
                plain,
                "sounds",
                "a list of [frame, name]",
                lambda sounds: tuple((int(frame), str(name)) for frame, name in sounds),
            ),
            **{name: _read(plain, name, numbers, _curve) for name in RANGES},
        )
        plan.check()
        return plan


RANGES = {
    "pitch": (-100.0, 2000.0),
    "energy": (-40.0, 40.0),
    "gain": (-90.0, 24.0),
    "tilt": (-24.0, 24.0),
    "breath": (0.0, 1.0),
}
"""Lowest and highest number of every curve of a plan."""
SOUNDS = ("breath", "sigh")
"""What can be heard between words."""
MOST_FRAMES = 8000
"""Longest plan: 200 s."""


def _read(plain: Mapping[str, Any], name: str, form: str, read: Callable[[Any], T]) -> T:
    try:
        return read(plain[name])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise TextError(f"{name}: must be {form}") from error


def _whole_numbers(numbers: Any) -> np.ndarray:
    given = np.array(numbers, np.float64).reshape(-1)
    if not (np.abs(given) <= MOST_FRAMES * 1000).all() or (given != np.round(given)).any():
        raise ValueError(numbers)
    return given.astype(np.int64)


def _pair(numbers: Any) -> tuple[int, int]:
    first, stop = numbers
    return int(first), int(stop)


def _curve(numbers: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large is refused by its range
        return np.array(numbers, np.float32).reshape(-1)


def layout(phonemes: Sequence[str], vocabulary: dict[str, int]) -> tuple[str, list[tuple[int, int]]]:
    """Words in a row: the symbols that the model knows, and where each word's sounds begin and end in them.

    Signs and spaces after a word are not part of its span; spaces at the very end are left out. A word
    without sounds lies where it stands, at the end on the last symbol.
    """
    kept = ["".join(symbol for symbol in word if symbol in vocabulary) for word in phonemes]
    symbols = "".join(kept).rstrip()
    spans, at = [], 0
    for word in kept:
        begin = max(0, min(at, len(symbols) - 1))
        spans.append((begin, max(begin, min(at + len(word.rstrip(SILENT)), len(symbols)))))
        at += len(word)
    return symbols, spans


def runs(symbols: str, limit: int) -> Iterator[tuple[int, int]]:
    """Cut what is too long for one run: after a sign, or a word, or (if there is neither) anywhere."""
    begin = 0
    while len(symbols) - begin > limit:
        window = symbols[begin : begin + limit]
        cut = max(window.rfind(sign) for sign in PHRASE_ENDS) + 1 or window.rfind(" ") + 1 or limit
        yield begin, begin + cut
        begin += cut
    if begin < len(symbols):
        yield begin, len(symbols)


def whole_frames(lengths: np.ndarray) -> np.ndarray:
    """Lengths in whole frames, at least 1 each, whose running sum follows the exact one without drifting."""
    ends = [0]
    for exact in np.cumsum(lengths):
        ends.append(max(ends[-1] + 1, round(float(exact))))
    return np.diff(ends)


def sounding(energy: np.ndarray) -> tuple[int, int]:
    """First frame and past last of what is loud enough to be heard; of all frames where nothing is.

    Args:
        energy: (2 * frames,) what the model says of its loudness.
    """
    heard = np.flatnonzero(energy.reshape(-1, 2).max(axis=1) > _FAINT)
    return (int(heard[0]), int(heard[-1]) + 1) if len(heard) else (0, len(energy) // 2)


def audible(symbols: str, energy: np.ndarray, tempo: float = 1.0) -> tuple[int, int]:
    """Begin and end of the frames of a run that are worth hearing.

    Args:
        symbols: of the run; the sign at its end says how long to pause.
        energy: (2 * frames,) what the model says of its loudness.
        tempo: times as fast; who speaks faster also pauses less.
    """
    first, stop = sounding(energy)
    tail = _TAILS.get(symbols.rstrip(_NOT_SIGNS)[-1:], _TAIL)
    return max(0, first - round(LEAD / tempo)), min(len(energy) // 2, stop + round(tail / tempo))
