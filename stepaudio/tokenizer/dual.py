"""The dual tokenizer: audio in, both streams of codes out, as a whole or while it comes in.

A whole is a stream that is pushed at once: the codes are the same, however the audio was cut up. The halves
run beside one another in two threads. Memory and work for a second of audio do not depend on how much came
before: the linguistic half keeps a second of keys and values, the semantic half the audio of its window.

What a stream cannot know is how loud a recording will get. The published program scales every recording to a
peak of 0.999 first; here that is for the caller: ``features.prepare`` for a recording, and for a microphone
a ``gain`` that its last turns asked for.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from stepaudio.checkpoint import usable_device
from stepaudio.core.audio import AudioChunk
from stepaudio.core.codes import GROUP, AudioCodes
from stepaudio.core.errors import AudioError, ConfigError, ModelMissing
from stepaudio.core.resampling import SincResampler
from stepaudio.tokenizer.features import RATE
from stepaudio.tokenizer.linguistic import LinguisticStream, LinguisticTokenizer
from stepaudio.tokenizer.semantic import WINDOW_S, SemanticStream, SemanticTokenizer

SEMANTIC_FILE = "speech_tokenizer_v1.onnx"
CENTRES_FILE = "linguistic_tokenizer.npy"
PARAFORMER_FOLDER = "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
"""What the public checkpoint Step-Audio-Tokenizer holds; Step-Audio-EditX uses the same."""


class DualTokenizer:
    """Both halves; shared by all streams, safe to use from several threads.

    Args:
        linguistic: 16.7 codes a second.
        semantic: 25 codes a second.
    """

    def __init__(self, linguistic: LinguisticTokenizer, semantic: SemanticTokenizer) -> None:
        self.linguistic = linguistic
        self.semantic = semantic
        self._pool = ThreadPoolExecutor(thread_name_prefix="semantic")

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        threads: int | None = None,
        window_s: float = WINDOW_S,
    ) -> DualTokenizer:
        """From a folder in the layout of the public checkpoint Step-Audio-Tokenizer.

        Args:
            folder: holds the files named at the top of this module.
            device: "cpu", "cuda" or "cuda:N".
            threads: of the CPU for either half; sets torch's number for the whole process. None: all cores.
            window_s: what the semantic half hears at once; 30 s is published, less gives codes sooner.

        Raises:
            ModelMissing: the folder or a file in it is not there, or a Git LFS pointer.
            ConfigError: no such device; the folder is of another model; a file is damaged or does not fit.
        """
        folder = Path(folder)
        _check_folder(folder)
        usable_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        linguistic = LinguisticTokenizer.load(folder / PARAFORMER_FOLDER, folder / CENTRES_FILE, device)
        semantic = SemanticTokenizer(
            folder / SEMANTIC_FILE, window_s=window_s, device=device, threads=threads
        )
        return cls(linguistic, semantic)

    def encode(self, audio: AudioChunk, *, gain: float = 1.0) -> AudioCodes:
        """Codes of a whole recording, at any rate from 1 to 384 kHz.

        Args:
            audio: mono.
            gain: what its samples are multiplied with; see the top of this file.

        Returns:
            Both streams to their ends; ``aligned()`` drops what has no partner.

        Raises:
            AudioError: it is too short for one group of codes, or holds what is no number.
        """
        return self.stream(gain=gain).finish(audio)

    def stream(self, *, gain: float = 1.0) -> DualStream:
        """A stream at its start; ``gain`` as in ``encode``."""
        return DualStream(self.linguistic.stream(), self.semantic.stream(), self._pool, gain)

    def close(self) -> None:
        """Stop the threads. Streams that are open can do no more."""
        self._pool.shutdown()


class DualStream:
    """Codes of one stream of audio. Not to be used by two threads at once.

    What its calls return, joined, is what ``DualTokenizer.encode`` gives for the whole. The two streams of
    one return are not level: linguistic codes come every 240 ms, semantic ones with each full window.
    """

    def __init__(
        self, linguistic: LinguisticStream, semantic: SemanticStream, pool: ThreadPoolExecutor, gain: float
    ) -> None:
        self._linguistic, self._semantic = linguistic, semantic
        self._pool = pool
        self._gain = np.float32(gain)
        self._rate = 0
        self._resampler = SincResampler(RATE, RATE)
        self._given = [0, 0]  # codes, linguistic and semantic

    def push(self, audio: AudioChunk) -> AudioCodes:
        """The next audio; the codes that are certain by now.

        Raises:
            AudioError: another rate than before, or what is no number.
        """
        return self._advance(self._resampled(audio), final=False)

    def flush(self) -> AudioCodes:
        """The codes of what is left. The stream takes no more.

        Raises:
            AudioError: the whole was too short for one group of codes.
        """
        return self._advance(self._resampler.flush(), final=True)

    def finish(self, audio: AudioChunk) -> AudioCodes:
        """``push`` and ``flush`` in one: the halves need not wait for one another in between."""
        return self._advance(np.concatenate([self._resampled(audio), self._resampler.flush()]), final=True)

    def copy(self) -> DualStream:
        """A stream of its own that goes on from here: to see what a turn would give if it ended now."""
        other = DualStream(self._linguistic.copy(), self._semantic.copy(), self._pool, float(self._gain))
        other._rate, other._given = self._rate, list(self._given)
        other._resampler = self._resampler.copy()
        return other

    def _resampled(self, audio: AudioChunk) -> np.ndarray:
        if audio.samples.ndim != 1 or not np.isfinite(audio.samples).all():
            raise AudioError(
                "the tokenizer takes mono audio whose samples are all numbers: read it with read_audio"
            )
        if not self._rate:
            self._rate = audio.rate
            self._resampler = SincResampler(audio.rate, RATE)
        if audio.rate != self._rate:
            raise AudioError(
                f"the stream began at {self._rate} Hz and goes on at {audio.rate}: open another for it"
            )
        return self._resampler.push(audio.samples.astype(np.float32, copy=False) * self._gain)

    def _advance(self, samples: np.ndarray, *, final: bool) -> AudioCodes:
        def half(stream: LinguisticStream | SemanticStream) -> np.ndarray:
            codes = stream.push(samples)
            return np.concatenate([codes, stream.flush()]) if final else codes

        semantic = self._pool.submit(half, self._semantic)
        codes = AudioCodes(half(self._linguistic), semantic.result())
        self._given[0] += len(codes.linguistic)
        self._given[1] += len(codes.semantic)
        if final and (self._given[0] < GROUP[0] or self._given[1] < GROUP[1]):
            raise AudioError("the audio is too short for one group of codes: it takes a tenth of a second")
        return codes


def _check_folder(folder: Path) -> None:
    """What a folder that cannot be loaded is, rather than the first file that it lacks."""
    if not folder.is_dir():
        raise ModelMissing(
            f"no folder {folder}: set tokenizer.model to one that holds the files of Step-Audio-Tokenizer"
        )
    if (folder / CENTRES_FILE).exists():
        return
    inner = folder / "Step-Audio-Tokenizer"
    if inner.is_dir():
        raise ConfigError(f"{folder} holds several models: name {inner}")
    if (folder / "speech_tokenizer_v2_25hz.onnx").exists() or (folder / "token2wav").exists():
        raise ConfigError(
            f"{folder} is a Step-Audio 2 model, which has other codes; get Step-Audio-Tokenizer"
        )
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} is a language model; its tokenizer is apart: get Step-Audio-Tokenizer")
