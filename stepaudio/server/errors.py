"""What goes wrong over HTTP, as OpenAI's clients expect it.

Every refusal is ``{"error": {"message", "type", "param", "code"}}`` with a status that tells a client whether
to try again (the official ones do so for 408, 409, 429 and 5xx).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from stepaudio.core.errors import (
    AudioError,
    BackendError,
    ConfigError,
    ModelMissing,
    ProtocolError,
    StepAudioError,
    TextError,
)

log = logging.getLogger(__name__)

TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: for the user: what is wrong and what to do.
        code: for programs, as OpenAI names it.
        param: the field that is wrong.
        retry_after_s: when another try may succeed; sent as ``Retry-After``.
        headers: sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, round(retry_after_s)))

    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def encoded(self) -> bytes:
        """``body`` as it is sent."""
        return json.dumps(self.body()).encode()


def invalid(message: str, param: str | None, *, code: str = "invalid_value") -> ApiError:
    """A request with something wrong in one field: 400."""
    return ApiError(400, message, code=code, param=param)


def refusal(error: StepAudioError) -> ApiError:
    """What a client is told of our own errors.

    Its request's faults in full; the faults of this machine (paths, addresses, what a server answered) go to
    the log, and the client learns only whether to try again.
    """
    match error:
        case AudioError() | TextError() | ConfigError():
            return ApiError(400, str(error), code="invalid_value")
        case ProtocolError():
            return ApiError(400, str(error), code=error.code, param=error.param)
        case ModelMissing():
            log.error("a model is missing: %s", error)
            return ApiError(
                503, "a model that this needs is not installed on the server", code="model_missing"
            )
        case BackendError(retryable=True):
            log.warning("an engine failed: %s", error)
            return ApiError(503, "the model is busy or away; try again", code="overloaded", retry_after_s=2)
        case _:
            log.error("an engine failed: %s", error)
            return ApiError(500, "the model failed; try again", code="engine_failed")
