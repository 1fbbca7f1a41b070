"""From a score, or the lines of a rap, to audio: key, tempo, verses, accompaniment."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Mark
from stepaudio.core.errors import ScoreError
from stepaudio.tts import accompaniment, rap, sounds
from stepaudio.tts.accompaniment import Backing, Strike
from stepaudio.tts.base import ProsodyModel, Speech, Voice
from stepaudio.tts.performance import perform
from stepaudio.tts.prosody import RATE
from stepaudio.tts.scores import Score
from stepaudio.tts.scores.score import TEMPI, Part, name_of
from stepaudio.tts.singing import (
    BREATH_S,
    COMFORT,
    REACH,
    SECOND,
    Line,
    Phrase,
    Sung,
    Tone,
    fitting,
    hummed,
    joined,
    language_of,
    lines,
    phrase,
    spoken_pitch,
    sung,
    verse_of,
)

if TYPE_CHECKING:
    from stepaudio.tts.text import Pronouncer

Accompaniment = Literal["none", "click", "chords", "beat"]
SINGERS = {"en": "hibari", "zh": "zf_xiaoxiao"}
"""Who sings where nobody is asked for: Hibari's pitch is exact, and of seven Mandarin voices zf_xiaoxiao is
understood best (19 % of 42 characters wrong; zf_xiaobei 33 %)."""
_LEAD_S = 0.3
"""Silence before the first sound of a song that has no accompaniment."""
_APART = 20
"""Frames of rest between two lines from which on nothing is rendered."""
_TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}


@dataclass(frozen=True, slots=True)
class Wish:
    """How a score is to be sung; None: as the score says, and as suits the voice.

    Attributes:
        part: name or number of the part; None: the one with most words.
        verses: from 1; (): all.
        key: to be sung in, "G" or "Am"; of the ways to get there the one that suits the voice.
        transpose: semitones that the score is moved, as they are.
        tempo: quarter notes a minute at the beginning.
        hum: without words.
        language: "en" or "zh", of the words; None: by what is written.
        accompany: what sounds beside the voice.
    """

    part: str | None = None
    verses: tuple[int, ...] = ()
    key: str | None = None
    transpose: int | None = None
    tempo: float | None = None
    hum: bool = False
    language: str | None = None
    accompany: Accompaniment = "none"


@dataclass(frozen=True, slots=True)
class Song:
    """A score as it will be sung, whoever sings: lines in breaths, on one time line.

    Attributes:
        lines: of all verses, in order.
        language: of the words.
        verses: begin of each, seconds.
        faster: times as fast as written.
    """

    score: Score
    part: Part
    wish: Wish
    lines: tuple[Line, ...]
    language: str
    verses: tuple[float, ...]
    faster: float


def arrange(score: Score, wish: Wish) -> Song:
    """What is sung, and when.

    Raises:
        ScoreError: no words, no such part or verse, a tempo or language that cannot be sung.
    """
    part = score.part(wish.part)
    if not part.verses and not wish.hum:
        raise ScoreError("the score has no words: put syllables under its notes, or use --hum")
    faster = _faster(score, wish.tempo)
    numbers = wish.verses or tuple(range(1, max(1, part.verses) + 1))
    bar = max(score.bar, 1.0)
    length = math.ceil(part.notes[-1].end / bar - 1e-6) * bar
    length_s = score.seconds(length) / faster
    found: list[Line] = []
    lyrics, starts = [], []
    for place, number in enumerate(numbers):
        notes = verse_of(part, number)
        lyrics += [lyric for _, lyric in notes]
        starts.append(place * length_s)
        for line in lines(score, notes, faster=faster, words=bool(part.verses)):
            tones = tuple(Tone(t.begin + starts[-1], t.end + starts[-1], t.pitch) for t in line.tones)
            found.append(Line(tones, line.lyrics))
    language = wish.language or ("en" if wish.hum else language_of(lyrics))
    if language not in ("en", "zh"):
        raise ScoreError(f"no voice sings {language!r}; there are en and zh")
    return Song(score, part, wish, tuple(found), language, tuple(starts), faster)


def _faster(score: Score, tempo: float | None) -> float:
    if tempo is None:
        return 1.0
    if not (math.isfinite(tempo) and TEMPI[0] <= tempo <= TEMPI[1]):
        raise ScoreError(f"a tempo of {tempo:g} cannot be sung; take one from {TEMPI[0]:g} to {TEMPI[1]:g}")
    return tempo / score.tempi[0][1]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A song as one voice will sing it.

    Attributes:
        phrases: with their tones, as written.
        shift: semitones that they are moved.
        begin_s: time of the first sample on the song's time line.
    """

    phrases: tuple[Phrase, ...]
    shift: int
    begin_s: float


