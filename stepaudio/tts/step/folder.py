"""A folder in the layout of Step-Audio-TTS-3B, as a voice: decoders, language model, speakers.

The speakers that the model was trained on are no part of the checkpoint: their recordings lie in the folder
``speakers`` of the published program.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stepaudio.core.errors import ConfigError, ModelMissing
from stepaudio.published import what_else
from stepaudio.tts.step.decoder import Decoder
from stepaudio.tts.step.language_model import CodeModel
from stepaudio.tts.step.prompt import Decoder as Route
from stepaudio.tts.step.prompt import Encode
from stepaudio.tts.step.speaker import SpeakerEncoder
from stepaudio.tts.step.synthesizer import SPEAKERS, StepSynthesizer, Tokenize, load_speakers

DECODERS: Mapping[Route, str] = {"speech": "CosyVoice-300M-25Hz", "music": "CosyVoice-300M-25Hz-Music"}


def load(
    folder: Path,
    model: CodeModel,
    encode: Encode,
    tokenize: Tokenize,
    *,
    speakers: Path | None = None,
    device: str = "cpu",
) -> StepSynthesizer:
    """The voice of a folder.

    Args:
        folder: holds the two decoders.
        model: writes codes, in this process or on a server.
        encode: text -> ids of its tokenizer.
        tokenize: a recording of a speaker -> codes.
        speakers: folder of ``speakers_info.json``; None: ``speakers`` in or beside ``folder``.
        device: of the decoders.

    Raises:
        ModelMissing, ConfigError: see ``Decoder.load``, ``load_speakers``.
    """
    _check(folder)
    places = (folder / "speakers", folder.resolve().parent / "speakers")
    if speakers is None:
        speakers = next((place for place in places if (place / SPEAKERS).is_file()), None)
    if speakers is None:
        raise ModelMissing(
            f"{folder} has no speakers in it or beside it: put the folder speakers of Step-Audio's program "
            f"({SPEAKERS} and recordings) there, or name it with tts.speakers"
        )
    decoders: dict[Route, Decoder] = {
        route: Decoder.load(folder / name, device) for route, name in DECODERS.items()
    }
    encoder = SpeakerEncoder(folder / DECODERS["speech"] / "campplus.onnx")
    return StepSynthesizer(model, encode, decoders, load_speakers(speakers, tokenize, encoder))


def _check(folder: Path) -> None:
    """What a folder that cannot be loaded is, rather than the first file that it lacks."""
    if not folder.is_dir():
        raise ModelMissing(
            f"no folder {folder}: set tts.model to one that holds the files of Step-Audio-TTS-3B"
        )
    if (folder / "Step-Audio-TTS-3B").is_dir():
        raise ConfigError(f"{folder} holds several models: name {folder / 'Step-Audio-TTS-3B'}")
    if (other := what_else(folder)) is not None:
        raise ConfigError(f"{folder} is {other}; get Step-Audio-TTS-3B")
