"""Cloning: what is measured of a recording, the filter, the components; with the models a short search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepaudio import cloning as service
from stepaudio import config
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.engine import Engine
from stepaudio.tts.timbre import BANDS, Melody, bands, equaliser, melody_of, spectrum_of
from stepaudio.tts.voicebank import VoiceBank

RATE = 16_000


def buzz(hz: np.ndarray, noise: float = 0.0, rate: int = RATE) -> AudioChunk:
    """Harmonics of a pitch given for every sample; 0: silence. With noise beside it."""
    cycles = np.cumsum(hz / rate)
    voice = sum(0.7**k * np.sin(2 * np.pi * k * cycles) for k in range(1, 12)) * (hz > 0)
    hiss = noise * np.random.default_rng(0).standard_normal(len(hz))
    return AudioChunk((0.1 * voice + hiss).astype(np.float32), rate)


def steps(*hz: float, seconds: float = 0.5) -> np.ndarray:
    return np.repeat(np.array(hz, float), int(seconds * RATE))


# What is measured


@pytest.mark.parametrize("hz", [90.0, 125.0, 210.0, 330.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_pitch_of_a_buzz(hz: float, noise: float) -> None:
    found = melody_of(buzz(steps(hz, 0, hz, hz), noise))
    assert found.median_hz == pytest.approx(hz, rel=0.03) and found.spread < 0.5


def test_pauses_are_not_speech_even_in_noise() -> None:
    quiet, noisy = (melody_of(buzz(steps(120, 0, 120, 0), noise)) for noise in (0.0, 0.01))
    assert quiet.speech_s == pytest.approx(1, abs=0.15) and noisy.speech_s == pytest.approx(1, abs=0.15)


def test_a_wide_melody_spreads() -> None:
    wide = melody_of(buzz(steps(100, 141, 200, 141)))
    assert wide.median_hz == pytest.approx(141, rel=0.03) and 4 < wide.spread < 7


def test_the_hum_of_mains_is_no_voice() -> None:
    hum = 0.003 * np.sin(2 * np.pi * 60 * np.arange(4 * RATE) / RATE).astype(np.float32)
    voice = buzz(steps(130, 0, 130, 0, 130, 0, 130, 0))
    found = melody_of(AudioChunk(voice.samples + hum, RATE))
    assert found.median_hz == pytest.approx(130, rel=0.03) and found.spread < 1


def test_noise_has_no_melody() -> None:
    with pytest.raises(ValueError, match="voiced"):
        melody_of(AudioChunk(0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32), RATE))


def test_a_melody_of_a_track_leaves_out_what_is_unvoiced() -> None:
    found = Melody.of(np.array([5, 100, 100, 100, 12, 0]))
    assert (found.median_hz, found.spread) == (100, 0)


# Spectrum


@pytest.mark.parametrize(("rate", "size"), [(16_000, 400), (24_000, 600)])
def test_bands_weigh_a_flat_spectrum_alike(rate: int, size: int) -> None:
    assert bands(rate, size).shape == (BANDS, size // 2 + 1)
    assert np.allclose(bands(rate, size).sum(axis=1), 1, atol=1e-5)


def test_spectrum_does_not_depend_on_level_and_hardly_on_rate() -> None:
    noise = np.random.default_rng(0).standard_normal(48_000)
    plain = spectrum_of(noise, 24_000)
    assert np.allclose(plain, spectrum_of(0.01 * noise, 24_000), atol=1e-3)
    assert np.abs(plain - spectrum_of(noise, 16_000)).max() < 1.5  # white at any rate
    assert abs(float(plain.mean())) < 1e-4


def test_a_filter_brings_a_spectrum_nearer_and_changes_no_time() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(72_000)
    wanted = spectrum_of(noise, 24_000) + np.linspace(3, -3, BANDS, dtype=np.float32)
    taps = equaliser(wanted, spectrum_of(noise, 24_000))
    assert len(taps) == 511 and np.allclose(taps, taps[::-1], atol=1e-6)
    got = spectrum_of(np.convolve(noise, taps, "same"), 24_000)
    assert np.abs(got - wanted).max() < 0.8
    assert int(np.abs(taps).argmax()) == 255


def test_a_filter_does_little_where_much_is_asked() -> None:
    flat = np.zeros(BANDS, np.float32)
    taps = equaliser(flat + np.linspace(-40, 40, BANDS), flat)
    gains = 20 * np.log10(np.abs(np.fft.rfft(taps, 4096)))
    assert np.abs(gains).max() < 4.3


# Consent, as it is asked for


def test_a_consent_is_asked_for_before_it_is_given(tmp_path: Path) -> None:
    bank = VoiceBank(tmp_path / "voices")
    with pytest.raises(ConfigError, match="stepaudio voices consent"):
        service.asked_consent(bank)
    first = service.ask_consent(bank, "en", 1000.0)
    assert service.asked_consent(bank) == first and len(set(first.code) - set("23456789")) == 0
    second = service.ask_consent(bank, "zh", 2000.0)
    assert service.asked_consent(bank) == second
    assert bank.voices() == ()  # the file of what was asked is no voice
    (bank.folder / ".consent.json").write_text(json.dumps({"language": "en"}))
    with pytest.raises(ConfigError, match="stepaudio voices consent"):
        service.asked_consent(bank)


def test_a_consent_that_cannot_be_read_is_told_before_the_recording_is_heard(
    tmp_path: Path, monkeypatch
) -> None:
    engine = Engine(config.load(None, {}, {"tts.voices": str(tmp_path)}).config)
    service.ask_consent(engine.voice_bank, "en", 1000.0)
    monkeypatch.setattr(service, "listen", lambda *of: pytest.fail("the recording was heard"))
    with pytest.raises(AudioError, match=r"none\.wav: there is no such file"):
        service.clone(engine, "anna", buzz(steps(120)), tmp_path / "none.wav", 1001.0)


# The search

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra clone)")


def test_components_are_the_directions_in_which_voices_differ() -> None:
    from stepaudio.tts.cloning import components

    rng = np.random.default_rng(0)
    along = rng.standard_normal(54)
    tables = 5 + 3 * along[:, None] * np.array([0.6, 0.8, 0, 0]) + 0.01 * rng.standard_normal((54, 4))
    middle, found = components(tables, 2)
    assert found.shape == (2, 4) and found.dtype == np.float32
    assert np.abs(found[0]) == pytest.approx(3 * along.std(ddof=1) * np.array([0.6, 0.8, 0, 0]), abs=0.05)
    assert middle == pytest.approx(tables.mean(axis=0))


def test_words_that_stay_and_a_spectrum_that_is_met_cost_nothing() -> None:
    from stepaudio.tts.cloning import _bands, _spectral, _verbal

    samples = torch.from_numpy(np.random.default_rng(0).standard_normal(24_000).astype(np.float32))
    found = _bands(samples)
    own = torch.from_numpy(spectrum_of(samples.numpy(), 24_000))
    assert float(_spectral(found, own)) < 0.05 and float(_verbal(found, found)) == 0
    assert float(_spectral(found, own + torch.linspace(-2, 2, BANDS))) == pytest.approx(1.03, abs=0.1)
    assert float(_verbal(found + 3, found)) < 1e-4  # louder is no other word


@pytest.fixture(scope="module")
def speaking(engine, model_dir):
    model_dir("resemblyzer")
    torch.set_num_threads(1)
    return engine


def test_the_decoder_is_the_published_one(speaking) -> None:
    import onnxruntime

    from stepaudio.tts import decoder
    from stepaudio.tts.prosody import ProsodyPlan, whole_frames
    from stepaudio.tts.voices import find

    kokoro, voice = speaking.kokoro, find("af_heart")
    symbols = kokoro.symbols("The museum opens at nine.", "en")
    draft = kokoro.draft(symbols, voice)
    lengths = whole_frames(draft.lengths)
    pitch, energy = draft.contours(lengths)
    nothing = np.zeros_like(pitch)
    plan = ProsodyPlan(
        symbols, lengths, pitch, energy, nothing, nothing, nothing, (), (0, int(lengths.sum()))
    )
    published = kokoro.render_whole(plan, voice)
    folder = speaking.store.derived("kokoro-82m", decoder.RECIPE, decoder.write_source)
    source = onnxruntime.InferenceSession(str(folder / decoder.SOURCE)).run(
        None, {decoder.PITCH: pitch[None]}
    )
    decode = decoder.Decoder(speaking.store.path("kokoro-82m"))
    parts = (
        np.repeat(draft.text, lengths, axis=2),
        pitch[None],
        energy[None],
        source[0],
        draft.style[:, :128],
    )
    with torch.no_grad():
        samples = decode(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)).numpy()
    assert len(samples) == len(published)
    assert np.corrcoef(samples, published)[0, 1] > 0.97


def test_the_encoder_is_the_one_that_judges_and_gradients_reach_the_audio(speaking) -> None:
    from stepaudio.recognition.speaker_gradient import GradientEncoder

    heard = buzz(np.full(26_000, 130.0) + 20 * np.sin(np.arange(26_000) / 3000))
    encode = GradientEncoder(speaking.store.path("resemblyzer"))
    samples = torch.from_numpy(heard.samples).requires_grad_()
    found = encode(samples, RATE)
    judged = speaking.speakers.windows(heard)[0]
    assert float(found.detach().numpy() @ judged) > 0.999
    found[judged.argmax()].backward()
    assert samples.grad is not None and float(samples.grad.abs().max()) > 0


def test_a_few_steps_come_nearer_and_stay_among_the_voices(speaking, monkeypatch) -> None:
    """Towards another stock voice, which is surely among them."""
    from stepaudio.core.audio import join, resample
    from stepaudio.tts import cloning

    monkeypatch.setattr(cloning, "WINDOWS", 2)
    sentence = "We could choose a good book about the joy of measuring usual things."
    monkeypatch.setattr(cloning, "SENTENCES", {"en": (sentence,)})
    target = resample(join([s.audio for s in speaking.say(sentence, voice="am_onyx")]), RATE)
    heard = service.Recording(target, speaking.speakers.embed(target), sentence, "en")
    likeness: list[int] = []
    found = service.find(speaking, heard, lambda done, total: likeness.append(done), steps=4)
    assert likeness == [1, 2, 3, 4]
    assert found.gender == "male" and found.character.table.shape == (510, 1, 256)
    moved = found.character.table - speaking.kokoro.stock(found.nearest)
    timbre = moved[..., :128]
    assert np.abs(timbre).max() > 0.01 and np.ptp(timbre, axis=0).max() < 1e-5  # the same for every length
    assert found.likeness > 0.6
