"""``/v1/realtime/client_secrets``: what a browser talks with, so that it need not hold a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from stepaudio.core.protocol import RealtimeSettings, Settings, TranscriptionSettings, updated
from stepaudio.server import auth
from stepaudio.server.rest.shared import WORK, Serving, caller_of, new_id

router = APIRouter()


class ExpiresAfter(BaseModel):
    """When a secret ends."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=auth.SECRET_S, ge=auth.LEAST_SECRET_S, le=auth.MOST_SECRET_S)


class SecretSession(BaseModel):
    """What the secret's talks begin with: a session of the Realtime protocol."""

    model_config = ConfigDict(extra="allow")

    type: Literal["realtime", "transcription"] = "realtime"


class SecretRequest(BaseModel):
    """A wish for a client secret."""

    model_config = ConfigDict(title="CreateClientSecretRequest")

    expires_after: ExpiresAfter = ExpiresAfter()
    session: SecretSession = SecretSession()


@router.post("/realtime/client_secrets", tags=["realtime"], responses=WORK)
async def create_client_secret(body: SecretRequest, request: Request, service: Serving) -> dict[str, Any]:
    """A secret for a browser, which may hold talks with it until it expires."""
    patch = body.session.model_dump()
    session = effective(patch)
    value, expires = service.auth.make_secret(caller_of(request), body.expires_after.seconds, patch)
    shown = {**session.model_dump(), "id": new_id("sess"), "expires_at": expires}
    return {"value": value, "expires_at": expires, "session": shown}


def effective(patch: Mapping[str, Any]) -> Settings:
    """The whole settings of a session that begins with ``patch``.

    Raises:
        ProtocolError: the Realtime protocol does not take it.
    """
    if patch.get("type") == "transcription":
        return updated(TranscriptionSettings(), patch)
    model = patch.get("model")
    return updated(RealtimeSettings(model=model) if isinstance(model, str) else RealtimeSettings(), patch)
