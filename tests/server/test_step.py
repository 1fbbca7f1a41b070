"""The step profile with a small Step-Audio of random weights: audio in, codes, words, codes, audio out.

What is said is random and sounds like noise; that it is made, and of what, is what is tested here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="the step profile needs transformers: pip install stepaudio[step]")
pytest.importorskip("onnx", reason="the step profile needs onnx: pip install stepaudio[step]")
pytest.importorskip("sentencepiece", reason="the step profile needs it: pip install stepaudio[step]")

from stepaudio import config, tiny
from stepaudio.cli import main
from stepaudio.client import RATE, connect
from stepaudio.core.audio import AudioChunk
from stepaudio.core.codes import AudioCodes
from stepaudio.core.conversation import Message
from stepaudio.engine import Engine
from stepaudio.files import read_audio
from stepaudio.llm.step1.in_process import Step1Chat
from stepaudio.server.encoders import encode
from tests.fakes import FakeRecognizer
from tests.server.conftest import Running, running


class Loudness:
    """Speech is what is loud."""

    def stream(self) -> Loudness:
        return self

    def push(self, frame: AudioChunk) -> float:
        return 0.9 if np.abs(frame.samples).max() > 0.05 else 0.05


class Turns:
    """Every pause is the end of a turn."""

    def score(self, audio: AudioChunk) -> float:
        return 0.99


def question(seed: int = 0, seconds: float = 1.0) -> AudioChunk:
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    tones = np.sin(times * rng.uniform(600, 9000, (8, 1))).sum(0)
    return AudioChunk((0.05 * tones).astype(np.float32), RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step") / "tiny"
    assert main(["models", "make-tiny", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    flags = {
        "server.port": 0,
        "server.sessions": 4,
        "server.keys": folder / "keys.json",
        "llm.max_tokens": 12,
    }
    engine = Engine(config.load(folder / tiny.CONFIGURATION, {}, flags).config)
    engine.__dict__ |= {
        "recognizer": FakeRecognizer("what is it?"),
        "vad": Loudness(),
        "endpointing": Turns(),
    }
    with engine:
        yield engine


@pytest.fixture(scope="module")
def service(engine: Engine) -> Iterator[Running]:
    with running(engine) as service:
        yield service


@pytest.fixture
def asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[list[Message]]:
    """What the language model was shown, while it works as ever."""
    shown: list[list[Message]] = []
    generate = Step1Chat.generate

    def spy(self, messages, *more, **options):
        shown.append(list(messages))
        return generate(self, messages, *more, **options)

    monkeypatch.setattr(Step1Chat, "generate", spy)
    return shown


def test_a_question_asked_aloud_is_answered_by_its_codes(engine: Engine, asked: list[list[Message]]):
    answers = [engine.ask(question(seed)) for seed in (0, 1)]
    for seed, messages, answer in zip((0, 1), asked, answers, strict=True):
        assert answer.status in ("completed", "incomplete") and answer.text and answer.audio is not None
        assert answer.audio.rate == 22_050 and np.isfinite(answer.audio.samples).all()
        assert answer.audio.seconds >= 0.12 and len(answer.marks) == len(answer.text.split())
        codes = messages[-1].codes
        assert codes is not None and messages[-1].text == "what is it?"
        assert codes.groups == 8 and codes.text() == engine.codes_of(question(seed)).text()
    assert asked[0][-1].codes.text() != asked[1][-1].codes.text()  # type: ignore[union-attr]


async def _talk(url: str, turns: int) -> list[list[dict]]:
    """Ask aloud so many times, each time when the last answer was heard; the events of each turn."""
    found: list[list[dict]] = []
    loop = asyncio.get_running_loop()
    async with await connect(url) as talk:
        await talk.update(audio={"input": {"transcription": {"model": "any"}}})

        async def microphone() -> None:
            while True:  # it is never off: the audio is the server's clock
                await talk.send_audio(np.zeros(RATE // 10, np.float32))
                talk.player.read(RATE // 5)  # the loudspeaker
                await asyncio.sleep(0.1)

        silence = asyncio.create_task(microphone())
        events = aiter(talk)
        for turn in range(turns):
            found.append([])
            await talk.send_audio(question(turn))
            heard_at = loop.time()
            async for event in events:
                found[-1].append(event)
                if event["type"] == "response.output_audio.delta":
                    seconds = len(base64.b64decode(event["delta"])) / 2 / RATE
                    heard_at = max(heard_at, loop.time()) + seconds
                if event["type"] in ("response.done", "error"):
                    break
            await asyncio.sleep(max(0.0, heard_at - loop.time()) + 0.3)
        silence.cancel()
    return found


def test_a_talk_over_a_real_socket(service: Running, asked: list[list[Message]], engine: Engine):
    first, second = asyncio.run(asyncio.wait_for(_talk(service.url, 2), 120))
    for events in (first, second):
        kinds = [event["type"] for event in events]
        assert "error" not in kinds and kinds.index("input_audio_buffer.speech_started") < kinds.index(
            "response.created"
        )
        done = events[-1]["response"]
        assert done["status"] in ("completed", "incomplete")
        (part,) = (part for item in done["output"] for part in item["content"])
        assert part["transcript"].split()
        assert sum(kind == "response.output_audio.delta" for kind in kinds) >= 1
    # Each turn is shown as codes, and the turns before it as words.
    last = asked[-1]
    assert [message.role for message in last] == ["system", "user", "assistant", "user"]
    assert last[1].text == "what is it?" and last[1].codes is None and last[2].text
    codes = last[3].codes
    assert isinstance(codes, AudioCodes) and codes.groups >= 8
    assert last[0].text == config.STEP_SYSTEM


def test_a_recording_in_a_chat_completion(service: Running, asked: list[list[Message]]):
    sound = {"data": base64.b64encode(encode(question(), "wav")).decode(), "format": "wav"}
    body = {
        "model": "any",
        "modalities": ["text", "audio"],
        "audio": {"voice": "tingting", "format": "wav"},
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]}],
    }
    answer = httpx.post(f"{service.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200
    message = answer.json()["choices"][0]["message"]
    assert base64.b64decode(message["audio"]["data"])[:4] == b"RIFF"
    assert asked[-1][-1].codes is not None and asked[-1][-1].codes.groups == 8
    body["audio"] = {"voice": "nobody", "format": "wav"}
    refused = httpx.post(f"{service.url}/v1/chat/completions", json=body, timeout=60)
    assert refused.status_code == 400 and "tingting" in refused.text


def test_noise_is_not_answered(service: Running, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine.recognizer, "heard", "")
    (events,) = asyncio.run(asyncio.wait_for(_talk(service.url, 1), 60))
    assert not [event for event in events if event["type"] == "response.output_audio.delta"]
    assert events[-1]["response"]["output"] == []


def test_the_command_answers_a_file(
    folder: Path, tmp_path: Path, model_dir, shared_data: Path, capsys: pytest.CaptureFixture[str]
):
    for model in ("whisper-base", "silero-vad"):
        model_dir(model)
    clip = next(iter(sorted((shared_data / "audio" / "asr_en").glob("*"))))
    capsys.readouterr()
    target = tmp_path / "answer.wav"
    flags = ["--config", str(folder / tiny.CONFIGURATION), "-o", str(target), "--json"]
    assert main(["ask", str(clip), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["transcript"] and found["answer"]
    assert read_audio(str(target), None, 60).rate == 22_050
