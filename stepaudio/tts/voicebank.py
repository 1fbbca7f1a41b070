"""Voices that were mixed or cloned, and kept: each one file, whole or not there at all.

A file is a zip archive with ``voice.json`` (what the voice is, how it was made, who agreed), ``arrays.npz``
(what Kokoro needs to speak with it) and, for a clone, ``consent.flac``. So nothing of a voice is elsewhere,
and to remove the file is to remove all of it. Clones are not mixed: a consent is for one voice.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepaudio.core.errors import ConfigError, StepAudioError, unknown
from stepaudio.files import data_folder, whole_file
from stepaudio.tts.base import Voice
from stepaudio.tts.voices import CATALOGUE, OPENAI, Mix, is_mix, named, parse_mix

SUFFIX = ".voice"
FORMAT = 1
"""Of the files; a later program reads the earlier ones."""
ROWS, STYLE = 510, 256
"""Of a table: one style for every number of phonemes; the first half of it is timbre, the rest prosody."""
TIMBRE = STYLE // 2

CONSENT = "LicenseRef-speaker-consent"
"""The licence of a clone, as SPDX writes one of its own: what the speaker agreed to."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_LARGEST = 64_000_000  # bytes of one member; a voice has about 1 MB


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``stepaudio/voices`` in the user's data folder."""
    return data_folder(environment) / "voices"


@dataclass(frozen=True, slots=True, eq=False)
class Character:
    """What makes Kokoro speak as one voice.

    Attributes:
        table: (510, 1, 256) float32, the style for every number of phonemes.
        language: native one, BCP 47.
        centre_hz: median of the melody that the style draws by itself; used only with ``shift``, ``spread``.
        shift: semitones that the melody is moved by.
        spread: times as wide as drawn.
        tempo: times as fast as drawn.
        equaliser: (taps,) float32, odd and symmetric: a filter for all audio at 24 kHz; empty: none.
        measured: what the generator's normalisation saw of the voice, by the names of ``kokoro``; empty: not
            measured yet.
    """

    table: np.ndarray
    language: str
    centre_hz: float = 0.0
    shift: float = 0.0
    spread: float = 1.0
    tempo: float = 1.0
    equaliser: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    measured: Mapping[str, np.ndarray] = field(default_factory=dict)

    def melody(self, pitch: np.ndarray) -> np.ndarray:
        """A drawn melody as this voice has it. Below 40 Hz nothing is voiced, and nothing is changed."""
        if self.shift == 0 and self.spread == 1:
            return pitch
        octaves = np.log2(np.maximum(pitch, 1) / self.centre_hz) * self.spread + self.shift / 12
        return np.where(pitch > 40, self.centre_hz * np.exp2(octaves), pitch).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class KeptVoice:
    """A voice as it is kept.

    Attributes:
        voice: as it is listed.
        recipe: what it was made of, for people ("af_heart*0.6+am_adam*0.4").
        character: how Kokoro speaks with it.
        facts: what else is known, as JSON has it: when it was made; of a clone its likeness and the consent.
        consent: a clone's recording of the consent, as FLAC.
    """

    voice: Voice
    recipe: str
    character: Character
    facts: Mapping[str, Any] = field(default_factory=dict)
    consent: bytes = b""


def mixed(mix: Mix, table_of: Callable[[str], np.ndarray]) -> Character:
    """The character of a mix: its halves averaged, row by row.

    Args:
        table_of: the table of a stock voice.
    """
    table = np.empty((ROWS, 1, STYLE), np.float32)
    for half, part in ((mix.timbre, slice(0, TIMBRE)), (mix.prosody, slice(TIMBRE, STYLE))):
        table[..., part] = sum(share * table_of(voice)[..., part] for voice, share in half)
    return Character(table, mix.voice.language)


