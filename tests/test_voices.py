"""Who speaks when, with engines that only say their name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause
from stepaudio.core.errors import ConfigError
from stepaudio.core.style import SpeechStyle
from stepaudio.tts import voices
from stepaudio.tts.base import Speech, Voice
from stepaudio.tts.voices import (
    CATALOGUE,
    HIBARI,
    KOKORO,
    Pace,
    Speaker,
    choose,
    estimate_s,
    find,
    language_of,
)

HEART = find("af_heart")
QUICK, SLOW = Pace(0.04, 0.02), Pace(0.4, 0.3)


@dataclass(frozen=True)
class Settings:
    voice: str = "auto"
    voice_en: str = "af_heart"
    voice_zh: str = "zf_xiaobei"
    fast: str = "hibari"
    threads: int = 2
    experimental: bool = False


class FakeEngine:
    """Two pieces of half a second; ``work_s`` passes on the clock before each."""

    def __init__(self, clock: Clock, work_s: float = 0.1, pieces: int = 2) -> None:
        self.clock, self.work_s, self.pieces = clock, work_s, pieces
        self.spoken: list[tuple[str, str]] = []
        self.stopped = False

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        self.spoken.append((clause.text, voice.id))
        try:
            for n in range(self.pieces):
                self.clock.now += self.work_s
                yield Speech(AudioChunk(np.zeros(12_000, np.float32), 24_000, n * 12_000))
        except GeneratorExit:
            self.stopped = True
            raise


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(voices, "time", clock)
    return clock


def speaker(clock: Clock, settings: Settings | None = None) -> tuple[Any, FakeEngine, FakeEngine]:
    made: Any = Speaker(None, settings or Settings(), None)  # type: ignore[arg-type]  # nothing is loaded
    kokoro, hibari = FakeEngine(clock, 0.2), FakeEngine(clock, 0.01)
    made.__dict__.update(kokoro=kokoro, _hibari=hibari)
    return made, kokoro, hibari


def say(made: Speaker, text: str, **options: Any) -> None:
    assert list(made.speak(Clause(0, text), **options))


def assert_near(pace: Pace, expected: Pace) -> None:
    assert (pace.first_s, pace.realtime) == pytest.approx((expected.first_s, expected.realtime))


# The catalogue


def test_catalogue_has_every_voice_once() -> None:
    assert len(KOKORO) == 54
    assert len({voice.id for voice in CATALOGUE}) == len(CATALOGUE) == 55
    assert (find("bm_george").language, find("bm_george").gender) == ("en-GB", "male")
    assert (find("zf_xiaobei").language, find("zf_xiaobei").gender) == ("cmn", "female")
    assert find("hibari") is HIBARI


def test_unknown_voice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="af_heart"):
        find("af_hart")


@pytest.mark.parametrize(
    ("text", "dialect", "language"),
    [
        ("Hello there.", None, "en"),
        ("你好，很高兴见到你。", None, "zh"),
        ("我在 Google 工作。", None, "zh"),
        ("The word 你 means you, of course.", None, "en"),
        ("2024", None, "en"),
        ("2024", "cmn", "zh"),
        ("2024", "cmn-sichuan", "zh"),
        ("你好", "en", "en"),
    ],
)
def test_language_of(text: str, dialect: str | None, language: str) -> None:
    assert language_of(Clause(0, text, SpeechStyle(dialect=dialect))) == language


def test_estimate_counts_characters_and_letters() -> None:
    assert estimate_s("你好") == pytest.approx(0.44)
    assert estimate_s("Hello world") == pytest.approx(0.715)
    assert estimate_s("") == 0


# The decision


def test_in_time_wants_the_first_audio_and_no_gap_after_it() -> None:
    assert SLOW.in_time(ahead_s=0.5, length_s=3)
    assert not SLOW.in_time(ahead_s=0.49, length_s=3)  # a quarter more than 0.4 s
    assert not Pace(0.1, 1.0).in_time(ahead_s=0.5, length_s=3)  # slower than it is heard
    assert Pace(0.1, 1.0).in_time(ahead_s=1, length_s=3)  # but enough is ahead


def test_pace_follows_what_is_measured() -> None:
    pace = Pace(0.4, 0.2).updated(0.8, 0.6, weight=0.5)
    assert (pace.first_s, pace.realtime) == (pytest.approx(0.6), pytest.approx(0.4))


def test_best_voice_in_time_speaks() -> None:
    both = [(HEART, SLOW), (HIBARI, QUICK)]
    assert choose(both, ahead_s=2, length_s=3) is HEART
    assert choose(both, ahead_s=math.inf, length_s=3) is HEART
    assert choose(both, ahead_s=0.2, length_s=3) is HIBARI


def test_soonest_speaks_where_none_is_in_time() -> None:
    assert choose([(HEART, SLOW), (HIBARI, QUICK)], ahead_s=0, length_s=3) is HIBARI
    assert choose([(HEART, SLOW)], ahead_s=0, length_s=3) is HEART


# The speaker


def test_default_voice_comes_first(clock: Clock) -> None:
    assert speaker(clock)[0].voices()[0] is HEART
    pinned = speaker(clock, Settings(voice="bm_george"))[0].voices()
    assert pinned[0].id == "bm_george"
    assert sorted(voice.id for voice in pinned) == sorted(voice.id for voice in CATALOGUE)
    assert speaker(clock)[0].find("hibari") is HIBARI


@pytest.mark.parametrize("field", ["voice", "voice_en", "voice_zh", "fast"])
def test_settings_that_name_no_voice_are_refused(clock: Clock, field: str) -> None:
    with pytest.raises(ConfigError, match="af_bella"):
        speaker(clock, replace(Settings(), **{field: "af_belle"}))


@pytest.mark.parametrize(
    ("settings", "text", "voice", "expected"),
    [
        (Settings(), "Hello.", None, ["af_heart", "hibari"]),
        (Settings(), "你好。", None, ["zf_xiaobei"]),
        (Settings(fast="none"), "Hello.", None, ["af_heart"]),
        (Settings(voice_en="am_adam"), "Hello.", None, ["am_adam"]),  # another person: no change of voice
        (Settings(voice="af_heart"), "Hello.", None, ["af_heart", "hibari"]),
        (Settings(voice="hibari"), "Hello.", None, ["hibari"]),
        (Settings(voice="hibari"), "你好。", None, ["zf_xiaobei"]),  # it reads no Chinese
        (Settings(), "Hello.", "af_heart", ["af_heart"]),  # asked for by name
        (Settings(), "你好。", "af_heart", ["af_heart"]),
        (Settings(), "你好。", "hibari", ["zf_xiaobei"]),
    ],
)
def test_candidates(
    clock: Clock, settings: Settings, text: str, voice: str | None, expected: list[str]
) -> None:
    made, _, _ = speaker(clock, settings)
    found = made.candidates(Clause(0, text), None if voice is None else find(voice))
    assert [v.id for v in found] == expected


def test_fast_voice_begins_and_the_best_goes_on(clock: Clock) -> None:
    made, kokoro, hibari = speaker(clock)
    say(made, "Yes, of course,", ahead_s=0.0)
    say(made, "we can go there tomorrow.", ahead_s=3.0)
    assert hibari.spoken == [("Yes, of course,", "hibari")]
    assert kokoro.spoken == [("we can go there tomorrow.", "af_heart")]


def test_work_is_measured_without_the_listeners_time(clock: Clock) -> None:
    made, _, _ = speaker(clock)
    before = made._pace["kokoro"]
    for _ in made.speak(Clause(0, "Hello."), voice=HEART):
        clock.now += 100
    assert_near(made._pace["kokoro"], before.updated(0.2, 0.4))  # 0.4 s of work for a second of audio


def test_silence_says_nothing_of_the_pace(clock: Clock) -> None:
    made, kokoro, _ = speaker(clock)
    kokoro.pieces = 0
    before = made._pace["kokoro"]
    assert list(made.speak(Clause(0, "…"), voice=HEART)) == []
    assert made._pace["kokoro"] == before


def test_closing_stops_the_engine(clock: Clock) -> None:
    made, kokoro, _ = speaker(clock)
    before = made._pace["kokoro"]
    pieces = made.speak(Clause(0, "Hello."), voice=HEART)
    next(pieces)
    pieces.close()
    assert kokoro.stopped
    assert made._pace["kokoro"] == before


def test_warm_times_every_voice_of_answers_the_second_time(clock: Clock) -> None:
    made, kokoro, hibari = speaker(clock)
    made.warm()
    assert [voice for _, voice in kokoro.spoken] == ["af_heart", "af_heart", "zf_xiaobei", "zf_xiaobei"]
    assert [voice for _, voice in hibari.spoken] == ["hibari", "hibari"]
    assert_near(made._pace["hibari"], Pace(0.04, 0.02).updated(0.01, 0.02))


def test_engines_are_loaded_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepaudio.tts import hibari, kokoro

    class Store:
        def path(self, model: str) -> str:
            return model

        def derived(self, model: str, recipe: str, build: Any) -> str:
            return f"{model} {recipe} {build.__name__}"

    monkeypatch.setattr(kokoro, "Kokoro", lambda *a, **k: (a, k))
    monkeypatch.setattr(hibari, "Hibari", lambda *a, **k: (a, k))
    made: Any = Speaker(Store(), Settings(threads=3), "pronouncer")  # type: ignore[arg-type]
    expected = ("kokoro-82m", "kokoro-voices", f"kokoro-82m {kokoro.RECIPE} split", "pronouncer")
    assert made._engine(HEART) == (expected, {"threads": 3, "bank": None})
    assert made._engine(HIBARI) == (("hibari", f"hibari {hibari.RECIPE} split", "pronouncer"), {})
