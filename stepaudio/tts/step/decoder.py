"""Codes -> sound: the flow and the vocoder of a checkpoint folder, whole or while the codes still come.

The networks see both ways in time and have no streaming of their own. A stream therefore runs them on
*windows*: the prompt of the voice, codes that were spoken already (``past``), those to be spoken now (a
chunk), and some of those after it (``ahead``). Noise belongs to the frame, not to the window: windows that
overlap agree but for what they do not know of each other; at a join the mel, and then the samples, fade from
what the last window foresaw to what the new one finds. What a window foresaw also gives the vocoder its view
ahead: that costs no waiting.

Offline decoding is a stream with one window, which holds everything: there is no second path.
``stepaudio bench vocoder`` measures how far a stream is from that, and its joins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepaudio import checkpoint
from stepaudio.core.codes import FIRST_ID, GROUP_SIZE
from stepaudio.core.errors import CodesError, ConfigError
from stepaudio.tts.step.flow import Flow, FlowConfig, Prompt
from stepaudio.tts.step.vocoder import FrameNoise, HiFT, HiFTConfig, HiFTStream, fold_weight_norm

NOTHING = "there are no codes to speak; one group (five codes, 120 ms) is the least"
FADE_FRAMES = 8
"""Of mel and samples at a join (93 ms); never more than a window foresees."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a stream is cut, in codes (41.67 a second; whole groups of five).

    Attributes:
        chunks: lengths of the first, second … chunk; the last one goes on. They grow, because the listener
            waits for the first only, and a long chunk costs less for each second.
        ahead: codes after a chunk that must be there before it is spoken.
        past: codes before it that the window begins with, at most.

    Raises:
        ConfigError: a length below that.
    """

    chunks: tuple[int, ...] = (3 * GROUP_SIZE, 5 * GROUP_SIZE, 10 * GROUP_SIZE)
    ahead: int = 2 * GROUP_SIZE
    past: int = 25 * GROUP_SIZE

    def __post_init__(self) -> None:
        if not self.chunks or min(self.chunks) < 1 or self.ahead < 0 or self.past < 0:
            raise ConfigError(f"chunks of at least one code, and no look-ahead or past below 0, not {self}")


class Decoder:
    """A flow and a vocoder. Holds weights only: threads may share it.

    Args:
        flow, hift: the networks, on the device and in the type that they are to work in.

    Raises:
        ConfigError: they do not fit each other.
    """

    def __init__(self, flow: Flow, hift: HiFT) -> None:
        mel = (flow.config.mel, flow.config.sample_rate, flow.config.hop)
        if mel != (hift.config.mel, hift.config.sample_rate, hift.config.frame):
            raise ConfigError(
                f"flow and vocoder do not fit: mel bins, Hz and hop {mel} against "
                f"{(hift.config.mel, hift.config.sample_rate, hift.config.frame)}"
            )
        self.flow, self.hift = flow, hift
        self.rate = hift.config.sample_rate

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> Decoder:
        """From a folder ``CosyVoice-300M-25Hz`` or ``-Music``: ``cosyvoice.yaml``, ``flow`` and ``hift``.

        Args:
            folder: weights may be ``.safetensors`` or ``.pt``.
            device: "cpu", "cuda", ….
            dtype: of the flow; None: bfloat16 on a GPU, else float32. The vocoder works in float32.

        Raises:
            ModelMissing: a file is not there, or is a Git LFS pointer.
            ConfigError: the folder is of another model, or damaged; or there is no such device.
        """
        flow_config, hift_config = read_config(folder / "cosyvoice.yaml")
        place = checkpoint.usable_device(device)
        if dtype is None:
            dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
        with torch.device("meta"):
            flow = Flow(flow_config)
        hift = HiFT(hift_config)
        path = weights_file(folder, "flow")
        checkpoint.load(flow, checkpoint.read_tensors(path), path)
        path = weights_file(folder, "hift")
        checkpoint.load(hift, fold_weight_norm(checkpoint.read_tensors(path)), path)
        return cls(flow.to(place, dtype).eval(), hift.to(place).eval())

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.hift.conv_post.weight.device

    def stream(self, prompt: Prompt, *, seed: int = 0, chunking: Chunking | None = None) -> DecoderStream:
        """A stream in the voice of a prompt."""
        return DecoderStream(self, prompt, seed, chunking or Chunking())

    def decode(self, codes: Sequence[int] | np.ndarray, prompt: Prompt, *, seed: int = 0) -> np.ndarray:
        """All codes at once: float32 samples at ``rate``.

        Raises:
            CodesError: there are none, or one outside 0..5119.
        """
        if not len(codes):
            raise CodesError(NOTHING)
        stream = self.stream(prompt, seed=seed, chunking=Chunking((1 << 40,), 0, 0))
        return np.concatenate((stream.push(codes), stream.flush()))

    @torch.inference_mode()
    def decode_batch(
        self, codes: Sequence[Sequence[int] | np.ndarray], prompts: Sequence[Prompt], *, seed: int = 0
    ) -> list[np.ndarray]:
        """Several at once, of any lengths; each comes out as ``decode`` would bring it, to rounding.

        Raises:
            CodesError: an item has none, or one outside 0..5119.
        """
        if not codes:
            return []
        if not all(map(len, codes)):
            raise CodesError(NOTHING)
        items = [_checked(c, self.flow.config.vocab, self.device) for c in codes]
        prompts = [_on(p, self.device, self.flow.encoder_proj.weight.dtype) for p in prompts]
        noise = []
        for item, prompt in zip(items, prompts, strict=True):
            source = FlowNoise(self.flow.config, seed, len(prompt.mel), self.device)
            noise.append(source.frames(0, self.flow.config.frames(len(item))))
        mels = self.flow(items, prompts, noise)
        return [HiFTStream(self.hift, seed).push(mel, mel[:, :0])[0].cpu().numpy() for mel in mels]


class DecoderStream:
    """Codes in, samples out; the state of one utterance.

    Where the codes are cut between pushes makes no difference.
    """

    def __init__(self, decoder: Decoder, prompt: Prompt, seed: int, chunking: Chunking) -> None:
        self._mels = FlowStream(decoder.flow, prompt, seed, chunking)
        self._vocoder = HiFTStream(decoder.hift, seed)
        self._foreheard = torch.empty(0, device=decoder.device)

    def push(self, codes: Sequence[int] | np.ndarray) -> np.ndarray:
        """The next merged codes; the samples that can be heard by now, float32.

        Raises:
            CodesError: a code outside 0..5119.
        """
        pieces = [self._sound(mel, ahead) for mel, ahead in self._mels.push(codes)]
        return np.concatenate([np.empty(0, np.float32), *pieces])

    def flush(self) -> np.ndarray:
        """The samples of what is left. The stream is over then."""
        pieces = [self._sound(mel, ahead) for mel, ahead in self._mels.flush()]
        return np.concatenate([np.empty(0, np.float32), *pieces])

    @torch.inference_mode()
    def _sound(self, mel: Tensor, ahead: Tensor) -> np.ndarray:
        samples, later = self._vocoder.push(mel, ahead)
        samples = _fade(self._foreheard, samples)
        self._foreheard = later[: len(samples) // mel.shape[1] * FADE_FRAMES]
        return samples.cpu().numpy()


class FlowStream:
    """Codes in, mel out: the flow on windows."""

    def __init__(self, flow: Flow, prompt: Prompt, seed: int, chunking: Chunking) -> None:
        weight = flow.encoder_proj.weight
        self._flow = flow
        self._chunking = chunking
        self._prompt = _on(prompt, weight.device, weight.dtype)
        self._codes = torch.empty(0, dtype=torch.int64, device=weight.device)
        self._first = 0  # number of the first code that is kept
        self._done = 0  # codes that came out
        self._turn = 0  # chunks that came out
        self._noise = FlowNoise(flow.config, seed, len(prompt.mel), weight.device)
        self._foreseen = torch.empty(flow.config.mel, 0, device=weight.device)

    def push(self, codes: Sequence[int] | np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """The next merged codes; the frames of each chunk that is complete by now, and what lies ahead of it
        as far as is foreseen, [mel, n] both.

        Raises:
            CodesError: a code outside the vocabulary.
        """
        new = _checked(codes, self._flow.config.vocab, self._codes.device)
        self._codes = torch.cat((self._codes, new))
        while True:
            chunks = self._chunking.chunks
            until = self._done + chunks[min(self._turn, len(chunks) - 1)]
            if self._first + len(self._codes) < until + self._chunking.ahead:
                return
            yield self._window(until, until + self._chunking.ahead)

    def flush(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The frames of what is left. The stream is over then."""
        total = self._first + len(self._codes)
        if total > self._done:
            yield self._window(total, total, last=True)

    @torch.inference_mode()
    def _window(self, until: int, end: int, last: bool = False) -> tuple[Tensor, Tensor]:
        """Run the flow on what is kept, up to code ``end``; the frames up to code ``until``, and the rest."""
        frames, first = self._flow.config.frames, self._first
        codes, start = self._codes[: end - first], frames(first)
        count = frames(end) - start
        whole = last and first == 0  # stretched as a whole, then, as the reference does
        mu, mask = self._flow.condition([codes], [self._prompt], [count], None if whole else first)
        noise = self._noise.frames(start, start + count)
        (mel,) = self._flow.solve(mu, mask, [self._prompt], [count], [noise])
        mel = _fade(self._foreseen, mel[:, frames(self._done) - start :])
        now = frames(until) - frames(self._done)
        mel, ahead = mel[:, :now], mel[:, now:]
        self._foreseen = ahead[:, :FADE_FRAMES]
        self._done, self._turn = until, self._turn + 1
        self._forget(max(first, until - self._chunking.past))
        return mel, ahead

    def _forget(self, first: int) -> None:
        """Keep the codes from ``first`` on, and one or two more: the U-Net halves the rate, and a window must
        begin where the halves of the whole begin (else the error is twice as large, on random weights)."""
        stride = 2 ** (len(self._flow.config.channels) - 1)
        while self._flow.config.frames(first) % stride:
            first -= 1
        if first > self._first:
            self._codes, self._first = self._codes[first - self._first :], first


