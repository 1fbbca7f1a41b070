"""HiFT on its own: in pieces it makes the whole's waveform; weight-normalised tensors become plain ones."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import torch

from stepaudio import checkpoint
from stepaudio.core.errors import ConfigError
from stepaudio.tts.step.vocoder import FrameNoise, HiFT, HiFTConfig, HiFTStream, fold_weight_norm

SMALL = HiFTConfig(mel=8, base=16, pitch=8)


@pytest.fixture
def hift() -> HiFT:
    torch.manual_seed(0)
    network = HiFT(SMALL).eval()
    with torch.no_grad():
        network.f0_predictor.classifier.weight *= 300
        network.f0_predictor.classifier.bias.fill_(150)  # a pitch about 150 Hz: the phase matters
    return network


def pieces(hift: HiFT, mel: torch.Tensor, lengths: list[int], ahead: int) -> torch.Tensor:
    stream, samples, at = HiFTStream(hift, seed=3), [], 0
    for length in lengths:
        end = at + length
        samples.append(stream.push(mel[:, at:end], mel[:, end : end + ahead])[0])
        at = end
    return torch.cat(samples)


@torch.inference_mode()
def test_in_pieces_it_makes_the_waveform_of_the_whole(hift: HiFT):
    mel = torch.randn(8, 120)
    whole = pieces(hift, mel, [120], 0)
    assert len(whole) == 120 * SMALL.frame and whole.std() > 1e-3
    error = (pieces(hift, mel, [7, 1, 30, 12, 70], hift.context) - whole).abs().max()
    assert error < 2e-4 * whole.abs().max()
    short_sighted = (pieces(hift, mel, [7, 1, 30, 12, 70], 4) - whole).abs().max()
    assert short_sighted > 100 * error


@torch.inference_mode()
def test_context_is_what_a_sample_depends_on_and_not_much_more(hift: HiFT):
    mel = torch.randn(1, 8, 90)
    source = torch.randn(1, 1, 90 * SMALL.frame)
    other = mel.clone()
    other[..., 45] += 1
    changed = [hift.invert(*hift.spectrum(m, source))[0] for m in (mel, other)]
    where = (changed[0] != changed[1]).nonzero().flatten() / SMALL.frame - 45
    assert -hift.context < where.min() and where.max() < hift.context
    assert where.max() > hift.context - 8


def test_pitch_below_the_threshold_is_noise(hift: HiFT):
    phase, noise = torch.zeros(1, 9, 1), torch.zeros(1, 9, 2 * SMALL.frame)
    with torch.inference_mode():
        source = hift.source(torch.tensor([[9.9, 110.0]]), phase, noise)[0, 0]
    assert source[: SMALL.frame].std() == 0 and source[SMALL.frame :].std() > 0.001


def test_noise_belongs_to_the_frame():
    whole = FrameNoise(3, seed=1).frames(0, 100)
    cut = FrameNoise(3, seed=1)
    for first, last in ((0, 5), (2, 20), (60, 100)):
        assert torch.equal(cut.frames(first, last), whole[first:last])
    assert not torch.equal(FrameNoise(3, seed=2).frames(0, 100), whole)


@pytest.mark.parametrize(
    ("magnitude", "direction"),
    [
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ],
)
def test_weight_normalised_tensors_become_plain_ones(hift: HiFT, magnitude: str, direction: str):
    tensors = {}
    for name, tensor in hift.state_dict().items():
        if name.endswith(".weight") and tensor.dim() == 3 and "source_downs" not in name:
            prefix = name.removesuffix("weight")
            tensors[prefix + magnitude] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            tensors[prefix + direction] = 5 * tensor  # its length does not count
        else:
            tensors[name] = tensor
    other = HiFT(SMALL)
    checkpoint.load(other, fold_weight_norm(tensors), "hift.pt")
    torch.testing.assert_close(other.state_dict(), hift.state_dict())
    del tensors["conv_pre." + magnitude]
    with pytest.raises(ConfigError, match=r"conv_pre\.weight is missing"):
        checkpoint.load(HiFT(SMALL), fold_weight_norm(tensors), "hift.pt")
