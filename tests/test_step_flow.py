"""The flow on its own: padding is not heard, windows of a stream lie where the whole has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import torch

from stepaudio import checkpoint
from stepaudio.core.errors import ConfigError
from stepaudio.tts.step.flow import Flow, FlowConfig, GroupNorm, Prompt, masks

SMALL = FlowConfig(
    vocab=64,
    input_size=16,
    mel=8,
    speaker=12,
    encoder_size=16,
    encoder_heads=2,
    encoder_hidden=24,
    encoder_layers=2,
    channels=(16, 16),
    head_dim=8,
    decoder_heads=2,
    blocks=1,
    middle=1,
    steps=3,
)


@pytest.fixture
def flow() -> Flow:
    torch.manual_seed(0)
    return Flow(SMALL).eval()


def voice(codes: int) -> Prompt:
    mel = torch.randn(SMALL.frames(codes), SMALL.mel)
    return Prompt(torch.arange(codes) % SMALL.vocab, mel, torch.randn(SMALL.speaker))


@torch.inference_mode()
def test_neighbours_in_a_batch_are_not_heard(flow: Flow):
    torch.manual_seed(1)
    prompts = [voice(10), voice(0), voice(5)]
    codes = [torch.randint(64, (n,)) for n in (15, 7, 4)]
    noise = [torch.randn(8, len(p.mel) + SMALL.frames(len(c))) for p, c in zip(prompts, codes, strict=True)]
    assert len({n.shape[1] % 2 for n in noise}) == 2  # odd lengths take another way through the U-Net
    together = flow(codes, prompts, noise)
    for item, prompt, start, mel in zip(codes, prompts, noise, together, strict=True):
        (alone,) = flow([item], [prompt], [start])
        assert mel.shape == alone.shape == (8, SMALL.frames(len(item)))
        torch.testing.assert_close(mel, alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_batch_with_the_padding_heard_would_fail_the_test_above(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(GroupNorm, "forward", lambda self, x, mask=None: torch.nn.GroupNorm.forward(self, x))
    codes, prompt = [torch.arange(15), torch.arange(4)], voice(0)
    noise = [torch.randn(8, SMALL.frames(len(c))) for c in codes]
    (alone,) = flow([codes[1]], [prompt], [noise[1]])
    assert (flow(codes, [prompt, prompt], noise)[1] - alone).abs().max() > 1e-3


@torch.inference_mode()
def test_guidance_and_noise_matter(flow: Flow):
    codes, prompt, noise = torch.arange(10), voice(5), torch.randn(8, 30)
    (mel,) = flow([codes], [prompt], [noise])
    assert torch.equal(mel, flow([codes], [prompt], [noise])[0])
    flow.decoder.guidance = 0.0
    assert not torch.allclose(mel, flow([codes], [prompt], [noise])[0], atol=1e-3)


@torch.inference_mode()
def test_the_frames_of_a_window_are_those_of_the_stream(flow: Flow):
    """Stretched alone, codes 10 to 20 lie where they lie among 0 to 30, but for the very edges."""
    encoded = torch.randn(1, 30, 8)
    whole = flow._stretch_window(encoded, SMALL.frames(30), 0)
    first, last = SMALL.frames(10), SMALL.frames(20)
    window = flow._stretch_window(encoded[:, 10:20], last - first, 10)
    torch.testing.assert_close(window[:, 2:-2], whole[:, first + 2 : last - 2])


def test_the_schedule_goes_from_0_to_1_slowly_at_first(flow: Flow):
    times = flow.decoder.times(torch.device("cpu"))
    assert times[0] == 0 and times[-1] == pytest.approx(1)
    assert (times[1:] - times[:-1]).diff().min() > 0


def test_masks_are_left_out_where_nothing_is_padded():
    device = torch.device("cpu")
    assert masks([3, 3], device) is None
    mask = masks([3, 1], device)
    assert mask is not None and mask.tolist() == [[True] * 3, [True, False, False]]


def test_frames_of_codes_at_the_rates_of_the_checkpoint():
    assert [FlowConfig().frames(n) for n in (0, 5, 25, 1000)] == [0, 10, 51, 2067]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop("encoder_proj.bias"), "encoder_proj.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra has no place"),
        (
            lambda t: t.update({"encoder_proj.bias": torch.zeros(9)}),
            r"encoder_proj.bias is \(9,\) and should be \(8,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(flow: Flow, spoil: Callable[[dict], object], words: str):
    tensors = dict(flow.state_dict())
    spoil(tensors)
    with pytest.raises(ConfigError, match=words):
        checkpoint.load(Flow(SMALL), tensors, "flow.pt")


def test_sizes_of_a_yaml_section():
    section = {
        "vocab_size": 5120,
        "input_frame_rate": 25,
        "encoder": {"num_blocks": 2},
        "decoder": {
            "cfm_params": {"content": {"inference_cfg_rate": 0.5}},
            "estimator": {"channels": [32, 32], "num_mid_blocks": 4},
        },
    }
    found = FlowConfig.from_mapping(section)
    assert found == replace(
        FlowConfig(), frame_rate=25, encoder_layers=2, guidance=0.5, channels=(32, 32), middle=4
    )
