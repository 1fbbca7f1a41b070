"""Group "singing" of ``bench voice``: the songs of the data, sung from their files, beside what is written.

Pitch: of every note the median of what is heard (its glides at the ends left out) beside the score's, in the
key that the voice chose. Onsets: of syllables that begin with a voiceless consonant, the only ones that have
an edge; where the vowel is heard beside the beat. Words: what the service's own recogniser understands. It
was never taught to listen to songs. Rests of the music are cut before it hears one, for in half a minute of
nothing it makes up words. At a note of three seconds it may begin to turn in a circle ("o o o o …") and lose
the lines after it: whatever it has heard then, right or wrong, it hears those lines again, half of them at a
time. What is written as verse has it ("wreck'd", "lan'") counts as its usual spelling, since nobody can hear
the difference.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stepaudio.bench.measures import Judge, note_errors, onsets, pitch_track
from stepaudio.bench.scores import Errors
from stepaudio.bench.voice import Bound, Case, Plot
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.errors import AudioError
from stepaudio.engine import Engine, read_score
from stepaudio.tts import songs
from stepaudio.tts.base import Voice
from stepaudio.tts.prosody import RATE, VOICED_HZ
from stepaudio.tts.singing import Phrase, curve
from stepaudio.tts.syllables import UNVOICED
from stepaudio.tts.voices import find

TARGETS: dict[str, dict[str, Bound]] = {
    "en": {
        "note error, cents": ("<=", 5),
        "onset error, ms": ("<=", 20),
        "words wrong, %": ("<=", 15),
    },
    "zh": {
        "note error, cents": ("<=", 15),
        "onset error, ms": ("<=", 20),
        "words wrong, %": ("<=", 35),
    },
}
"""Of all songs of a language together: medians over their notes and syllables, errors over their words."""
_HEARD_S = 25.0
"""The recogniser's own limit is 30 s."""
_GAP_S = 0.4
_COMPRESSED = 2.2
"""Times: the bound from which on the recogniser itself, too, takes its words for a loop."""
_MODERN = (
    (r"(?i)\blan['’]", "land"),
    (r"(?i)\bole\b", "old"),
    (r"(?i)\bpharoh\b", "pharaoh"),
    (r"(?<=\w)['’]st\b", "st"),
    (r"(?<=\w)['’]dst\b", "edst"),
    (r"(?<=[bcdfghjklmnpqrstvwxyz]{2})['’]d\b", "ed"),
    (r"(?<=[a-z]{2}[svzkp])['’]d\b", "ed"),
    (r"(?<=[a-z]v)['’]n\b", "en"),
    (r"(?<!\w)['’](?=way\b)", ""),
)


