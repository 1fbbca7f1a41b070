"""The page as Gradio hosts it: one HTML component that fills the window, with the page's own script.

The talking happens in the browser: ``talk.js`` opens the Realtime socket of the server that the page came
from, ``worklets.js`` records and plays. Python only hands out the files. Of Gradio's own routes only those
that the page fetches are let through: its uploads and its queue would be a second way into the server.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

OPEN = ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
"""What the page fetches by its whole name."""

OPEN_FOLDERS = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/gradio_api/startup-events",
    "/gradio_api/heartbeat/",
    "/pwa_icon",
)
"""What it fetches from a folder."""

POLICY = (
    "default-src 'self'; "
    # Gradio compiles the component's template in the page and styles with attributes; worklets are blobs.
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""Nothing is loaded from elsewhere, and no other site may frame the page (and so ask for the microphone)."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def build() -> App:
    """The page as an ASGI application, to be mounted at ``/`` after all other routes."""
    import gradio as gr
    from fastapi import FastAPI
    from gradio.themes import Base

    script = f"const WORKLETS = {json.dumps(_read('worklets.js'))};\n{_read('talk.js')}"
    with gr.Blocks(title="StepAudio", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(
            html_template=_read("talk.html"),
            js_on_load=script,
            apply_default_css=False,
            elem_id="stepaudio",
        )
    host = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        host,
        blocks,
        "/",
        theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_read("talk.css"),
        favicon_path=str(FOLDER / "icon.svg"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
    )
    return _only_the_page(host)


def _only_the_page(app: App) -> App:
    async def filtered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        allowed = path in OPEN or path.startswith(OPEN_FOLDERS)
        if scope["method"] not in ("GET", "HEAD") or not allowed:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"permissions-policy", b"microphone=(self)"),
                ]
            await send(message)

        await app(scope, receive, with_policy)

    return filtered


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
