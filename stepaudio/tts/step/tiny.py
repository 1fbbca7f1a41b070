"""A decoder folder in the layout of the public checkpoints, of toy size, random weights: its sound is noise.

For tests, and for those who want to see the whole run without 8 GB of weights.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from stepaudio.files import whole_file
from stepaudio.tts.step.flow import Flow, FlowConfig
from stepaudio.tts.step.speaker import BINS, CAMPlus, CAMPlusConfig
from stepaudio.tts.step.vocoder import HiFT, HiFTConfig

FLOW = FlowConfig(
    input_size=32,
    encoder_size=32,
    encoder_heads=4,
    encoder_hidden=48,
    encoder_layers=2,
    channels=(32, 32),
    head_dim=16,
    decoder_heads=2,
    blocks=1,
    middle=2,
)
HIFT = HiFTConfig(base=32, pitch=24)
SPEAKER = CAMPlusConfig(growth=4, init=16)


def write_decoder(folder: Path, seed: int = 0) -> None:
    """Write ``cosyvoice.yaml``, ``flow.pt``, ``hift.pt`` and ``campplus.onnx``.

    Args:
        folder: is made where it is not there.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flow, hift, speaker = networks(seed)
    with whole_file(str(folder / "cosyvoice.yaml")) as out:
        out.write(describe(FLOW, HIFT).encode())
    for name, tensors in (("flow", dict(flow.state_dict())), ("hift", weight_normalised(hift))):
        with whole_file(str(folder / f"{name}.pt")) as out:
            torch.save(tensors, out)
    with whole_file(str(folder / "campplus.onnx")) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter needs one more package
        torch.onnx.export(
            speaker,
            (torch.zeros(1, 300, BINS),),
            out,  # pyright: ignore[reportArgumentType]  # a file, too
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {1: "frames"}},
        )


def networks(seed: int) -> tuple[Flow, HiFT, CAMPlus]:
    """What a folder of this seed holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow, hift, speaker = Flow(FLOW), HiFT(HIFT), CAMPlus(SPEAKER)
    nn.init.constant_(hift.f0_predictor.classifier.bias, 150.0)  # a pitch, so that all parts have work
    return flow.eval(), hift.eval(), speaker.eval()


def weight_normalised(hift: HiFT) -> dict[str, Tensor]:
    """The vocoder's tensors as the public file holds them: most weights as ``weight_g`` and ``weight_v``."""
    tensors = {}
    for name, tensor in hift.state_dict().items():
        if name.endswith(".weight") and tensor.dim() == 3 and not name.startswith("source_downs"):
            tensors[name + "_g"] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            tensors[name + "_v"] = tensor
        else:
            tensors[name] = tensor
    return tensors


def describe(flow: FlowConfig, hift: HiFTConfig) -> str:
    """A ``cosyvoice.yaml``: the sections that ``decoder.read_config`` reads, tagged as the public one."""

    def lists(value: tuple) -> list:
        return [lists(v) if isinstance(v, tuple) else v for v in value]

    return f"""\
sample_rate: {hift.sample_rate}
spk_embed_dim: {flow.speaker}
flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: {flow.input_size}
    output_size: {flow.mel}
    spk_embed_dim: !ref <spk_embed_dim>
    vocab_size: {flow.vocab}
    input_frame_rate: {flow.frame_rate}
    encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        output_size: {flow.encoder_size}
        attention_heads: {flow.encoder_heads}
        linear_units: {flow.encoder_hidden}
        num_blocks: {flow.encoder_layers}
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: {flow.mel}
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
        cfm_params: !new:omegaconf.DictConfig
            content:
                inference_cfg_rate: {flow.guidance}
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            channels: {list(flow.channels)}
            attention_head_dim: {flow.head_dim}
            n_blocks: {flow.blocks}
            num_mid_blocks: {flow.middle}
            num_heads: {flow.decoder_heads}
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {hift.mel}
    base_channels: {hift.base}
    nb_harmonics: {hift.harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {hift.sine}
    nsf_sigma: {hift.noise}
    nsf_voiced_threshold: {hift.voiced_hz}
    upsample_rates: {list(hift.upsample_rates)}
    upsample_kernel_sizes: {list(hift.upsample_kernels)}
    istft_params:
        n_fft: {hift.fft}
        hop_len: {hift.hop}
    resblock_kernel_sizes: {list(hift.kernels)}
    resblock_dilation_sizes: {lists(hift.dilations)}
    source_resblock_kernel_sizes: {list(hift.source_kernels)}
    source_resblock_dilation_sizes: {lists(hift.source_dilations)}
    lrelu_slope: {hift.slope}
    audio_limit: {hift.limit}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        cond_channels: {hift.pitch}
"""