def cases(engine: Engine, data: Path, limit: int | None, step: Callable[[], None]) -> Iterator[Case]:
    """Every song by the voice that sings its language, and a row for each language."""
    folder = data / "scores"
    if not (folder / "songs.jsonl").is_file():
        raise AudioError(f"there are no songs in {folder}")
    with (folder / "songs.jsonl").open(encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    judge = Judge(engine)
    for language, singer in songs.SINGERS.items():
        own = [song for song in found if song["language"] == language][:limit]
        for voice in (find(singer),):
            off, late, words = list[float](), list[float](), Errors()
            for song in own:
                path = folder / Path(song.get("file") or song["midi"]).name
                case, cents, ms, wrong = sung(engine, judge, path, song["title"], voice)
                off += cents
                late += ms
                words += wrong
                yield case
                step()
            if own:
                yield Case(
                    f"all by {voice.id}", "singing", None, figures(off, late, words), TARGETS[language]
                )


def figures(off: Sequence[float], late: Sequence[float], words: Errors) -> dict[str, float | str]:
    """Of all songs: medians over what is heard, shares over all notes. nan: a note that is not heard."""
    return {
        "note error, cents": _median(off),
        "within 50 cents, %": 100 * float(np.mean(np.abs(off) <= 50)) if off else 0.0,
        "notes not heard, %": 100 * float(np.mean(np.isnan(off))) if off else 0.0,
        "onset error, ms": _median(late),
        "onset bias, ms": float(np.nanmedian(late)) if late else 0.0,
        "words wrong, %": 100 * words.rate,
        "notes": float(len(off)),
    }


def sung(
    engine: Engine, judge: Judge, path: Path, title: str, voice: Voice
) -> tuple[Case, list[float], list[float], Errors]:
    """A song, its notes' errors in cents (nan: not heard), its syllables' in ms, and its words'."""
    song = songs.arrange(read_score(path), songs.Wish())
    model = engine.speaker.model(voice)  # type: ignore[union-attr]
    prepared = songs.prepare(song, model, engine.pronouncer, voice)
    audio = join(piece.audio for piece in songs.sing(song, model, engine.pronouncer, voice))
    tones = [tone for one in prepared.phrases for own in one.tones for tone in own]
    notes = [
        (
            t.begin - prepared.begin_s,
            t.end - prepared.begin_s,
            440 * 2 ** ((t.pitch + prepared.shift - 69) / 12),
        )
        for t in tones
    ]
    track = pitch_track(audio, 60, 800)
    cents = note_errors(track, notes)
    late = late_ms(audio, prepared.phrases, prepared.begin_s)
    text = modern(lyrics_of(song))
    wrong = judge.errors_of(heard(judge, audio, prepared, song.language), text, song.language)
    times = prepared.begin_s + (np.arange(round(audio.seconds * 80)) + 0.5) / 80
    asked = 440 * 2 ** ((curve(tones, times) + prepared.shift - 69) / 12)
    inside = np.zeros(len(times), bool)
    for tone in tones:
        inside |= (times >= tone.begin) & (times < tone.end)
    case = Case(
        f"{title}, {voice.id}",
        "singing",
        audio,
        {
            "note error, cents": _median(cents),
            "notes not heard": float(np.isnan(cents).sum()),
            "onset error, ms": _median(late),
            "words wrong, %": 100 * wrong.rate,
            "semitones moved": float(prepared.shift),
            "DNSMOS": judge.mos(audio),
        },
        plot=Plot(np.where(inside, asked, VOICED_HZ / 2).astype(np.float32), track),
        text=text,
    )
    return case, cents.tolist(), [x for x in late if np.isfinite(x)], wrong


def late_ms(audio: AudioChunk, phrases: Sequence[Phrase], begin_s: float) -> np.ndarray:
    """How much later than its beat each vowel is heard that follows voiceless consonants; nan: no edge."""
    expected = [
        tones[0].begin - begin_s
        for one in phrases
        for syllable, tones in zip(one.syllables, one.tones, strict=True)
        if syllable.peak > syllable.begin
        and all(symbol in UNVOICED for symbol in one.symbols[syllable.begin : syllable.peak])
    ]
    return 1000 * (onsets(audio, expected) - np.array(expected))


def heard(judge: Judge, audio: AudioChunk, prepared: songs.Prepared, language: str) -> str:
    """What is understood of a song whose rests are cut to 0.4 s."""
    gap = np.zeros(round(_GAP_S * RATE), np.float32)
    clips: list[list[np.ndarray]] = []
    for one in prepared.phrases:
        first = one.tones[0][0].begin - prepared.begin_s - 0.25
        last = one.tones[-1][-1].end - prepared.begin_s + 0.2
        line = np.append(audio.samples[max(0, round(first * RATE)) : round(last * RATE)], gap)
        if not clips or sum(map(len, clips[-1])) + len(line) > _HEARD_S * RATE:
            clips.append([])
        clips[-1].append(line)
    return " ".join(understood(lambda chunk: judge.heard(chunk, language), clip) for clip in clips)


def understood(listen: Callable[[AudioChunk], str], lines: Sequence[np.ndarray]) -> str:
    """What is heard of lines; where it turns in a circle, of either half of them alone."""
    text = listen(AudioChunk(np.concatenate(lines), RATE))
    if len(lines) == 1 or not circles(text):
        return text
    middle = len(lines) // 2
    return f"{understood(listen, lines[:middle])} {understood(listen, lines[middle:])}"


def circles(text: str) -> bool:
    """Whether a recogniser repeats itself: a word four times in a row, or letters that compress too well."""
    plain = text.casefold()
    packed = len(zlib.compress(plain.encode()))
    return bool(re.search(r"\b(\w+)(?:\W+\1\b){3}", plain)) or len(plain.encode()) > _COMPRESSED * packed


def lyrics_of(song: songs.Song) -> str:
    """The words that are sung."""
    text = ""
    for line in song.lines:
        for lyric in line.lyrics:
            if lyric:
                text += lyric.text + ("" if lyric.joins or song.language == "zh" else " ")
    return text.strip()


def modern(text: str) -> str:
    """Verse in the spelling of prose."""
    for old, new in _MODERN:
        text = re.sub(old, new, text)
    return text


def _median(values: Sequence[float] | np.ndarray) -> float:
    return float(np.nanmedian(np.abs(values))) if len(values) else float("nan")