def _fade(old: Tensor, new: Tensor) -> Tensor:
    """``new`` [..., time], whose beginning fades over from ``old``."""
    length = min(old.shape[-1], new.shape[-1])
    if not length:
        return new
    share = torch.arange(1, length + 1, device=new.device) / (length + 1)
    return torch.cat((torch.lerp(old[..., :length], new[..., :length], share), new[..., length:]), -1)


class FlowNoise:
    """The flow's noise: that of the prompt, and of the frames after it, whichever window they are in."""

    def __init__(self, config: FlowConfig, seed: int, prompt_frames: int, device: torch.device) -> None:
        self._temperature = config.temperature
        self._device = device
        self._prompt = FrameNoise(config.mel, seed + 1).frames(0, prompt_frames)
        self._target = FrameNoise(config.mel, seed)

    def frames(self, first: int, last: int) -> Tensor:
        """[mel, frames of the prompt, then those asked for]; see ``FrameNoise.frames``."""
        rows = torch.cat((self._prompt, self._target.frames(first, last)))
        return self._temperature * rows.T.to(self._device)


def _checked(codes: Sequence[int] | np.ndarray, vocabulary: int, device: torch.device) -> Tensor:
    """Codes as a tensor, int64.

    Raises:
        CodesError: a code outside the vocabulary.
    """
    tensor = torch.as_tensor(np.asarray(codes, dtype=np.int64), device=device)
    if len(tensor) and not 0 <= int(tensor.min()) <= int(tensor.max()) < vocabulary:
        raise CodesError(
            f"merged codes are 0..{vocabulary - 1}, these go from {int(tensor.min())} to "
            f"{int(tensor.max())}; from token ids take {FIRST_ID} off"
        )
    return tensor


