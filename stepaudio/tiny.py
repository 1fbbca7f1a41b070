"""A complete small Step-Audio with random weights, in the layout of the public checkpoints.

For tests, and for those who want to see the whole run on a laptop. What it says is random words, what it
sounds like is noise, and what it hears means nothing to it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError
from stepaudio.files import whole_file, write_audio

TOKENIZER, CHAT, TTS = "Step-Audio-Tokenizer", "Step-Audio-Chat", "Step-Audio-TTS-3B"
SPEAKERS = {
    "Tingting": "你好，我是婷婷。",
    "TingtingRAP": "（RAP）你好，我是婷婷。",
    "Tingting哼唱": "（哼唱）你好，我是婷婷。",
}
"""Names of the public speaker, with words of our own."""
CONFIGURATION = "stepaudio.toml"
NOTE = "Random weights: this Step-Audio writes random words, and its sound is noise.\n"


def write(folder: Path, seed: int = 0) -> None:
    """Write ``Step-Audio-Tokenizer``, ``Step-Audio-Chat``, ``Step-Audio-TTS-3B`` and ``speakers`` (38 MB).

    Args:
        folder: is made; it must be empty, if it is there.
        seed: of the weights.

    Raises:
        ConfigError: the folder holds something.
        ModuleNotFoundError: the extra ``step`` is not installed.
    """
    from stepaudio.llm.step1 import tiny as step1
    from stepaudio.tokenizer import tiny as tokenizer
    from stepaudio.tts.step import tiny as tts
    from stepaudio.tts.step.folder import DECODERS

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder: name one that is not there yet")
    tokenizer.write(folder / TOKENIZER, seed=seed)
    step1.write(folder / CHAT, "chat", seed=seed)
    step1.write(folder / TTS, "tts", seed=seed + 1)
    for number, name in enumerate(DECODERS.values()):
        tts.write_decoder(folder / TTS / name, seed + number)
    _write_speakers(folder / "speakers", seed)
    (folder / "README.md").write_text(NOTE, encoding="utf-8")
    (folder / CONFIGURATION).write_text(configuration(folder.resolve()), encoding="utf-8")


def configuration(folder: Path) -> str:
    """A configuration file that uses such a folder."""
    names = {"tokenizer": TOKENIZER, "llm": CHAT, "tts": TTS}
    parts = (f"[{section}]\nmodel = {json.dumps(str(folder / name))}\n" for section, name in names.items())
    return "\n".join(['profile = "step"\n', *parts])


def _write_speakers(folder: Path, seed: int) -> None:
    """Recordings of nobody: noise in syllables."""
    folder.mkdir()
    with whole_file(str(folder / "speakers_info.json")) as out:
        out.write(json.dumps(SPEAKERS, ensure_ascii=False, indent=2).encode())
    rate = 16_000
    for number, name in enumerate(SPEAKERS):
        noise = np.random.default_rng(seed + number).normal(0, 0.1, 2 * rate)
        syllables = np.abs(np.sin(np.arange(len(noise)) * 4 * np.pi / rate))
        audio = AudioChunk((noise * syllables).astype(np.float32), rate)
        write_audio(folder / f"{name}_prompt.wav", [audio])
