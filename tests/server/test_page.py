"""The page in a real browser: heard, answered, interrupted; and what it says when something is missing.

Screenshots for a person to look at are left in ``tests/artifacts``, which git does not keep.
"""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from stepaudio.client import connect
from stepaudio.core.audio import AudioChunk, join, resample
from stepaudio.engine import Engine
from stepaudio.files import read_audio, write_audio
from tests.fakes import FakeLLM
from tests.server import browser
from tests.server.browser import Page, browse
from tests.server.conftest import Running, running

pytestmark = pytest.mark.skipif(
    browser.find() is None, reason="no Chromium here: `apt-get install chromium`, or Chrome"
)

ROOT = Path(__file__).resolve().parent.parent.parent
SHOTS = ROOT / "tests" / "artifacts"
QUESTION = ROOT / "stepaudio" / "samples" / "question.wav"

MOOD = "document.querySelector('.sa').dataset.mood"
LONG = FakeLLM(*(f"This is sentence number {n}, and it is not the last one. " for n in range(40)))


def texts(of: str) -> str:
    """JavaScript: the texts of the user's or the assistant's turns."""
    return f"[...document.querySelectorAll('.sa-{of} .sa-text')].map((e) => e.textContent)"


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    (SHOTS / ".gitignore").write_text("*\n")
    page.screenshot(SHOTS / f"page-{name}.png")


