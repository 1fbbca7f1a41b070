"""Group "rap" of ``bench voice``: eight lines on two tempi, measured as songs are (``voice_singing``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from stepaudio.bench.measures import Judge
from stepaudio.bench.voice import Bound, Case
from stepaudio.bench.voice_singing import late_ms
from stepaudio.core.audio import join
from stepaudio.engine import Engine
from stepaudio.tts import songs
from stepaudio.tts.voices import find

BPM = (90.0, 100.0)
LINES = {
    "en": (
        "I woke up early with the sun in my eyes",
        "The city was sleeping under purple skies",
        "I picked up my coffee and I walked down the street",
        "My heart kept time with the sound of my feet",
        "A cat on the corner gave me a look",
        "Like she knew every line in my notebook",
        "So I stopped and I told her a story or two",
        "And she said in a whisper that the best ones are true",
    ),
    "zh": (
        "今天早上我很早就起床",
        "打开窗户看见一片阳光",
        "街上的人们都在忙",
        "我的心里开始歌唱",
        "小猫坐在门口等我",
        "它说今天你想做什么",
        "我说我要写一首新歌",
        "让所有的朋友都快乐",
    ),
}
RAPPERS = (("en", "hibari"), ("en", "am_michael"), ("zh", "zf_xiaobei"))
TARGETS: dict[str, Bound] = {
    "onset error, ms": ("<=", 12),
    "onset error, 90th percentile, ms": ("<=", 40),
    "words wrong, %": ("<=", 8),
}
"""Of the voice that raps in English; the others are told."""


def cases(engine: Engine, data: Path, limit: int | None, step: Callable[[], None]) -> Iterator[Case]:
    """The lines by every rapper on every tempo. ``data`` is not used: the lines are ours."""
    judge = Judge(engine)
    for language, name in RAPPERS[:limit]:
        voice = find(name)
        model = engine.speaker.model(voice)  # type: ignore[union-attr]
        lines = LINES[language]
        for bpm in BPM:
            prepared, _ = songs.prepare_rap(
                lines, model, engine.pronouncer, voice, bpm=bpm, language=language
            )
            audio = join(
                piece.audio
                for piece in songs.rap_lines(
                    lines, model, engine.pronouncer, voice, bpm=bpm, language=language
                )
            )
            late = late_ms(audio, prepared.phrases, prepared.begin_s)
            late = late[np.isfinite(late)]
            wrong = judge.errors(audio, " ".join(lines), language)
            yield Case(
                f"{name}, {bpm:.0f} a minute",
                "rap",
                audio,
                {
                    "onset error, ms": float(np.median(np.abs(late))),
                    "onset error, 90th percentile, ms": float(np.percentile(np.abs(late), 90)),
                    "onset bias, ms": float(np.median(late)),
                    "onsets": float(len(late)),
                    "words wrong, %": 100 * wrong.rate,
                    "DNSMOS": judge.mos(audio),
                },
                TARGETS if name == "hibari" else {},
                text=" ".join(lines),
            )
            step()
