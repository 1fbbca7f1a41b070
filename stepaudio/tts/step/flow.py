"""Flow matching: codes -> mel spectrogram.

The codes' embeddings go through a relative-position encoder, are stretched to the mel's frame rate
(``LengthRegulator``), and condition a U-Net (``Estimator``) that says for noise x at time t which way to
move. Ten Euler steps along a cosine schedule bring noise to a spectrogram; classifier-free guidance pushes
each step away from what the network would do without any condition. A prompt (the reference recording's codes
and mel) goes in front and is cut off again.

Names of modules are those of the public ``flow.pt``. Formulas: Matcha-TTS (arXiv 2309.03199) and CosyVoice
(arXiv 2407.05407), whose sizes a ``cosyvoice.yaml`` gives. Batches of different lengths are padded; a mask
keeps padding out of attention, normalisation and convolution, so that an item's result does not depend on its
neighbours (tests/test_step_flow.py).

What it does not know: time. ``decoder.py`` streams it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepaudio.tts.step.conformer import Embed, Layer, relative_positions


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Sizes of the flow. Defaults are those of Step-Audio-TTS-3B's ``CosyVoice-300M-25Hz``.

    Attributes:
        vocab: codes; ``frame_rate`` of them a second (2 linguistic and 3 semantic in 120 ms).
        input_size: width of a code's embedding.
        mel: bins; speaker: width of the speaker embedding.
        encoder_size, encoder_heads, encoder_hidden, encoder_layers: the encoder.
        channels: of the U-Net, level by level; decoder_heads of head_dim; blocks: transformer blocks at each
            level; middle: middle blocks.
        guidance: w in (1 + w) v(condition) - w v(nothing).
        steps: of Euler; temperature: of the noise that they start from.
        sample_rate, hop: of the mel, in Hz and samples.
    """

    vocab: int = 5120
    frame_rate: float = 41.667
    input_size: int = 512
    mel: int = 80
    speaker: int = 192
    encoder_size: int = 512
    encoder_heads: int = 8
    encoder_hidden: int = 2048
    encoder_layers: int = 6
    channels: tuple[int, ...] = (256, 256)
    head_dim: int = 64
    decoder_heads: int = 8
    blocks: int = 4
    middle: int = 12
    guidance: float = 0.7
    steps: int = 10
    temperature: float = 1.0
    sample_rate: int = 22050
    hop: int = 256

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any]) -> FlowConfig:
        """From the section ``flow`` of a ``cosyvoice.yaml``; what is not there keeps its default."""
        encoder, decoder = section.get("encoder", {}), section.get("decoder", {})
        estimator, cfm = decoder.get("estimator", {}), decoder.get("cfm_params", {})
        values = {}
        for part, names in (
            (section, {"vocab": "vocab_size", "frame_rate": "input_frame_rate", "input_size": "input_size"}),
            (section, {"mel": "output_size", "speaker": "spk_embed_dim"}),
            (encoder, {"encoder_size": "output_size", "encoder_heads": "attention_heads"}),
            (encoder, {"encoder_hidden": "linear_units", "encoder_layers": "num_blocks"}),
            (estimator, {"channels": "channels", "head_dim": "attention_head_dim", "blocks": "n_blocks"}),
            (estimator, {"middle": "num_mid_blocks", "decoder_heads": "num_heads"}),
            (cfm.get("content", cfm), {"guidance": "inference_cfg_rate"}),
        ):
            values |= {own: part[theirs] for own, theirs in names.items() if theirs in part}
        if "channels" in values:
            values["channels"] = tuple(values["channels"])
        return cls(**values)

    def frames(self, codes: int) -> int:
        """Mel frames of so many codes."""
        return int(codes / self.frame_rate * self.sample_rate / self.hop)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a voice brings: a recording as codes, mel and speaker embedding.

    Attributes:
        codes: [n] int64; none for a voice that is known by its embedding alone.
        mel: [frames, mel], natural logarithm (``speaker.mel22k``).
        speaker: [192].
    """

    codes: Tensor
    mel: Tensor
    speaker: Tensor


def masks(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """[batch, longest] bool, True where there is something; None where nothing is padded."""
    if len(set(lengths)) == 1:
        return None
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x [batch, channels, time] with zeros where mask [batch, time] is False."""
    return x if mask is None else x * mask[:, None]


