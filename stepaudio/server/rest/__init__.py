"""OpenAI's REST shapes, a file for each.

Where this machine is another than OpenAI's: a model's name may be any (``Service.check_model``), tokens of
sound are counted 50 ms each, and work is done in pieces that queue behind those of the talks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from stepaudio.server.errors import ApiError
from stepaudio.server.rest import chat, client_secrets, models, speech, transcriptions

router = APIRouter(prefix="/v1")
for part in (models, speech, transcriptions, chat, client_secrets):
    router.include_router(part.router)


async def validation_error(request: Request, error: Any) -> Response:
    """A request of the wrong shape, as OpenAI puts it: 400, one fault, what was given left out.

    Of several it is the innermost: of a list where a text or a list may be, what is wrong in the list.
    """
    assert isinstance(error, RequestValidationError)
    places = [_place(fault["loc"], error.body, fault["type"] == "missing") for fault in error.errors()]
    deepest = max(range(len(places)), key=lambda i: len(places[i]))
    fault = error.errors()[deepest]
    param = "".join(places[deepest]).removeprefix(".") or None
    if fault["type"] == "json_invalid":  # its place is a count of characters
        refused = ApiError(400, "the request is not valid JSON", code="invalid_json")
        return Response(refused.encoded(), 400, media_type="application/json")
    missing = fault["type"] == "missing"
    words = "is needed" if missing else str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "union_tag_invalid":
        words = f"this type is not taken; there are: {fault['ctx']['expected_tags']}"
    code = "missing_required_parameter" if missing else "invalid_value"
    refused = ApiError(400, f"{param or 'the request'}: {words}", code=code, param=param)
    return Response(refused.encoded(), 400, media_type="application/json")


def _place(loc: Sequence[str | int], body: Any, missing: bool) -> list[str]:
    """The steps to a fault, as the client wrote them: pydantic's without the names of its unions."""
    steps: list[str] = []
    where, *inner = loc
    if where != "body":
        return [f".{step}" for step in inner]
    for i, step in enumerate(inner):
        if isinstance(step, int) and isinstance(body, list):
            steps.append(f"[{step}]")
            body = body[step]
        elif isinstance(body, Mapping) and (step in body or (missing and i == len(inner) - 1)):
            steps.append(f".{step}")
            body = body.get(step)
    return steps


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, without the 422 that is never sent."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
