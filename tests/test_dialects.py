"""Tones drawn onto plans, and dialects that cannot be had."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from stepaudio.bench.voice_dialect import syllable_errors, told
from stepaudio.config import Config
from stepaudio.core.clauses import Clause
from stepaudio.core.errors import TextError
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.tts import dialects
from stepaudio.tts.prosody import ProsodyPlan
from stepaudio.tts.text.tones import Tone
from stepaudio.tts.voices import DIALECTS, Speaker, find

HIGH, LOW, FALLING, DIPPING = (5, 5), (2, 1), (5, 3), (2, 1, 3)


def plan(symbols: str, lengths: list[int], pitch: float | list[float] = 200.0) -> ProsodyPlan:
    steps = 2 * sum(lengths)
    nothing = np.zeros(steps, np.float32)
    energy = np.full(steps, 5, np.float32)
    energy[: 2 * lengths[0]] = energy[-2 * lengths[-1] :] = -9
    curve = np.full(steps, pitch, np.float32) if isinstance(pitch, float) else np.array(pitch, np.float32)
    heard = (0, sum(lengths))
    return ProsodyPlan(symbols, np.array(lengths), curve, energy, nothing, nothing, nothing, (), heard)


def semitones(drawn: ProsodyPlan, middle: float = 200.0) -> np.ndarray:
    return 12 * np.log2(drawn.pitch / middle)


def test_levels_are_semitones_around_the_middle() -> None:
    flat = plan("tatata", [2, 2, 8, 2, 8, 2, 8, 2])
    tones = [Tone(1, 2, HIGH), Tone(3, 4, (3, 3)), Tone(5, 6, (1, 1))]
    drawn = dialects.draw(flat, tones, decline=0)
    high, middle, low = (semitones(drawn)[2 * at] for at in (8, 18, 28))  # in the middle of each rime
    assert (high, middle, low) == pytest.approx((dialects.SPAN / 2, 0, -dialects.SPAN / 2), abs=0.05)


def test_contours_move_as_their_levels() -> None:
    dip = semitones(dialects.draw(plan("ta", [2, 2, 20, 2]), [Tone(1, 2, DIPPING)], decline=0))[8:48]
    lowest = int(np.argmin(dip))
    assert 12 < lowest < 28
    assert dip[0] > dip[lowest] < dip[-1]
    assert dip[-1] > dip[0]


def test_phrases_fall() -> None:
    drawn = semitones(
        dialects.draw(plan("tata", [2, 2, 20, 2, 20, 2]), [Tone(1, 2, (3, 3)), Tone(3, 4, (3, 3))])
    )
    assert drawn[8] - drawn[91] == pytest.approx(dialects.DECLINATION, abs=0.1)


def test_onsets_without_voice_stay_so_and_glides_join() -> None:
    pitch = [200.0] * 8 + [0.0] * 4 + [200.0] * 24  # a | t without voice | a
    drawn = dialects.draw(plan("ata", [2, 2, 2, 10, 2], pitch), [Tone(0, 1, HIGH), Tone(2, 3, LOW)])
    assert (drawn.pitch[8:12] == 0).all()
    voiced = dialects.draw(plan("ala", [2, 4, 6, 10, 2]), [Tone(0, 1, HIGH), Tone(2, 3, LOW)], decline=0)
    glide = semitones(voiced)[12:24]
    assert (np.diff(glide) < 0).all()


def test_rimes_have_voice_where_the_voice_would_creak() -> None:
    pitch = [200.0] * 16 + [0.0] * 4 + [200.0] * 8
    drawn = dialects.draw(plan("ta", [2, 2, 8, 2], pitch), [Tone(1, 2, LOW)])
    assert (drawn.pitch[8:24] > 100).all()


def test_words_without_tones_keep_their_melody() -> None:
    melody = list(np.linspace(150, 250, 248))
    drawn = dialects.draw(plan("tata", [2, 2, 30, 60, 28, 2], melody), [Tone(1, 2, HIGH)])
    assert drawn.pitch[2 * 34 :] == pytest.approx(np.array(melody[2 * 34 :], np.float32))
    untouched = plan("ta", [2, 2, 8, 2])
    assert dialects.draw(untouched, []) is untouched


def test_the_last_rime_ends_with_the_sound() -> None:
    long = plan("ta.", [2, 2, 20, 2, 2])
    quiet = long.energy.copy()
    quiet[24:] = -9  # said to last 0.5 s, heard for 0.2
    assert dialects.rimes(long.edit(energy=quiet), [Tone(1, 2, LOW)]) == [(8, 24)]


# Which dialect fits


@pytest.mark.parametrize(
    ("dialect", "texts", "experimental", "why"),
    [
        (None, ["hello"], False, None),
        ("cmn-sichuan", ["你好"], False, None),
        ("cmn-sichuan", ["你好", "hello"], False, None),  # some of it
        ("cmn-sichuan", ["42!"], False, None),
        ("cmn-sichuan", ["hello"], False, "Chinese"),
        ("en-GB", ["你好"], False, "English"),
        ("en", ["你好"], False, None),  # a hint, no dialect
        ("yue", ["你好"], False, "--experimental"),
        ("yue", ["你好"], True, None),
        ("yue", ["hello"], True, "Chinese"),
        ("ja", ["こんにちは"], False, "cmn-sichuan"),
    ],
)
def test_objections(dialect: str | None, texts: list[str], experimental: bool, why: str | None) -> None:
    found = dialects.objection(dialect, texts, DIALECTS["kokoro"], experimental=experimental)
    assert found is None if why is None else why in (found or "")


class Settings:
    voice, voice_en, voice_zh, fast, threads, experimental = (
        "auto",
        "af_heart",
        "zf_xiaobei",
        "hibari",
        1,
        False,
    )


class FakeEngine:
    def __init__(self) -> None:
        self.clauses: list[Clause] = []

    def synthesize(self, clause: Clause, voice: Any) -> Any:
        self.clauses.append(clause)
        return iter(())


def test_a_conversation_goes_on_plainly_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    speaker: Any = Speaker(None, Settings(), None)  # type: ignore[arg-type]  # nothing is loaded
    engine = FakeEngine()
    speaker.__dict__.update(kokoro=engine, _hibari=engine)
    with caplog.at_level(logging.WARNING):
        list(speaker.speak(Clause(0, "早晨", SpeechStyle(dialect="yue", speed=1.2))))
        list(speaker.speak(Clause(1, "你好", SpeechStyle(dialect="cmn-sichuan"))))
    assert [clause.style for clause in engine.clauses] == [
        SpeechStyle(speed=1.2),
        SpeechStyle(dialect="cmn-sichuan"),
    ]
    assert "experimental" in caplog.text
    assert "早晨" not in caplog.text


def test_a_text_is_refused() -> None:
    engine = Engine(Config())
    engine.__dict__["speaker"] = Speaker(None, Settings(), None)  # type: ignore[arg-type]
    with pytest.raises(TextError, match="Chinese"):
        list(engine.say("hello", style=SpeechStyle(dialect="cmn-sichuan")))
    with pytest.raises(TextError, match="experimental"):
        list(engine.say("（粤语）你好"))


def test_dialects_choose_a_voice() -> None:
    speaker = Speaker(None, Settings(), None)  # type: ignore[arg-type]
    clause = Clause(0, "Hello", SpeechStyle(dialect="en-GB"))
    assert [voice.id for voice in speaker.candidates(clause)] == ["bf_emma"]
    assert [voice.id for voice in speaker.candidates(clause, find("am_adam"))] == ["am_adam"]
    american = Clause(0, "Hello", SpeechStyle(dialect="en-US"))
    assert [voice.id for voice in speaker.candidates(american)] == ["af_heart", "hibari"]
    cantonese = Clause(0, "你好", SpeechStyle(dialect="yue"))
    assert [voice.id for voice in speaker.candidates(cantonese)] == ["am_michael"]
    sichuanese = Clause(0, "你好", SpeechStyle(dialect="cmn-sichuan"))
    assert [voice.id for voice in speaker.candidates(sichuanese)] == ["zf_xiaobei"]


# What the benchmark tells


def test_syllables_are_told_by_their_pitch() -> None:
    levels = {"1": HIGH, "2": LOW, "3": FALLING, "4": DIPPING}
    drawn = [HIGH, LOW, FALLING, DIPPING]
    spans = [(20 * i, 20 * i + 16) for i in range(4)]
    asked = np.zeros(80)
    for (begin, end), shape in zip(spans, drawn, strict=True):
        curve = np.interp(np.linspace(0, 1, 16), np.linspace(0, 1, len(shape)), shape)
        asked[begin:end] = 200 * 2 ** ((curve - 3) * 2.5 / 12)
    heard = asked.copy()
    heard[0:16] = asked[20:36]  # the first was said low
    assert list(told(asked, heard, spans, drawn, levels)) == [("1", "2"), ("2", "2"), ("3", "3"), ("4", "4")]


def test_syllables_are_compared_without_tones() -> None:
    said = {"是": ("si4", "si4"), "四": ("si4", "si4"), "锅": ("go1", "go1"), "国": ("guê2", "go2")}

    def read(text: str) -> list[tuple[str, ...]]:
        return [said[char] for char in text]

    assert syllable_errors("是锅", "四锅。", read).rate == 0
    assert syllable_errors("锅", "国", read).rate == 0  # in Mandarin, 国 sounds as 锅 does here
    assert syllable_errors("国", "国", read).rate == 0
    assert syllable_errors("国", "锅", read).rate == 1
    assert syllable_errors("是锅", "锅锅", read).rate == 0.5
