"""Codes of a turn that grows are those of the whole, at the gain that the whole asks for."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tokenizer needs torch: pip install stepaudio[step]")
pytest.importorskip("onnx", reason="a toy tokenizer needs onnx: pip install stepaudio[step]")

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.tokenizer import tiny
from stepaudio.tokenizer.dual import DualTokenizer
from stepaudio.tokenizer.features import RATE, peak_gain
from stepaudio.tokenizer.growing import STEP, GrowingCodes

FRAME = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write(folder)
    tokenizer = DualTokenizer.load(folder)
    yield tokenizer
    tokenizer.close()


def sound(peak: float, seconds: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, int(seconds * RATE))
    return (noise * peak / np.abs(noise).max()).astype(np.float32)


def grown(turn: GrowingCodes, samples: np.ndarray) -> int:
    """Push frames, run what is due; how many passes there were."""
    passes = 0
    for at in range(0, len(samples), FRAME):
        turn.push(samples[at : at + FRAME])
        if (step := turn.due()) is not None:
            step()
            passes += 1
    return passes


def test_what_grew_is_the_whole(tokenizer: DualTokenizer):
    samples = sound(0.5)
    turn = GrowingCodes(tokenizer, gain=1.5)
    assert grown(turn, samples) == len(samples) // -(-STEP // FRAME * FRAME)
    whole = tokenizer.encode(AudioChunk(samples, RATE), gain=1.5).aligned()
    assert turn.last()().text() == whole.text() and whole.groups == 16
    assert turn.gain == pytest.approx(peak_gain(samples))


def test_a_turn_goes_on_after_its_codes_were_asked_for(tokenizer: DualTokenizer):
    samples = sound(0.9)
    turn = GrowingCodes(tokenizer)
    grown(turn, samples[: RATE + 100])
    draft = turn.last()()
    assert draft.groups == 8
    grown(turn, samples[RATE + 100 :])
    assert turn.last()().text() == tokenizer.encode(AudioChunk(samples, RATE)).aligned().text()


@pytest.mark.parametrize("peak", [0.05, 0.999])
def test_a_turn_of_another_loudness_is_tokenized_again(tokenizer: DualTokenizer, peak: float):
    samples = sound(peak)
    turn = GrowingCodes(tokenizer, gain=4.0)
    grown(turn, samples)
    exact = tokenizer.encode(AudioChunk(samples, RATE), gain=peak_gain(samples)).aligned()
    assert turn.last()().text() == exact.text()


def test_too_little_is_said(tokenizer: DualTokenizer):
    turn = GrowingCodes(tokenizer)
    turn.push(sound(0.5, 0.05))
    with pytest.raises(AudioError, match="too short"):
        turn.last()()