def _on(prompt: Prompt, device: torch.device, dtype: torch.dtype) -> Prompt:
    return Prompt(prompt.codes.to(device), prompt.mel.to(device, dtype), prompt.speaker.to(device, dtype))


def weights_file(folder: Path, name: str) -> Path:
    """``NAME.safetensors`` where it is there, else ``NAME.pt``."""
    converted = folder / f"{name}.safetensors"
    return converted if converted.is_file() else folder / f"{name}.pt"


_OTHERS = {
    "CausalMaskedDiffWithXvec": "Step-Audio-EditX or Step-Audio 2 (their own programs support it)",
    "CausalMaskedDiffWithDiT": "CosyVoice 3 (its own program supports it)",
}


def read_config(path: Path) -> tuple[FlowConfig, HiFTConfig]:
    """The sizes in a ``cosyvoice.yaml``. Its tags are names here; nothing that they name is built.

    Raises:
        ModelMissing: see ``checkpoint.present``.
        ConfigError: not YAML, without the sections ``flow`` and ``hift``, or of another model.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain data; a tag stays beside its mapping as "!"."""

    root: dict[str, Any] = {}

    def construct(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {"!": suffix, **loader.construct_mapping(node, deep=True)}
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return f"<{suffix}>" if not node.value else node.value

    Loader.add_multi_constructor("!", construct)
    try:
        root = yaml.load(checkpoint.present(path).read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not YAML; fetch the checkpoint again") from None
    if not isinstance(root, dict) or not all(isinstance(root.get(part), dict) for part in ("flow", "hift")):
        raise ConfigError(f"{path} has no sections flow and hift; is it Step-Audio-TTS-3B's?")
    kind = str(root["flow"].get("!", "")).rpartition(".")[2]
    if kind in _OTHERS:
        raise ConfigError(f"{path} is of {_OTHERS[kind]}; this voice is Step-Audio-TTS-3B's")

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolve(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [resolve(inner) for inner in value]
        if isinstance(value, str) and value[:1] + value[-1:] == "<>":
            return resolve(root.get(value[1:-1], value))
        return value

    try:
        return FlowConfig.from_mapping(resolve(root["flow"])), HiFTConfig.from_mapping(resolve(root["hift"]))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} has a value that does not fit: {error}") from None
