"""Groups of ``bench voice`` about dialects: Sichuanese and Cantonese.

The pitch that is heard is set beside the tones that were drawn, rime by rime; every syllable's contour is
told to be the tone whose shape it comes nearest to (the confusion matrix). Understanding is judged by the
service's own recogniser, which knows Mandarin: of Sichuanese it can tell the segments, once both sides are
read the Sichuan way (what it writes as 住 is the 祖 that was asked for: there is no zh), of Cantonese little.
Beside stand the errors without that, where each rule of Sichuan counts as one, and those of the same
sentences in the voice's Mandarin, below which no dialect can come. It was never taught Cantonese as such, so
what it makes of real speakers is measured, too, where there are recordings. Nobody who speaks either dialect
has listened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from stepaudio.bench.measures import STEP_S, Judge, on_track, pitch_track
from stepaudio.bench.scores import Errors, errors, normalise
from stepaudio.bench.voice import Case, Plot
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Clause
from stepaudio.core.distance import edit_distance
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.tts import performance
from stepaudio.tts.base import Voice
from stepaudio.tts.dialects import rimes
from stepaudio.tts.kokoro import Kokoro
from stepaudio.tts.prosody import ProsodyPlan
from stepaudio.tts.text import cantonese as jyutping
from stepaudio.tts.text import sichuanese as chengdu
from stepaudio.tts.text.mandarin import Mandarin
from stepaudio.tts.text.tones import Tone
from stepaudio.tts.voices import find

SICHUANESE_VOICES = ("zf_xiaobei", "zm_yunxi")
CANTONESE_VOICES = ("am_michael", "af_heart", "zf_xiaobei")
CANTONESE_SENTENCES = 12
PITCH_LEAD_S = 0.020
"""Kokoro's melody is heard this much before its plan (the best lag of twelve sentences of two voices)."""

Step = Callable[[], None]
Levels = Mapping[str, tuple[int, ...]]
Read = Callable[[str], list[tuple[str, ...]]]
"""Readings of every character: the dialect's own, and others that may be meant where it was heard."""