def prepare(song: Song, model: ProsodyModel, pronouncer: Pronouncer, voice: Voice) -> Prepared:
    """Sounds and key of a song.

    Raises:
        ScoreError: it cannot be sung by this voice in this key; the message says in which it can.
    """
    accent = voice.language if voice.language.startswith("en") else "en-US"
    if song.wish.hum:
        phrases = [hummed(line) for line in song.lines]
    else:
        phrases = [phrase(line, pronouncer, song.language, accent, model) for line in song.lines]
    shift = _shift(song, phrases, spoken_pitch(model, phrases, voice), voice)
    begin_s = 0.0 if song.wish.accompany != "none" else phrases[0].tones[0][0].begin - _LEAD_S
    return Prepared(tuple(phrases), shift, begin_s)


def sing(song: Song, model: ProsodyModel, pronouncer: Pronouncer, voice: Voice) -> Iterator[Speech]:
    """Sing a song, line by line; raises as ``prepare``."""
    prepared = prepare(song, model, pronouncer, voice)
    songs = (sung(model, one, voice, prepared.shift) for one in prepared.phrases)
    strikes = _strikes(song, prepared.shift)
    yield from _together(model, songs, voice, prepared.begin_s, strikes, song.wish.accompany)


def rap_lines(
    texts: Sequence[str],
    model: ProsodyModel,
    pronouncer: Pronouncer,
    voice: Voice,
    *,
    bpm: float = rap.BPM,
    language: str | None = None,
    beat: bool = False,
) -> Iterator[Speech]:
    """Rap lines of text; ``beat`` puts drums under it, with a bar before the first line.

    Raises:
        ScoreError: no words, a line that is too long, or a beat that nobody can rap to.
    """
    prepared, bars = prepare_rap(texts, model, pronouncer, voice, bpm=bpm, language=language, beat=beat)
    songs = (rap.rapped(model, line, voice) for line in prepared.phrases)
    strikes = accompaniment.beat(0.0, bars, bpm) if beat else []
    yield from _together(model, songs, voice, prepared.begin_s, strikes, "beat")


def prepare_rap(
    texts: Sequence[str],
    model: ProsodyModel,
    pronouncer: Pronouncer,
    voice: Voice,
    *,
    bpm: float = rap.BPM,
    language: str | None = None,
    beat: bool = False,
) -> tuple[Prepared, int]:
    """The lines of a rap on their bars, and how many bars there are; the rest as ``rap_lines``."""
    rap.check_bpm(bpm)
    accent = voice.language if voice.language.startswith("en") else "en-US"
    bar_s = rap.BAR * 15 / bpm
    bars, found = int(beat), list[Phrase]()
    for text in texts:
        words = pronouncer.pronounce(text, language, accent)
        if not words:
            continue
        line, taken = rap.line(model, words, voice, bpm, bars * bar_s)
        found.append(line)
        bars += taken
    if not found:
        raise ScoreError("there are no words to rap; write a line for each bar")
    begin_s = 0.0 if beat else found[0].tones[0][0].begin - _LEAD_S
    return Prepared(tuple(found), 0, begin_s), bars


# --- key -----------------------------------------------------------------------------------------------


def _shift(song: Song, phrases: Sequence[Phrase], spoken: float, voice: Voice) -> int:
    """Semitones that the song is moved."""
    tones = [tone for one in phrases for own in one.tones for tone in own]
    best = fitting(tones, spoken, COMFORT[voice.engine])
    if song.wish.transpose is not None:
        shift = song.wish.transpose
    elif song.wish.key is not None:
        notes = [(float(note.pitch), note.beats) for note in song.part.notes]
        tonic, _ = accompaniment.key_of(notes, song.score.fifths)
        up = (tonic_of(song.wish.key) - tonic - best) % 12
        shift = best + (up if up <= 6 else up - 12)
    else:
        return best
    low, high = min(tone.pitch for tone in tones) + shift, max(tone.pitch for tone in tones) + shift
    if low < spoken + REACH[0] or high > spoken + REACH[1]:
        reach = [name_of(math.ceil(spoken + REACH[0])), name_of(math.floor(spoken + REACH[1]))]
        raise ScoreError(
            f"the song would go from {name_of(round(low))} to {name_of(round(high))}; {voice.id} sings from "
            f"{reach[0]} to {reach[1]}. Take --transpose {best}, or another voice"
        )
    return shift


def tonic_of(key: str) -> int:
    """Pitch class of a key such as "G", "Bb", "F# minor" or "am"; raises ``ScoreError`` for anything else."""
    found = re.fullmatch(r"\s*([A-Ha-h])([#b♯♭]?)\s*(m|min|minor|maj|major|-?moll|-?dur)?\s*", key)
    if found is None:
        raise ScoreError(f"no key is called {key!r}; write it as G, Bb, F# or Am")
    return (_TONICS[found[1].lower()] + {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}[found[2]]) % 12


