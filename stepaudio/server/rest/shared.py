"""What the REST shapes share: their refusals in the OpenAPI document, ids, voices, streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Send

from stepaudio.core.errors import StepAudioError, TextError
from stepaudio.server.auth import Caller
from stepaudio.server.errors import ApiError
from stepaudio.tts.base import Voice

if TYPE_CHECKING:
    from stepaudio.server.app import Service

READ_S = 30.0
"""A client that takes nothing for so long is dropped."""
TOKEN_MS = 50
"""Of speech, as OpenAI counts tokens of sound that is made."""
WHENEVER = float("inf")
"""The deadline of work that nobody listens to while it is done: talks go first."""

_REFUSAL = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    words = {
        400: "The request is not right; ``param`` names the field.",
        401: "The key is missing, wrong or expired.",
        403: "Not with this key, or not from this page.",
        404: "There is no such thing.",
        413: "The request is too large.",
        429: "Too many requests; see ``Retry-After``.",
        500: "The server failed.",
        503: "The server is loading, busy or closing; see ``Retry-After``.",
    }
    content = {"application/json": {"schema": _REFUSAL}}
    return {status: {"description": words[status], "content": content} for status in statuses}


REFUSALS = refusals(401, 403, 429)
"""What every request may be answered, for the OpenAPI document."""
WORK = refusals(400, 401, 403, 404, 413, 429, 500, 503)


def _service(request: Request) -> Service:
    return request.app.state.service


def caller_of(request: Request) -> Caller:
    return request.state.caller


Serving = Annotated[Any, Depends(_service)]


def new_id(kind: str) -> str:
    """A fresh id: ``kind_…``."""
    return f"{kind}_{secrets.token_hex(12)}"


def no_model(name: str) -> ApiError:
    """The refusal of a model that is not there."""
    return ApiError(
        404, f"the model {name!r} does not exist; see /v1/models", code="model_not_found", param="model"
    )


class VoiceId(BaseModel):
    """A voice by its id."""

    id: Annotated[str, Field(max_length=64)]


VoiceName = Annotated[str, Field(max_length=64)] | VoiceId


def voice_of(service: Service, given: VoiceName) -> Voice | None:
    """The voice that a request asks for; None: the configured one."""
    id = given if isinstance(given, str) else given.id
    if id in ("auto", "default", ""):
        return None
    try:
        return service.engine.speaker.find(id)
    except StepAudioError as error:
        raise ApiError(400, str(error), code="invalid_value", param="voice") from None


class _Unread(Exception):
    """The client takes nothing."""


class _Stream(StreamingResponse):
    """A streamed answer: its generator is closed whatever happens; a client that takes nothing is dropped."""

    async def stream_response(self, send: Send) -> None:
        async def timely(message: Any) -> None:
            try:
                async with asyncio.timeout(READ_S):
                    await send(message)
            except TimeoutError:
                raise _Unread from None

        async with aclosing(cast(AsyncGenerator[bytes, None], self.body_iterator)):
            with contextlib.suppress(_Unread):  # not completed, so its connection is closed
                await super().stream_response(timely)


async def streamed(
    pieces: AsyncGenerator[bytes, None], media: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A streamed response. What fails before the first piece is an error with a status of its own."""
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        raise TextError("there is nothing to send") from None

    async def all() -> AsyncIterator[bytes]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    more = {"cache-control": "no-store", **(headers or {})}
    return _Stream(all(), media_type=media, headers=more)


def sse(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
