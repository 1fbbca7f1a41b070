"""Tunes for words that come without one: songs that everybody knows, and for all others one made by rule.

The songs are in the public domain, words and melody. A tune made by rule has what simple tunes have: stressed
syllables on beats and on notes of the chord, steps between, an arch over every phrase, a half close in the
middle and the tonic at the end. It is the same for the same words.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from stepaudio.core.clauses import is_han
from stepaudio.tts.scores.score import pitch_of

TEMPO = 104.0
"""Quarter notes a minute of a tune made by rule."""


@dataclass(frozen=True, slots=True)
class TuneNote:
    """A note under a syllable (or, ``held``, under the one before). Times in beats from the phrase's first
    downbeat; ``pitch`` is a MIDI number."""

    begin: float
    beats: float
    pitch: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A phrase of a known song.

    Attributes:
        words: in small letters, without signs; "*" at the end stands for any name.
        notes: with the name's, if there is one, last.
        tempo: quarter notes a minute.
        beats: that the phrase takes, rest included.
    """

    words: str
    notes: tuple[TuneNote, ...]
    tempo: float
    beats: float


def _known(tempo: float, *phrases: str) -> tuple[Known, ...]:
    """A song from lines "words | note beats note beats …"; "~" before a note holds the syllable."""
    song = []
    for phrase in phrases:
        words, _, tune = phrase.partition("|")
        fields, at, notes = tune.split(), 0.0, []
        for name, beats in zip(fields[::2], fields[1::2], strict=True):
            pitch = pitch_of(name.lstrip("~"))
            if pitch is not None:
                notes.append(TuneNote(at, float(beats), pitch, name.startswith("~")))
            at += float(beats)
        song.append(Known(" ".join(words.split()), tuple(notes), tempo, at))
    return tuple(song)


_STAR = (
    "C4 1 C4 1 G4 1 G4 1 A4 1 A4 1 G4 2",
    "F4 1 F4 1 E4 1 E4 1 D4 1 D4 1 C4 2",
    "G4 1 G4 1 F4 1 F4 1 E4 1 E4 1 D4 2",
)
SONGS: dict[str, tuple[Known, ...]] = {
    "happy birthday": _known(
        100,
        "happy birthday to you | C4 .75 C4 .25 D4 1 C4 1 F4 1 E4 2",
        "happy birthday to you | C4 .75 C4 .25 D4 1 C4 1 G4 1 F4 2",
        "happy birthday dear * | C4 .75 C4 .25 C5 1 A4 1 F4 1 E4 1 D4 2",
        "happy birthday to you | Bb4 .75 Bb4 .25 A4 1 F4 1 G4 1 F4 3",
    ),
    "twinkle": _known(
        100,
        f"twinkle twinkle little star | {_STAR[0]}",
        f"how i wonder what you are | {_STAR[1]}",
        f"up above the world so high | {_STAR[2]}",
        f"like a diamond in the sky | {_STAR[2]}",
        f"twinkle twinkle little star | {_STAR[0]}",
        f"how i wonder what you are | {_STAR[1]}",
    ),
    "mary": _known(
        110,
        "mary had a little lamb | E4 1 D4 1 C4 1 D4 1 E4 1 E4 1 E4 2",
        "little lamb little lamb | D4 1 D4 1 D4 2 E4 1 G4 1 G4 2",
        "mary had a little lamb | E4 1 D4 1 C4 1 D4 1 E4 1 E4 1 E4 2",
        "its fleece was white as snow | E4 1 D4 1 D4 1 E4 1 D4 1 C4 3",
    ),
    "london bridge": _known(
        110,
        "london bridge is falling down | G4 1.5 A4 .5 G4 1 F4 1 E4 1 F4 1 G4 2",
        "falling down falling down | D4 1 E4 1 F4 2 E4 1 F4 1 G4 2",
        "london bridge is falling down | G4 1.5 A4 .5 G4 1 F4 1 E4 1 F4 1 G4 2",
        "my fair lady | D4 2 G4 2 E4 1 C4 3",
    ),
    "row your boat": _known(
        100,
        "row row row your boat | C4 1.5 C4 1.5 C4 1 D4 .5 E4 1.5",
        "gently down the stream | E4 1 D4 .5 E4 1 F4 .5 G4 3",
        "merrily merrily merrily merrily | "
        "C5 .5 C5 .5 C5 .5 G4 .5 G4 .5 G4 .5 E4 .5 E4 .5 E4 .5 C4 .5 C4 .5 C4 .5",
        "life is but a dream | G4 1 F4 .5 E4 1 D4 .5 C4 3",
    ),
    "jingle bells": _known(
        126,
        "jingle bells jingle bells | E4 1 E4 1 E4 2 E4 1 E4 1 E4 2",
        "jingle all the way | E4 1 G4 1 C4 1.5 D4 .5 E4 4",
        "oh what fun it is to ride | F4 1 F4 1 F4 1.5 F4 .5 F4 1 E4 1 E4 1",
        "in a one horse open sleigh | E4 .5 E4 .5 G4 1 G4 1 F4 1 D4 1 C4 4",
    ),
    "两只老虎": _known(
        110,
        "两只老虎 | C4 1 D4 1 E4 1 C4 1",
        "两只老虎 | C4 1 D4 1 E4 1 C4 1",
        "跑得快 | E4 1 F4 1 G4 2",
        "跑得快 | E4 1 F4 1 G4 2",
        "一只没有耳朵 | G4 .75 A4 .25 G4 .75 F4 .25 E4 1 C4 1",
        "一只没有尾巴 | G4 .75 A4 .25 G4 .75 F4 .25 E4 1 C4 1",
        "真奇怪 | C4 1 G3 1 C4 2",
        "真奇怪 | C4 1 G3 1 C4 2",
    ),
    "小星星": _known(
        100,
        f"一闪一闪亮晶晶 | {_STAR[0]}",
        f"满天都是小星星 | {_STAR[1]}",
        f"挂在天上放光明 | {_STAR[2]}",
        f"好像许多小眼睛 | {_STAR[2]}",
    ),
    "生日快乐": _known(
        100,
        "祝你生日快乐 | C4 .75 C4 .25 D4 1 C4 1 F4 1 E4 2",
        "祝你生日快乐 | C4 .75 C4 .25 D4 1 C4 1 G4 1 F4 2",
        "祝你生日快乐 | C4 .75 C4 .25 C5 1 A4 1 F4 1 E4 1 ~D4 2",
        "祝你生日快乐 | Bb4 .75 Bb4 .25 A4 1 F4 1 G4 1 F4 3",
    ),
}


