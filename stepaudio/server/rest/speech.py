"""``/v1/audio/speech``: a text, spoken while it is made."""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import TagError
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.tagged import parse
from stepaudio.core.tags import SPEEDS, instructions
from stepaudio.server.encoders import MEDIA, Encoder
from stepaudio.server.errors import invalid
from stepaudio.server.limits import SPEECH_CHARACTERS
from stepaudio.server.rest.shared import TOKEN_MS, WHENEVER, WORK, Serving, VoiceName, sse, streamed, voice_of
from stepaudio.tts.base import Speech

if TYPE_CHECKING:
    from stepaudio.server.app import Service

router = APIRouter()


class SpeechRequest(BaseModel):
    """A text to speak."""

    model_config = ConfigDict(title="CreateSpeechRequest")

    input: str = Field(
        min_length=1,
        max_length=SPEECH_CHARACTERS,
        description="as written; signs are read out, tags such as (happy) and SSML in <speak> are followed",
    )
    model: str = Field(max_length=256)
    voice: VoiceName = "auto"
    instructions: str | None = Field(
        None,
        max_length=4096,
        description="the manner, in tags or plain words (happy, slowly); x-stepaudio-instructions says what "
        "of it is followed",
    )
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0, description="0.5 to 2 can be spoken")
    stream_format: Literal["audio", "sse"] = "audio"


@router.post(
    "/audio/speech",
    tags=["audio"],
    response_class=Response,
    responses={
        **WORK,
        200: {
            "description": "The speech, as it is made.",
            "content": {
                **{media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()},
                "text/event-stream": {},
            },
        },
    },
)
async def create_speech(body: SpeechRequest, service: Serving) -> Response:
    """Speak a text."""
    service.need_ready()
    service.check_model(body.model)
    encoder = Encoder(body.response_format)
    voice = voice_of(service, body.voice)
    style, followed = NO_STYLE, None
    if body.instructions:
        try:
            style, followed = manner_of(body.instructions)
        except TagError as error:
            raise invalid(str(error), "instructions") from None
    speed = body.speed * (style.speed or 1.0)
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise invalid(f"the voices here speak at {SPEEDS[0]:g} to {SPEEDS[1]:g} times their speed", "speed")
    try:
        said = service.engine.say(
            body.input, voice=voice.id if voice else None, style=replace(style, speed=speed)
        )
    except TagError as error:
        raise invalid(str(error), "input") from None
    pieces = _spoken(service, said)
    headers = {"x-stepaudio-instructions": followed} if followed else {}
    if body.stream_format == "sse":
        return await streamed(_speech_events(pieces, encoder, body.input), "text/event-stream", headers)
    return await streamed(_encoded(pieces, encoder), MEDIA[body.response_format], headers)


async def _spoken(service: Service, said: Iterator[Speech]) -> AsyncGenerator[AudioChunk, None]:
    with service.admission.job():
        spoken = service.voice.iterate(
            lambda: said,
            lambda: WHENEVER,
            service.waited,
        )
        async with aclosing(spoken) as pieces:
            async for piece in pieces:
                yield piece.audio


async def _encoded(pieces: AsyncGenerator[AudioChunk, None], encoder: Encoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            if data := encoder.push(piece):
                yield data
    yield encoder.finish()


async def _speech_events(
    pieces: AsyncGenerator[AudioChunk, None], encoder: Encoder, text: str
) -> AsyncGenerator[bytes, None]:
    seconds = 0.0

    async def counted() -> AsyncGenerator[AudioChunk, None]:
        nonlocal seconds
        async with aclosing(pieces):
            async for piece in pieces:
                seconds += piece.seconds
                yield piece

    async with aclosing(_encoded(counted(), encoder)) as encoded:
        async for data in encoded:
            if data:
                yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
    made = math.ceil(seconds * 1000 / TOKEN_MS)
    usage = {"input_tokens": len(text), "output_tokens": made, "total_tokens": len(text) + made}
    yield sse({"type": "speech.audio.done", "usage": usage})


def manner_of(text: str) -> tuple[SpeechStyle, str]:
    """The style that instructions ask for, and what the client is told of it.

    Raises:
        TagError: a tag in them is wrong.
    """
    tagged = parse(text)
    said = instructions(tagged.text)
    style = said.style.over(tagged.style)
    followed = [
        f"{kind}={value:g}" if isinstance(value, float) else f"{kind}={value}" for kind, value in _told(style)
    ]
    if said.passed_over and followed:
        followed.append(f"words not followed: {said.passed_over}")
    return style, ", ".join(followed) or "ignored"


def _told(style: SpeechStyle) -> list[tuple[str, str | float]]:
    said = ((field.name, getattr(style, field.name)) for field in fields(style))
    return [(name, value) for name, value in said if value is not None]