@contextmanager
def open_page(
    url: str, *, microphone: Path | None = None, width: int = 1200, height: int = 800, dark: bool = False
) -> Iterator[Page]:
    """The page in a new browser. Its microphone is allowed and plays a file once, or is refused."""
    flags = ["--use-fake-device-for-media-stream"]
    if microphone is not None:
        flags += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    with browse(*flags) as page:
        if microphone is None:
            page.call("Browser.setPermission", permission={"name": "microphone"}, setting="denied")
        page.open(url, width=width, height=height, dark=dark)
        page.until("document.querySelector('.sa [data-id=start]')")
        yield page


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody asks the sample question, after a second, and is then silent."""
    question = resample(read_audio(QUESTION), 48_000)
    second = AudioChunk(np.zeros(48_000, np.float32), 48_000)
    file = tmp_path_factory.mktemp("microphone") / "question.wav"
    write_audio(file, [join([second, question, *[second] * 30])])
    return file


# With the real models


def test_a_spoken_question_is_heard_and_answered(real: Running, microphone: Path):
    with open_page(real.url, microphone=microphone) as page:
        shot(page, "1-start")
        page.click(".sa-start")
        page.until(f"{MOOD} === 'listening'")
        shot(page, "2-listening")
        page.until(f"{texts('user')}.some((text) => text.includes('Australia'))")
        page.until(f"{MOOD} === 'speaking'", 120)
        page.until("Number(document.querySelector('.sa-orb').style.getPropertyValue('--level')) > 0.05")
        page.until(f"{texts('assistant')}.some((text) => text.includes('Canberra'))")
        shot(page, "3-speaking")
        page.until(f"{MOOD} === 'listening'", 120)
        page.click(".sa-chip")
        page.until("document.querySelectorAll('.sa-fall .sa-bar').length > 2")
        shot(page, "4-latency")
        assert page.evaluate("/^\\d+ ms$/.test(document.querySelector('.sa-chip').textContent)")
        assert page.evaluate("document.querySelectorAll('.sa-cut').length") == 0
        assert page.console == []
        assert {url.split("/")[2] for url in page.asked if url.startswith(("http", "ws"))} == {
            real.url.removeprefix("http://")
        }


@pytest.fixture
def long_winded(real: Running) -> Iterator[Running]:
    """Real ears and voices, and a model that talks until it is stopped."""
    with Engine(real.service.engine.config) as engine:
        engine.__dict__["llm"] = LONG
        with running(engine) as service:
            yield service


def test_speaking_stops_the_answer(long_winded: Running, microphone: Path):
    with open_page(long_winded.url, microphone=microphone, width=390, height=844, dark=True) as page:
        page.click(".sa-write input")
        page.type("Tell me a very long story about a sailor.")
        page.until(f"{MOOD} === 'speaking'", 120)
        page.click(".sa-start")  # from now on the microphone is heard: the question, into the answer
        page.until("document.querySelector('.sa-cut')", 60)
        shot(page, "5-interrupted-phone-dark")
        page.until(f"{texts('user')}.some((text) => text.includes('Australia'))")
        page.until(f"{texts('assistant')}.length > 1 && {texts('assistant')}[1]", 120)
        shot(page, "6-answered-phone-dark")
        assert page.console == []


# With fakes at the engine's edges


def test_without_a_microphone_one_types_and_is_answered_aloud(start: Callable[..., Running]):
    with open_page(start().url) as page:
        page.click(".sa-start")
        page.until("document.querySelector('.sa-problem').textContent.includes('not allowed')")
        shot(page, "7-no-microphone")
        page.type("What is it?")  # the field has the focus already
        page.until(f"{MOOD} === 'speaking'")
        page.until(f"{texts('assistant')}[0] === 'It is a test. Really.'")
        page.until("document.querySelector('.sa-live').textContent === 'It is a test. Really.'")
        assert page.console == []


def test_escape_stops_the_answer_where_it_was_heard(start: Callable[..., Running]):
    with open_page(start(llm=LONG).url) as page:
        page.click(".sa-write input")
        page.type("Tell me all.")
        page.until(f"{texts('assistant')}[0].includes('number 0')")
        page.press("Escape", 27)
        page.until("document.querySelector('.sa-cut')")
        page.until(f"{MOOD} === 'ready'")
        assert "number 39" not in page.evaluate(f"{texts('assistant')}[0]")


def test_what_is_typed_stays_text(start: Callable[..., Running]):
    tag = "<img src=x onerror='window.broken = true'>"
    with open_page(start(llm=FakeLLM(tag)).url) as page:
        page.click(".sa-write input")
        page.type(tag)
        page.until(f"{texts('assistant')}[0]?.includes('img')")
        assert page.evaluate(f"{texts('user')}[0]") == tag
        assert page.evaluate("document.querySelector('.sa-talk img') === null && !window.broken")


def test_a_full_server_says_so_and_takes_the_next_when_there_is_room(start: Callable[..., Running]):
    service = start({"server.sessions": 1})
    with open_page(service.url, width=390, height=844) as page:

        async def occupied() -> None:
            async with await connect(service.url):
                await asyncio.to_thread(page.click, ".sa-write input")
                await asyncio.to_thread(page.type, "Hello?")
                full = "document.querySelector('.sa-problem').textContent.includes('full')"
                await asyncio.to_thread(page.until, full)
                await asyncio.to_thread(shot, page, "8-full-phone")

        asyncio.run(occupied())
        page.until(f"{texts('assistant')}[0]")
        assert page.evaluate("document.querySelector('.sa-problem').hidden")


def test_a_server_that_restarts_is_found_again(fake_engine: Callable[..., Engine]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        first = stack.enter_context(running(fake_engine({"server.port": port, "server.drain_s": 0})))
        page = stack.enter_context(open_page(first.url))
        page.click(".sa-write input")
        page.type("One")
        page.until(f"{texts('assistant')}[0] === 'It is a test. Really.'")
        page.until(f"{MOOD} === 'ready'")
        first.server.should_exit = True
        page.until(f"{MOOD} === 'error'")
        shot(page, "9-lost")
        heard = FakeLLM("I am back.")
        stack.enter_context(running(fake_engine({"server.port": port}, llm=heard)))
        page.until(f"{MOOD} === 'ready'")
        page.type("Two")
        page.until(f"{texts('assistant')}[1]?.includes('back')")
        told = [message.text for message in heard.asked[-1]]
        assert told[-3:] == ["One", "It is a test. Really.", "Two"]  # the new session knows the old talk


def test_gradio_brings_no_other_way_in(fake: Running):
    def status(path: str, data: bytes | None = None) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(fake.url + path, data)) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert [status("/"), status("/config"), status("/theme.css")] == [200, 200, 200]
    upload = json.dumps({"files": []}).encode()
    for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict", "/login"):
        assert status(path, upload) == 404
        assert status(path) == 404
    assert status("/gradio_api/file=/etc/passwd") == 404
    assert status("/config", b"{}") == 404


def test_nobody_else_may_frame_it(fake: Running):
    with urllib.request.urlopen(f"{fake.url}/") as answer:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["permissions-policy"] == "microphone=(self)"
