"""The real voices: what they say is whole, in time with its words, and stops when nobody listens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hibari import dsp

from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.errors import ConfigError
from stepaudio.core.style import SpeechStyle
from stepaudio.models import ModelStore
from stepaudio.tts import hibari, kokoro
from stepaudio.tts.base import Speech, Synthesizer, Voice
from stepaudio.tts.prosody import ProsodyPlan
from stepaudio.tts.text import Pronouncer
from stepaudio.tts.voices import HIBARI, KOKORO, find

ENGLISH = "My brother bought seventeen books in Paris."
CHINESE = "我昨天在北京买了三本书。"


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer()


@pytest.fixture(scope="module")
def kokoro_voice(
    store: ModelStore, model_dir: Callable[[str], Path], pronouncer: Pronouncer
) -> kokoro.Kokoro:
    model, voices = model_dir("kokoro-82m"), model_dir("kokoro-voices")
    return kokoro.Kokoro(model, voices, store.derived("kokoro-82m", kokoro.RECIPE, kokoro.split), pronouncer)


@pytest.fixture(scope="module")
def hibari_voice(
    store: ModelStore, model_dir: Callable[[str], Path], pronouncer: Pronouncer
) -> hibari.Hibari:
    model = model_dir("hibari")
    return hibari.Hibari(model, store.derived("hibari", hibari.RECIPE, hibari.split), pronouncer)


@pytest.fixture(params=["af_heart", "zf_xiaobei", "hibari"])
def voice(request: pytest.FixtureRequest) -> Voice:
    return find(request.param)


@pytest.fixture
def engine(voice: Voice, request: pytest.FixtureRequest) -> Synthesizer:
    return request.getfixturevalue(f"{voice.engine}_voice")


def text_of(voice: Voice) -> str:
    return CHINESE if voice.language == "cmn" else ENGLISH


def speak(
    engine: Synthesizer, text: str, voice: Voice, speed: float | None = None
) -> tuple[AudioChunk, list[Mark], list[Speech]]:
    pieces = list(engine.synthesize(Clause(0, text, SpeechStyle(speed=speed)), voice))
    audio = join(piece.audio for piece in pieces)
    return audio, [mark for piece in pieces for mark in piece.marks], pieces


def level_db(samples: np.ndarray) -> float:
    """Of the frames that are no silence."""
    power = (samples[: len(samples) // 600 * 600].reshape(-1, 600) ** 2).mean(axis=1)
    return float(10 * np.log10(power[power > 10**-4.5].mean()))


def test_clause_is_spoken(engine: Synthesizer, voice: Voice, pronouncer: Pronouncer) -> None:
    audio, marks, pieces = speak(engine, text_of(voice), voice)
    assert audio.rate == engine.rate == 24_000
    assert audio.samples.dtype == np.float32
    assert 1.5 < audio.seconds < 5
    assert 0.1 < np.abs(audio.samples).max() < 1

    starts = np.cumsum([0, *(len(piece.audio.samples) for piece in pieces)])
    assert [piece.audio.start for piece in pieces] == starts[:-1].tolist()

    assert [mark.text for mark in marks] == [w.written for w in pronouncer.pronounce(text_of(voice))]
    times = [t for mark in marks for t in (mark.start_ms, mark.end_ms)]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= 1000 * audio.seconds
    for piece in pieces:  # a word comes with the piece that it begins in
        begin_ms, end_ms = (
            1000 * t / 24_000 for t in (piece.audio.start, piece.audio.start + len(piece.audio.samples))
        )
        assert all(begin_ms <= mark.start_ms < end_ms for mark in piece.marks)


def test_silence_at_the_ends_is_short(engine: Synthesizer, voice: Voice) -> None:
    samples = speak(engine, text_of(voice), voice)[0].samples
    loud = np.flatnonzero(np.abs(samples) > 0.01) / 24_000
    assert loud[0] < 0.15
    assert 0.15 < len(samples) / 24_000 - loud[-1] < 0.4
    assert abs(samples[0]) < 0.003 and abs(samples[-1]) < 0.003  # no click where clauses meet


def test_speed_scales_the_length(engine: Synthesizer, voice: Voice) -> None:
    slow, normal, fast = (speak(engine, text_of(voice), voice, speed)[0].seconds for speed in (0.5, None, 2))
    assert 1.5 < slow / normal < 2.2
    assert 0.45 < fast / normal < 0.75


def test_a_word_alone_is_as_loud_as_a_sentence(engine: Synthesizer, voice: Voice) -> None:
    word = speak(engine, "好。" if voice.language == "cmn" else "Sure!", voice)[0]
    sentence = speak(engine, text_of(voice), voice)[0]
    assert abs(level_db(word.samples) - level_db(sentence.samples)) < 6


@pytest.mark.parametrize("text", ["", "…", "!?", "🙂", "\n"])
def test_nothing_to_say_yields_nothing(engine: Synthesizer, voice: Voice, text: str) -> None:
    assert list(engine.synthesize(Clause(0, text), voice)) == []


def test_long_clause_is_spoken_to_its_end(hibari_voice: hibari.Hibari, pronouncer: Pronouncer) -> None:
    text = " ".join(f"There were {n} people, and every one of them had come from far away." for n in range(9))
    audio, marks, pieces = speak(hibari_voice, text, HIBARI)
    assert len(pieces) > 1
    assert [mark.text for mark in marks] == [word.written for word in pronouncer.pronounce(text)]
    assert marks[-1].end_ms <= 1000 * audio.seconds


def test_hibari_is_as_loud_as_af_heart(kokoro_voice: kokoro.Kokoro, hibari_voice: hibari.Hibari) -> None:
    heart = speak(kokoro_voice, ENGLISH, find("af_heart"))[0]
    other = speak(hibari_voice, ENGLISH, HIBARI)[0]
    assert abs(level_db(heart.samples) - level_db(other.samples)) < 2.5


def test_pieces_sound_as_the_whole(kokoro_voice: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joins and pieces differ from one run of the decoder as little as int8 arithmetic itself does."""
    heart = find("af_heart")
    streamed, marks, pieces = speak(kokoro_voice, ENGLISH, heart)
    monkeypatch.setattr(kokoro, "PIECES", (10_000,))
    whole, whole_marks, one = speak(kokoro_voice, ENGLISH, heart)
    assert len(pieces) >= 3 and len(one) == 1
    assert marks == whole_marks
    assert len(streamed.samples) == len(whole.samples)
    assert np.corrcoef(streamed.samples, whole.samples)[0, 1] > 0.9
    assert abs(level_db(streamed.samples) - level_db(whole.samples)) < 1
    # No click: at the joins, samples are no farther apart than they are elsewhere.
    steps = np.abs(np.diff(streamed.samples))
    joins = [piece.audio.start for piece in pieces[1:]]
    assert (
        max(steps[join - 121 : join + 121].max() for join in joins)
        <= 1.5 * np.abs(np.diff(whole.samples)).max()
    )


