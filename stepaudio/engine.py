"""The engine: builds ears, mind and voice from the configuration, warms them, closes them.

Every part is loaded when it is first used, so that `say` does not wait for a language model; `warm`
loads them all at once. Passed by argument, never global.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import numpy as np

from stepaudio import config as configuration
from stepaudio.checkpoint import free_memory, usable_device
from stepaudio.config import Config, TokenizerConfig
from stepaudio.core import ssml as markup
from stepaudio.core.audio import AudioChunk, join, resample
from stepaudio.core.clauses import Clause, Mark, split
from stepaudio.core.codes import AudioCodes
from stepaudio.core.conversation import Message
from stepaudio.core.errors import (
    AudioError,
    BackendError,
    ConfigError,
    ModelMissing,
    ScoreError,
    StepAudioError,
    TagError,
    TextError,
    unknown,
)
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.tagged import Unknown, parse
from stepaudio.core.wishes import granted
from stepaudio.files import read_audio, write_audio
from stepaudio.llm import serving
from stepaudio.llm.base import LLM, Sampling, TextDelta
from stepaudio.llm.prompt import SYSTEM_PROMPT
from stepaudio.models import ModelSpec, ModelStore
from stepaudio.recognition.base import RATE, Mode, Recognizer, Transcript
from stepaudio.respond import AudioDelta, ClauseStarted, Done, ResponseEvent, Spoken, respond
from stepaudio.timeline import Timeline
from stepaudio.tts.base import Speech, Synthesizer, Voice
from stepaudio.tts.prosody import SOUNDS

if TYPE_CHECKING:
    from stepaudio.recognition.endpointing import SmartTurn
    from stepaudio.recognition.speakers import SpeakerEncoder
    from stepaudio.recognition.vad import SileroVAD
    from stepaudio.tokenizer.dual import DualTokenizer
    from stepaudio.tokenizer.growing import GrowingCodes
    from stepaudio.tts.kokoro import Kokoro
    from stepaudio.tts.plans import PlannedClause
    from stepaudio.tts.scores import Score
    from stepaudio.tts.songs import Wish
    from stepaudio.tts.text import Pronouncer
    from stepaudio.tts.voicebank import VoiceBank
    from stepaudio.tts.voices import OneEngine, Speaker
    from stepaudio.tts.watermark import Detection, Watermark

Audio = AudioChunk | Path | str | bytes | BinaryIO
"""Audio as callers have it: samples, a path ("-" is standard input), or an open file."""

T = TypeVar("T")

log = logging.getLogger(__name__)

LARGE, SMALL = "qwen2.5-1.5b", "qwen2.5-0.5b"
STEP_TOKENIZER, STEP_TTS, STEP_CHAT = "step-audio-tokenizer", "step-audio-tts-3b", "step-audio-chat"
PROBE_S = 0.5
"""Longest wait for a language model server on this machine to say what it serves."""
LARGE_MEMORY = 2_500_000_000
"""Bytes of free memory from which the larger language model is chosen (what `ask` with it may take)."""
SMALL_MEMORY = 1_700_000_000
"""Bytes of memory that `ask` may take with the smaller one."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A spoken answer.

    Attributes:
        transcript: what was asked.
        text: what the language model wrote.
        audio: what was spoken, None when nothing was.
        marks: the words spoken, in ms from the start of ``audio``.
        timings_ms: stages and totals, from the end of the question (``timeline``).
        status: see ``respond.Done``.
        error: why it failed.
    """

    transcript: Transcript
    text: str
    audio: AudioChunk | None
    marks: tuple[Mark, ...]
    timings_ms: Mapping[str, float]
    status: Literal["completed", "incomplete", "failed"]
    error: StepAudioError | None = None

    def save(self, path: Path | str) -> None:
        """Write the audio to a file, whole or not at all.

        Raises:
            AudioError: nothing was spoken, or the file cannot be written.
        """
        if self.audio is None:
            raise AudioError("nothing was spoken, so there is nothing to save")
        write_audio(path, [self.audio])


class Engine:
    """Ears, mind and voice, each loaded when first used. Close it, or use it in a ``with``.

    Args:
        config: what to build.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = open_store(config)
        self._runner: asyncio.Runner | None = None

    # What people call

    def ask(
        self,
        question: Audio,
        *,
        history: Sequence[Message] = (),
        on_event: Callable[[Transcript | ResponseEvent], None] = lambda event: None,
    ) -> Answer:
        """Answer a question asked aloud.

        Args:
            question: audio.
            history: earlier messages, oldest first (without the system prompt).
            on_event: called with the transcript, then with every event of the answer, as they come.

        Raises:
            AudioError: the audio cannot be read, or nobody speaks in it.
            ModelMissing: the message is the command that gets the model.

        A language model that fails mid-answer does not raise: what was spoken is in the answer, whose
        ``status`` is "failed" and whose ``error`` says why.
        """
        return self._run(self._ask(question, history, on_event))

    def say(
        self,
        text: str,
        *,
        voice: str | None = None,
        speed: float | None = None,
        language: str | None = None,
        style: SpeechStyle | None = None,
        ssml: bool | None = None,
        unknown_tags: Unknown | None = None,
    ) -> Iterator[Speech]:
        """Speak a text, piece by piece as it is made; ``core.audio.join`` makes one of the pieces.

        Args:
            text: as written; Markdown, numbers, signs and emoji are made speakable.
            voice: a voice id, None: the configured one.
            speed: 0.5..2, None: the configured one.
            language: "en" or "zh"; None: each piece by its script.
            style: how to say it, where no tag in the text says another; ``speed`` and ``language`` fill its
                gaps.
            ssml, unknown_tags: see ``clauses``.

        Returns:
            Pieces whose ``audio.start`` and marks count from the start of the text.

        Raises:
            TagError: a tag in the text, or its SSML, is wrong; the message says where, and what to write.
            TextError: there is nothing in the text that can be spoken.
            ConfigError: an unknown voice or language (the message names the nearest).
            TextError: the text cannot be spoken in the dialect that is asked for.
        """
        dialect = None if language is None else _dialect(language)
        base = SpeechStyle(speed=self.config.tts.speed if speed is None else speed, dialect=dialect)
        style = base if style is None else style.over(base)
        clauses = self.clauses(text, style=style, ssml=ssml, unknown_tags=unknown_tags)
        return self._say(clauses, None if voice is None else self.speaker.find(voice))

    def clauses(
        self,
        text: str,
        *,
        style: SpeechStyle | None = None,
        ssml: bool | None = None,
        unknown_tags: Unknown | None = None,
    ) -> list[Clause]:
        """What is understood of a text: the clauses that ``say`` speaks, without tags.

        Args:
            style: as for ``say``.
            ssml: whether the text is SSML; None: if it begins with ``<speak>``.
            unknown_tags: what becomes of brackets that look like tags and are none; None: as configured, but
                elements of SSML that are not known are reported.

        Raises:
            TagError: as ``say``.
        """
        voices, unknown = _Names(self), unknown_tags or self.config.tts.unknown_tags
        if ssml if ssml is not None else markup.is_ssml(text):
            from stepaudio.tts.text import ipa

            found = markup.split(
                text,
                style=style or NO_STYLE,
                unknown=unknown,
                strangers=unknown_tags in ("speak", "drop"),
                voices=voices,
                phonemes=ipa.read,
            )
        else:
            found = split(text, style=style, unknown=unknown, voices=voices)
        if any(span.sound not in (None, *SOUNDS) for clause in found for span in clause.spans):
            raise TagError("no voice here can laugh: leave [laugh] out, or write it in words (ha ha)")
        return found

    def stand_ins(self, clauses: Sequence[Clause], voice: str) -> list[str]:
        """The voices that speak in the place of one that cannot read the language of some clauses."""
        asked = self.speaker.find(voice)
        speaks = [
            self.speaker.candidates(clause, asked)[0].id for clause in clauses if not clause.style.voice
        ]
        return sorted(set(speaks) - {asked.id})

    def plan(
        self,
        text: str,
        *,
        voice: str | None = None,
        language: str | None = None,
        style: SpeechStyle | None = None,
        ssml: bool | None = None,
        unknown_tags: Unknown | None = None,
    ) -> list[PlannedClause]:
        """How ``say`` would say a text, as data that can be kept, changed and spoken (``perform``).

        Args, Raises: as ``say``; and
            ConfigError: the voice is of an engine that makes no plans.
        """
        from stepaudio.tts.plans import PlannedClause

        speaker = self._open_voices()
        dialect = None if language is None else _dialect(language)
        base = SpeechStyle(speed=self.config.tts.speed, dialect=dialect)
        style = base if style is None else style.over(base)
        clauses = self.clauses(text, style=style, ssml=ssml, unknown_tags=unknown_tags)
        if objection := speaker.objection(clauses):
            raise TextError(objection)
        asked = None if voice is None else speaker.find(voice)
        planned = [(clause, *speaker.plan(clause, asked)) for clause in clauses]
        found = [PlannedClause(clause.text, by.id, tuple(plans)) for clause, by, plans in planned if plans]
        if not found:
            raise TextError("there is nothing in the text that can be spoken")
        return found

    def perform(self, clauses: Sequence[PlannedClause], *, voice: str | None = None) -> Iterator[Speech]:
        """Speak what was planned.

        Args:
            voice: another one than those that the plans name.

        Returns:
            As ``say``.

        Raises:
            TextError: a voice does not know what a plan holds.
            ConfigError: no such voice.
        """
        from stepaudio.tts import plans

        speaker = self._open_voices()
        voices = [speaker.find(voice or clause.voice) for clause in clauses]
        return _one_after_another(
            speaker.perform(by, lambda model, clause=clause, by=by: plans.perform(clause, model, by))
            for clause, by in zip(clauses, voices, strict=True)
        )

    def _open_voices(self) -> Speaker:
        from stepaudio.tts.voices import Speaker

        if not isinstance(self.speaker, Speaker):
            raise ConfigError("this needs the voices of Kokoro and Hibari: set tts.model to kokoro")
        return self.speaker

    def sing(
        self, score: Score | bytes | Path | str, *, voice: str | None = None, wish: Wish | None = None
    ) -> Iterator[Speech]:
        """Sing a score, line by line.

        Args:
            score: read already, or a file: MusicXML, MIDI with lyrics, ABC, UltraStar, or lines of "note
                beats syllable" ("-" is standard input), or the bytes of one.
            voice: a voice id; None: the configured one, else the best singer of the language
                (``songs.SINGERS``).
            wish: key, tempo, verses, accompaniment; None: as written, in a key that suits the voice.

        Raises:
            ScoreError: it cannot be read or sung; the message says what to change.
            ConfigError: no such voice, or one that cannot read the language.
        """
        from stepaudio.tts import songs

        song = songs.arrange(read_score(score), wish or songs.Wish())
        speaker, singer = self._singer(voice, song.language)
        return speaker.perform(singer, lambda model: songs.sing(song, model, self.pronouncer, singer))

    def rap(
        self,
        text: str,
        *,
        voice: str | None = None,
        bpm: float | None = None,
        language: str | None = None,
        beat: bool = False,
    ) -> Iterator[Speech]:
        """Rap a text, a bar for every line (two for a long one).

        Args:
            bpm: beats a minute; None: 92.
            language: "en" or "zh"; None: by the script.
            beat: drums under it.

        Raises:
            ScoreError: no words, a line that is too long, or a beat that nobody can rap to.
            ConfigError: as ``sing``.
        """
        from stepaudio.tts import rap, songs
        from stepaudio.tts.voices import language_of

        found = language or language_of(Clause(0, text))
        speaker, singer = self._singer(voice, found)
        lines = [line for line in text.splitlines() if line.strip()]
        tempo = rap.check_bpm(rap.BPM if bpm is None else bpm)
        return speaker.perform(
            singer,
            lambda model: songs.rap_lines(
                lines, model, self.pronouncer, singer, bpm=tempo, language=language, beat=beat
            ),
        )

    def _singer(self, voice: str | None, language: str) -> tuple[Speaker, Voice]:
        from stepaudio.tts.songs import SINGERS
        from stepaudio.tts.voices import LANGUAGES

        speaker = self._open_voices()
        if language not in ("en", "zh"):
            raise ConfigError(f"no voice sings {language!r}; there are en and zh")
        settings = self.config.tts
        if voice is not None:
            singer = speaker.find(voice)
            if language not in LANGUAGES[singer.engine]:
                raise ConfigError(
                    f"{singer.id} sings English only; for Mandarin take {SINGERS['zh']}, or another of "
                    "Kokoro's voices"
                )
            return speaker, singer
        if settings.voice != "auto":
            singer = speaker.find(settings.voice)
            if language in LANGUAGES[singer.engine]:
                return speaker, singer
        return speaker, speaker.find(SINGERS[language])

    def transcribe(
        self,
        audio: Audio,
        *,
        language: str | None = None,
        mode: Mode = "accurate",
        words: bool = False,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Transcript:
        """Speech to text.

        Args:
            language: "en" or "zh"; None: the configured one, which detects it by default.
            mode: "accurate", or "fast" for about twice the speed.
            words: also give the times of words.
            on_progress: called with the seconds done and the seconds there are.

        Raises:
            AudioError: the audio cannot be read. Silence is no error: its transcript is empty.
            ConfigError: a language that is not offered.
        """
        if language is None and self.config.recognition.language != "auto":
            language = self.config.recognition.language
        return self.recognizer.transcribe(
            self._read(audio), language=language, mode=mode, words=words, on_progress=on_progress
        )

    def warm(self, *, parts: Sequence[str] = ("recognizer", "llm", "speaker")) -> None:
        """Load the parts now, side by side, and the system prompt into the model's cache."""
        with ThreadPoolExecutor(len(parts)) as pool:
            for loaded in [pool.submit(getattr, self, part) for part in parts]:
                loaded.result()
        if "recognizer" in parts:
            hiss = np.random.default_rng(0).normal(0, 0.001, RATE).astype(np.float32)
            self.recognizer.transcribe(AudioChunk(hiss, RATE))  # the first time is slow
        if "llm" in parts and self.reads_codes:
            _ = self.tokenizer
        if "llm" in parts:
            self._run(self.llm.warm([self.system]))
        if "speaker" in parts:
            self.speaker.warm()

    def close(self) -> None:
        """Free the models."""
        if "llm" in self.__dict__:
            self.llm.close()
        if "tokenizer" in self.__dict__:
            self.tokenizer.close()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def written(self, text: str, *, ssml: bool | None = None, unknown_tags: Unknown | None = None) -> str:
        """A text without its tags, as transcripts show it; see ``clauses`` for the arguments and errors."""
        if ssml if ssml is not None else markup.is_ssml(text):
            return "\n".join(
                clause.text for clause in self.clauses(text, ssml=True, unknown_tags=unknown_tags)
            )
        return parse(text, unknown=unknown_tags or self.config.tts.unknown_tags, voices=_Names(self)).text

    def show(
        self,
        text: str,
        what: Literal["spoken", "phonemes"],
        *,
        language: str | None = None,
        dialect: str | None = None,
    ) -> str:
        """How a text without tags would be said: in words, or in phonemes (the alphabet of misaki)."""
        if language is not None:
            _dialect(language)
        if what == "spoken":
            return self.pronouncer.speakable(text, language, dialect=dialect)
        words = self.pronouncer.pronounce(text, language, dialect=dialect)
        return "".join(word.phonemes for word in words).strip()

    def voices(self) -> tuple[Voice, ...]:
        """The voices there are, the default first."""
        return self.speaker.voices()

    # The parts

    @cached_property
    def vad(self) -> SileroVAD:
        """Voice activity."""
        from stepaudio.recognition.vad import SileroVAD

        return SileroVAD(self.store.path("silero-vad") / "silero_vad.onnx")

    @cached_property
    def endpointing(self) -> SmartTurn:
        """End of turn."""
        from stepaudio.recognition.endpointing import SmartTurn

        return SmartTurn(self.store.path("smart-turn-v3.2") / "smart-turn-v3.2-cpu.onnx")

    @cached_property
    def recognizer(self) -> Recognizer:
        """Speech to text."""
        from stepaudio.recognition import whisper_graph
        from stepaudio.recognition.whisper import WhisperRecognizer

        settings = self.config.recognition
        return WhisperRecognizer(
            self.store.path(settings.model),
            self.store.derived(settings.model, whisper_graph.recipe(), whisper_graph.write_graphs),
            vad=self.vad,
            threads=settings.threads,
        )

    @cached_property
    def speakers(self) -> SpeakerEncoder:
        """Who speaks."""
        from stepaudio.recognition import speakers

        folder = self.store.derived("resemblyzer", speakers.RECIPE, speakers.expose)
        return speakers.SpeakerEncoder(folder, threads=self.config.recognition.threads)

    @cached_property
    def tokenizer(self) -> DualTokenizer:
        """Speech as codes."""
        return load_tokenizer(model_folder(self.config.tokenizer.model, self.store), self.config.tokenizer)

    @cached_property
    def llm(self) -> LLM:
        """The language model."""
        settings = self.config.llm
        model, _ = choose_llm(self.config, self.store)
        if model.startswith("openai:"):
            from stepaudio.llm.openai_chat import OpenAIChat

            key = settings.api_key.get_secret_value() if settings.api_key else None
            return OpenAIChat(
                model.removeprefix("openai:"),
                settings.name,
                api_key=key,
                timeout_s=settings.timeout_s,
                context_tokens=settings.context_tokens,
                codes=settings.reads == "codes",
            )
        if is_step(model, self.store):
            with _step_installed():
                from stepaudio.llm.step1.in_process import Step1Chat

            return Step1Chat.load(
                model_folder(model, self.store),
                device=settings.device,
                context_tokens=settings.context_tokens,
                talks=settings.slots,
                memory=None if settings.memory_gb is None else round(settings.memory_gb * 1e9),
            )
        from stepaudio.llm.llama_cpp import LlamaCpp

        return LlamaCpp(
            llm_path(self.config, self.store),
            context_tokens=settings.context_tokens,
            threads=settings.threads,
            slots=settings.slots,
        )

    @property
    def reads_codes(self) -> bool:
        """Whether the language model is shown speech as codes."""
        return "codes" in self.llm.reads

    def codes_of(self, audio: AudioChunk) -> AudioCodes:
        """A whole recording as codes, prepared as the published program prepares questions.

        Raises:
            AudioError: it is too short.
        """
        from stepaudio.tokenizer.features import prepare

        return self.tokenizer.encode(prepare(audio)).aligned()

    def growing_codes(self, gain: float) -> GrowingCodes:
        """The codes of a turn that begins now; see ``GrowingCodes``."""
        from stepaudio.tokenizer.growing import GrowingCodes

        return GrowingCodes(self.tokenizer, gain)

    @cached_property
    def speaker(self) -> Speaker | OneEngine:
        """The voices, and who speaks when."""
        from stepaudio.tts.voices import OneEngine, Speaker

        if self.config.tts.model != "kokoro":
            return OneEngine(self._step_voice(), self.config.tts.voice, self.watermark)
        return Speaker(self.store, self.config.tts, self.pronouncer, self.voice_bank, self.watermark)

    @cached_property
    def watermark(self) -> Watermark | None:
        """The mark in all that is spoken; None: it is switched off.

        Where its key cannot be read or kept, speech is marked with one that is forgotten at the end.
        """
        from stepaudio.tts import watermark

        if not self.config.tts.watermark:
            return None
        try:
            key = watermark.installation_key(self.config.tts.watermark_key or watermark.default_file())
        except ConfigError as error:
            log.warning("%s; what is spoken now will not be recognised later", error)
            key = watermark.new_key()
        return watermark.Watermark(key)

    def verify(self, audio: Audio) -> Detection | None:
        """Whether this installation made some audio; None: it has no key, so it has never spoken.

        Raises:
            AudioError: the audio cannot be read, or is too short.
            ConfigError: the key cannot be read.
        """
        from stepaudio.tts import watermark

        heard = self._read(audio)
        key = watermark.read_key(self.config.tts.watermark_key or watermark.default_file())
        return None if key is None else watermark.Watermark(key).detect(heard)

    @property
    def kokoro(self) -> Kokoro:
        """The voice engine that mixes and clones.

        Raises:
            ConfigError: another one is configured.
        """
        from stepaudio.tts.voices import Speaker

        if not isinstance(self.speaker, Speaker):
            raise ConfigError("voices are mixed and cloned for Kokoro: set tts.model to kokoro")
        return self.speaker.kokoro

    @cached_property
    def voice_bank(self) -> VoiceBank:
        """The voices that were mixed or cloned and kept."""
        from stepaudio.tts.voicebank import VoiceBank, default_folder

        return VoiceBank(self.config.tts.voices or default_folder())

    @cached_property
    def pronouncer(self) -> Pronouncer:
        """Written text to spoken words and phonemes."""
        from stepaudio.tts.text import Pronouncer

        return Pronouncer(colloquial=self.config.tts.colloquial)

    def granted(self, messages: Sequence[Message]) -> tuple[list[Message], SpeechStyle]:
        """See ``wishes.granted``; a model that hears what was said grants wishes itself."""
        if self.reads_codes:
            return list(messages), NO_STYLE
        return granted(messages, self.system.text)

    @property
    def system(self) -> Message:
        """The system prompt."""
        return Message("system", self.config.llm.system or SYSTEM_PROMPT)

    def _step_voice(self) -> Synthesizer:
        with _step_installed():
            from stepaudio.llm.step1 import network
            from stepaudio.llm.step1.tokenizer import Step1Tokenizer
            from stepaudio.tokenizer.features import prepare
            from stepaudio.tts.step import folder as step
            from stepaudio.tts.step.language_model import InProcess, Served
        settings = self.config.tts
        folder = model_folder(settings.model, self.store)
        if settings.server is not None:
            model = Served(settings.server, settings.server_model, timeout_s=self.config.llm.timeout_s)
        else:
            model = InProcess(network.load(folder, usable_device(settings.device)))
        return step.load(
            folder,
            model,
            Step1Tokenizer(folder).encode,
            lambda audio: self.tokenizer.encode(prepare(audio, cut=True)),
            speakers=settings.speakers,
            device=settings.device,
        )

    # How it is done

    async def _ask(
        self,
        question: Audio,
        history: Sequence[Message],
        on_event: Callable[[Transcript | ResponseEvent], None],
    ) -> Answer:
        audio = self._read(question)
        timeline = Timeline()
        timeline.stamp("speech_end")
        codes, transcript = await self._understood(audio)
        timeline.stamp("transcript")
        if not transcript.text:
            raise AudioError("no speech was heard; is the recording silent, or not a voice?")
        on_event(transcript)

        text: list[str] = []
        pieces: list[AudioChunk] = []
        marks: list[Mark] = []
        done = Done("completed")

        async def emit(event: ResponseEvent) -> None:
            nonlocal done
            match event:
                case TextDelta():
                    timeline.stamp("first_token")
                    text.append(event.text)
                case ClauseStarted():
                    timeline.stamp("first_clause")
                case AudioDelta():
                    timeline.stamp("first_audio")
                    pieces.append(event.audio)
                case Spoken():
                    marks.extend(event.marks)
                case Done():
                    done = event
            on_event(event)

        settings = self.config.llm
        sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
        messages = [self.system, *history, Message("user", transcript.text, codes=codes)]
        messages, style = self.granted(messages)
        await respond(
            self.llm,
            self._speak_aloud,
            messages,
            emit,
            sampling=sampling,
            style=style,
            unknown_tags=self.config.tts.unknown_tags,
        )
        timeline.stamp("spoken")
        written = "".join(text).strip()
        error = done.error
        if error is None and not pieces:
            error = BackendError("the language model gave nothing to say; ask again, or try another model")
        return Answer(
            transcript,
            written,
            join(pieces) if pieces else None,
            tuple(marks),
            timeline.numbers_ms(),
            "failed" if error else done.status,
            error,
        )

    async def _understood(self, audio: AudioChunk) -> tuple[AudioCodes | None, Transcript]:
        """What was said: in codes, where the language model reads them, and always in words."""
        words = asyncio.to_thread(self.transcribe, audio, mode="fast")
        if not self.reads_codes:
            return None, await words
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(words)
            codes = group.create_task(asyncio.to_thread(self.codes_of, audio))
        return codes.result(), heard.result()

    def _speak_aloud(self, clause: Clause, ahead_s: float) -> Iterator[Speech]:
        style = clause.style.over(SpeechStyle(speed=self.config.tts.speed))
        return self.speaker.speak(replace(clause, style=style), ahead_s=ahead_s)

    def _say(self, clauses: Sequence[Clause], voice: Voice | None) -> Iterator[Speech]:
        if objection := self.speaker.objection(clauses):
            raise TextError(objection)
        yield from _one_after_another(self.speaker.speak(clause, voice=voice) for clause in clauses)

    def _read(self, audio: Audio) -> AudioChunk:
        if isinstance(audio, AudioChunk):
            return resample(audio, RATE)
        return read_audio(audio, RATE, limit_s=self.config.audio.limit_s)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # One loop for the life of the engine: a server's connections are bound to it. In a thread of
        # its own where a loop already runs (a notebook).
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner.run(work)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._runner.run, work).result()