class VoiceBank:
    """A folder of kept voices. It is read anew each time: what another program keeps is found at once.

    Args:
        folder: it need not be there before the first voice is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def voices(self) -> tuple[Voice, ...]:
        """The kept voices, by name; files that cannot be read are left out (``show`` says why)."""
        return tuple(_voice(name, description) for name, description in self._descriptions())

    def find(self, name: str) -> Voice:
        """A voice by the name of ours, of OpenAI's, of a mix, or of a kept voice.

        Raises:
            ConfigError: there is none (the message names the nearest), or its file is damaged.
        """
        path = self._path(name)
        if path is not None and path.is_file():
            return _voice(name, self._read(path)[0])
        if is_mix(name):
            parts = {part.partition("*")[0].strip() for part in re.split("[+/]", name)}
            if clone := next((part for part in parts if self._has(part)), None):
                raise ConfigError(
                    f"{clone!r} is a kept voice, and only stock voices are mixed: af_heart, ..."
                )
            return parse_mix(name).voice
        try:
            return named(name)
        except ConfigError:
            kept = [found for found, _ in self._descriptions()]
            raise unknown("voice", name, [*kept, *(voice.id for voice in CATALOGUE)]) from None

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Changes when a kept voice does; None: there is none of that name."""
        path = self._path(name)
        try:
            found = path.stat() if path else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found else None

    def show(self, name: str) -> dict[str, Any]:
        """What is known of a kept voice, for people and as JSON; raises as ``load``."""
        return self._read(self._existing(name))[0]

    def load(self, name: str) -> KeptVoice:
        """A kept voice.

        Raises:
            ConfigError: there is none of that name, or its file is damaged.
        """
        path = self._existing(name)
        description, members = self._read(path)
        try:
            with np.load(io.BytesIO(members["arrays.npz"]), allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            numbers = description["character"]
            character = Character(
                arrays.pop("table"),
                description["language"],
                *(float(numbers[key]) for key in ("centre_hz", "shift", "spread", "tempo")),
                equaliser=arrays.pop("equaliser"),
                measured=arrays,
            )
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
            raise _damaged(path) from None
        if character.table.shape != (ROWS, 1, STYLE) or character.table.dtype != np.float32:
            raise _damaged(path)
        facts = description.get("facts", {})
        consent = members.get("consent.flac", b"")
        return KeptVoice(_voice(name, description), description["recipe"], character, facts, consent)

    def check_new(self, name: str) -> None:
        """Raises, before long work, what ``keep`` would raise.

        Raises:
            ConfigError: the name cannot be one, or is taken.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a voice: take a letter, then letters, digits, _ and - (at "
                "most 40)"
            )
        if name in OPENAI or name in ("auto", "none") or any(voice.id == name for voice in CATALOGUE):
            raise ConfigError(f"the name {name!r} is taken by a voice that is always there; take another")
        if self._has(name):
            raise ConfigError(
                f"there is a voice named {name!r}; remove it first: stepaudio voices remove {name}"
            )

    def keep(self, kept: KeptVoice) -> Path:
        """Write a voice: whole, or not at all.

        Returns:
            The file.

        Raises:
            ConfigError: its name cannot be one, or is taken.
            StepAudioError: the folder cannot be written.
        """
        voice, character = kept.voice, kept.character
        self.check_new(voice.id)
        description = {
            "format": FORMAT,
            "name": voice.id,
            "origin": voice.origin,
            "recipe": kept.recipe,
            "language": voice.language,
            "gender": voice.gender,
            "licence": voice.licence,
            "character": {key: getattr(character, key) for key in ("centre_hz", "shift", "spread", "tempo")},
            "facts": dict(kept.facts),
        }
        arrays = io.BytesIO()
        np.savez(
            arrays,
            allow_pickle=False,
            **{"table": character.table, "equaliser": character.equaliser, **character.measured},
        )
        path = self.folder / f"{voice.id}{SUFFIX}"
        self.make_folder()
        with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("voice.json", json.dumps(description, ensure_ascii=False, indent=2))
            archive.writestr("arrays.npz", arrays.getvalue())
            if kept.consent:
                archive.writestr("consent.flac", kept.consent)
        return path

    def make_folder(self) -> None:
        """Make the folder where it is not there yet; for its owner alone, since a voice is personal.

        Raises:
            StepAudioError: it cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StepAudioError(
                f"cannot make the folder of voices {self.folder}: {error.strerror}; name another in the "
                "setting tts.voices"
            ) from error

    def remove(self, name: str) -> None:
        """Delete a kept voice with all that belongs to it, the recording of the consent too.

        Raises:
            ConfigError: there is none of that name.
            StepAudioError: its file cannot be deleted.
        """
        path = self._existing(name)
        try:
            path.unlink()
        except OSError as error:
            raise StepAudioError(f"cannot remove {path}: {error.strerror}") from error

    def _has(self, name: str) -> bool:
        path = self._path(name)
        return path is not None and path.is_file()

    def _path(self, name: str) -> Path | None:
        """The file of a voice, None for what cannot be a name (it would lead elsewhere)."""
        return self.folder / f"{name}{SUFFIX}" if _NAME.fullmatch(name) else None

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if path is None or not path.is_file():
            if any(voice.id == OPENAI.get(name, name) for voice in CATALOGUE):
                raise ConfigError(f"{name} is a stock voice; it was not kept, and cannot be removed")
            kept = [found for found, _ in self._descriptions()]
            if not kept:
                raise ConfigError(f"no voice named {name!r} was kept, and no other one in {self.folder}")
            raise unknown("kept voice", name, kept)
        return path

    def _descriptions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        except OSError:
            return
        for path in paths:
            if _NAME.fullmatch(path.stem):
                try:
                    yield path.stem, self._read(path)[0]
                except ConfigError:
                    continue

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
        """A file's description, and its members."""
        try:
            with zipfile.ZipFile(path) as archive:
                if any(member.file_size > _LARGEST for member in archive.infolist()):
                    raise _damaged(path)
                members = {name: archive.read(name) for name in archive.namelist()}
            description = json.loads(members["voice.json"])
            if description["format"] > FORMAT:
                raise ConfigError(f"{path} was written by a newer program: update this one")
            for key in ("origin", "recipe", "language", "gender", "licence"):
                if not isinstance(description[key], str):
                    raise _damaged(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or 'it is damaged'}") from None
        except (
            KeyError,
            ValueError,
            TypeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ):
            raise _damaged(path) from None
        return description, members


def _voice(name: str, description: Mapping[str, Any]) -> Voice:
    parts = (description[key] for key in ("language", "gender", "licence", "origin"))
    return Voice(name, "kokoro", *parts)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is damaged, or no voice: make it again, and remove it with: stepaudio voices "
        f"remove {path.stem}"
    )
