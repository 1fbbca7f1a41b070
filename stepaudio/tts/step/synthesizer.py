"""Step-Audio-TTS-3B as a voice of the service: text -> prompt -> codes -> sound.

Codes go to the decoder as they are drawn, so that the first sound does not wait for the last code. What it
does not know: when a word begins. Marks are estimates at an even pace, brought to the true end with the last
piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.codes import GROUP_SIZE, AudioCodes
from stepaudio.core.errors import AudioError, ConfigError, ModelMissing, unknown
from stepaudio.core.resampling import resample_sinc
from stepaudio.files import read_audio
from stepaudio.tts.base import Capabilities, Speech, Voice
from stepaudio.tts.step import prompt as prompts
from stepaudio.tts.step.decoder import Chunking
from stepaudio.tts.step.decoder import Decoder as CodeDecoder
from stepaudio.tts.step.flow import Prompt
from stepaudio.tts.step.language_model import CodeModel, CodeSampling
from stepaudio.tts.step.prompt import MANNERS, Encode, Example, PromptVoice
from stepaudio.tts.step.speaker import MEL_RATE, SpeakerEncoder, mel22k

WEIGHT_A_SECOND = 15
"""Pace that marks are estimated at: a Latin letter weighs one, a Chinese character three."""
MAX_REFERENCE_S = 30.0
"""A longer reference would fill the prompt."""
SPEAKERS = "speakers_info.json"

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff][\w'’-]*(?<![\u3400-\u9fff])")

Tokenize = Callable[[AudioChunk], AudioCodes]
"""A reference recording -> its codes, silence cut off as prompts are (``tokenizer.features.trim``)."""


@dataclass(frozen=True, slots=True, eq=False)
class StepVoice:
    """A voice, as language model and decoder know it.

    Attributes:
        voice: as the service lists it.
        known: to the language model.
        decoder: what the decoder is prompted with, by manner.
    """

    voice: Voice
    known: PromptVoice
    decoder: Mapping[str, Prompt]


def learn(
    audio: AudioChunk, text: str, tokenize: Tokenize, speaker: SpeakerEncoder
) -> tuple[Example, Prompt]:
    """A recording as an example for the language model and a prompt for the decoder.

    Args:
        audio: 3 to 10 s of one speaker, at any rate.
        text: what is said in it, word for word.

    Raises:
        AudioError: it is too short for a group of codes, or longer than ``MAX_REFERENCE_S``.
    """
    if audio.seconds > MAX_REFERENCE_S:
        raise AudioError(
            f"a reference of {audio.seconds:.0f} s is too long for a voice: use 3 to 10 s of speech"
        )
    embedding = speaker(audio)
    codes = tokenize(audio).merged()
    if not len(codes):
        raise AudioError("there is no speech in the reference: use 3 to 10 s of speech")
    mel = mel22k(torch.from_numpy(resample_sinc(audio.samples, audio.rate, MEL_RATE)))
    return Example(text, tuple(codes.tolist())), Prompt(torch.from_numpy(codes), mel, embedding)


def clone(
    voice: Voice, audio: AudioChunk, text: str, tokenize: Tokenize, speaker: SpeakerEncoder
) -> StepVoice:
    """A voice from one recording; see ``learn``."""
    example, prompt = learn(audio, text, tokenize, speaker)
    return StepVoice(voice, PromptVoice("", {"": example}), {"": prompt})


def load_speakers(folder: Path, tokenize: Tokenize, speaker: SpeakerEncoder) -> list[StepVoice]:
    """The speakers that the model was trained on, from the folder ``speakers`` of its program.

    ``speakers_info.json`` says what ``NAME_prompt.wav`` holds; names that end in a manner are examples of it.

    Raises:
        ModelMissing: the list or a recording is not there.
        ConfigError: the list is damaged.
        AudioError: see ``learn``.
    """
    file = folder / SPEAKERS
    try:
        texts = json.loads(file.read_text(encoding="utf-8"))
        names = [name for name in texts if not name.endswith(MANNERS)]
    except FileNotFoundError:
        raise ModelMissing(f"{file} is missing: fetch the folder of speakers again, whole") from None
    except (OSError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"{file} is damaged: fetch it again") from None
    voices = []
    for name in names:
        examples, decoder = {}, {}
        for manner in ("", *MANNERS):
            if name + manner not in texts:
                continue
            recording = folder / f"{name}{manner}_prompt.wav"
            if not recording.is_file():
                raise ModelMissing(f"{recording} is missing: fetch the folder of speakers again, whole")
            audio = read_audio(str(recording), None, MAX_REFERENCE_S)
            examples[manner], decoder[manner] = learn(audio, texts[name + manner], tokenize, speaker)
        voice = Voice(name.lower(), "step", "cmn", "female", licence="Apache-2.0")
        voices.append(StepVoice(voice, PromptVoice(name, examples), decoder))
    return voices


class StepSynthesizer:
    """See ``tts.base.Synthesizer``. Threads may share it.

    Args:
        model: writes codes.
        encode: text -> token ids of the model's tokenizer, nothing added.
        decoders: "speech" and "music", the folders ``CosyVoice-300M-25Hz`` and ``-Music``.
        voices: default first.
        sampling: how codes are drawn.
        chunking: how the sound is cut.

    Raises:
        ConfigError: there is no voice, or the decoders differ in rate.
    """

    # Speed by tags in two steps either way; how far they go, the checkpoint decides.
    capabilities = Capabilities(
        languages=frozenset({"en", "zh", "ja", "ko"}),
        speed=(0.75, 1.25),
        dialects=dict.fromkeys(("en", "en-US", "cmn", "cmn-sichuan", "yue", "ja", "ko"), "native"),
    )

    def __init__(
        self,
        model: CodeModel,
        encode: Encode,
        decoders: Mapping[prompts.Decoder, CodeDecoder],
        voices: list[StepVoice],
        sampling: CodeSampling | None = None,
        chunking: Chunking | None = None,
    ) -> None:
        if not voices:
            raise ConfigError("there is no voice: give a folder of speakers, or a recording to clone")
        rates = {decoder.rate for decoder in decoders.values()}
        if len(rates) != 1:
            raise ConfigError(f"the decoders of speech and music differ in rate: {sorted(rates)} Hz")
        (self.rate,) = rates
        self._model, self._encode, self._decoders = model, encode, decoders
        self._voices = {voice.voice.id: voice for voice in voices}
        self._sampling, self._chunking = sampling or CodeSampling(), chunking or Chunking()

    def voices(self) -> tuple[Voice, ...]:
        """The voices it has, default first."""
        return tuple(voice.voice for voice in self._voices.values())

    def synthesize(self, clause: Clause, voice: Voice) -> Generator[Speech, None, None]:
        """Speak a clause piece by piece; closing the iterator stops model and decoder.

        Raises:
            ConfigError: no such voice, or it has no example of the manner that is asked for.
            TextError, BackendError, CodesError: see ``CodeModel.generate``.
        """
        if voice.id not in self._voices:
            raise unknown("voice", voice.id, list(self._voices))
        words = [word for word in _WORD.findall(clause.text) if word.strip("_")]
        if not words:
            return
        known = self._voices[voice.id]
        text = prompts.tagged(clause.text, clause.style)
        plan = prompts.plan(self._encode, text, known.known)
        decoder = self._decoders[plan.decoder]
        stream = decoder.stream(
            known.decoder[plan.manner], seed=self._sampling.seed or 0, chunking=self._chunking
        )
        pace, at = _Pace(words, clause.style.speed or 1.0), 0

        def speech(samples: np.ndarray, last: bool = False) -> Speech:
            nonlocal at
            start, at = at, at + len(samples)
            marks = pace.until(round(at * 1000 / self.rate), last)
            return Speech(AudioChunk(samples, self.rate, start), marks)

        group: list[int] = []
        with closing(self._model.generate(plan.ids, self._sampling)) as codes:
            for code in codes:
                group.append(code)
                if len(group) == GROUP_SIZE:
                    samples, group = stream.push(group), []
                    if len(samples):
                        yield speech(samples)
        yield speech(np.concatenate((stream.push(group), stream.flush())), last=True)


class _Pace:
    """Marks at an even pace."""

    def __init__(self, words: list[str], speed: float) -> None:
        self._words = words
        self._ms = 1000 / (WEIGHT_A_SECOND * speed)
        self._at = 0.0

    def until(self, end_ms: int, last: bool) -> tuple[Mark, ...]:
        """The words that begin before ``end_ms``; in the last piece all that are left, pressed into it."""
        taken = self._words if last else []
        lasts = [self._ms * sum(3 if "\u3400" <= sign <= "\u9fff" else 1 for sign in w) for w in self._words]
        start, spans = self._at, []
        for length in lasts:
            if not last and start >= end_ms:
                break
            spans.append((start, start + length))
            start += length
        if not last:
            taken = self._words[: len(spans)]
        elif spans:
            begin, scale = min(self._at, end_ms), (end_ms - min(self._at, end_ms)) / (start - self._at)
            spans = [(begin + (a - self._at) * scale, begin + (b - self._at) * scale) for a, b in spans]
        marks = tuple(Mark(word, round(a), round(b)) for word, (a, b) in zip(taken, spans, strict=True))
        self._words, self._at = self._words[len(taken) :], start
        return marks
