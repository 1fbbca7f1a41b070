"""What every request passes before the service sees it, HTTP and WebSocket alike.

In this order: an id (``x-request-id``), the names and pages it may come from (``auth.check_host``,
``auth.check_origin``), the key, the rate, the size of its body. What is refused is refused before a socket is
opened. And what comes out as an exception that nobody expected is logged without its contents and answered
without its innards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepaudio.core.errors import StepAudioError
from stepaudio.server import auth
from stepaudio.server.auth import ANONYMOUS, Auth, Caller
from stepaudio.server.errors import ApiError, refusal
from stepaudio.server.limits import JSON_BYTES, MB, Admission, too_large
from stepaudio.server.metrics import Metrics

log = logging.getLogger(__name__)

SCOPE_OF = {
    "/v1/realtime": "realtime",
    "/v1/realtime/client_secrets": "realtime",
    "/v1/audio/speech": "speech",
    "/v1/audio/transcriptions": "transcriptions",
    "/v1/chat/completions": "chat",
    "/metrics": "metrics",
}
"""What a key must be for. Paths below ``/v1/`` that are not here want any key; all others want none."""

_ROUTES = (*SCOPE_OF, "/v1/models", "/v1/capacity", "/health", "/ready")
"""What is counted and logged by its name; the rest is "other": a path may hold anything."""

DISCARD_S, DISCARD_BYTES = 5.0, 256 * MB
"""What is read, and thrown away, of a request that is too large."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""On every response: nothing is guessed, nobody is told where a reader came from, no other page embeds it."""