@pytest.mark.parametrize("speed", [0.5, 1.0])
def test_statistics_are_foretold_well(kokoro_voice: kokoro.Kokoro, speed: float) -> None:
    """Given statistics make nearly the sound that the published model makes with its own."""
    heart = find("af_heart")
    (plan,) = kokoro_voice.plan(Clause(0, ENGLISH, SpeechStyle(speed=speed)), heart)
    published, ours = (
        kokoro_voice.render_whole(plan, heart, foretold=foretold) for foretold in (False, True)
    )
    assert np.corrcoef(published, ours)[0, 1] > 0.7
    assert abs(level_db(published) - level_db(ours)) < 3


@pytest.mark.parametrize("id", ["af_heart", "zm_yunyang"])
def test_kokoro_put_together_is_the_published_one_bit_for_bit(
    kokoro_voice: kokoro.Kokoro, model_dir: Callable[[str], Path], id: str
) -> None:
    voice = find(id)
    (plan,) = kokoro_voice.plan(Clause(0, text_of(voice)), voice)
    stock = kokoro.session(model_dir("kokoro-82m") / kokoro.MODEL, threads=2)
    tokens = np.array([[0, *(kokoro_voice.vocabulary[symbol] for symbol in plan.symbols), 0]])
    table = np.fromfile(model_dir("kokoro-voices") / f"{id}.bin", "<f4").reshape(-1, 1, 256)
    style = table[len(plan.symbols)]
    (published,) = stock.run(None, {"tokens": tokens, "style": style, "speed": np.ones(1, np.float32)})
    assert np.array_equal(np.ravel(published), kokoro_voice.render_whole(plan, voice))
    # Saved as JSON and read again, it is still the same plan.
    again = ProsodyPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert np.array_equal(np.ravel(published), kokoro_voice.render_whole(again, voice))


