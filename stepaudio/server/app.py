"""The service: what its parts share, how it starts and how it ends.

``create_app`` builds the ASGI application, ``serve`` runs it until Ctrl-C. ``Service`` is handed to every
route as ``app.state.service``; the models are loaded after the address is open, so that ``/health`` answers
at once and ``/ready`` when they are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import re
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import stepaudio
from stepaudio.core.errors import ConfigError, StepAudioError
from stepaudio.engine import Engine, choose_llm, default_models
from stepaudio.server import auth, limits, rest
from stepaudio.server.auth import Auth, Key
from stepaudio.server.errors import ApiError
from stepaudio.server.guard import Guard
from stepaudio.server.limits import MB, Admission, Paces
from stepaudio.server.metrics import CONTENT_TYPE, Metrics
from stepaudio.server.rest.shared import REFUSALS, no_model
from stepaudio.server.scheduler import Gate
from stepaudio.server.uploads import Decoder

log = logging.getLogger(__name__)

MESSAGE_BYTES = 21 * MB
"""Largest message of a socket: an event may hold 15 MiB of audio, which base64 makes a third longer."""
PING_S = 20.0
"""Between pings, and longest wait for their answers (what the clients' own libraries use)."""
GOODBYE_S = 2.5
"""For the closing handshakes of talks, at the end of the service."""
STUCK_S = 120.0
"""A piece of work that is not done after so long has hung: most are of some seconds of sound, and a machine
that needs so long for 28 s of it (the longest piece of recognition) can hold no talk."""
SPOKEN = 1000
"""Spoken answers whose words are remembered, so that a chat can refer to them by id."""
SPOKEN_S = 3600
"""How long."""

VERSION = stepaudio.__version__

OnReady = Callable[[int | None], None]


class Leaves(Protocol):
    """An open socket, as the end of the service sees it."""

    async def leave(self, deadline: float) -> None:
        """Finish the answer under way, no later than ``deadline`` (``time.monotonic()``); close with 1001."""
        ...


class Service:
    """What requests and talks share.

    Args:
        engine: the models.
        keys: who may come; none: everyone.
        on_ready: called when the models are loaded, with how many talks there can be, or when they cannot be
            (``failure`` says why), with None.

    Attributes:
        ears, voice: recognition and synthesis go through these, the most urgent piece first.
        sockets: the open talks; each puts itself in and takes itself out.
        paces: what was measured at start; None until then.
    """

    def __init__(
        self, engine: Engine, keys: Sequence[Key] = (), on_ready: OnReady = lambda talks: None
    ) -> None:
        settings = engine.config.server
        self.engine, self.settings, self._on_ready = engine, settings, on_ready
        self.metrics = Metrics()
        self.auth = Auth(keys)
        self.admission = Admission(
            per_key=settings.sessions_per_key,
            requests_per_minute=settings.requests_per_minute,
            on_refusal=lambda reason: self.metrics.sessions_rejected_total.labels(reason).inc(),
        )
        self.ears, self.voice = Gate(2, "ears"), Gate(1, "voice")  # a pause: recognition, and the turn model
        self.metrics.follow(self.admission, self.ears, self.voice)
        self.decoder = Decoder(engine.config.audio.limit_s)
        self.sockets: set[Leaves] = set()
        self.paces: Paces | None = None
        self.failure: StepAudioError | None = None
        self.created = int(time.time())
        self._models = {
            _llm_name(engine): "chat",
            engine.config.recognition.model: "transcription",
            **dict.fromkeys(_voice_models(engine), "speech"),
        }
        self._spoken: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._warming: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the models are loaded and the machine is measured."""
        return self.paces is not None and not self.admission.closing

    def need_ready(self) -> None:
        """Raises ``ApiError`` 503 while it is not."""
        if self.failure is not None:
            raise ApiError(503, "the models cannot be loaded; the server's log says why", code="not_ready")
        if not self.is_ready:
            raise ApiError(
                503, "the models are being loaded; try again in a moment", code="not_ready", retry_after_s=2
            )

    def status(self) -> dict[str, Any]:
        """What ``/ready`` and ``/v1/capacity`` tell."""
        stuck = [gate.name for gate in (self.ears, self.voice) if gate.busy_s > STUCK_S]
        if self.is_ready:
            state = "stuck" if stuck else "ready"
        else:
            state = "closing" if self.admission.closing else "failed" if self.failure else "loading"
        return {
            "status": state,
            "stuck": stuck,
            "talks": self.admission.as_dict(),
            "paces": limits.as_dict(self.paces) if self.paces else None,
        }

    def models(self) -> dict[str, str]:
        """The models there are, and what each is for."""
        return self._models

    def check_model(self, name: str) -> None:
        """Raises ``ApiError`` 404 for a model that is not there, if the configuration is strict: else every
        name stands for the models there are, so that programs written for others need no change."""
        if self.settings.strict_models and name not in self.models():
            raise no_model(name)

    def waited(self, seconds: float) -> None:
        """Count what a piece of a request's work waited for its turn."""
        self.metrics.request_queue_time_seconds.observe(seconds)

    def keep_spoken(self, id: str, text: str) -> int:
        """Keep the words of a spoken answer; returns until when (Unix seconds)."""
        until = time.time() + SPOKEN_S
        self._spoken[id] = (until, text)
        while len(self._spoken) > SPOKEN or next(iter(self._spoken.values()))[0] < time.time():
            self._spoken.popitem(last=False)
        return int(until)

    def spoken(self, id: str) -> str | None:
        """The words of a spoken answer, if they are still kept."""
        until, text = self._spoken.get(id, (0.0, ""))
        return text if until > time.time() else None

    # Beginning and end

    async def start(self) -> None:
        """Begin to load the models; returns at once."""
        self._warming = asyncio.create_task(self._warm())

    async def warm(self) -> None:
        """Load the models, and measure the machine.

        Raises:
            StepAudioError: a model is missing, or a server of one does not answer.
        """
        engine = self.engine

        def load() -> None:
            engine.warm(parts=("recognizer", "speaker", "vad", "endpointing"))

        await asyncio.gather(asyncio.to_thread(load), asyncio.to_thread(lambda: engine.llm))
        if engine.reads_codes:
            await asyncio.to_thread(lambda: engine.tokenizer)
        # In this loop, not in the engine's: a server's connections belong to the loop that opened them.
        await engine.llm.warm([engine.system])
        paces = await limits.measure(engine)
        talks = self.settings.sessions or limits.talks_of(paces)
        self.metrics.measured(paces, talks)
        self.admission.talks, self.paces = talks, paces
        log.info("ready for %d talks: %s", talks, limits.as_dict(paces))

    async def _warm(self) -> None:
        try:
            await self.decoder.start()
            await self.warm()
        except StepAudioError as error:
            self.failure = error
        except Exception as error:  # a bug, or a library's; without this, the service would wait for ever
            log.exception("loading the models failed")
            self.failure = StepAudioError(f"the models cannot be loaded ({type(error).__name__}); see above")
        self._on_ready(self.admission.talks if self.failure is None else None)

    async def drain(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Let nobody in, and let who is in finish: talks say good-bye, requests get their answers.

        Args:
            seconds: longest wait; talks then get ``GOODBYE_S`` to be closed.
            hurry: asked now and then; true: wait no longer.
        """
        self.admission.closing = True
        deadline = time.monotonic() + seconds
        leaving = [asyncio.ensure_future(socket.leave(deadline)) for socket in self.sockets]
        while time.monotonic() < deadline + GOODBYE_S and not hurry():
            late = time.monotonic() >= deadline
            # Uvicorn would close with another code than the talks do.
            if (late or not self.admission.running) and not self.sockets:
                break
            await asyncio.sleep(0.05)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    async def stop(self) -> None:
        """Free everything."""
        self.admission.closing = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self.decoder.close()
        self.ears.close()
        self.voice.close()


def _llm_name(engine: Engine) -> str:
    name, _ = choose_llm(engine.config, engine.store)
    if name.startswith("openai:"):
        return engine.config.llm.name or "default"
    return Path(name).stem if name.endswith(".gguf") else Path(name).name


def _voice_models(engine: Engine) -> tuple[str, ...]:
    model = engine.config.tts.model
    return ("kokoro-82m", "hibari") if model == "kokoro" else (Path(model).name,)


# The application


def create_app(
    engine: Engine, keys: Sequence[Key] | None = None, *, on_ready: OnReady = lambda talks: None
) -> FastAPI:
    """The service as an ASGI application. The engine stays the caller's: close it afterwards.

    Args:
        engine: what it serves; its ``config.server`` says how.
        keys: who may come; None: those of the configuration.
        on_ready: see ``Service``.

    Raises:
        ConfigError: it should listen beyond loopback and has no key, or the file of keys cannot be read.
    """
    settings = engine.config.server
    keys = configured_keys(engine) if keys is None else keys
    auth.check_bind(settings.host, keys)
    service = Service(engine, keys, on_ready)
    page = _Page()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="StepAudio",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    app.add_middleware(
        Guard,
        auth=service.auth,
        admission=service.admission,
        metrics=service.metrics,
        hosts=settings.hosts,
        origins=settings.origins,
        upload_bytes=int(settings.upload_mb * MB),
    )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, rest.validation_error)
    _add_status(app, service)
    app.include_router(rest.router)
    _add_socket(app, service)
    app.add_route("/v1/{rest:path}", _nothing_here, methods=_METHODS, include_in_schema=False)
    app.mount("/", page)
    app.openapi = lambda: rest.openapi(app)  # type: ignore[method-assign]
    return app


def configured_keys(engine: Engine) -> list[Key]:
    """The keys of the configuration: the file's, and the one that is given directly.

    Raises:
        ConfigError: the file cannot be read, or that one is too short.
    """
    settings = engine.config.server
    keys = auth.read_keys(settings.keys or auth.default_file())
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        if len(key) < auth.LEAST_KEY:
            raise ConfigError(
                f"server.api_key is shorter than {auth.LEAST_KEY} characters and could be guessed; "
                f"make one with: stepaudio keys add NAME"
            )
        keys.append(Key("configured", auth.hash_of(key)))
    return keys


def _add_status(app: FastAPI, service: Service) -> None:
    async def health() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "ok", "version": VERSION}

    async def ready() -> Response:
        """Whether the models are loaded, and how many talks this machine holds."""
        status = service.status()
        return JSONResponse(status, 200 if status["status"] == "ready" else 503)

    async def capacity() -> dict[str, Any]:
        """How many talks this machine holds, and the speeds that this was reckoned from."""
        return service.status()

    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    unready: dict[int | str, dict[str, Any]] = {
        503: {"description": "The models are being loaded, or one has hung."}
    }
    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}}
    app.add_api_route("/health", health, methods=["GET"], tags=["status"])
    app.add_api_route("/ready", ready, methods=["GET"], tags=["status"], responses=unready)
    app.add_api_route("/v1/capacity", capacity, methods=["GET"], tags=["status"], responses=REFUSALS)
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        tags=["status"],
        response_class=Response,
        responses={**REFUSALS, **text},
    )


def _add_socket(app: FastAPI, service: Service) -> None:
    if importlib.util.find_spec("stepaudio.server.socket") is None:
        return
    socket = importlib.import_module("stepaudio.server.socket")

    async def realtime(websocket: WebSocket) -> None:
        await socket.realtime(websocket, service)

    app.add_api_websocket_route("/v1/realtime", realtime)


async def _http_error(request: Request, error: Any) -> Response:
    words = {
        404: f"there is nothing at {request.method} {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
    }
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    message = words.get(error.status_code, "the request cannot be read")
    refused = ApiError(error.status_code, message, code=code, headers=error.headers)
    return Response(refused.encoded(), refused.status, refused.headers, "application/json")


_METHODS = list[str]("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())


async def _nothing_here(request: Request) -> Response:
    """What no route of the API is for: without this, the page would answer."""
    if request.url.path == "/v1/realtime":
        refused = ApiError(
            426, "a talk needs a WebSocket: connect with ws:// or wss://", code="upgrade_required"
        )
        return Response(refused.encoded(), 426, {"upgrade": "websocket"}, "application/json")
    allowed = _allowed(request.scope)
    status, headers = (405, {"allow": ", ".join(allowed)}) if allowed else (404, {})
    return await _http_error(request, HTTPException(status, headers=headers))


def _allowed(scope: Scope) -> list[str]:
    """The methods that the API takes at this path."""
    for path, operations in scope["app"].openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", ".+", path), scope["path"]):
            return sorted(method.upper() for method in operations)
    return []


class _Page:
    """The web page at ``/``, built when it is first asked for: Gradio takes seconds to import."""

    def __init__(self) -> None:
        self._app: Any = None
        self._building = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if _allowed(scope) or importlib.util.find_spec("webui") is None:
            await (await _nothing_here(Request(scope)))(scope, receive, send)
            return
        async with self._building:
            if self._app is None:
                page = await asyncio.to_thread(importlib.import_module, "webui.page")
                self._app = await asyncio.to_thread(page.build)
        await self._app(scope, receive, send)


# Running it


class Server(uvicorn.Server):
    """Uvicorn, which lets talks and answers end before it closes their connections."""

    def __init__(
        self, config: uvicorn.Config, service: Service, on_open: Callable[[str], None] = lambda address: None
    ) -> None:
        super().__init__(config)
        self._service, self._on_open = service, on_open

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_open(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, but for this: a signal that was obeyed is not raised anew."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        await self._service.drain(self._service.settings.drain_s, hurry=lambda: self.force_exit)
        await super().shutdown(sockets)


def serve(
    engine: Engine,
    *,
    on_open: Callable[[str], None] = lambda address: None,
    on_ready: Callable[[int], None] = lambda talks: None,
) -> None:
    """Run the service until it is told to stop (SIGINT, SIGTERM); a second signal ends it at once.

    Args:
        engine: what it serves.
        on_open: called with the address when it is open.
        on_ready: called with the number of talks when the models are loaded.

    Raises:
        ConfigError: as ``create_app``; or the address cannot be listened on.
        StepAudioError: the models cannot be loaded.
    """
    settings = engine.config.server
    for model in default_models(engine.config, engine.store):
        engine.store.path(model)  # raises before anything is opened

    def warmed(talks: int | None) -> None:
        if talks is None:
            server.should_exit = True
        else:
            on_ready(talks)

    app = create_app(engine, on_ready=warmed)
    service: Service = app.state.service
    server = Server(uvicorn_config(app), service, on_open)
    try:
        asyncio.run(server.serve())
    except SystemExit:  # how uvicorn says that it cannot listen; it has logged why
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: another program does, or the address is not "
            f"of this machine; choose another with --port or --host"
        ) from None
    if service.failure is not None:
        raise service.failure


def _is_mistake(record: logging.LogRecord) -> bool:
    # Uvicorn 0.54 says so of every socket that is refused with a status of its own.
    return "without completing handshake" not in record.getMessage()


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn is to run the service."""
    settings = app.state.service.settings
    logging.getLogger("uvicorn.error").addFilter(_is_mistake)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # bombs inflate; audio does not shrink
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        timeout_graceful_shutdown=2,  # what is still open after `drain`
        server_header=False,
        access_log=False,  # it would hold queries; `guard` logs routes and times
        log_config=None,
        log_level="warning",  # below it, addresses of sockets are logged with their queries
        proxy_headers=False,
        lifespan="on",
    )