_ALLOWED = b"authorization, content-type, api-key"
_EXPOSED = b"x-request-id, retry-after, x-stepaudio-instructions"


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        auth: keys.
        admission: rates.
        metrics: errors and times are counted here.
        hosts, origins: see ``auth.check_host`` and ``auth.check_origin``.
        upload_bytes: largest audio file; base64 in JSON may be a third longer.
    """

    def __init__(
        self,
        app: ASGIApp,
        auth: Auth,
        admission: Admission,
        metrics: Metrics,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        upload_bytes: int = 25 * MB,
    ) -> None:
        self._app, self._auth, self._admission, self._metrics = app, auth, admission, metrics
        self._hosts, self._origins = hosts, origins
        self._body_limits = {  # and what is said of them
            "/v1/audio/transcriptions": (upload_bytes + MB, upload_bytes, "audio"),
            "/v1/chat/completions": (upload_bytes * 4 // 3 + MB, upload_bytes, "audio"),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        headers = _headers(scope)
        origin = headers.get("origin")
        out = _Out(scope, send, [(b"x-request-id", request_id.encode()), *_HEADERS])
        began, receive_all = time.monotonic(), receive
        try:
            try:
                self._check(scope, headers, origin, out)
                if scope["type"] == "http" and scope["method"] == "OPTIONS" and origin is not None:
                    await out.preflight()
                    return
                limit, told, what = self._body_limits.get(scope["path"], (JSON_BYTES, JSON_BYTES, "request"))
                if scope["type"] == "http":
                    receive = out.bounded(receive, headers, limit, too_large(told, what))
                scope.setdefault("state", {})["request_id"] = request_id
                await self._app(scope, receive, out)
            except StepAudioError as error:
                raise refusal(error) from error
        except ApiError as error:
            self._metrics.errors_total.labels(error.code or str(error.status)).inc()
            if error.status == 413:
                await _discard(receive_all)
            await out.refuse(error)
        except Exception as error:  # a bug: nobody outside learns more than that, and the log no contents
            log.error("%s failed: %s\n%s", request_id, type(error).__name__, _where(error))
            self._metrics.errors_total.labels("internal").inc()
            await out.refuse(ApiError(500, f"the server failed; its log has {request_id}", code="internal"))
        finally:
            if scope["type"] == "http":
                taken_s = time.monotonic() - began
                route = _route(scope["path"])
                self._metrics.e2e_request_latency_seconds.labels(route).observe(taken_s)
                log.info(
                    "%s %s %s %d %.0f ms", request_id, scope["method"], route, out.status, 1000 * taken_s
                )

    def _check(self, scope: Scope, headers: Mapping[str, str], origin: str | None, out: _Out) -> None:
        host = headers.get("host", "")
        auth.check_host(host, self._hosts)
        auth.check_origin(origin, host, self._origins)
        if origin is not None:
            out.extra.append((b"vary", b"Origin"))
            out.extra.append((b"access-control-allow-origin", origin.encode("latin-1")))
            out.extra.append((b"access-control-expose-headers", _EXPOSED))
        path: str = scope["path"]
        caller: Caller = ANONYMOUS
        preflight = scope["type"] == "http" and scope["method"] == "OPTIONS"
        if (path.startswith("/v1/") or path in SCOPE_OF) and not preflight:
            caller = self._auth.caller(auth.credential_of(headers))
            if scope_needed := SCOPE_OF.get(path):
                caller.need(scope_needed)
            out.extra += [(k.encode(), v.encode()) for k, v in self._admission.request(caller).items()]
        scope.setdefault("state", {})["caller"] = caller


class _Out:
    """The sending side: adds the headers, and knows whether an answer has begun."""

    def __init__(self, scope: Scope, send: Send, extra: list[tuple[bytes, bytes]]) -> None:
        self._scope, self._send, self.extra = scope, send, extra
        self.status = 0
        self._ended = False
        self._too_long: ApiError | None = None

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            if self._too_long is not None:  # what read the body has made an error of its own of it
                error, self._too_long = self._too_long, None
                raise error
            self.status = message.get("status", 101)
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": given + [row for row in self.extra if row[0] not in names]}
        elif kind in ("http.response.body", "websocket.http.response.body"):
            self._ended = not message.get("more_body", False)
        elif kind == "websocket.close":
            self._ended = True
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error, as far as that is still possible."""
        self._too_long = None
        if self._ended:
            return
        socket = self._scope["type"] == "websocket"
        if self.status:  # a socket that is open, or a body that was begun: it can only be broken off
            if socket:
                await self({"type": "websocket.close", "code": 1011, "reason": ""})
            return
        prefix = ""
        if socket:
            if "websocket.http.response" not in self._scope.get("extensions", {}):
                await self({"type": "websocket.close", "code": 1008, "reason": ""})  # becomes HTTP 403
                return
            prefix = "websocket."
        body = error.encoded()
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        if error.status == 413:  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await self({"type": f"{prefix}http.response.start", "status": error.status, "headers": headers})
        await self({"type": f"{prefix}http.response.body", "body": body})

    def bounded(
        self, receive: Receive, headers: Mapping[str, str], limit: int, too_long: ApiError
    ) -> Receive:
        """The body as it comes, or ``too_long`` as soon as it is known to have more than ``limit`` bytes."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_long
        size = 0

        async def next_part() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                self._too_long = too_long
                raise too_long
            return message

        return next_part

    async def preflight(self) -> None:
        """Tell a page that was let in what it may send (CORS)."""
        headers = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", b"600"),
        ]
        await self({"type": "http.response.start", "status": 204, "headers": headers})
        await self({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    """Let a client finish sending, within bounds: one that still sends when its connection is closed sees an
    error of the network in place of the answer."""
    size, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while more and size < DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by name; several of one name joined with commas (RFC 9110, 5.2), so that none is missed."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _route(path: str) -> str:
    return next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")


def _where(error: BaseException) -> str:
    """Where in the code an exception came from; not its message, which may hold what was said."""
    parts: list[str] = []
    seen: Any = error
    while seen is not None and len(parts) < 4:
        parts.append(type(seen).__name__ + "\n" + "".join(traceback.format_tb(seen.__traceback__)[-8:]))
        seen = seen.__cause__ or seen.__context__
    return "caused by ".join(parts)
