"""OpenAI's REST shapes, a file for each.

Where this machine is another than OpenAI's: a model's name may be any (``Service.check_model``), tokens of
sound are counted 50 ms each, and work is done in pieces that queue behind those of the talks.
"""

from __future__ import annotations

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
    """A request of the wrong shape, as OpenAI puts it: 400, the first fault, what was given left out."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"] if part not in ("body", "query", "path")]
    param = ".".join(place) or None
    if fault["type"] == "json_invalid":  # its place is a count of characters
        refused = ApiError(400, "the request is not valid JSON", code="invalid_json")
        return Response(refused.encoded(), 400, media_type="application/json")
    missing = fault["type"] == "missing"
    words = "is needed" if missing else str(fault["msg"]).removeprefix("Value error, ")
    code = "missing_required_parameter" if missing else "invalid_value"
    refused = ApiError(400, f"{param or 'the request'}: {words}", code=code, param=param)
    return Response(refused.encoded(), 400, media_type="application/json")


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
