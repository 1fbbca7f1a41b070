"""A voice of a person who agreed to it: recording and consent are checked, the voice found and kept.

What parts of other layers do is joined here: recognition hears whether the recording is fit and what the
consent says, the voice's engine searches. Nothing is kept before everything was found good; and all that is
kept of a person is in one file, which ``VoiceBank.remove`` deletes.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.core import consent
from stepaudio.core.audio import AudioChunk, resample
from stepaudio.core.consent import ConsentRequest
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.files import read_audio, write_audio, write_text
from stepaudio.recognition.base import RATE
from stepaudio.tts.base import Voice
from stepaudio.tts.voicebank import CONSENT, KeptVoice, VoiceBank

if TYPE_CHECKING:
    from stepaudio.engine import Audio, Engine
    from stepaudio.tts.cloning import Clone

CONSENT_LEAST_S = 2.0
"""Seconds of speech in a consent, at least: the phrase takes five."""
NEEDS_TORCH = "cloning needs PyTorch; install it with: pip install 'stepaudio[clone]'"

_ASKED = ".consent.json"  # in the bank's folder; no voice's name begins with a dot
_STOCK = files("stepaudio.tts") / "likeness.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording that is fit to make a voice of.

    Attributes:
        speech: 16 kHz, without pauses that are long.
        embedding: of the voice.
        said: what the recogniser understood.
        language: "en" or "zh".
    """

    speech: AudioChunk
    embedding: np.ndarray
    said: str
    language: str


def ask_consent(bank: VoiceBank, language: str, now_s: float) -> ConsentRequest:
    """Ask for a consent: what its owner shall read. It replaces what was asked before.

    Raises:
        ConfigError: there is no phrase in that language.
        StepAudioError: the folder of voices cannot be written.
    """
    request = consent.ask(language, now_s, secrets.choice)
    bank.make_folder()
    write_text(bank.folder / _ASKED, json.dumps(asdict(request)))
    return request