def bare(text: str) -> str:
    """Words in small letters without signs; Chinese without spaces."""
    text = re.sub(r"[^\w' ]+", " ", text.casefold()).replace("'", "")
    text = " ".join(text.split())
    return text.replace(" ", "") if sum(map(is_han, text)) * 2 > len(text) else text


def known(text: str) -> list[tuple[str, Known]] | None:
    """A text as phrases of a known song, each with the part of the bare text that it takes; None: it is none.

    Phrases follow each other as in the song. Where a text begins in the middle of one, and the same words
    stand in several places, the last place in which they all fit is taken; at the beginning, the first.
    """
    wanted = bare(text)
    for song in SONGS.values():
        for begin in range(len(song)):
            found = _following(wanted, song[begin:])
            if found:
                return found
    return None


def _following(text: str, phrases: Sequence[Known]) -> list[tuple[str, Known]] | None:
    found = []
    for phrase in phrases:
        if not text:
            break
        stem = phrase.words.removesuffix("*").rstrip()
        if not re.match(re.escape(stem) + (r"(?!\w)" if not is_han(stem[-1]) else ""), text):
            return None
        rest = text[len(stem) :].lstrip()
        taken = stem
        if phrase.words.endswith("*"):  # a name: up to where the song goes on
            name = re.match(r"(.{1,40}?)(?= happy |$)", rest)
            if not name:
                return None
            taken, rest = f"{stem} {name[1]}", rest[name.end() :].lstrip()
        found.append((taken, phrase))
        text = rest
    return found if found and not text else None


def for_name(phrase: Known, syllables: int) -> tuple[TuneNote, ...]:
    """The notes of a phrase for as many syllables; those of a name share the last two notes.

    Too few syllables hold their last one; too many divide the note before the last.
    """
    singing = [note for note in phrase.notes if not note.held]
    if syllables == len(singing):
        return phrase.notes
    if syllables < len(singing):
        kept = list(singing[:syllables])
        held = [TuneNote(n.begin, n.beats, n.pitch, True) for n in singing[syllables:]]
        return (*kept, *held)
    divided = singing[-2] if len(singing) > 1 else singing[-1]
    count = syllables - len(singing) + 1
    each = divided.beats / count
    parts = [TuneNote(divided.begin + i * each, each, divided.pitch) for i in range(count)]
    place = singing.index(divided)
    return (*singing[:place], *parts, *singing[place + 1 :])


