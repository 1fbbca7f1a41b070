"""Who speaks: windows, features, the reader of legacy pickles, and real voices told apart."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.files import read_audio
from stepaudio.models import ModelStore
from stepaudio.recognition import speakers
from stepaudio.recognition.base import RATE

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def encoder(model_dir, store: ModelStore) -> speakers.SpeakerEncoder:
    model_dir("resemblyzer")
    return speakers.SpeakerEncoder(store.derived("resemblyzer", speakers.RECIPE, speakers.expose), threads=1)


def buzz(hz: float, seconds: float, formant: float = 700.0) -> np.ndarray:
    """A pulse train through one resonance: a voice of sorts."""
    n = int(seconds * RATE)
    pulses = (np.arange(n) * hz / RATE % 1 < hz / RATE).astype(float)
    ring = np.exp(-np.arange(400) / 60) * np.sin(2 * np.pi * formant / RATE * np.arange(400))
    return (0.1 * np.convolve(pulses, ring)[:n]).astype(np.float32)


@pytest.mark.parametrize(
    ("seconds", "begins"),
    [(0.5, [0]), (1.6, [0]), (2.2, [0, 77]), (1.7, [0]), (3.2, [0, 77, 154])],
)
def test_windows_cover_the_audio_and_the_last_is_mostly_full(seconds, begins):
    assert speakers.partials(int(seconds * RATE)) == begins


def test_mel_of_a_tone_lies_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    frames = speakers.mel(tone)
    assert frames.shape == (101, 40)
    # 45.245 mel (Slaney) up to 8 kHz, 40 bands: 1 kHz is 15 mel, band 15 / 45.245 * 41 - 1.
    assert np.abs(frames[10:-10].argmax(axis=1) - 12.6).max() < 1


def test_pauses_go_and_the_pause_in_a_word_stays():
    voice, silence = np.ones(RATE, np.float32), np.zeros(RATE, np.float32)
    kept = speakers.without_pauses(np.concatenate([voice, silence, voice]))
    assert 2.0 <= len(kept) / RATE < 2.25
    short = np.concatenate([voice, silence[:1600], voice])
    assert len(speakers.without_pauses(short)) >= len(short) - speakers._BLOCK
    assert len(speakers.without_pauses(silence)) == 0


def test_soft_audio_is_raised_loud_and_silent_audio_is_not():
    soft = np.full(100, 0.001, np.float32)
    assert np.sqrt(np.mean(speakers.raised(soft) ** 2)) == pytest.approx(10 ** (-30 / 20), rel=1e-5)
    assert speakers.raised(np.full(100, 0.5, np.float32))[0] == np.float32(0.5)
    assert not speakers.raised(np.zeros(100, np.float32)).any()


class _Evil:
    def __reduce__(self):
        return print, ("run",)


def legacy(path: Path, content: bytes) -> Path:
    head = [pickle.dumps(value, 2) for value in (speakers._MAGIC, speakers._PROTOCOL, {})]
    path.write_bytes(b"".join([*head, content, pickle.dumps(["7"], 2), struct.pack("<q2f", 2, 1.5, -2.0)]))
    return path


def tensor(shape: bytes, storage: bytes = b"FloatStorage") -> bytes:
    """{"model_state": {"w": <tensor over storage "7">}, "step": 3} as torch.save pickles it."""
    return (
        b"\x80\x02}(X\x0b\x00\x00\x00model_stateccollections\nOrderedDict\n)Rq\x00X\x01\x00\x00\x00w"
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n" + storage + b"\n"
        b"X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x02NtQK\x00" + shape + b"K\x01\x85\x89"
        b"ccollections\nOrderedDict\n)RtRsX\x04\x00\x00\x00stepK\x03u."
    )


def test_numbers_are_read_from_a_legacy_pickle(tmp_path):
    path = legacy(tmp_path / "w.bin", tensor(b"K\x02\x85"))
    assert {name: value.tolist() for name, value in speakers.read_legacy(path).items()} == {"w": [1.5, -2.0]}


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"model_state": _Evil()}, 2),
        pickle.dumps({"model_state": [1]}, 2),
        tensor(b"K\x02\x85", b"LongStorage"),
        tensor(b"K\x09\x85"),  # more numbers than there are
        b"",
    ],
)
def test_nothing_else_is_read_from_a_legacy_pickle(tmp_path, content, capsys):
    with pytest.raises(ConfigError, match="fetch it again"):
        speakers.read_legacy(legacy(tmp_path / "w.bin", content))
    assert capsys.readouterr().out == ""


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(pickle.dumps(42, 2) * 3)
    with pytest.raises(ConfigError, match="fetch it again"):
        speakers.read_legacy(path)


def test_the_graph_computes_what_torch_computes(encoder, model_dir):
    torch = pytest.importorskip("torch", reason="torch is the reference")
    weights = speakers.read_legacy(model_dir("resemblyzer") / speakers.WEIGHTS)
    network = torch.nn.LSTM(40, 256, 3, batch_first=True)
    network.load_state_dict(
        {name[5:]: torch.tensor(value) for name, value in weights.items() if name.startswith("lstm.")}
    )
    samples = np.concatenate([buzz(120, 1.5), buzz(150, 2.0)])
    begins = speakers.partials(len(samples))
    mels = np.stack([speakers.mel(np.pad(samples, (0, RATE)))[b : b + 160] for b in begins])
    with torch.no_grad():
        _, (hidden, _) = network(torch.tensor(mels))
        wanted = torch.relu(
            hidden[-1] @ torch.tensor(weights["linear.weight"]).T + torch.tensor(weights["linear.bias"])
        )
        wanted = (wanted / wanted.norm(dim=1, keepdim=True)).numpy()
    heard = speakers.raised(samples)
    assert np.array_equal(heard, samples) and len(speakers.without_pauses(samples)) <= len(samples)
    found = encoder._session.run(None, {"mel": mels.transpose(1, 0, 2)})[0]
    assert np.abs(found - wanted).max() < 1e-5


def test_an_embedding_has_length_1_and_knows_its_voice(encoder):
    low, again, high = (
        encoder.embed(AudioChunk(buzz(hz, seconds, formant), RATE))
        for hz, seconds, formant in ((110, 3, 600), (114, 4, 600), (230, 3, 1100))
    )
    assert low.shape == (speakers.SIZE,) and np.linalg.norm(low) == pytest.approx(1, abs=1e-5)
    assert speakers.similarity(low, again) > speakers.similarity(low, high) + 0.1


def test_silence_and_a_syllable_are_no_voice(encoder):
    for samples in (np.zeros(RATE * 3, np.float32), buzz(110, 0.2), np.zeros(0, np.float32)):
        with pytest.raises(AudioError, match="seconds of speech"):
            encoder.embed(AudioChunk(samples, RATE))


@pytest.mark.skipif(not DATA.is_dir(), reason="no real recordings at ../shared/data")
def test_real_speakers_are_told_apart(encoder):
    rows = [json.loads(line) for line in (DATA / "MANIFEST.jsonl").read_text("utf-8").splitlines()]
    of: dict[str, list[np.ndarray]] = {}
    for row in rows:
        speaker = row.get("speaker") or ""
        fits = row.get("kind") == "asr_en" and speaker.startswith("LibriSpeech") and row["seconds"] > 4
        if fits and len(of.setdefault(speaker, [])) < 2:
            of[speaker].append(encoder.embed(read_audio(DATA / row["path"], RATE)))
    pairs = [voices for voices in of.values() if len(voices) == 2]
    assert len(pairs) >= 4
    for n, (first, second) in enumerate(pairs):
        others = [other[0] for m, other in enumerate(pairs) if m != n]
        assert speakers.similarity(first, second) > max(speakers.similarity(first, other) for other in others)