def asked_consent(bank: VoiceBank) -> ConsentRequest:
    """The consent that was last asked for, and not yet given.

    Raises:
        ConfigError: none was.
    """
    try:
        return ConsentRequest(**json.loads((bank.folder / _ASKED).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            "no consent was asked for; see what to read with: stepaudio voices consent"
        ) from None


def listen(engine: Engine, recording: Audio) -> Recording:
    """Read a recording to make a voice of.

    Raises:
        AudioError: it cannot be read, or is not fit; the message says what to record.
    """
    from stepaudio.recognition.enrolment import check_one_voice, speech_of

    audio = _read(engine, recording)
    speech = speech_of(audio, engine.vad)
    check_one_voice(engine.speakers.windows(speech))
    heard = engine.transcribe(speech)
    language = "zh" if heard.language == "zh" else "en"
    return Recording(speech, engine.speakers.embed(speech), heard.text, language)


def check_consent(
    engine: Engine, given: AudioChunk, request: ConsentRequest, recording: Recording, now_s: float
) -> dict[str, Any]:
    """Whether a consent, at 16 kHz, is what was asked for, by the voice of the recording.

    Returns:
        What is to be known of it later.

    Raises:
        AudioError: it is another sentence or another voice; the message says what to record.
        ConfigError: it was asked for too long ago.
    """
    from stepaudio.recognition.enrolment import speech_of
    from stepaudio.recognition.speakers import SAME, similarity

    speech = speech_of(given, engine.vad, CONSENT_LEAST_S)
    heard = engine.transcribe(speech, language=request.language).text
    consent.check(request, heard, now_s)
    likeness = similarity(engine.speakers.embed(speech), recording.embedding)
    if likeness < SAME:
        raise AudioError(
            f"the consent is read by another voice than the recording's (likeness {likeness:.2f}; one "
            f"voice has {SAME} and more); the speaker of the recording must read it, best in the same place"
        )
    return {
        "phrase": request.phrase,
        "heard": heard,
        "likeness": round(likeness, 3),
        "given_s": round(now_s),
    }


def find(
    engine: Engine,
    recording: Recording,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    steps: int | None = None,
) -> Clone:
    """The voice of a recording, as Kokoro can speak with it; nothing is kept.

    Args:
        engine: speaks and listens.
        recording: of ``listen``.
        on_progress: called with steps done and steps in all.
        steps: of the search; None: as many as it gains by.

    Raises:
        ConfigError: PyTorch is not installed, or another voice engine is configured.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError(NEEDS_TORCH) from error
    from stepaudio.recognition.speaker_gradient import GradientEncoder
    from stepaudio.tts import decoder
    from stepaudio.tts.cloning import STEPS, Cloner

    torch.set_num_threads(engine.config.tts.threads)
    kokoro = engine.kokoro
    model = engine.store.path("kokoro-82m")
    cloner = Cloner(
        kokoro,
        model,
        engine.store.derived("kokoro-82m", decoder.RECIPE, decoder.write_source),
        GradientEncoder(engine.store.path("resemblyzer")),
        lambda text: kokoro.symbols(text, recording.language),
    )
    with _STOCK.open("rb") as file, np.load(file) as stock:
        embeddings = {name: stock[name].astype(np.float32) for name in stock.files}
    return cloner.clone(
        recording.speech,
        recording.embedding,
        embeddings,
        said=recording.said,
        language=recording.language,
        steps=steps or STEPS,
        on_progress=on_progress,
    )


def clone(
    engine: Engine,
    name: str,
    recording: Audio,
    given: Audio,
    now_s: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> KeptVoice:
    """Make a voice of a recording, with consent, and keep it. The consent that was asked for is used up.

    Args:
        engine: listens, speaks, keeps.
        name: of the new voice.
        recording: 10 to 60 s of one person's speech.
        given: the consent as that person read it.
        now_s: seconds of Unix time.
        on_progress: called with steps done and steps in all.

    Raises:
        ConfigError: the name cannot be taken, no consent was asked for, or PyTorch is not installed.
        AudioError: the recording or the consent is not fit; the message says what to record.
        StepAudioError: the voice cannot be written.
    """
    bank = engine.voice_bank
    bank.check_new(name)
    request = asked_consent(bank)
    audio = _read(engine, given)  # before the long work: it may be no audio
    heard = listen(engine, recording)
    agreed = check_consent(engine, audio, request, heard, now_s)
    found = find(engine, heard, on_progress)
    character = engine.kokoro.measured(found.character)
    facts = {
        "made_s": round(now_s),
        "speech_s": round(heard.speech.seconds, 1),
        "likeness": round(found.likeness, 3),
        "stock_likeness": round(found.stock_likeness, 3),
        "nearest": found.nearest,
        "consent": agreed,
    }
    kept = KeptVoice(
        Voice(name, "kokoro", character.language, found.gender, CONSENT, "cloned"),
        f"cloned from {heard.speech.seconds:.0f} s of speech, beginning at {found.nearest}",
        character,
        facts,
        _flac(audio),
    )
    bank.keep(kept)
    (bank.folder / _ASKED).unlink(missing_ok=True)
    return kept


def mix(engine: Engine, name: str, expression: str, now_s: float) -> KeptVoice:
    """Keep a mix of stock voices under a name.

    Raises:
        ConfigError: the name cannot be taken, or the expression cannot be read.
        StepAudioError: the voice cannot be written.
    """
    from stepaudio.tts.voicebank import mixed
    from stepaudio.tts.voices import parse_mix

    engine.voice_bank.check_new(name)
    recipe = parse_mix(expression)
    character = engine.kokoro.measured(mixed(recipe, engine.kokoro.stock))
    like = recipe.voice
    voice = Voice(name, "kokoro", like.language, like.gender, like.licence, "mixed")
    kept = KeptVoice(voice, str(recipe), character, {"made_s": round(now_s)})
    engine.voice_bank.keep(kept)
    return kept


def _read(engine: Engine, audio: Audio) -> AudioChunk:
    if isinstance(audio, AudioChunk):
        return resample(audio, RATE)
    return read_audio(audio, RATE, engine.config.audio.limit_s)


def _flac(audio: AudioChunk) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "consent.flac"
        write_audio(path, [audio])
        return path.read_bytes()
