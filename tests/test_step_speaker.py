"""Speaker embedding and the prompt's mel. The reference's numbers: tests/parity_tts.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import torch
from safetensors.torch import save_file

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.tts.step import tiny
from stepaudio.tts.step.speaker import SpeakerEncoder, fbank, kaldi_filters, mel22k, mel_filters


def tone(hz: float, rate: int, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def test_a_tone_lights_the_bin_that_it_belongs_to():
    mel = mel22k(torch.from_numpy(tone(1000, 22050, 1)))
    assert mel.shape == (22050 // 256, 80)
    loudest = int(mel.mean(0).argmax())
    assert int(mel_filters()[:, round(1000 * 1024 / 22050)].argmax()) == loudest
    bank = fbank(torch.from_numpy(tone(1000, 16000, 1)))
    assert bank.shape == (98, 80)
    assert int(bank.mean(0).argmax()) == int(kaldi_filters()[:, round(1000 * 512 / 16000)].argmax())


def test_silence_is_the_floor_and_no_nan():
    assert mel22k(torch.zeros(4000)).unique().tolist() == pytest.approx([np.log(1e-5)])
    assert torch.isfinite(fbank(torch.zeros(4000))).all()


def test_too_short_is_said():
    for function, samples in ((mel22k, 384), (fbank, 399)):
        with pytest.raises(AudioError, match="use 3 to 10 s"):
            function(torch.zeros(samples))
        function(torch.zeros(samples + 1))


def test_the_onnx_file_and_the_network_agree_at_any_rate_and_length(tmp_path: Path):
    tiny.write_decoder(tmp_path)
    onnx = SpeakerEncoder(tmp_path / "campplus.onnx")
    save_file(tiny.networks(0)[2].state_dict(), tmp_path / "campplus.safetensors")
    network = SpeakerEncoder(tmp_path / "campplus.safetensors", tiny.SPEAKER)
    random = np.random.default_rng(0)
    for rate, seconds in ((8000, 0.6), (16000, 2.5), (44100, 5.0)):
        noise = random.normal(0, 0.1, int(rate * seconds)).astype(np.float32)
        first, second = onnx(AudioChunk(noise, rate)), network(AudioChunk(noise, rate))
        assert first.shape == (192,) and float(first.std()) > 0
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3 * float(first.std()))
    with pytest.raises(AudioError, match=r"0\.40 s"):
        onnx(AudioChunk(np.zeros(6400, np.float32), 16000))