def read_score(score: Score | bytes | Path | str) -> Score:
    """A score: read already, from a file ("-" is standard input), or its bytes; raises ``ScoreError``."""
    from stepaudio.tts.scores import Score, parse
    from stepaudio.tts.scores.score import MOST_BYTES

    if isinstance(score, Score):
        return score
    if isinstance(score, bytes):
        return parse(score)
    if str(score) == "-":
        return parse(sys.stdin.buffer.read(MOST_BYTES + 1))
    try:
        with Path(score).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ScoreError(f"{score}: the score cannot be read: {error.strerror or error}") from error
    return parse(data)


class _Names:
    """The names of voices that there are, in ``in``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __contains__(self, name: object) -> bool:
        try:
            return bool(self._engine.speaker.find(str(name)))
        except ConfigError:
            return False


def _one_after_another(clauses: Iterable[Iterator[Speech]]) -> Iterator[Speech]:
    """Spoken clauses on one time line.

    Raises:
        TextError: nothing was spoken in any.
    """
    start = 0  # samples
    for pieces in clauses:
        end = start
        for piece in pieces:
            audio, moved_ms = piece.audio, round(1000 * start / piece.audio.rate)
            end = start + audio.start + len(audio.samples)
            marks = tuple(Mark(m.text, m.start_ms + moved_ms, m.end_ms + moved_ms) for m in piece.marks)
            yield Speech(replace(audio, start=start + audio.start), marks)
        start = end
    if not start:
        raise TextError("there is nothing in the text that can be spoken")


def _dialect(language: str) -> str:
    dialects = {"en": "en", "zh": "cmn"}
    if language not in dialects:
        raise unknown("language", language, dialects)
    return dialects[language]


def load(file: Path | str | None = None, **settings: Any) -> Engine:
    """An engine from the user's configuration.

    Args:
        file: a configuration file; None: the usual places.
        settings: settings by dotted name with ``__`` for the dot: ``load(llm__model="qwen2.5-0.5b")``.

    Raises:
        ConfigError: a setting that does not exist, or a value that does not fit.

    >>> assistant = stepaudio.load(tts__speed=1.2)
    """
    flags = {name.replace("__", "."): value for name, value in settings.items()}
    return Engine(configuration.load(Path(file) if file else None, os.environ, flags).config)


def load_tokenizer(folder: Path, settings: TokenizerConfig) -> DualTokenizer:
    """Speech as codes, by the files of a folder.

    Raises:
        ConfigError: torch is not installed, or as ``DualTokenizer.load``.
        ModelMissing: as there.
    """
    with _step_installed():
        from stepaudio.tokenizer.dual import DualTokenizer
    return DualTokenizer.load(
        folder, device=settings.device, threads=settings.threads, window_s=settings.window_s
    )


@contextmanager
def _step_installed() -> Iterator[None]:
    """Around imports of what the extra ``step`` brings.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; get it with: pip install 'stepaudio[step]'"
        ) from error