def sichuanese(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """Sentences of our own, by a woman and a man."""
    lines = files("stepaudio.bench").joinpath("sentences_sichuan.txt").read_text("utf-8").split()
    mandarin = Mandarin()
    own = chengdu.Sichuanese(mandarin)

    def read(text: str) -> list[tuple[str, ...]]:
        sounds = mandarin.readings(text, 0, len(text), running=False)
        readings = own.readings(text, 0, len(text))
        return [(of, chengdu.reading(sound)) for of, sound in zip(readings, sounds, strict=True)]

    def plain(text: str) -> list[tuple[str, ...]]:
        return [(sound,) for sound in mandarin.readings(text, 0, len(text), running=False)]

    for voice in SICHUANESE_VOICES:
        yield from _voice(
            engine, "sichuanese", "cmn-sichuan", voice, lines[:limit], read, chengdu.LEVELS, step, plain
        )


def cantonese(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """Sentences of Common Voice, and what the recogniser makes of real speakers."""
    path = data / "text" / "cantonese_sentences.jsonl"
    if path.is_file():
        rows = map(json.loads, path.read_text("utf-8").splitlines())
        texts = [row["text"] for row in rows if row["language"] == "yue"]
    else:
        texts = list(OWN_CANTONESE)
    texts = texts[: min(limit or CANTONESE_SENTENCES, CANTONESE_SENTENCES)]

    def read(text: str) -> list[tuple[str, ...]]:
        return [(reading,) for reading in jyutping.jyutping(text)]

    for voice in CANTONESE_VOICES:
        yield from _voice(engine, "cantonese", "yue", voice, texts, read, jyutping.LEVELS, step)
    yield from _real(engine, data, read, step)


OWN_CANTONESE = (
    "我今日好攰，想早啲瞓。",
    "聽日一齊去飲茶好唔好？",
    "呢間茶餐廳啲嘢好好食。",
    "你住喺邊度？搭地鐵方唔方便？",
    "佢琴日買咗兩本書。",
    "落緊大雨，記得帶遮。",
)
"""Said where the test data are not there."""


# --- one voice --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Heard:
    """What adds up over the sentences of a voice."""

    asked: list[np.ndarray] = field(default_factory=list)  # log2 Hz, on the rimes
    realised: list[np.ndarray] = field(default_factory=list)
    syllables: Errors = field(default_factory=Errors)
    unmerged: Errors = field(default_factory=Errors)
    mandarin: Errors = field(default_factory=Errors)
    characters: Errors = field(default_factory=Errors)
    mos: list[float] = field(default_factory=list)
    confusion: dict[tuple[str, str], int] = field(default_factory=dict)


def _voice(
    engine: Engine,
    group: str,
    dialect: str,
    voice_id: str,
    texts: Sequence[str],
    read: Read,
    levels: Levels,
    step: Step,
    plain: Read | None = None,
) -> Iterator[Case]:
    """Args: plain: readings of Mandarin, where the dialect is to be compared with it."""
    judge, total = Judge(engine), _Heard()
    kokoro, voice = engine.kokoro, find(voice_id)
    for number, text in enumerate(texts):
        plan, audio = _spoken(kokoro, text, dialect, voice)
        tones = plan_tones(engine, text, dialect, plan)
        track = pitch_track(audio, 60 if voice.gender == "male" else 80, 500)
        asked = np.roll(_asked(plan, len(track)), -round(PITCH_LEAD_S / STEP_S))
        spans = _on_track(rimes(plan, tones), plan, len(track))
        both = np.zeros(len(track), bool)
        for begin, end in spans:
            both[begin:end] = True
        both &= (track > 0) & (asked > 0)
        total.asked.append(np.log2(asked[both]))
        total.realised.append(np.log2(track[both]))
        for said, taken in told(asked, track, spans, [tone.levels for tone in tones], levels):
            total.confusion[said, taken] = total.confusion.get((said, taken), 0) + 1
        heard = judge.heard(audio, "zh")
        said = engine.show(text, "spoken", dialect=dialect)
        syllables = syllable_errors(said, heard, read)
        total.syllables += syllables
        if plain:
            total.unmerged += syllable_errors(said, heard, plain)
            _, mandarin = _spoken(kokoro, said, "cmn", voice)
            total.mandarin += syllable_errors(said, judge.heard(mandarin, "zh"), plain)
        total.characters += errors(said, heard, "zh")
        total.mos.append(judge.mos(audio))
        step()
        if number < 4:
            yield Case(
                f"{voice_id} {number + 1}",
                group,
                audio,
                {
                    "correlation with the drawn tones": correlation(total.asked[-1], total.realised[-1]),
                    "syllables misheard, %": 100 * syllables.rate,
                    "DNSMOS": total.mos[-1],
                    "heard": heard,
                },
                plot=Plot(plan.pitch[2 * plan.heard[0] : 2 * plan.heard[1]], track),
                text=text,
            )
    asked, realised = np.concatenate(total.asked), np.concatenate(total.realised)
    right = sum(count for (said, taken), count in total.confusion.items() if said == taken)
    figures = {
        "correlation with the drawn tones": correlation(asked, realised),
        "pitch error, median, cents": float(np.median(1200 * np.abs(asked - realised))),
        "tones told right, %": 100 * right / max(1, sum(total.confusion.values())),
        "syllables without tone misheard, %": 100 * total.syllables.rate,
        "CER by a recogniser of Mandarin, %": 100 * total.characters.rate,
        "DNSMOS": float(np.mean(total.mos)),
    }
    if plain:
        figures |= {
            "the same where every rule of the dialect counts, %": 100 * total.unmerged.rate,
            "the same sentences in Mandarin, %": 100 * total.mandarin.rate,
        }
    figures |= _matrix(total.confusion, levels)
    targets = {
        "correlation with the drawn tones": (">=", 0.9),
        "syllables without tone misheard, %": ("<=", 10.0),
    }
    yield Case(f"{voice_id}, all", group, None, figures, targets if group == "sichuanese" else {})  # type: ignore[arg-type]


def _spoken(kokoro: Kokoro, text: str, dialect: str, voice: Voice) -> tuple[ProsodyPlan, AudioChunk]:
    plans = list(kokoro.plan(Clause(0, text, SpeechStyle(dialect=dialect)), voice))
    (plan,) = plans  # a sentence is short
    return plan, join(piece.audio for piece in performance.perform(kokoro, plans, voice))


def plan_tones(engine: Engine, text: str, dialect: str, plan: ProsodyPlan) -> list[Tone]:
    """The tones of a text by their places in its plan."""
    words = engine.pronouncer.pronounce(text, "zh", dialect=dialect)
    begins = [word.begin for word in plan.words]
    return [tone.moved(begin) for word, begin in zip(words, begins, strict=True) for tone in word.tones]


def _asked(plan: ProsodyPlan, length: int) -> np.ndarray:
    return on_track(plan.pitch[2 * plan.heard[0] : 2 * plan.heard[1]], length)


def _on_track(places: Sequence[tuple[int, int]], plan: ProsodyPlan, length: int) -> list[tuple[int, int]]:
    """Half frames of the plan as values of a track, heard ``PITCH_LEAD_S`` early."""
    scale, shift = 0.0125 / STEP_S, round(PITCH_LEAD_S / STEP_S)
    return [
        tuple(int(np.clip(round((at - 2 * plan.heard[0]) * scale) - shift, 0, length)) for at in span)  # type: ignore[misc]
        for span in places
    ]


def correlation(asked: np.ndarray, realised: np.ndarray) -> float:
    """Pearson's, of logarithms of pitch; nan where there is too little."""
    return float(np.corrcoef(asked, realised)[0, 1]) if len(asked) > 2 else float("nan")


def told(
    asked: np.ndarray,
    track: np.ndarray,
    spans: Sequence[tuple[int, int]],
    drawn: Sequence[tuple[int, ...]],
    levels: Levels,
) -> Iterator[tuple[str, str]]:
    """The tone that was drawn on each rime, and the one whose contour the realised pitch is nearest to.

    The register (how many semitones a level is, where the middle lies, how it falls over the sentence) is
    fitted to what was asked, so that nothing but the pitch of the audio decides.

    Args:
        asked, track: Hz, at the same moments; 0: no voice.
        spans: of the rimes, in values.
        drawn: contours of the rimes.
        levels: of the tones that there are.
    """
    rows, heights = [], []
    for (begin, end), contour in zip(spans, drawn, strict=True):
        for at, level in zip(range(begin, end), _shape(contour, end - begin), strict=True):
            if asked[at] > 0:
                rows.append((level, 1.0, at))
                heights.append(12 * np.log2(asked[at]))
    if len(rows) < 10:
        return
    (slope, middle, fall), *_ = np.linalg.lstsq(np.array(rows), np.array(heights), rcond=None)
    for (begin, end), contour in zip(spans, drawn, strict=True):
        voiced = np.flatnonzero(track[begin:end] > 0)
        if len(voiced) < 3:
            continue
        realised = (12 * np.log2(track[begin + voiced]) - middle - fall * (begin + voiced)) / slope
        distance = {
            name: float(np.mean((realised - _shape(shape, end - begin)[voiced]) ** 2))
            for name, shape in levels.items()
        }
        said = next(name for name, shape in levels.items() if shape == contour)
        yield said, min(distance, key=lambda name: distance[name])


def _shape(levels: Sequence[int], length: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, max(length, 1)), np.linspace(0, 1, len(levels)), levels)[:length]


def _matrix(confusion: Mapping[tuple[str, str], int], levels: Levels) -> dict[str, str]:
    """A row for every tone that was drawn."""
    return {
        f"tone {said}, told as {' '.join(levels)}": " ".join(
            str(confusion.get((said, told), 0)) for told in levels
        )
        for said in levels
    }


def syllable_errors(text: str, heard: str, read: Read) -> Errors:
    """Syllables, tones left out, that were heard wrong, both sides read in the dialect.

    The recogniser writes what it hears in any characters that sound so in Mandarin: those that it writes may
    also be read by how they sound there, by the dialect's rules of sound alone.
    """
    said = [readings[0][:-1] for readings in read(normalise(text, "zh")) if readings[0]]
    got = []
    for readings in read(normalise(heard, "zh")):
        own, *others = (reading[:-1] for reading in readings)
        got.append(next((reading for reading in (own, *others) if reading in said), own))
    return Errors(edit_distance(said, got), len(said))


def _real(engine: Engine, data: Path, read: Read, step: Step) -> Iterator[Case]:
    """What the recogniser makes of real speakers of Cantonese: no voice could be understood better."""
    manifest = data / "MANIFEST.jsonl"
    if not manifest.is_file():
        return
    from stepaudio.files import read_audio

    judge = Judge(engine)
    for row in map(json.loads, manifest.read_text("utf-8").splitlines()):
        if row.get("kind") == "dialect" and row.get("lang") == "yue" and row.get("ref") == "verified-source":
            audio: AudioChunk = read_audio(data / row["path"], 24_000)
            heard = judge.heard(audio, "zh")
            step()
            yield Case(
                f"a real speaker: {Path(row['path']).stem}",
                "cantonese",
                audio,
                {
                    "syllables without tone misheard, %": 100
                    * syllable_errors(row["text"], heard, read).rate,
                    "CER by a recogniser of Mandarin, %": 100 * errors(row["text"], heard, "zh").rate,
                    "heard": heard,
                },
                text=row["text"],
            )
