"""``/v1/audio/transcriptions``: recordings, written down stretch by stretch."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import StepAudioError
from stepaudio.recognition.base import RATE, Segment, Transcript, Word
from stepaudio.recognition.formats import write
from stepaudio.server.errors import ApiError, invalid
from stepaudio.server.limits import MB, too_large
from stepaudio.server.rest.shared import WHENEVER, WORK, Serving, sse, streamed

if TYPE_CHECKING:
    from stepaudio.server.app import Service

router = APIRouter()

LONGEST_S = 28.0
"""Of sound that is recognised in one piece, as the recogniser itself would cut it."""

LANGUAGES = {"en": "english", "zh": "chinese"}

_FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")


@router.post(
    "/audio/transcriptions",
    tags=["audio"],
    response_class=Response,
    responses={
        **WORK,
        200: {
            "description": "What was said.",
            "content": {
                "application/json": {"schema": {"type": "object", "required": ["text"]}},
                "text/plain": {"schema": {"type": "string"}},
                "text/event-stream": {},
            },
        },
    },
)
async def create_transcription(
    service: Serving,
    file: Annotated[UploadFile, File(description="the sound: wav, flac, mp3, ogg, opus, m4a, mp4, webm …")],
    model: Annotated[str, Form(max_length=256)],
    language: Annotated[str | None, Form(max_length=32)] = None,
    prompt: Annotated[str | None, Form(max_length=8192, description="not used")] = None,
    response_format: Annotated[
        Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"], Form()
    ] = "json",
    temperature: Annotated[float, Form(ge=0, le=1, description="not used")] = 0.0,
    granularities: Annotated[
        list[Literal["word", "segment"]] | None, Form(alias="timestamp_granularities[]")
    ] = None,
    include: Annotated[
        list[Literal["logprobs"]] | None, Form(alias="include[]", description="not given")
    ] = None,
    stream: Annotated[bool, Form()] = False,
) -> Response:
    """Write down what is said in a recording."""
    service.need_ready()
    service.check_model(model)
    if response_format == "diarized_json":
        raise invalid(
            "speakers are not told apart here; choose json, verbose_json, text, srt or vtt",
            "response_format",
            code="unsupported_value",
        )
    language = language_code(service, language)
    most_bytes = int(service.settings.upload_mb * MB)
    if file.size is not None and file.size > most_bytes:
        raise too_large(most_bytes, "audio")
    data = await file.read()
    if not data:
        raise ApiError(400, "the file is empty", code="invalid_value", param="file")
    words = "word" in (granularities or ())
    heard = heard_of(service, data, language, words)
    if stream and response_format in ("json", "text"):
        return await streamed(_transcript_events(heard), "text/event-stream")
    seconds, parts = 0.0, []
    async with aclosing(heard) as pieces:
        async for length_s, part in pieces:
            seconds = length_s
            parts.append(part)
    transcript = joined(parts, language)
    match response_format:
        case "json":
            return JSONResponse({"text": transcript.text, "usage": _duration(seconds)})
        case "verbose_json":
            return JSONResponse(_verbose(transcript, seconds, granularities or ["segment"]))
        case _:
            return PlainTextResponse(write(transcript, response_format))


def language_code(service: Service, language: str | None) -> str | None:
    """The language to hear, by any of its names; None: detect it."""
    if not language:
        configured = service.engine.config.recognition.language
        return None if configured == "auto" else configured
    code = language.lower().replace("_", "-").partition("-")[0]
    code = {name: short for short, name in LANGUAGES.items()}.get(code, code)
    code = {"cmn": "zh", "eng": "en", "zho": "zh"}.get(code, code)
    if code not in LANGUAGES:
        raise invalid(
            f"the language {language!r} is not offered; there are: {', '.join(LANGUAGES)}",
            "language",
            code="unsupported_language",
        )
    return code


async def heard_of(
    service: Service, data: bytes, language: str | None, words: bool
) -> AsyncGenerator[tuple[float, Transcript], None]:
    """A recording, recognised stretch by stretch: its length in seconds, and what was said in one.

    At least one stretch comes, be it silent.
    """
    with service.admission.job():
        try:
            audio = await service.decoder.decode(data)
        except StepAudioError as error:
            raise ApiError(400, str(error), code="invalid_audio", param="file") from None
        recognizer = service.engine.recognizer
        for start, end in await asyncio.to_thread(_stretches, service, audio):
            part = AudioChunk(audio.samples[start:end], RATE)

            def work(part: AudioChunk = part) -> Transcript:
                return recognizer.transcribe(part, language=language, mode="accurate", words=words)

            yield (
                audio.seconds,
                _moved(await service.ears.run(work, WHENEVER, service.waited), round(1000 * start / RATE)),
            )


def _stretches(service: Service, audio: AudioChunk) -> list[tuple[int, int]]:
    """Where speech is, in samples, cut at pauses so that a talk need not wait long for its turn."""
    if audio.seconds <= LONGEST_S:
        return [(0, len(audio.samples))]
    from stepaudio.recognition.vad import probabilities, speech_spans
    from stepaudio.recognition.whisper import cut_at_pauses

    spans = speech_spans(probabilities(service.engine.vad, audio))
    windows = [(window.start, window.end) for window in cut_at_pauses(audio.samples, spans)]
    return windows or [(0, min(len(audio.samples), RATE))]


def _moved(part: Transcript, by_ms: int) -> Transcript:
    """A transcript on the time line of the whole recording."""

    def moved(segment: Segment) -> Segment:
        words = tuple(Word(w.text, w.start_ms + by_ms, w.end_ms + by_ms) for w in segment.words)
        return Segment(segment.text, segment.start_ms + by_ms, segment.end_ms + by_ms, words)

    return replace(part, segments=tuple(map(moved, part.segments)))


def joined(parts: Sequence[Transcript], language: str | None) -> Transcript:
    """One transcript of the stretches; its language is that of most of the text."""
    said = [part for part in parts if part.text]
    letters: dict[str, int] = {}
    for part in said:
        letters[part.language] = letters.get(part.language, 0) + len(part.text)
    main = max(letters, key=letters.__getitem__, default=language or "en")
    text = "".join(_spaced(before, part.text) for before, part in zip([None, *said], said, strict=False))
    return Transcript(text, main, tuple(segment for part in parts for segment in part.segments))


def _spaced(before: Transcript | None, text: str) -> str:
    """A text that follows another: Chinese follows without a space."""
    chinese = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")
    if before is None or (chinese.match(text) and chinese.match(before.text[-1])):
        return text
    return f" {text}"


async def _transcript_events(
    heard: AsyncGenerator[tuple[float, Transcript], None],
) -> AsyncGenerator[bytes, None]:
    before: Transcript | None = None
    text, seconds = "", 0.0
    async with aclosing(heard):
        async for length_s, part in heard:
            seconds = length_s
            if part.text:
                delta = _spaced(before, part.text)
                before, text = part, text + delta
                yield sse({"type": "transcript.text.delta", "delta": delta})
    yield sse({"type": "transcript.text.done", "text": text, "usage": _duration(seconds)})


def _duration(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(seconds)}


def _verbose(transcript: Transcript, seconds: float, granularities: Sequence[str]) -> dict[str, Any]:
    """``verbose_json``. What Whisper's decoder here does not tell (tokens, probabilities) is null."""
    shown: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGES[transcript.language],
        "duration": round(seconds, 3),
        "text": transcript.text,
        "usage": _duration(seconds),
    }
    if "segment" in granularities:
        shown["segments"] = [
            {
                "id": n,
                "seek": segment.start_ms // 10,
                "start": segment.start_ms / 1000,
                "end": segment.end_ms / 1000,
                "text": segment.text,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": None,
                "compression_ratio": None,
                "no_speech_prob": None,
            }
            for n, segment in enumerate(transcript.segments)
        ]
    if "word" in granularities:
        shown["words"] = [
            {"word": word.text, "start": word.start_ms / 1000, "end": word.end_ms / 1000}
            for segment in transcript.segments
            for word in segment.words
        ]
    return shown
