"""The chain from words to sound, with a voice that knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from stepaudio.core.clauses import Clause, Mark, Span
from stepaudio.core.style import SpeechStyle
from stepaudio.tts import performance
from stepaudio.tts.base import Voice
from stepaudio.tts.prosody import FRAME, LEAD, ProsodyPlan
from stepaudio.tts.sounds import FRAMES, sound
from stepaudio.tts.text import SpokenWord

VOICE = Voice("v", "fake", "en-US", "female", "MIT")


@dataclass
class FakeDraft:
    lengths: np.ndarray

    def contours(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy = np.full(2 * lengths.sum(), 5, np.float32)
        energy[: 2 * lengths[0]] = energy[len(energy) - 2 * lengths[-1] :] = -9
        return np.full(len(energy), 100, np.float32), energy


class FakeModel:
    """Every symbol lasts 4 frames, the silences 10; the audio is a constant, in pieces of 8 frames."""

    vocabulary = {symbol: n for n, symbol in enumerate("abcdef .", 1)}  # noqa: RUF012
    limit = 100

    def draft(self, symbols: str, voice: Voice) -> FakeDraft:
        return FakeDraft(np.array([10.0, *[4.0] * len(symbols), 10.0]))

    def render(self, plan: ProsodyPlan, voice: Voice, *, soon: bool = True) -> Iterator[np.ndarray]:
        first, last = plan.heard
        for begin in range(first, last, 8):
            yield np.full((min(begin + 8, last) - begin) * FRAME, 0.1, np.float32)


def words(*written: str) -> list[SpokenWord]:
    return [SpokenWord(w, w, w + " " * (n < len(written) - 1), "en") for n, w in enumerate(written)]


def plan(clause: Clause, **model: int) -> list[ProsodyPlan]:
    fake = FakeModel()
    fake.limit = model.get("limit", 100)
    return list(performance.plan(fake, words(*clause.text.split()), clause, VOICE))


def audio_and_marks(plans: list[ProsodyPlan]) -> tuple[np.ndarray, list[Mark]]:
    speech = list(performance.perform(FakeModel(), plans, VOICE))
    starts = [piece.audio.start for piece in speech]
    lengths = [len(piece.audio.samples) for piece in speech]
    assert starts == [sum(lengths[:n]) for n in range(len(lengths))]
    return np.concatenate([piece.audio.samples for piece in speech]), [
        m for piece in speech for m in piece.marks
    ]


def test_nothing_asked_is_what_the_voice_says() -> None:
    (planned,) = plan(Clause(0, "ab cd"))
    assert planned.lengths.tolist() == [10, 4, 4, 4, 4, 4, 10]
    assert (planned.pitch == 100).all()
    samples, marks = audio_and_marks([planned])
    assert set(samples) == {np.float32(0.1)}
    assert len(samples) == FRAME * (LEAD + 20 + 2)
    assert marks == [Mark("ab", 50, 250), Mark("cd", 350, 550)]


def test_words_alone_get_their_style() -> None:
    (planned,) = plan(Clause(0, "ab cd ef", spans=(Span(3, 5, SpeechStyle(pitch=12, volume=6)),)))
    inside = slice(2 * (10 + 12) + 4, 2 * (10 + 20) - 4)
    assert planned.pitch[inside] == pytest.approx(200)
    assert planned.gain[inside] == pytest.approx(6)
    assert planned.pitch[20:34] == pytest.approx(100)
    assert planned.pitch[-32:-20] == pytest.approx(100)


def test_emphasis_takes_time() -> None:
    plain, strong = (
        plan(Clause(0, "ab cd ef", spans=(Span(3, 5, SpeechStyle(emphasis=e)),)))[0].lengths for e in (0, 2)
    )
    assert (strong[4:6] > plain[4:6]).all()
    assert strong[:4].tolist() == plain[:4].tolist()


@pytest.mark.parametrize("speed", [0.5, 0.77, 1.1, 1.5, 2.0])
@pytest.mark.parametrize("text", ["ab", "ab cd ef ab cd"])
def test_speed_is_what_is_heard(speed: float, text: str) -> None:
    (planned,) = plan(Clause(0, text, SpeechStyle(speed=speed)))
    silent = planned.lengths[0] + planned.lengths[-1]
    sounding = (planned.frames - silent) / planned.stretch
    assert sounding == pytest.approx(4 * len(text) / speed, rel=0.07 if text == "ab" else 0.02)
    assert planned.lengths.max() <= max(10, 11 / speed)
    assert planned.lengths.min() >= 4 / max(performance.MOST_TEMPO, speed / planned.stretch) - 1
    samples, marks = audio_and_marks([planned])
    assert len(samples) == pytest.approx(planned.seconds * 24_000, abs=1)
    assert [mark.text for mark in marks] == text.split()


def test_speed_beyond_whole_frames_is_made_of_the_audio() -> None:
    fast = FakeModel()
    fast.draft = lambda symbols, voice: FakeDraft(np.full(len(symbols) + 2, 1.0))  # type: ignore[method-assign]
    (planned,) = performance.plan(fast, words("ab"), Clause(0, "ab", SpeechStyle(speed=2)), VOICE)
    assert planned.lengths.tolist() == [1, 1, 1, 1]
    assert planned.stretch == pytest.approx(2)
    samples, marks = audio_and_marks([planned])
    assert len(samples) == (planned.heard[1] - planned.heard[0]) * FRAME // 2
    assert [mark.text for mark in marks] == ["ab"]


def test_a_pause_keeps_its_length_at_any_speed() -> None:
    (planned,) = plan(Clause(0, "ab cd", SpeechStyle(speed=2), spans=(Span(3, 3, pause_ms=500),)))
    assert (planned.frames - planned.lengths[0] - planned.lengths[-1]) / planned.stretch == pytest.approx(
        20 / 2 + 20, rel=0.02
    )


def test_pause_between_words() -> None:
    (planned,) = plan(Clause(0, "ab cd", spans=(Span(3, 3, pause_ms=500),)))
    assert planned.lengths.tolist() == [10, 4, 4, 24, 4, 4, 10]
    samples, marks = audio_and_marks([planned])
    assert marks == [Mark("ab", 50, 250), Mark("cd", 850, 1050)]
    assert np.abs(samples[int(0.3 * 24000) : int(0.8 * 24000)]).max() < 1e-3


@pytest.mark.parametrize(("place", "mark"), [(0, 550), (5, 50)])
def test_pause_at_an_end_of_the_clause(place: int, mark: int) -> None:
    (planned,) = plan(Clause(0, "ab cd", spans=(Span(place, place, pause_ms=500),)))
    samples, marks = audio_and_marks([planned])
    assert marks[0] == Mark("ab", mark, mark + 200)
    assert len(samples) == FRAME * (LEAD + 20 + 2 + 20)
    silent = samples[: 11 * FRAME] if place == 0 else samples[-11 * FRAME :]
    assert np.abs(silent).max() < 1e-4


def test_breath_is_heard_where_it_stands() -> None:
    (planned,) = plan(Clause(0, "ab cd", spans=(Span(3, 3, sound="breath"),)))
    assert planned.sounds == ((10 + 8 + 2, "breath"),)
    samples, _ = audio_and_marks([planned])
    begin = (planned.sounds[0][0] - planned.heard[0]) * FRAME
    heard = samples[begin + FRAME : begin + (FRAMES["breath"] - 2) * FRAME]
    assert heard == pytest.approx(sound("breath")[FRAME:][: len(heard)], abs=1e-4)


def test_sounds_are_soft_and_begin_and_end_in_silence() -> None:
    for name in FRAMES:
        made = sound(name)
        assert 0.005 < np.abs(made).max() < 0.1
        assert np.abs(made[:50]).max() < 0.1 * np.abs(made).max()
        assert np.abs(made[-50:]).max() < 0.2 * np.abs(made).max()


def test_whisper_is_a_matter_of_breath() -> None:
    (planned,) = plan(Clause(0, "ab", SpeechStyle(mode="whisper")))
    assert (planned.breath == 1).all()


def test_long_clause_is_several_plans_and_one_time_line() -> None:
    plans = plan(Clause(0, "abc def ab"), limit=7)
    assert [planned.symbols for planned in plans] == ["abc ", "def ab"]
    _, marks = audio_and_marks(plans)
    assert [mark.text for mark in marks] == ["abc", "def", "ab"]
    assert [mark.start_ms for mark in marks] == sorted(mark.start_ms for mark in marks)


def test_nothing_to_say_is_no_plan() -> None:
    assert plan(Clause(0, "...")) == []


def test_phonemes_are_said_in_the_place_of_words() -> None:
    (planned,) = plan(Clause(0, "ab cd ef", spans=(Span(0, 5, phonemes="fade"),)))
    assert planned.symbols == "fade ef"
    _, marks = audio_and_marks([planned])
    assert [mark.text for mark in marks] == ["ab", "cd", "ef"]
    assert marks[0].end_ms - marks[0].start_ms == 400
