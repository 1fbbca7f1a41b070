"""``/v1/audio/speech``: a text, spoken while it is made."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from stepaudio.core.audio import AudioChunk
from stepaudio.server.encoders import MEDIA, Encoder
from stepaudio.server.errors import invalid
from stepaudio.server.limits import SPEECH_CHARACTERS
from stepaudio.server.rest.shared import TOKEN_MS, WHENEVER, WORK, Serving, VoiceName, sse, streamed, voice_of
from stepaudio.tts.base import Voice

if TYPE_CHECKING:
    from stepaudio.server.app import Service

router = APIRouter()

SPEEDS = (0.5, 2.0)
"""What the voices follow (``Capabilities.speed``)."""


class SpeechRequest(BaseModel):
    """A text to speak."""

    model_config = ConfigDict(title="CreateSpeechRequest")

    input: str = Field(
        min_length=1, max_length=SPEECH_CHARACTERS, description="as written; signs are read out"
    )
    model: str = Field(max_length=256)
    voice: VoiceName = "auto"
    instructions: str | None = Field(
        None,
        max_length=4096,
        description="the manner; only how fast is followed, and x-stepaudio-instructions says what was",
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
    speed, followed = body.speed, None
    if body.instructions:
        asked = speed_of(body.instructions)
        followed = "ignored" if asked is None else f"speed={asked:g}"
        speed *= asked or 1.0
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise invalid(f"the voices here speak at {SPEEDS[0]:g} to {SPEEDS[1]:g} times their speed", "speed")
    pieces = _spoken(service, body.input, voice, speed)
    headers = {"x-stepaudio-instructions": followed} if followed else {}
    if body.stream_format == "sse":
        return await streamed(_speech_events(pieces, encoder, body.input), "text/event-stream", headers)
    return await streamed(_encoded(pieces, encoder), MEDIA[body.response_format], headers)


async def _spoken(
    service: Service, text: str, voice: Voice | None, speed: float
) -> AsyncGenerator[AudioChunk, None]:
    with service.admission.job():
        said = service.voice.iterate(
            lambda: service.engine.say(text, voice=voice.id if voice else None, speed=speed),
            lambda: WHENEVER,
            service.waited,
        )
        async with aclosing(said) as pieces:
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


_PACES = (
    (1.25, r"\b(fast|faster|quick|quickly|rapid|rapidly|brisk|briskly|speed up)\b|快"),
    (0.8, r"\b(slow|slower|slowly|unhurried|slow down)\b|慢"),
)
_NEGATED = re.compile(r"\b(not|no|never|don't|without|less|too|isn't)\b|不|别|勿|太", re.I)


def speed_of(instructions: str) -> float | None:
    """The speed that an instruction asks for, or None: it asks for none, for two, or is not understood."""
    if _NEGATED.search(instructions):
        return None
    found = [speed for speed, words in _PACES if re.search(words, instructions, re.I)]
    return found[0] if len(found) == 1 else None