# --- by rule ------------------------------------------------------------------------------------------------

_SCALES = {False: (0, 2, 4, 5, 7, 9, 11), True: (0, 2, 3, 5, 7, 8, 10)}
_CHORDS = ((0, 2, 4), (3, 5, 7), (4, 6, 8), (5, 7, 9))  # steps of the scale: I, IV, V, VI
_PROGRESSIONS = ((0, 1, 2, 0), (0, 3, 1, 2), (0, 2, 3, 1), (0, 1, 0, 2))
_ARCHES = (  # height in steps along a phrase: its beginning, middle, end
    (0.0, 4.0, 1.0),
    (2.0, 5.0, 0.0),
    (4.0, 2.0, 1.0),
    (0.0, 3.0, 4.0),
)


def composed(phrases: Sequence[Sequence[int]], seed: str, *, minor: bool = False) -> list[list[TuneNote]]:
    """A tune for phrases of syllables, one list of notes each, in C from C4 on.

    Args:
        phrases: the stress (2, 1, 0) of every syllable.
        seed: what decides between ways that are as good: the words.
        minor: for sad words.
    """
    number = zlib.crc32(seed.encode())
    progression = _PROGRESSIONS[number % len(_PROGRESSIONS)]
    tune = []
    for index, stresses in enumerate(phrases):
        last = index == len(phrases) - 1
        arch = _ARCHES[(number >> 4 * (index % 4 + 1)) % len(_ARCHES)]
        times = _rhythm(stresses)
        tune.append(_melody(stresses, times, arch, progression, _SCALES[minor], home=last))
    return tune


def _rhythm(stresses: Sequence[int]) -> list[tuple[float, float]]:
    """Begin and length of the notes, in beats: stressed ones on beats, the last one long, to a bar's end."""
    times: list[tuple[float, float]] = []
    at = 0.0
    if stresses and not stresses[0]:
        lead = next((i for i, stress in enumerate(stresses) if stress), 0)
        at = -0.5 * lead if lead <= 2 else 0.0  # an upbeat
    for i, stress in enumerate(stresses):
        if stress == 2 and at % 1 and times:  # wait for the beat
            begin, length = times[-1]
            times[-1] = begin, length + 1 - at % 1
            at = begin + length + 1 - at % 1
        following = stresses[i + 1] if i + 1 < len(stresses) else None
        length = 1.0 if stress == 2 and following != 0 else 0.5
        times.append((at, length))
        at += length
    begin, length = times[-1]
    end = max(begin + 1.0, 4 * -(-(begin + 1.5) // 4) - 1.0)  # a beat to breathe in
    times[-1] = begin, min(end - begin, 3.0)
    return times


def _melody(
    stresses: Sequence[int],
    times: Sequence[tuple[float, float]],
    arch: tuple[float, float, float],
    progression: Sequence[int],
    scale: Sequence[int],
    *,
    home: bool,
) -> list[TuneNote]:
    notes: list[TuneNote] = []
    begin, end = times[0][0], times[-1][0]
    before: int | None = None
    for i, (at, length) in enumerate(times):
        place = (at - begin) / max(end - begin, 1e-6)
        low, mid, high = arch
        wish = low + (mid - low) * 2 * place if place < 0.5 else mid + (high - mid) * (2 * place - 1)
        chord = _CHORDS[progression[int(max(at, 0) // 4) % len(progression)]]
        options: list[int] = list(range(-2, 8))
        if i == len(times) - 1:
            options = [0, 7] if home else [1, 4]  # the tonic, or a half close
        elif stresses[i] == 2 or at % 2 == 0:
            options = [step for step in options if step % 7 in {tone % 7 for tone in chord}]
        step = min(
            options,
            key=lambda step: (step - wish) ** 2 + (0.6 * (step - before) ** 2 if before is not None else 0),
        )
        before = step
        notes.append(TuneNote(at, length, 60 + 12 * (step // 7) + scale[step % 7]))
    return notes
