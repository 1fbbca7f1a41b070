"""``bench voice --only emotions``: whether emotions change a voice as people's voices change.

Every sentence is spoken neutrally and in every emotion, and five things are measured that studies of acted
speech report: mean and range of pitch, tempo, level, spectral tilt. What counts is the direction of each
(``DIRECTIONS``), that it grows with the intensity, that the speaker stays the same, that nothing sounds
worse, and that the emotions can be told apart: each utterance is named after the nearest of the mean emotions
of the *other* voices.

Recordings of acted speech with labels are not among the data, so whether listeners would name the emotion is
not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from stepaudio.bench import measures
from stepaudio.bench.scores import Errors
from stepaudio.bench.voice import Case
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.tts.expression import EMOTIONS

VOICES = ("af_heart", "hibari", "am_michael", "bf_emma", "zf_xiaobei", "zm_yunyang")
SENTENCES = {
    "en": (
        "The train leaves in ten minutes, so we should go.",
        "I put the letter on the table last night.",
        "They told me about it in the morning.",
        "My brother is coming home on Sunday.",
        "The shop around the corner is open again.",
        "We can talk about that after dinner.",
        "She found the old photograph in a drawer.",
        "It will be raining all through the week.",
        "He opened the door and looked at the garden.",
        "The children are waiting by the river.",
        "You left your coat in the kitchen.",
        "There is a new teacher in our school.",
        "The answer came on a small piece of paper.",
        "I have never seen the house so empty.",
        "Nobody knows what is behind the wall.",
        "They are building a bridge over there.",
        "The doctor will call you in the evening.",
        "We walked the whole way back to town.",
        "The music stopped in the middle of the night.",
        "Tomorrow everything is going to change.",
    ),
    "zh": (
        "火车十分钟后就要开了，我们走吧。",
        "我昨天晚上把信放在桌子上了。",
        "他们早上才告诉我这件事。",
        "我哥哥星期天要回家。",
        "街角的那家店又开门了。",
        "我们吃完饭再谈这件事吧。",
        "她在抽屉里找到了那张旧照片。",
        "这个星期每天都会下雨。",
        "他打开门，看了看花园。",
        "孩子们在河边等着。",
        "你把外套忘在厨房里了。",
        "我们学校来了一位新老师。",
        "答案写在一张小纸条上。",
        "我从来没见过家里这么空。",
        "没有人知道墙后面有什么。",
        "他们在那边修一座桥。",
        "医生晚上会给你打电话。",
        "我们一路走回了城里。",
        "音乐在半夜停了下来。",
        "明天一切都会改变。",
    ),
}
EMOTION = tuple(emotion for emotion in EMOTIONS if emotion != "neutral")
MEASURES = ("pitch", "range", "tempo", "level", "tilt")
DIRECTIONS = {
    "happy": "+++++",
    "sad": "-----",
    "angry": "+++++",
    "fearful": "+-+- ",
    "surprised": "++ + ",
    "calm": "-----",
    "tender": " ----",
    "excited": "+++++",
    "serious": "---++",
    "playful": "++-  ",
}
"""Signs of ``MEASURES`` against neutral, after the reviews of acted speech (Banse & Scherer 1996, Juslin &
Laukka 2003) for the basic emotions and for tenderness; surprise after Schröder 2004. The rest is our choice:
excited as more of happy, calm as low arousal, serious as low and narrow with effort, playful as high, wide
and drawn out."""
ENOUGH = 3
"""Measures that must go the right way."""
LEVEL = -26.0
"""Level at which voices are compared, dB of full scale."""
INTENSITY_SENTENCES = 3
"""Sentences that are also spoken in the first and third intensity."""


def measured(audio: AudioChunk) -> np.ndarray:
    """``MEASURES`` of an utterance: semitones, log2 of semitones, log2 of 1 / s, dB, dB."""
    track = measures.pitch_track(audio, 50, 600)
    begin, end = measures.spoken_span(audio)
    return np.array(
        [
            12 * np.log2(measures.pitch_mean(track)),
            np.log2(measures.pitch_range(track)),
            -np.log2(end - begin),
            measures.level(audio),
            measures.tilt(audio),
        ]
    )


def right(emotion: str, change: np.ndarray) -> int:
    """How many measures went the way that they should."""
    signs = {"+": 1, "-": -1, " ": 0}
    return sum(signs[s] * x > 0 for s, x in zip(DIRECTIONS[emotion], change, strict=True))


def cases(engine: Engine, data: Path, limit: int | None, step: Callable[[], None]) -> Iterator[Case]:
    """Two sentences of each emotion and voice to hear, and the figures of all."""
    judge = measures.Judge(engine)
    changes: dict[tuple[str, str], list[np.ndarray]] = {}
    for voice in VOICES:
        language = "zh" if voice.startswith("z") else "en"
        sentences = SENTENCES[language][:limit]

        def say(text: str, emotion: str, intensity: int = 2, voice: str = voice) -> AudioChunk:
            style = SpeechStyle(emotion=emotion, intensity=intensity)
            return join([piece.audio for piece in engine.say(text, voice=voice, style=style)])

        neutral = [say(text, "neutral") for text in sentences]
        plain = [measured(audio) for audio in neutral]
        speaker = [judge.embedding(_levelled(audio)) for audio in neutral]
        quality = [judge.mos(audio) for audio in neutral]
        yield Case(
            f"{voice} neutral", "emotions", neutral[0], {"DNSMOS": float(np.mean(quality))}, text=sentences[0]
        )
        for emotion in EMOTION:
            spoken = [say(text, emotion) for text in sentences]
            change = [measured(audio) - own for audio, own in zip(spoken, plain, strict=True)]
            changes[voice, emotion] = change
            weak, strong = (
                np.mean(
                    [
                        measured(say(text, emotion, intensity)) - own
                        for text, own in list(zip(sentences, plain, strict=True))[:INTENSITY_SENTENCES]
                    ],
                    axis=0,
                )
                for intensity in (1, 3)
            )
            middle = np.mean(change[:INTENSITY_SENTENCES], axis=0)
            mean = np.mean(change, axis=0)
            wrong = sum(
                (judge.errors(audio, text, language) for audio, text in zip(spoken, sentences, strict=True)),
                Errors(),
            )
            figures: dict[str, float | str] = {
                "pitch, st": mean[0],
                "range, times": 2 ** mean[1],
                "tempo, times": 2 ** mean[2],
                "level, dB": mean[3],
                "tilt, dB": mean[4],
                "measures that go the right way": right(emotion, mean),
                "intensity grows": float(_grows(emotion, weak, middle, strong)),
                "DNSMOS drop": float(np.mean(quality) - np.mean([judge.mos(audio) for audio in spoken])),
                "likeness": float(
                    np.mean([judge.embedding(_levelled(a)) @ e for a, e in zip(spoken, speaker, strict=True)])
                ),
                "own ears, errors %": 100 * wrong.rate,
            }
            yield Case(
                f"{voice} {emotion}",
                "emotions",
                spoken[0],
                figures,
                {
                    "measures that go the right way": (">=", ENOUGH),
                    "intensity grows": ("==", 1),
                    "DNSMOS drop": ("<=", 0.2),
                    "likeness": (">=", 0.9),
                },
                text=sentences[0],
            )
            step()
    yield Case(
        "named by the nearest mean emotion of the other voices",
        "emotions",
        None,
        {"right, %": 100 * told_apart(changes), "by chance, %": 100 / len(EMOTION)},
        {"right, %": (">=", 80)},
    )


def _levelled(audio: AudioChunk) -> AudioChunk:
    """As loud as any other: the speaker encoder takes loudness for identity (5 dB cost 0.02 to 0.04)."""
    gain = 10 ** ((LEVEL - measures.level(audio)) / 20)
    return replace(audio, samples=(audio.samples * gain).astype(np.float32))


def _grows(emotion: str, weak: np.ndarray, middle: np.ndarray, strong: np.ndarray) -> bool:
    """Whether most of the measures that have a direction grow from the first intensity to the third, and as
    many as must go the right way do so at every step."""
    signs = np.array([{"+": 1, "-": -1, " ": 0}[s] for s in DIRECTIONS[emotion]])
    rising = ((middle - weak) * signs > 0) & ((strong - middle) * signs > 0)
    return int(rising.sum()) >= ENOUGH


def told_apart(changes: dict[tuple[str, str], list[np.ndarray]]) -> float:
    """Share of utterances whose emotion is that of the nearest mean over the other voices.

    Distances are counted in standard deviations of all utterances, measure by measure.
    """
    spread = np.std(np.concatenate([np.stack(rows) for rows in changes.values()]), axis=0)
    voices = sorted({voice for voice, _ in changes})
    emotions = sorted({emotion for _, emotion in changes})
    good = total = 0
    for voice in voices:
        means = {
            emotion: np.mean(
                [row for other in voices if other != voice for row in changes[other, emotion]], axis=0
            )
            for emotion in emotions
        }
        for emotion in emotions:
            for row in changes[voice, emotion]:
                nearest = min(means, key=lambda name: float(np.sum(((row - means[name]) / spread) ** 2)))
                good, total = good + (nearest == emotion), total + 1
    return good / total
