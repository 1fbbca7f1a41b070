"""Singing: a score becomes prosody plans, one for every breath.

What makes it singing: the vowel begins on the beat, and the consonants before it take their time from the
note before (Sundberg 1987, chapter 6, finds singers doing so); a syllable's length goes into its vowel; the
pitch is the score's, with glides of 50 ms between notes and a vibrato that sets in late on long ones. All the
rest, the sound of the vowels and the timbre, is the voice's own.

Pure: no audio is touched here. ``lines`` cuts a part into breaths, ``phrase`` finds the sounds for the words
of one, ``place`` gives them their times, ``sung`` draws the plan. ``rap`` shares the first three.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.core.clauses import is_han
from stepaudio.core.errors import ScoreError
from stepaudio.tts import holding
from stepaudio.tts.base import ProsodyModel, Voice
from stepaudio.tts.prosody import (
    FRAME,
    MOST_FRAMES,
    RANGES,
    RATE,
    SILENT,
    VOICED_HZ,
    PlannedWord,
    ProsodyPlan,
    layout,
)
from stepaudio.tts.scores.score import Lyric, Note, Part, Score, name_of
from stepaudio.tts.syllables import STRESS, TONES, UNVOICED, VOWELS, Syllable, shared_out, syllables

if TYPE_CHECKING:
    from stepaudio.tts.text import Pronouncer, SpokenWord

SECOND = RATE / FRAME
"""Frames of a second."""
LEADS_S = {"kokoro": 0.012, "hibari": 0.042}
"""How much earlier than its frames a voice sounds (bias of vowel onsets, `bench voice --only singing`)."""
MUTED = frozenset({"kokoro"})
"""Engines that must be told which sounds have no voice. Hibari's spectra leave it out by themselves, and a
vowel begins some 40 ms before its frames: muted up to those it lost its beginning, by which the consonant
before it is known. Heard in full, words wrong fell from 18.1 to 15.8 % (ten songs), and from 11.1 to 9.3 %
(388 words of 16 other verses)."""
LEAD_FRAMES = 8
"""Silence before the first sound, in which a network finds its voice; two frames of it are heard."""
TAIL_FRAMES = 8
CONSONANT = (1, 6)
"""Shortest and longest consonant, frames."""
CLEAR = {"kokoro": 1.0, "hibari": 1.5}
"""Times its length in speech that a consonant lasts. Of 197 words of three songs, 25 % were misheard of
Hibari at 1, 15 % at 1.5; of Kokoro (42 characters) 33 % at 1, 40 % at 1.5."""
GLIDE_S = 0.05
VIBRATO_HZ, VIBRATO_CENTS = 5.5, 30.0
VIBRATO_FROM_S, VIBRATO_AFTER_S, VIBRATO_RAMP_S = 0.5, 0.25, 0.2
"""Vibrato only on notes this long, this long after their beginning, growing this long."""
BREATH_S = 0.22
"""Time for breath between two lines, taken from the end of the first one."""
LONGEST_LINE_S = 9.0
REST_S = 0.25
"""A rest this long ends a line."""
REACH = (-11, 13)
"""Lowest and highest note, semitones from the pitch at which the voice speaks; beyond, it creaks or breaks
(VOICE: override)."""
COMFORT = {"kokoro": 0.0, "hibari": 1.0}
"""Where the middle of a song should lie, semitones from the pitch at which the voice speaks."""


@dataclass(frozen=True, slots=True)
class Tone:
    """A stretch of one pitch on the time line of the song, in seconds; ``pitch`` is a MIDI number."""

    begin: float
    end: float
    pitch: float


@dataclass(frozen=True, slots=True)
class Line:
    """What is sung in one breath: tones, each with the syllable that begins on it."""

    tones: tuple[Tone, ...]
    lyrics: tuple[Lyric | None, ...]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A line whose sounds are known.

    Attributes:
        symbols: phonemes and signs.
        words: as written, with their symbols.
        syllables: in order.
        tones: of every syllable, at least one; several are a melisma.
    """

    symbols: str
    words: tuple[PlannedWord, ...]
    syllables: tuple[Syllable, ...]
    tones: tuple[tuple[Tone, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sung:
    """A plan on the time line of the song: what is heard of it begins at ``begin_s``."""

    plan: ProsodyPlan
    begin_s: float


# --- breaths ------------------------------------------------------------------------------------------------


def verse_of(part: Part, verse: int) -> list[tuple[Note, Lyric | None]]:
    """The notes of a part with the words of one verse, from 1.

    A refrain has words in the first verse only: where four notes and more of a verse have none, it is sung.

    Raises:
        ScoreError: there is no such verse.
    """
    if not 1 <= verse <= max(1, part.verses):
        have = f"it has {part.verses}" if part.verses else "it has no words"
        raise ScoreError(f"the score has no verse {verse}; {have}")
    own = [note.lyrics[verse - 1] if len(note.lyrics) >= verse else None for note in part.notes]
    first = [note.lyrics[0] if note.lyrics else None for note in part.notes]
    begin = 0
    while begin < len(own):
        end = begin
        while end < len(own) and own[end] is None:
            end += 1
        if verse > 1 and sum(lyric is not None for lyric in first[begin:end]) >= 4:
            own[begin:end] = first[begin:end]
        begin = end + 1
    return list(zip(part.notes, own, strict=True))


def lines(
    score: Score, notes: Sequence[tuple[Note, Lyric | None]], *, faster: float = 1.0, words: bool = True
) -> list[Line]:
    """Cut what is sung into breaths: at rests, at the ends of sentences, else where a long note ends a word.

    Args:
        faster: times as fast as the score says.
        words: leave out what is before the first syllable, and let lines begin with one.
    """
    timed = [
        (Tone(score.seconds(n.begin) / faster, score.seconds(n.end) / faster, n.pitch), lyric)
        for n, lyric in notes
    ]
    found: list[Line] = []
    line: list[tuple[Tone, Lyric | None]] = []
    for i, (tone, lyric) in enumerate(timed):
        if words and lyric is None and not line:
            continue  # an instrument's notes before or between the words
        line.append((tone, lyric))
        following = timed[i + 1] if i + 1 < len(timed) else None
        if following is None or _ends(line, following, words):
            tones = [t for t, _ in line]
            rest = following[0].begin - tones[-1].end if following else math.inf
            if rest < BREATH_S and following:
                last = tones[-1]
                breath = min(BREATH_S - rest, 0.35 * (last.end - last.begin))
                tones[-1] = Tone(last.begin, last.end - breath, last.pitch)
            found.append(Line(tuple(tones), tuple(lyric for _, lyric in line)))
            line = []
    return found


def _ends(
    line: Sequence[tuple[Tone, Lyric | None]], following: tuple[Tone, Lyric | None], words: bool
) -> bool:
    """Whether a breath is taken after ``line``, before the note that follows."""
    tone = line[-1][0]
    said = next((lyric for _, lyric in reversed(line) if lyric), None)
    if words and (following[1] is None or (said and said.joins)):
        return following[0].begin - tone.end > 2.0  # never within a word, but for a rest of two seconds
    lasted, note = tone.end - line[0][0].begin, tone.end - tone.begin
    if following[0].begin - tone.end >= REST_S:
        return True
    sign = said.text[-1:] if said else ""
    if sign and sign in ".!?;:。！？；：" and lasted >= 2 and note >= 0.4:
        return True
    if sign and sign in ",，、" and lasted >= 3 and note >= 0.5:
        return True
    return (lasted >= 5 and note >= 0.9) or (lasted >= LONGEST_LINE_S and note >= 0.35) or lasted >= 14


# --- sounds -------------------------------------------------------------------------------------------------


def language_of(lyrics: Iterable[Lyric | None]) -> str:
    """ "zh" or "en": what the words are written in.

    Raises:
        ScoreError: neither, as far as their letters and small words tell.
    """
    words, word = [], ""
    for lyric in lyrics:
        if lyric:
            word += lyric.text
            if not lyric.joins:
                words.append(word)
                word = ""
    text = " ".join(words).lower()
    han, letters = sum(map(is_han, text)), sum(char.isalpha() for char in text)
    if han * 2 > letters:
        return "zh"
    other = re.search(r"[\u0370-\u1eff\u3040-\u30ff\uac00-\ud7af]", text)
    plain = set(re.findall(r"[a-zäöüßéèêàçñ']+", text))
    counts = {name: len(plain & set(few.split())) for name, few in _SMALL_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    if other or (best != "English" and counts[best] >= 3 and counts[best] > counts["English"]):
        name = "another language" if other else best
        raise ScoreError(
            f"the words look like {name}; the voices sing English and Mandarin. --language en sings them "
            "with English sounds, --hum without words"
        )
    return "en"


_SMALL_WORDS = {
    "English": "the and of to in is my you i that it with for be was his her thou thy me not are on a",
    "German": "der die das und ich nicht ist mein ein eine du mit den dem auf zu sich wie es so im von",
    "French": "le la les et de des je ne pas est mon ma une un que qui dans vous tu en il sur au du",
    "Italian": "il la che di non e mi un una per del con ti mio mia io tu si al è in nel",
    "Spanish": "el la los que de no y mi un una por con del te yo tu se es en lo al",
    "Latin": "et in est non qui ad cum deus dominus nobis te tu sanctus gloria pater domine ave",
}


def phrase(line: Line, pronouncer: Pronouncer, language: str, accent: str, model: ProsodyModel) -> Phrase:
    """Find the sounds for a line's words, and which tones each syllable is sung on.

    Raises:
        ScoreError: nothing in it can be pronounced.
    """
    text, pieces = _text(line.lyrics, language)
    words = pronouncer.pronounce(text, language, accent)
    symbols, places = symbols_of(words, model.vocabulary)
    spoken = syllables(symbols, places, [word.language for word in words])
    if not spoken:
        raise ScoreError("a line of the song has no words that can be sung; write some, or use --hum")
    owners = _owners(words, text, pieces)
    starts: list[int] = []  # the tone that each spoken syllable begins on
    for group_words, group_pieces in owners:
        inside = [s for s in spoken if s.word in group_words]
        shared = shared_out(len(inside), [text[pieces[p][1] : pieces[p][2]] for p in group_pieces])
        starts += [pieces[group_pieces[p]][0] for p in shared]
    tones = _tones(line.tones, starts)
    planned = tuple(PlannedWord(word.written, *place) for word, place in zip(words, places, strict=True))
    return Phrase(symbols, planned, tuple(spoken), tones)


def _text(lyrics: Sequence[Lyric | None], language: str) -> tuple[str, list[tuple[int, int, int]]]:
    """The words of a line as text; and of each written piece its note, begin and end in the text."""
    text, pieces, joined = "", [], True
    for note, lyric in enumerate(lyrics):
        if lyric is None:
            continue
        for part in lyric.text.split(" "):
            apart = not joined and not (language == "zh" and text and is_han(text[-1]))
            text += " " if apart and text else ""
            pieces.append((note, len(text), len(text) + len(part)))
            text += part
            joined = False
        joined = lyric.joins
    for old, new in _SPELLINGS:  # same length: the places hold
        text = re.sub(old, new, text, flags=re.IGNORECASE)
    return text, pieces


_SPELLINGS = (
    (r"(?<=\w)['’]st\b", "st "),  # would'st
    (r"(?<=[bcdfghjklmnpqrstvwxyz]{2})['’]d\b", "ed"),  # wreck'd, but not he'd
    (r"(?<=[a-z]{2}[svzkp])['’]d\b", "ed"),
)
"""Contractions of verse that no dictionary has."""


def symbols_of(words: Sequence[SpokenWord], vocabulary: dict[str, int]) -> tuple[str, list[tuple[int, int]]]:
    """Phonemes in a row. Signs within a line would make pauses in the middle of the tune."""
    bare = [word.phonemes.rstrip(SILENT) for word in words]
    apart = [
        sounds + (" " if word.phonemes.endswith(" ") else "")
        for sounds, word in zip(bare, words, strict=True)
    ]
    symbols, places = layout(apart, vocabulary)
    return symbols + ".", places


def _owners(
    words: Sequence[SpokenWord], text: str, pieces: Sequence[tuple[int, int, int]]
) -> list[tuple[set[int], list[int]]]:
    """Spoken words and written pieces that belong together: mostly a word and its syllables."""
    spans, at = [], 0
    for word in words:
        begin = text.find(word.written, at)
        begin = at if begin < 0 else begin
        spans.append((begin, begin + len(word.written)))
        at = spans[-1][1]
    groups: list[tuple[set[int], list[int], int, int]] = []
    for i, (begin, end) in enumerate(spans):
        own = [p for p, (_, first, last) in enumerate(pieces) if first < end and last > begin]
        if groups and own and set(own) & set(groups[-1][1]):
            before = groups[-1]
            groups[-1] = (before[0] | {i}, sorted({*before[1], *own}), before[2], end)
        elif own:
            groups.append(({i}, own, begin, end))
        elif groups:
            groups[-1][0].add(i)
    return [(inside, own) for inside, own, _, _ in groups]


def _tones(tones: Sequence[Tone], starts: Sequence[int]) -> tuple[tuple[Tone, ...], ...]:
    """The tones of every syllable. Syllables on one tone share it: the first long, the others short."""
    found: list[tuple[Tone, ...]] = []
    for i, start in enumerate(starts):
        same = [j for j, other in enumerate(starts) if other == start]
        following = next((other for other in starts if other > start), len(tones))
        tone = tones[start]
        own = list(tones[start:following])
        if len(same) > 1:
            # The last of them carries a melisma on; those before stay on the first tone.
            length = tone.end - tone.begin
            each = min(0.18, length / len(same))
            place = same.index(i)
            first = tone.begin if place == 0 else tone.end - each * (len(same) - place)
            last = tone.end if place == len(same) - 1 else tone.end - each * (len(same) - place - 1)
            own = [Tone(first, last, tone.pitch)] + (own[1:] if place == len(same) - 1 else [])
        found.append(tuple(own))
    return tuple(found)


def hummed(line: Line) -> Phrase:
    """A line without words: every note an m, those of a melisma on one."""
    starts = [i for i, lyric in enumerate(line.lyrics) if lyric is not None or i == 0]
    if not any(line.lyrics):
        starts = list(range(len(line.tones)))
    spoken = tuple(Syllable(i, i, i + 1, i + 1, i, 0) for i in range(len(starts)))
    return Phrase("m" * len(starts), (), spoken, _tones(line.tones, starts))


# --- key ----------------------------------------------------------------------------------------------------


def spoken_pitch(model: ProsodyModel, phrases: Sequence[Phrase], voice: Voice) -> float:
    """The pitch at which a voice would say the words, as a MIDI number with parts: the median."""
    found = []
    for phrase in phrases[:4]:
        draft = model.draft(phrase.symbols, voice)
        pitch, _ = draft.contours(np.maximum(1, np.round(draft.lengths)).astype(np.int64))
        found.append(pitch[pitch > VOICED_HZ])
    hz = float(np.median(np.concatenate(found))) if any(map(len, found)) else 150.0
    return 69 + 12 * math.log2(hz / 440)


def fitting(tones: Sequence[Tone], spoken: float, comfort: float) -> int:
    """Semitones to move a song so that its middle lies where the voice is at ease, and all of it in reach.

    Raises:
        ScoreError: it spans more than the voice does.
    """
    low, high = min(tone.pitch for tone in tones), max(tone.pitch for tone in tones)
    reach = REACH[1] - REACH[0]
    if high - low > reach:
        raise ScoreError(
            f"the song spans {high - low:.0f} semitones ({name_of(round(low))} to {name_of(round(high))}); a "
            f"voice sings {reach}. Move the notes that lie far off by an octave"
        )
    lengths = np.array([tone.end - tone.begin for tone in tones])
    middle = float(np.average([tone.pitch for tone in tones], weights=lengths))
    shift = round(spoken + comfort - middle)
    return math.floor(min(max(shift, spoken + REACH[0] - low), spoken + REACH[1] - high))


# --- times --------------------------------------------------------------------------------------------------


def place(
    phrase: Phrase,
    natural: np.ndarray,
    lead_s: float,
    consonant: tuple[float, float] = CONSONANT,
    clear: float = 1.0,
) -> tuple[np.ndarray, float]:
    """Give every symbol its frames.

    Args:
        phrase: what is sung.
        natural: (n + 2,) frames that the voice would give them in speech.
        lead_s: how much earlier than its frames the voice sounds.
        consonant: shortest and longest, frames.
        clear: times its length in speech that a consonant lasts.

    Returns:
        (n + 2,) whole frames, and the time of the first frame on the song's time line, in seconds.
    """
    symbols, found = phrase.symbols, phrase.syllables
    own = np.clip(natural[1:-1] * clear, *consonant)
    own[[symbol in SILENT for symbol in symbols]] = 1
    first = found[0]
    before = own[: first.peak].sum() if first.peak else 0.0
    begin = phrase.tones[0][0].begin - (before + LEAD_FRAMES) / SECOND
    zero = lead_s + math.floor(begin * SECOND) / SECOND  # all lines lie on one grid of frames
    bounds = np.zeros(len(symbols) + 1)  # exact, in frames from ``zero``
    onset = np.concatenate([[0.0], np.cumsum(own[: first.peak])])
    bounds[: first.peak + 1] = (phrase.tones[0][0].begin + lead_s - zero) * SECOND - before + onset
    for i, syllable in enumerate(found):
        following = found[i + 1] if i + 1 < len(found) else None
        begin = (phrase.tones[i][0].begin + lead_s - zero) * SECOND
        if following is None:
            end, stop = (phrase.tones[i][-1].end + lead_s - zero) * SECOND, _last_sound(symbols)
        else:
            end, stop = (phrase.tones[i + 1][0].begin + lead_s - zero) * SECOND, following.peak
        _fill(bounds, own, symbols, syllable, begin, end, stop)
    stop = _last_sound(symbols)
    bounds[stop:] = bounds[stop] + np.arange(len(symbols) + 1 - stop)
    ends = [max(1, round(float(bounds[0])))]
    for exact in bounds[1:]:
        ends.append(max(ends[-1] + 1, round(float(exact))))  # without drifting
    return np.array([ends[0], *np.diff(ends), TAIL_FRAMES], np.int64), zero


def _last_sound(symbols: str) -> int:
    return len(symbols.rstrip(SILENT))


def _fill(
    bounds: np.ndarray, own: np.ndarray, symbols: str, syllable: Syllable, begin: float, end: float, stop: int
) -> None:
    """Bounds from a vowel to the next one, symbols ``[peak, stop)``: the vowel takes what is left."""
    peak, rest = syllable.peak, syllable.rest
    after = own[rest:stop].copy()
    vowel = np.ones(rest - peak)
    carriers = [
        i for i, symbol in enumerate(symbols[peak:rest]) if symbol not in STRESS and symbol not in TONES
    ]
    room = max(end - begin, 0.0)
    least = min(len(vowel) + 2.0, max(float(len(vowel)), 0.45 * room))
    if after.sum() + least > room and len(after):
        spare = max(0.0, room - least - len(after))
        wish = after - 1
        after = 1 + wish * (spare / wish.sum() if wish.sum() else 0.0)
    left = max(room - after.sum(), float(len(vowel)))
    glides = carriers[1:] if carriers else []
    for i in glides:  # the second half of a Chinese diphthong
        vowel[i] = min(max(1.0, own[peak + i]), max(1.0, 0.3 * left))
    main = carriers[0] if carriers else 0
    vowel[main] += max(0.0, left - vowel.sum())
    bounds[peak] = begin
    bounds[peak + 1 : stop + 1] = begin + np.cumsum(np.concatenate([vowel, after]))
    if after.sum() + vowel.sum() < room:
        bounds[stop] = end


# --- the plan -----------------------------------------------------------------------------------------------


def sung(model: ProsodyModel, phrase: Phrase, voice: Voice, shift: float = 0.0) -> Sung:
    """A phrase as a plan.

    Args:
        shift: semitones that it is moved.
    """
    lead_s = LEADS_S[voice.engine]
    draft = model.draft(phrase.symbols, voice)
    lengths, zero = place(phrase, draft.lengths, lead_s, CONSONANT, CLEAR[voice.engine])
    short = holding.drawn(phrase.symbols, lengths, draft.lengths)
    at = holding.places(phrase.symbols, lengths, short)
    drawn, energy = (holding.spread(contour, at) for contour in draft.contours(short))
    frames = int(lengths.sum())
    times = zero + (np.arange(2 * frames) + 0.5) / (2 * SECOND)
    melody = 440 * 2 ** ((curve([tone for tones in phrase.tones for tone in tones], times) + shift - 69) / 12)
    voiced = _voiced(phrase.symbols, lengths, drawn, muted=voice.engine in MUTED)
    pitch = np.where(voiced, melody, np.minimum(drawn, 5)).astype(np.float32)
    energy = _steady(phrase.symbols, lengths, energy)
    heard = (LEAD_FRAMES - 2 if lengths[0] >= LEAD_FRAMES else max(0, int(lengths[0]) - 2), frames - 2)
    nothing = np.zeros(2 * frames, np.float32)
    plan = ProsodyPlan(
        phrase.symbols,
        lengths,
        pitch,
        energy,
        release(phrase.symbols, lengths),
        nothing,
        nothing,
        phrase.words,
        heard,
    )
    plan.check()
    return Sung(plan, zero + heard[0] / SECOND)


def joined(songs: Sequence[Sung]) -> list[ProsodyPlan]:
    """Plans that follow each other in time: the silence between two becomes the end of the first one.

    A line that begins before the one before it has died away cuts it.

    Raises:
        ScoreError: a rest is longer than a plan may be (200 s).
    """
    plans = []
    for song, following in itertools.zip_longest(songs, songs[1:]):
        plan = song.plan
        if following is not None:
            first = plan.heard[0]
            wanted = max(1, round((following.begin_s - song.begin_s) * SECOND))
            more = first + wanted - plan.frames
            if more > MOST_FRAMES - plan.frames:
                raise ScoreError("the song has a rest of minutes; cut it there into two songs")
            if more > 0:
                lengths = plan.lengths.copy()
                lengths[-1] += more
                plan = plan.edit(
                    lengths=lengths,
                    heard=(first, first + wanted),
                    **{name: _prolonged(getattr(plan, name), 2 * more) for name in RANGES},
                )
            else:
                plan = plan.edit(heard=(first, first + wanted))
        plans.append(plan)
    return plans


def _prolonged(contour: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([contour, np.full(steps, contour[-1], np.float32)])


def curve(tones: Sequence[Tone], times: np.ndarray) -> np.ndarray:
    """The melody at some times (seconds), as MIDI numbers with parts: glides, and vibrato on long tones."""
    at = np.searchsorted([tone.begin for tone in tones], times, side="right") - 1
    at = np.clip(at, 0, len(tones) - 1)
    pitch = np.array([tone.pitch for tone in tones], np.float64)[at]
    for before, after in itertools.pairwise(tones):
        half = min(GLIDE_S, before.end - before.begin, after.end - after.begin) / 2
        near = np.abs(times - after.begin) < half
        share = 0.5 + 0.5 * np.sin(np.pi / 2 * (times[near] - after.begin) / half)
        pitch[near] = before.pitch + (after.pitch - before.pitch) * share
    for tone in tones:
        if tone.end - tone.begin >= VIBRATO_FROM_S:
            since = times - tone.begin - VIBRATO_AFTER_S
            inside = (since > 0) & (times < tone.end)
            depth = VIBRATO_CENTS / 100 * np.clip(since[inside] / VIBRATO_RAMP_S, 0, 1)
            pitch[inside] += depth * np.sin(2 * np.pi * VIBRATO_HZ * since[inside])
    return pitch


def _voiced(symbols: str, lengths: np.ndarray, drawn: np.ndarray, *, muted: bool) -> np.ndarray:
    """Where the melody is heard: in vowels and their like; not in voiceless sounds if these are ``muted``;
    elsewhere, and close to a change, where the voice would have it by itself."""
    kinds = [0, *(_kind(symbol) for symbol in symbols), 0]
    if not muted:
        kinds = [max(kind, 0) for kind in kinds]
    kind = np.repeat(kinds, 2 * lengths)
    sure = np.convolve(kind, np.ones(3), "same") == 3 * kind  # the same on both sides
    return np.where(sure & (kind != 0), kind > 0, drawn > VOICED_HZ)


def _kind(symbol: str) -> int:
    if symbol in VOWELS or symbol in TONES or symbol in STRESS or symbol in "mnŋlɹjwɥː":
        return 1
    return -1 if symbol in UNVOICED else 0


def _steady(symbols: str, lengths: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Energy that does not sag in long vowels."""
    ends = 2 * np.cumsum(lengths)
    vowel = np.zeros(len(energy), bool)
    for begin, end in holding.vowels(symbols):
        vowel[max(0, ends[begin] - 2) : ends[end] - 2] = True  # it sounds a little before its frames
    if not vowel.any():
        return energy
    floor = float(np.median(energy[vowel])) - 0.5
    return np.where(vowel, np.maximum(energy, floor), energy).astype(np.float32)


def release(symbols: str, lengths: np.ndarray) -> np.ndarray:
    """Loudness: the last sound dies away."""
    ends = np.cumsum(lengths)
    gain = np.zeros(2 * int(lengths.sum()), np.float32)
    stop = 2 * int(ends[_last_sound(symbols)])
    fade = np.linspace(0, -12, 6)
    gain[max(0, stop - 4) : stop + 2] = fade[: len(gain[max(0, stop - 4) : stop + 2])]
    gain[stop + 2 : stop + 8] = np.linspace(-12, -60, 6)[: len(gain[stop + 2 : stop + 8])]
    gain[stop + 8 :] = -80
    return gain
