"""Codes to sound: folders, streams, batches. All with a toy checkpoint in the public layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import torch
from safetensors.torch import save_file

from stepaudio.core.errors import CodesError, ConfigError, ModelMissing
from stepaudio.tts.step import tiny
from stepaudio.tts.step.decoder import Chunking, Decoder, FlowStream, read_config
from stepaudio.tts.step.flow import Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tts") / "CosyVoice-300M-25Hz"
    tiny.write_decoder(path)
    return path


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Decoder:
    return Decoder.load(folder)


@pytest.fixture(scope="module")
def prompt(decoder: Decoder) -> Prompt:
    torch.manual_seed(1)
    codes = torch.from_numpy(speech(4, seed=9))
    return Prompt(codes, torch.randn(decoder.flow.config.frames(20), 80), torch.randn(192))


def speech(groups: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, 1024, (groups, 2)), random.integers(1024, 5120, (groups, 3))
    return np.hstack(pairs).ravel()


def stream(decoder: Decoder, prompt: Prompt, codes: np.ndarray, push: int) -> np.ndarray:
    state = decoder.stream(prompt)
    pieces = [state.push(codes[at : at + push]) for at in range(0, len(codes), push)]
    return np.concatenate([*pieces, state.flush()])


def test_a_folder_is_read_as_its_yaml_says(folder: Path):
    assert read_config(folder / "cosyvoice.yaml") == (tiny.FLOW, tiny.HIFT)


def test_converted_weights_sound_the_same(folder: Path, tmp_path: Path, decoder: Decoder, prompt: Prompt):
    (tmp_path / "cosyvoice.yaml").write_bytes((folder / "cosyvoice.yaml").read_bytes())
    for name in ("flow", "hift"):
        tensors = torch.load(folder / f"{name}.pt", weights_only=True)
        save_file({k: t.contiguous() for k, t in tensors.items()}, tmp_path / f"{name}.safetensors")
    samples = Decoder.load(tmp_path).decode(speech(3), prompt)
    np.testing.assert_allclose(samples, decoder.decode(speech(3), prompt), atol=1e-5)


def test_whole_has_the_length_of_its_codes_and_repeats(decoder: Decoder, prompt: Prompt):
    samples = decoder.decode(speech(6), prompt)
    assert samples.dtype == np.float32 and len(samples) == decoder.flow.config.frames(30) * 256
    assert samples.std() > 1e-4 and np.abs(samples).max() <= 0.99
    assert np.array_equal(samples, decoder.decode(speech(6), prompt))
    assert not np.array_equal(samples, decoder.decode(speech(6), prompt, seed=1))


def test_a_batch_of_several_lengths_is_each_alone(decoder: Decoder, prompt: Prompt):
    bare = Prompt(prompt.codes[:0], prompt.mel[:0], prompt.speaker)
    codes, prompts = [speech(6), speech(2, 1), speech(3, 2)], [prompt, bare, prompt]
    for item, voice, samples in zip(codes, prompts, decoder.decode_batch(codes, prompts), strict=True):
        np.testing.assert_allclose(samples, decoder.decode(item, voice), atol=2e-4)
    assert decoder.decode_batch([], []) == []


def test_cuts_between_pushes_make_no_difference(decoder: Decoder, prompt: Prompt):
    codes = speech(21)
    one_by_one = stream(decoder, prompt, codes, 1)
    assert len(one_by_one) == decoder.flow.config.frames(len(codes)) * 256
    for push in (7, 40, len(codes)):
        assert np.array_equal(stream(decoder, prompt, codes, push), one_by_one)


def test_first_audio_after_600_ms_of_codes(decoder: Decoder, prompt: Prompt):
    state = decoder.stream(prompt)
    heard = [len(state.push([code])) for code in speech(5)]
    assert heard == [0] * 24 + [decoder.flow.config.frames(15) * 256]


def test_what_a_stream_keeps_does_not_grow(decoder: Decoder, prompt: Prompt):
    mels = FlowStream(decoder.flow, prompt, 0, Chunking(past=25))
    kept = []
    for at in range(0, 400, 50):
        list(mels.push(speech(10, seed=at)))
        kept.append(len(mels._codes))
    assert max(kept) <= 25 + 50 + 10 + 2 and len(mels._noise._target._kept) < 250


def test_the_error_of_a_stream_falls_with_its_look_ahead(decoder: Decoder, prompt: Prompt):
    codes = speech(30)

    def mel(chunking: Chunking) -> torch.Tensor:
        mels = FlowStream(decoder.flow, prompt, 0, chunking)
        return torch.cat([piece for piece, _ in [*mels.push(codes), *mels.flush()]], 1)

    whole = mel(Chunking((1 << 40,), 0, 0))
    errors = [float((mel(Chunking(ahead=ahead)) - whole).norm()) for ahead in (0, 10, 50)]
    assert errors[0] > errors[1] > errors[2] > 0
    assert torch.equal(mel(Chunking((200,))), whole)  # one window, whatever it was meant to be


def test_joins_are_no_louder_than_the_rest(decoder: Decoder, prompt: Prompt):
    """A step between two samples at a join is no larger than steps elsewhere."""
    codes = speech(30)
    samples = stream(decoder, prompt, codes, 5)
    steps = np.abs(np.diff(samples))
    frames = [decoder.flow.config.frames(n) for n in (15, 40, 90, 140)]
    joins = [steps[frame * 256 - 2 : frame * 256 + 2].max() for frame in frames]
    assert max(joins) <= np.quantile(steps, 0.999)


def test_nothing_to_say_and_wrong_codes(decoder: Decoder, prompt: Prompt):
    with pytest.raises(CodesError, match="no codes"):
        decoder.decode([], prompt)
    with pytest.raises(CodesError, match="no codes"):
        decoder.decode_batch([speech(1), []], [prompt, prompt])
    state = decoder.stream(prompt)
    assert len(state.push([])) == 0 and len(state.flush()) == 0
    for code in (-1, 5120, 65536):
        with pytest.raises(CodesError, match=r"0\.\.5119"):
            decoder.stream(prompt).push([code])


@pytest.mark.parametrize("missing", ["cosyvoice.yaml", "flow.pt", "hift.pt"])
def test_a_file_that_is_missing_or_a_pointer_is_said(folder: Path, tmp_path: Path, missing: str):
    for name in ("cosyvoice.yaml", "flow.pt", "hift.pt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / missing).unlink()
    with pytest.raises(ModelMissing, match=missing):
        Decoder.load(tmp_path)
    (tmp_path / missing).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelMissing, match="Git LFS"):
        Decoder.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("flow.flow.MaskedDiffWithXvec", "flow.flow.CausalMaskedDiffWithXvec", "Step-Audio-EditX"),
        ("hift:", "vocoder:", "no sections flow and hift"),
        ("num_blocks: 2", "num_blocks: 3", r"encoder\.encoders\.2\.\S+ is missing"),
        ("num_blocks: 2", "num_blocks: 1", "has no place"),
        ("linear_units: 48", "linear_units: 64", r"is \(48, 32\) and should be \(64, 32\)"),
        ("base_channels: 32", "base_channels: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_folder_of_another_model_is_said(folder: Path, tmp_path: Path, old: str, new: str, words: str):
    for name in ("flow.pt", "hift.pt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = (folder / "cosyvoice.yaml").read_text()
    assert old in text
    (tmp_path / "cosyvoice.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words):
        Decoder.load(tmp_path)


def test_a_device_that_is_not_there_is_said(folder: Path):
    with pytest.raises(ConfigError, match="no GPU for 'cuda:99'"):
        Decoder.load(folder, device="cuda:99")
