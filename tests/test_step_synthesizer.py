"""TTS-3B as a voice: text in, sound out while codes still come, with a toy decoder and real prompts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import soundfile

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause
from stepaudio.core.codes import AudioCodes
from stepaudio.core.errors import AudioError, ConfigError, ModelMissing
from stepaudio.core.style import SpeechStyle
from stepaudio.tts.base import Speech, Voice
from stepaudio.tts.step import tiny
from stepaudio.tts.step.decoder import Decoder
from stepaudio.tts.step.language_model import CodeSampling
from stepaudio.tts.step.prompt import RAP, RAP_SYSTEM
from stepaudio.tts.step.speaker import SpeakerEncoder
from stepaudio.tts.step.synthesizer import StepSynthesizer, StepVoice, clone, load_speakers

ANNA = Voice("anna", "step", "cmn", "female", "CC0-1.0")


def encode(text: str) -> list[int]:
    return [9, *text.encode()]


def tokenize(audio: AudioChunk) -> AudioCodes:
    """Codes by length alone: 25 semantic ones a second."""
    groups = int(audio.seconds / 0.12)
    return AudioCodes(np.arange(2 * groups) % 1024, np.arange(3 * groups) % 4096)


class Model:
    """Writes so many codes; remembers prompts, and how many codes were taken."""

    def __init__(self, codes: int) -> None:
        self.codes, self.prompts, self.taken, self.closed = codes, [], 0, False

    def generate(self, prompt: Sequence[int], sampling: CodeSampling) -> Generator[int, None, None]:
        self.prompts.append(list(prompt))
        try:
            for at in range(self.codes):
                self.taken += 1
                yield at % 1024 if at % 5 < 2 else 1024 + at
        finally:
            self.closed = True


def recording(seconds: float, rate: int = 16000) -> AudioChunk:
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate))
    return AudioChunk(noise.astype(np.float32), rate)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, SpeakerEncoder]:
    folder = tmp_path_factory.mktemp("tts")
    for seed, name in enumerate(("speech", "music")):
        tiny.write_decoder(folder / name, seed)
    decoders = {name: Decoder.load(folder / name) for name in ("speech", "music")}
    return decoders, SpeakerEncoder(folder / "speech" / "campplus.onnx")


@pytest.fixture(scope="module")
def anna(parts) -> StepVoice:
    return clone(ANNA, recording(1.0), "hello", tokenize, parts[1])


def speak(parts, anna: StepVoice, model: Model, text: str, **style) -> Generator[Speech, None, None]:
    synthesizer = StepSynthesizer(model, encode, parts[0], [anna], CodeSampling(seed=0))
    return synthesizer.synthesize(Clause(0, text, SpeechStyle(**style)), ANNA)


def test_sound_comes_while_codes_are_drawn(parts, anna: StepVoice):
    model = Model(75)
    pieces = speak(parts, anna, model, "hi there")
    first = next(pieces)
    assert model.taken == 25 and len(first.audio.samples) == 31 * 256
    rest = list(pieces)
    ends = [first.audio.start + len(first.audio.samples)]
    for piece in rest:
        assert piece.audio.start == ends[-1] and piece.audio.rate == 22050
        ends.append(piece.audio.start + len(piece.audio.samples))
    whole = parts[0]["speech"].flow.config.frames(75) * 256
    assert ends[-1] == whole and model.taken == 75


def test_every_word_is_marked_once_and_in_order(parts, anna: StepVoice):
    for text, words in (
        ("hi, it's me 你好。", ["hi", "it's", "me", "你", "好"]),
        ("Supercalifragilistic " * 9, ["Supercalifragilistic"] * 9),
    ):
        pieces = list(speak(parts, anna, Model(75), text))
        marks = [mark for piece in pieces for mark in piece.marks]
        assert [mark.text for mark in marks] == words
        assert all(a.end_ms <= b.start_ms + 1 for a, b in itertools.pairwise(marks))
        assert marks[-1].end_ms <= 75 * 24 + 30


def test_closing_stops_the_model(parts, anna: StepVoice):
    model = Model(1000)
    pieces = speak(parts, anna, model, "hi")
    next(pieces)
    pieces.close()
    assert model.closed and model.taken == 25


def test_signs_alone_say_nothing(parts, anna: StepVoice):
    assert list(speak(parts, anna, model := Model(75), "…!?")) == [] and not model.prompts


def test_rapping_takes_the_music_decoder_and_its_system_turn(parts, anna: StepVoice):
    spoken = np.concatenate([p.audio.samples for p in speak(parts, anna, Model(25), "hi")])
    model = Model(25)
    rapped = np.concatenate([p.audio.samples for p in speak(parts, anna, model, "hi", mode="rap")])
    assert spoken.shape == rapped.shape and not np.allclose(spoken, rapped)
    (ids,) = model.prompts
    system = encode("system\n" + RAP_SYSTEM)
    assert ids[2 : 2 + len(system)] == system


def test_the_speakers_of_a_folder(parts, tmp_path: Path):
    texts = {"Ting": "a", "TingRAP": "（RAP）b"}
    (tmp_path / "speakers_info.json").write_text(json.dumps(texts), encoding="utf-8")
    soundfile.write(tmp_path / "Ting_prompt.wav", recording(1.2).samples, 16000)
    with pytest.raises(ModelMissing, match=r"TingRAP_prompt\.wav is missing"):
        load_speakers(tmp_path, tokenize, parts[1])
    soundfile.write(tmp_path / "TingRAP_prompt.wav", recording(0.8).samples, 16000)
    (ting,) = load_speakers(tmp_path, tokenize, parts[1])
    assert (ting.voice.id, ting.known.name) == ("ting", "Ting")
    assert {manner: len(e.codes) for manner, e in ting.known.examples.items()} == {"": 50, RAP: 30}
    assert {manner: len(p.mel) for manner, p in ting.decoder.items()} == {"": 103, RAP: 68}
    (tmp_path / "speakers_info.json").write_text("[")
    with pytest.raises(ConfigError, match="damaged"):
        load_speakers(tmp_path, tokenize, parts[1])


def test_references_that_cannot_serve_are_said(parts):
    for seconds, words in ((0.3, "too short"), (31, "too long")):
        with pytest.raises(AudioError, match=words):
            clone(ANNA, recording(seconds), "x", tokenize, parts[1])
    with pytest.raises(ConfigError, match="no voice"):
        StepSynthesizer(Model(5), encode, parts[0], [])