# --- accompaniment -------------------------------------------------------------------------------------


def _strikes(song: Song, shift: int) -> list[Strike]:
    score, bar = song.score, max(song.score.bar, 1.0)
    length = math.ceil(song.part.notes[-1].end / bar - 1e-6) * bar
    first = score.pickup - bar if score.pickup else 0.0  # the downbeat before an upbeat
    strikes: list[Strike] = []

    def time(beat: float) -> float:
        return score.seconds(max(beat, 0.0)) / song.faster

    if song.wish.accompany == "click":
        for start in song.verses:
            step = 1.5 if bar in (3.0, 4.5, 6.0) and _compound(song) else 1.0
            beats = np.arange(first, length, step)
            strikes += accompaniment.clicks(
                (start + time(beat), bool((beat - first) % bar < 1e-6)) for beat in beats if beat >= 0
            )
    elif song.wish.accompany == "chords":
        begins = np.arange(first, length, bar)
        inside = [_sounding(song.part, begin, begin + bar) for begin in begins]
        notes = [(float(note.pitch), note.beats) for note in song.part.notes]
        tonic, minor = accompaniment.key_of(notes, score.fifths)
        found = accompaniment.harmony(inside, tonic, minor)
        for start in song.verses:
            placed = []
            for begin, chord in zip(begins, found, strict=True):
                if chord is not None and begin + bar > 0:
                    seconds = time(begin + bar) - time(begin)
                    placed.append((start + time(begin), seconds, ((chord[0] + shift) % 12, chord[1])))
            strikes += accompaniment.chords(placed)
    elif song.wish.accompany == "beat":
        bpm = score.tempi[0][1] * song.faster
        bars = round(time(length) * len(song.verses) * bpm / 240)
        strikes += accompaniment.beat(0.0, max(1, bars), bpm)
    return strikes


def _compound(song: Song) -> bool:
    """Whether the time is 6/8 or 9/8: most notes are halves and thirds of a dotted quarter."""
    return song.score.bar != 3.0 and sum((note.beats * 2) % 3 == 0 for note in song.part.notes) * 3 > len(
        song.part.notes
    )


def _sounding(part: Part, begin: float, end: float) -> list[tuple[float, float]]:
    return [
        (float(note.pitch), min(note.end, end) - max(note.begin, begin))
        for note in part.notes
        if note.begin < end and note.end > begin
    ]


# --- together ------------------------------------------------------------------------------------------


def _together(
    model: ProsodyModel,
    songs: Iterator[Sung] | Sequence[Sung],
    voice: Voice,
    begin_s: float,
    strikes: Sequence[Strike],
    kind: str,
) -> Iterator[Speech]:
    """Lines in their places on one time line, breaths between them, and the accompaniment."""
    backing = Backing(strikes, kind, begin_s) if strikes else None
    done = 0  # samples
    for group in _groups(songs):
        silence = round((group[0].begin_s - begin_s) * RATE) - done
        if silence > 0:
            rest = _with_breath(np.zeros(silence, np.float32))
            yield Speech(AudioChunk(backing.add_to(rest) if backing else rest, RATE, done))
            done += silence
        base = done
        for piece in perform(model, joined(group), voice):
            samples = piece.audio.samples
            marks = tuple(
                Mark(m.text, m.start_ms + 1000 * base // RATE, m.end_ms + 1000 * base // RATE)
                for m in piece.marks
            )
            yield Speech(AudioChunk(backing.add_to(samples) if backing else samples, RATE, done), marks)
            done += len(samples)
    if backing:
        rest = backing.rest()
        if len(rest):
            yield Speech(AudioChunk(rest, RATE, done))


def _groups(songs: Iterator[Sung] | Sequence[Sung]) -> Iterator[list[Sung]]:
    """Lines that follow each other without a long rest."""
    group: list[Sung] = []
    for song in songs:
        if group:
            end_s = group[-1].begin_s + group[-1].plan.seconds
            rest = (song.begin_s - end_s) * SECOND
            if rest > _APART or (len(group) > 20 and rest > 2):
                yield group
                group = []
        group.append(song)
    if group:
        yield group


def _with_breath(silence: np.ndarray) -> np.ndarray:
    """A rest, with a breath at its end where there is time for one."""
    breath = sounds.sound("breath")
    gap = round(0.05 * RATE)
    if len(silence) > len(breath) + gap + round(BREATH_S * RATE):
        silence[-len(breath) - gap : -gap] += breath
    return silence