def model_folder(model: str, store: ModelStore) -> Path:
    """The folder of a model of the store, or the folder itself.

    Raises:
        ModelMissing: the model is not on this machine.
    """
    return store.path(model) if model in store.specs else Path(model).expanduser()


def is_step(model: str, store: ModelStore) -> bool:
    """Whether a language model is a folder of Step-Audio-Chat's kind, or that model of the store."""
    return model == STEP_CHAT or (model not in store.specs and Path(model).expanduser().is_dir())


def open_store(config: Config) -> ModelStore:
    """The model store that the configuration names."""
    settings = config.models
    return ModelStore(settings.root, settings.local, offline=settings.offline)


def default_models(config: Config, store: ModelStore) -> list[str]:
    """The models that this configuration needs, in the order in which they are worth having."""
    needed = ["silero-vad", "smart-turn-v3.2", config.recognition.model]
    if config.tts.model == "kokoro":
        needed += ["hibari", "kokoro-voices", "kokoro-82m"]
    model, _ = choose_llm(config, store)
    parts = [config.tts.model, model]
    if config.llm.reads == "codes" or config.tts.model != "kokoro":
        parts.insert(0, config.tokenizer.model)
    return [*needed, *(part for part in parts if part in store.specs)]


def choose_llm(config: Config, store: ModelStore) -> tuple[str, str]:
    """Which language model is used, and why (a model id, a path, or an address)."""
    wanted = config.llm.model
    if wanted != "auto":
        return wanted, "configured"
    if config.profile == "step":
        if (address := served_chat()) is not None:
            return f"openai:{address}", "`stepaudio llm serve` serves it"
        return STEP_CHAT, "in process: no server answers at the address of `stepaudio llm serve`"
    memory = available_memory()
    if memory is not None and memory < LARGE_MEMORY:
        return SMALL, f"{memory / 1e9:.1f} GB of memory are free; {LARGE} wants {LARGE_MEMORY / 1e9:.1f} GB"
    if store.status(LARGE).state != "present":
        need = 2 * store.specs[LARGE].size
        free = shutil.disk_usage(_existing(store.root)).free
        if free < need:
            return (
                SMALL,
                f"{free / 1e9:.1f} GB of disk are free; {LARGE} wants {need / 1e9:.1f} GB to be fetched",
            )
    return LARGE, "memory and disk suffice"


