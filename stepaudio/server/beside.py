"""The service beside another program: in a thread of this process, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine
from stepaudio.server.app import Server, Service, create_app, uvicorn_config


@contextmanager
def beside(engine: Engine) -> Iterator[str]:
    """Serve ``engine``; yields the address, ``http://host:port``, when the models are loaded.

    Raises:
        ConfigError: the address cannot be listened on.
        StepAudioError: the models cannot be loaded.
    """
    address: Future[str] = Future()
    ready: Future[None] = Future()

    def warmed(talks: int | None) -> None:
        if talks is None:
            ready.set_exception(service.failure or ConfigError("the models cannot be loaded"))
        else:
            ready.set_result(None)

    app = create_app(engine, on_ready=warmed)
    service: Service = app.state.service
    server = Server(uvicorn_config(app), service, address.set_result)

    def run() -> None:
        with suppress(SystemExit):  # how uvicorn says that it cannot listen
            asyncio.run(server.serve())
        if not address.done():
            settings = engine.config.server
            address.set_exception(
                ConfigError(f"cannot listen on {settings.host}:{settings.port}: another program does")
            )

    running = threading.Thread(target=run, name="server", daemon=True)
    running.start()
    try:
        url = address.result()
        ready.result()
        yield url
    finally:
        server.should_exit = True
        running.join()