def test_hibari_put_together_is_the_published_one_bit_for_bit(
    hibari_voice: hibari.Hibari, model_dir: Callable[[str], Path]
) -> None:
    (plan,) = hibari_voice.plan(Clause(0, ENGLISH), HIBARI)
    everything = plan.edit(heard=(0, plan.frames))
    ours = np.concatenate(list(hibari_voice.render(everything, HIBARI)))
    stock = kokoro.session(model_dir("hibari") / hibari.MODEL, threads=1)
    tokens = np.array([[0, *(hibari_voice.vocabulary[symbol] for symbol in plan.symbols), 0]])
    names = ["lh", "theta", "ln", "lr", "phi", "f0"]
    lh, theta, ln, lr, phi, f0 = (
        part[0] for part in stock.run(names, {"ids": tokens, "speed": np.ones(1, np.float32)})
    )
    published = dsp.synth(lh, theta, ln, lr, phi, f0, np.random.default_rng(0)) * np.float32(hibari.GAIN)
    assert np.array_equal(published, ours)


def test_closing_stops_the_work(kokoro_voice: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = kokoro_voice._decode
    monkeypatch.setattr(kokoro_voice, "_decode", lambda *args: decoded.append(args) or decode(*args))
    pieces: Any = kokoro_voice.synthesize(Clause(0, ENGLISH), find("af_heart"))
    next(pieces)
    pieces.close()
    assert len(decoded) == 1


def test_english_inside_chinese(kokoro_voice: kokoro.Kokoro) -> None:
    audio, marks, _ = speak(kokoro_voice, "我在 Google 工作。", find("zf_xiaobei"))
    assert [mark.text.strip("。") for mark in marks] == ["我", "在", "Google", "工", "作"]
    google = marks[2]
    assert google.end_ms - google.start_ms > 150
    within = audio.samples[24 * google.start_ms : 24 * google.end_ms]
    assert np.abs(within).max() > 0.05


def test_all_voices_have_files(kokoro_voice: kokoro.Kokoro) -> None:
    assert kokoro_voice.voices() == KOKORO


def test_voice_without_a_file_is_refused(kokoro_voice: kokoro.Kokoro) -> None:
    stranger = Voice("af_hart", "kokoro", "en-US", "female", "Apache-2.0")
    with pytest.raises(ConfigError, match="af_heart"):
        next(kokoro_voice.synthesize(Clause(0, "Hello."), stranger))


def test_statistics_of_a_voice_are_kept(kokoro_voice: kokoro.Kokoro) -> None:
    kokoro_voice._known.clear()
    kokoro_voice._manner("af_heart")
    kept = kokoro_voice._derived / "af_heart.npz"
    before = kept.stat().st_mtime_ns
    kokoro_voice._known.clear()
    again = kokoro_voice._manner("af_heart")
    assert kept.stat().st_mtime_ns == before
    assert again.energies.tolist() == sorted(again.energies.tolist())
    assert np.isfinite(again.means).all() and (again.variances > 0).all()