def served_chat(address: str = f"http://{serving.HOST}:{serving.PORT}/v1") -> str | None:
    """The address where `stepaudio llm serve` would serve Step-Audio-Chat, if it does, else None."""
    try:
        with urllib.request.urlopen(f"{address}/models", timeout=PROBE_S) as answer:
            names = [str(model["id"]) for model in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address if any(name.lower() == STEP_CHAT for name in names) else None


def llm_path(config: Config, store: ModelStore) -> Path:
    """The GGUF file of the configured language model.

    Raises:
        ModelMissing: it is not on this machine; the message is the command that gets it.
        ConfigError: neither a model of the store nor a file.
    """
    model, _ = choose_llm(config, store)
    spec = store.specs.get(model)
    if spec is not None and _is_llm(spec):
        return store.path(model) / spec.files[0].name
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.suffix == ".gguf":
        raise ConfigError(f"llm.model: no file {path}")
    raise unknown("language model", model, [id for id, spec in store.specs.items() if _is_llm(spec)])


def _is_llm(spec: ModelSpec) -> bool:
    return any(file.name.endswith(".gguf") for file in spec.files)


def available_memory() -> int | None:
    """Bytes of memory that can be taken without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def diagnose(config: Config) -> list[dict[str, Any]]:
    """What works and what is missing: rows of ``what``, ``good``, ``says``."""
    store = open_store(config)
    rows: list[dict[str, Any]] = []

    def row(what: str, good: bool, says: str) -> None:
        rows.append({"what": what, "good": good, "says": says})

    memory, disk = available_memory(), shutil.disk_usage(_existing(store.root)).free
    row(
        "memory",
        memory is None or memory > SMALL_MEMORY,
        "unknown" if memory is None else f"{memory / 1e9:.1f} GB free",
    )
    row("disk", disk > 1_000_000_000, f"{disk / 1e9:.1f} GB free for {store.root}")
    rows += _step_needs(config, store)
    model, reason = choose_llm(config, store)
    row("language model", True, f"{model} ({reason})")
    for id in default_models(config, store):
        try:
            row(f"model {id}", True, str(store.path(id)))
        except ModelMissing as error:
            row(f"model {id}", False, str(error))
    if model.startswith("openai:"):
        with Engine(config) as engine:
            try:
                engine.warm(parts=("llm",))
                row("server", True, "answers")
            except StepAudioError as error:
                row("server", False, str(error))
    elif model not in store.specs and not is_step(model, store):
        try:
            row("model file", True, str(llm_path(config, store)))
        except StepAudioError as error:
            row("model file", False, str(error))
    return rows


def _step_needs(config: Config, store: ModelStore) -> list[dict[str, Any]]:
    """What memory the parts of Step-Audio take, and what the machine has."""
    parts = [(STEP_TOKENIZER, config.tokenizer.model, config.tokenizer.device)]
    parts.append((STEP_TTS, config.tts.model, config.tts.device))
    model, _ = choose_llm(config, store)
    if is_step(model, store):
        parts.append((STEP_CHAT, model, config.llm.device))
    if config.tts.model == "kokoro" and len(parts) < 3:
        return []
    rows = []
    for id, wanted, name in parts:
        if wanted == "kokoro":
            continue
        good = True
        if wanted in store.specs:
            layout = store.specs[wanted].layout
            need = layout.memory if layout else store.specs[wanted].size
        else:
            size = sum(path.stat().st_size for path in Path(wanted).expanduser().rglob("*") if path.is_file())
            need = size
        if id == STEP_CHAT and config.llm.memory_gb is not None:
            need = min(need, round(config.llm.memory_gb * 1e9))
        try:
            has, where = memory_of(name)
            fits = has is None or has >= need
            free = "an unknown amount" if has is None else f"{has / 1e9:.1f} GB free"
            says = f"needs {need / 1e9:.{1 if need > 1e8 else 3}f} GB of {where}, which has {free}"
            if not fits:
                says += "; " + _RELIEF[id]
            good = good and fits
        except StepAudioError as error:
            good, says = False, str(error)
        if need == 0:
            good, says = False, f"no folder {wanted}"
        rows.append({"what": f"memory for {id}", "good": good, "says": says})
    return rows


_RELIEF = {
    STEP_TOKENIZER: "free some, or set tokenizer.device to another",
    STEP_TTS: "set tts.device to another, or draw its codes on a server: tts.server",
    STEP_CHAT: "serve it on GPUs (`stepaudio llm serve`) and set llm.model to openai:http://host:port/v1, or "
    "take another language model",
}


def memory_of(device: str) -> tuple[int | None, str]:
    """Free bytes of memory where a device computes, None where that is not known, and its name in words.

    Raises:
        ConfigError: there is no such device, or torch is not installed.
    """
    if device == "cpu":
        return available_memory(), "memory"
    with _step_installed():
        return free_memory(device), f"the memory of {device}"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