class GroupNorm(nn.GroupNorm):
    """GroupNorm over what is not padding."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [batch, channels, time], mask [batch, time] or None."""
        if mask is None:
            return super().forward(x)
        groups = x.unflatten(1, (self.num_groups, -1)).float()
        keep = mask[:, None, None]
        count = mask.sum(-1)[:, None, None, None] * groups.shape[2]
        mean = (groups * keep).sum((2, 3), keepdim=True) / count
        centred = (groups - mean) * keep
        variance = centred.square().sum((2, 3), keepdim=True) / count
        y = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2).to(x.dtype)
        return y * self.weight[:, None] + self.bias[:, None]


class Encoder(nn.Module):
    """Embeddings of codes -> what they sound like in their neighbourhood."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        size = config.encoder_size
        self.embed = Embed(config.input_size, size)
        self.encoders = nn.ModuleList(
            Layer(size, config.encoder_heads, config.encoder_hidden) for _ in range(config.encoder_layers)
        )
        self.after_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """[batch, codes, input_size] -> [batch, codes, encoder_size]; keep [batch, codes] bool."""
        x = self.embed(x)
        positions = relative_positions(x.shape[1], x.shape[2], x)
        for layer in self.encoders:
            x, _ = layer(x, positions, keep)
        return self.after_norm(x)


class LengthRegulator(nn.Module):
    """From the codes' rate to the mel's, then smoothed by convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):  # sampling_ratios [1, 1, 1, 1]
            layers += [nn.Conv1d(channels, channels, 3, padding=1), GroupNorm(1, channels), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(channels, channels, 1))

    def stretch(self, x: Tensor, frames: int) -> Tensor:
        """[1, codes, channels] -> [1, frames, channels], linear between the middles of codes."""
        if frames == 0 or x.shape[1] == 0:
            return x[:, :0]
        return F.interpolate(x.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Smooth: [batch, frames, channels] -> the same shape."""
        x = _masked(x.transpose(1, 2), mask)
        for layer in self.model:
            x = layer(x, mask) if isinstance(layer, GroupNorm) else layer(x)
            if isinstance(layer, nn.Mish):
                x = _masked(x, mask)
        return x.transpose(1, 2)


class Block(nn.Module):
    """Convolution, GroupNorm in 8 groups, Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(inputs, outputs, 3, padding=1), GroupNorm(8, outputs), nn.Mish())

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        convolution, norm, mish = self.block
        return _masked(mish(norm(convolution(_masked(x, mask)), mask)), mask)


class Resnet(nn.Module):
    """Two blocks with the time embedding added in between, and a way around them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time, outputs))
        self.block1 = Block(inputs, outputs)
        self.block2 = Block(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        h = self.block1(x, mask) + self.mlp(time)[:, :, None]
        return self.block2(h, mask) + self.res_conv(_masked(x, mask))


class Attention(nn.Module):
    """Plain attention; no positions: the convolutions know them."""

    def __init__(self, size: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(size, heads * head_dim, bias=False)
        self.to_k = nn.Linear(size, heads * head_dim, bias=False)
        self.to_v = nn.Linear(size, heads * head_dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, size)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        keep = None if mask is None else mask[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class Gelu(nn.Module):
    """Linear and the exact GELU."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Four times as wide in the middle. The empty place is dropout's in the checkpoint's numbering."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gelu(size, 4 * size), nn.Identity(), nn.Linear(4 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Transformer(nn.Module):
    """A transformer block of the U-Net."""

    def __init__(self, size: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attn1 = Attention(size, heads, head_dim)
        self.norm3 = nn.LayerNorm(size)
        self.ff = FeedForward(size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), mask)
        return x + self.ff(self.norm3(x))


class Down(nn.Module):
    """Half the rate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """Twice the rate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class TimeMLP(nn.Module):
    """Sinusoids of the time -> its embedding."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, t: Tensor) -> Tensor:
        """t [batch], 0..1 -> [batch, size]."""
        half = self.linear_1.in_features // 2
        rate = torch.exp(
            torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000) / (half - 1))
        )
        angle = 1000 * t.float()[:, None] * rate
        waves = torch.cat((angle.sin(), angle.cos()), -1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


class Estimator(nn.Module):
    """The U-Net: which way x moves at time t."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        channels = config.channels
        time = 4 * channels[0]
        self.time_mlp = TimeMLP(4 * config.mel, time)

        def level(inputs: int, outputs: int, *last: nn.Module) -> nn.ModuleList:
            transformers = (
                Transformer(outputs, config.decoder_heads, config.head_dim) for _ in range(config.blocks)
            )
            return nn.ModuleList([Resnet(inputs, outputs, time), nn.ModuleList(transformers), *last])

        def same(size: int) -> nn.Module:
            return nn.Conv1d(size, size, 3, padding=1)

        widths = [4 * config.mel, *channels]
        lowest = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            level(widths[i], size, same(size) if i == lowest else Down(size))
            for i, size in enumerate(channels)
        )
        self.mid_blocks = nn.ModuleList(level(channels[-1], channels[-1]) for _ in range(config.middle))
        widths = [*reversed(channels), channels[0]]
        self.up_blocks = nn.ModuleList(
            level(2 * widths[i], widths[i + 1], same(widths[i + 1]) if i == lowest else Up(widths[i + 1]))
            for i in range(len(channels))
        )
        self.final_block = Block(channels[0], channels[0])
        self.final_proj = nn.Conv1d(channels[0], config.mel, 1)

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, speaker: Tensor, condition: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            x, mu, condition: [batch, mel, frames]: where the flow is, what the codes ask for, and the frames
                that are known.
            t: [batch], 0..1.
            speaker: [batch, mel].
            mask: [batch, frames] bool or None.

        Returns:
            [batch, mel, frames].
        """
        time = self.time_mlp(t)
        x = torch.cat((x, mu, speaker[:, :, None].expand_as(x), condition), 1)
        levels = [mask]
        skips = []
        for resnet, transformers, last in self.down_blocks:  # pyright: ignore[reportGeneralTypeIssues]
            mask = levels[-1]
            x = _attend(resnet(x, time, mask), transformers, mask)
            skips.append(x)
            x = last(_masked(x, mask))
            levels.append(mask if mask is None else mask[:, ::2])
        levels.pop()
        for resnet, transformers in self.mid_blocks:  # pyright: ignore[reportGeneralTypeIssues]
            x = _attend(resnet(x, time, levels[-1]), transformers, levels[-1])
        for resnet, transformers, last in self.up_blocks:  # pyright: ignore[reportGeneralTypeIssues]
            mask, skip = levels.pop(), skips.pop()
            x = torch.cat((x[:, :, : skip.shape[-1]], skip), 1)  # an odd length came back one too long
            x = last(_masked(_attend(resnet(x, time, mask), transformers, mask), mask))
        return _masked(self.final_proj(self.final_block(x, mask)), mask)


def _attend(x: Tensor, transformers: nn.ModuleList, mask: Tensor | None) -> Tensor:
    x = x.transpose(1, 2)
    for transformer in transformers:
        x = transformer(x, mask)
    return x.transpose(1, 2)


class Solver(nn.Module):
    """Conditional flow matching: from noise to a spectrogram. Named as in the checkpoint."""

    def __init__(self, estimator: nn.Module, steps: int, guidance: float) -> None:
        super().__init__()
        self.estimator = estimator
        self.steps = steps
        self.guidance = guidance

    def times(self, device: torch.device) -> Tensor:
        """[steps + 1]: 0 … 1, slow at first (cosine schedule)."""
        return 1 - torch.cos(torch.linspace(0, 1, self.steps + 1, device=device) * (torch.pi / 2))

    def forward(
        self, noise: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, extras: Sequence[Any]
    ) -> Tensor:
        """
        Args:
            noise: [batch, mel, frames]; mu, speaker, condition: as the estimator's.
            extras: what the estimator is given besides, at each step; for twice the batch.

        Returns:
            [batch, mel, frames], float32 whatever the network computes in.
        """
        x = noise.float()
        batch, dtype = len(x), mu.dtype
        # One pass for both: the second half of the batch knows nothing.
        mu, speaker, condition = (torch.cat((c, torch.zeros_like(c))) for c in (mu, speaker, condition))
        times = self.times(x.device)
        t = times[0]
        for until, extra in zip(times[1:], extras, strict=True):
            step = until - t
            both = torch.cat((x, x)).to(dtype)
            v = self.estimator(both, mu, t.expand(2 * batch), speaker, condition, extra).float()
            x = x + step * ((1 + self.guidance) * v[:batch] - self.guidance * v[batch:])
            t = t + step  # summed up, as the reference does: the last bits differ from ``until``
        return x


class Flow(nn.Module):
    """Codes -> mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker, config.mel)
        self.encoder = Encoder(config)
        self.encoder_proj = nn.Linear(config.encoder_size, config.mel)
        self.length_regulator = LengthRegulator(config.mel)
        self.decoder = Solver(Estimator(config), config.steps, config.guidance)

    def encode(self, codes: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Code sequences [n] of several lengths -> [batch, longest, mel] and their mask.

        Codes below 0 count as 0.
        """
        keep = masks([len(c) for c in codes], codes[0].device)
        padded = nn.utils.rnn.pad_sequence([c.clamp(min=0) for c in codes], batch_first=True)
        return self.encoder_proj(self.encoder(self.input_embedding(padded), keep)), keep

    def condition(
        self,
        codes: Sequence[Tensor],
        prompts: Sequence[Prompt],
        frames: Sequence[int],
        first: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the codes ask for, frame by frame: [batch, frames of the longest, mel], and the mask.

        Prompt and target are stretched apart (so that the prompt meets its own mel), then smoothed together.

        Args:
            codes, prompts: as in ``forward``.
            frames: of each target.
            first: the codes are a window of a stream that begins with this code; the frames are those that
                the stream has there. None: they are a whole.
        """
        encoded, _ = self.encode([torch.cat((p.codes, c)) for p, c in zip(prompts, codes, strict=True)])
        stretch = self.length_regulator.stretch
        stretched = []
        for row, prompt, target, count in zip(encoded, prompts, codes, frames, strict=True):
            before = stretch(row[None, : len(prompt.codes)], len(prompt.mel))
            after = row[None, len(prompt.codes) : len(prompt.codes) + len(target)]
            after = stretch(after, count) if first is None else self._stretch_window(after, count, first)
            stretched.append(torch.cat((before, after), 1)[0])
        mask = masks([len(s) for s in stretched], encoded.device)
        padded = nn.utils.rnn.pad_sequence(stretched, batch_first=True)
        return self.length_regulator(padded, mask), mask

    def _stretch_window(self, x: Tensor, frames: int, first: int) -> Tensor:
        """As ``LengthRegulator.stretch``, at the stream's own rate of codes and frames."""
        config = self.config
        step = config.frame_rate * config.hop / config.sample_rate  # codes a frame
        frame = torch.arange(frames, device=x.device, dtype=torch.float64) + config.frames(first)
        place = ((frame + 0.5) * step - 0.5 - first).clamp(0, x.shape[1] - 1)
        low = place.long()
        high = (low + 1).clamp(max=x.shape[1] - 1)
        return torch.lerp(x[:, low], x[:, high], (place - low).to(x.dtype)[:, None])

    def forward(
        self, codes: Sequence[Tensor], prompts: Sequence[Prompt], noise: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """
        Args:
            codes: a sequence [n] of int64 for each item.
            prompts: the voice of each.
            noise: [mel, frames of prompt and target] for each; None: fresh.

        Returns:
            The mel of each item without its prompt, [mel, frames].
        """
        frames = [self.config.frames(len(c)) for c in codes]
        mu, mask = self.condition(codes, prompts, frames)
        return self.solve(mu, mask, prompts, frames, noise)

    def solve(
        self,
        mu: Tensor,
        mask: Tensor | None,
        prompts: Sequence[Prompt],
        frames: Sequence[int],
        noise: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """From ``condition`` to the mels; arguments and result as in ``forward``."""
        speaker = torch.stack([p.speaker for p in prompts]).to(mu.dtype)
        speaker = self.spk_embed_affine_layer(F.normalize(speaker, dim=-1))
        mu = mu.transpose(1, 2)
        known = torch.zeros_like(mu)
        for row, prompt in zip(known, prompts, strict=True):
            row[:, : len(prompt.mel)] = prompt.mel.T
        if noise is None:
            start = torch.randn(mu.shape, device=mu.device) * self.config.temperature
        else:
            start = nn.utils.rnn.pad_sequence([z.T for z in noise], batch_first=True).transpose(1, 2)
        doubled = None if mask is None else torch.cat((mask, mask))
        mel = self.decoder(start, mu, speaker, known, [doubled] * self.decoder.steps)
        return [
            m[:, len(p.mel) : len(p.mel) + count] for m, p, count in zip(mel, prompts, frames, strict=True)
        ]
