"""Step-Audio-Chat in process, with a toy checkpoint: streams, caches, cuts, refuses."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="Step-1 needs transformers: pip install stepaudio[step]")

import torch

from stepaudio.core.codes import FIRST_ID, AudioCodes
from stepaudio.core.conversation import Message
from stepaudio.core.errors import BackendError, ConfigError, ModelMissing
from stepaudio.llm.base import Finished, PromptRead, Sampling, TextDelta
from stepaudio.llm.step1 import tiny
from stepaudio.llm.step1.in_process import Step1Chat, draw

SYSTEM = Message("system", "be short")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    tiny.write(folder, "chat")
    return folder


@pytest.fixture
def llm(folder: Path):
    llm = Step1Chat.load(folder, context_tokens=512)
    yield llm
    llm.close()


def codes(groups: int, seed: int = 0) -> AudioCodes:
    rng = np.random.default_rng(seed)
    return AudioCodes(rng.integers(0, 1024, 2 * groups), rng.integers(0, 4096, 3 * groups))


def answer(llm: Step1Chat, messages: list[Message], session: str = "", **sampling) -> tuple[str, Finished]:
    async def run() -> tuple[str, Finished]:
        text, read, end = "", None, None
        settings = Sampling(**{"max_tokens": 24, "temperature": 0.7, "seed": 3} | sampling)
        async for event in llm.generate(messages, settings, session=session):
            match event:
                case PromptRead():
                    read = event
                case TextDelta():
                    text += event.text
                case Finished():
                    end = event
        assert end is not None
        assert read == PromptRead(end.prompt_tokens, end.cached_tokens)
        return text, end

    return asyncio.run(run())


def test_what_is_heard_decides_what_is_written(llm: Step1Chat):
    first, end = answer(llm, [SYSTEM, Message("user", "", codes=codes(10))])
    assert first.split() and "<" not in first and not first.startswith(" ")
    assert end.completion_tokens <= 24 and end.prompt_tokens > 50
    assert answer(llm, [SYSTEM, Message("user", "", codes=codes(10))])[0] == first
    assert answer(llm, [SYSTEM, Message("user", "", codes=codes(10, seed=1))])[0] != first


def test_what_was_read_of_a_talk_is_not_read_again(llm: Step1Chat):
    asked = [SYSTEM, Message("user", "", codes=codes(10))]
    said, first = answer(llm, asked, "talk")
    assert first.cached_tokens == 0
    talk = [SYSTEM, Message("user", "now"), Message("assistant", said), Message("user", "then")]
    second = answer(llm, talk, "talk")
    assert second[1].cached_tokens > 0  # the system turn, to where codes stood
    assert answer(llm, talk, "other") == (second[0], Finished(**_fields(second[1], cached_tokens=0)))
    _, again = answer(llm, [*talk, Message("assistant", second[0]), Message("user", "so")], "talk")
    assert again.cached_tokens > second[1].prompt_tokens - 5


def _fields(end: Finished, **changed: int) -> dict:
    names = ("reason", "prompt_tokens", "cached_tokens", "completion_tokens")
    return {name: getattr(end, name) for name in names} | changed


def test_new_talks_begin_with_what_was_read_for_all(llm: Step1Chat):
    asyncio.run(llm.warm([SYSTEM]))
    for session in ("one", "two"):
        assert answer(llm, [SYSTEM, Message("user", "hi")], session)[1].cached_tokens > 10


def test_an_answer_that_is_not_wanted_ends(llm: Step1Chat):
    async def run() -> str:
        many = Sampling(max_tokens=200, temperature=0.7, seed=0)
        async with aclosing(llm.generate([SYSTEM, Message("user", "hi")], many, session="a")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    return event.text
        return ""

    assert asyncio.run(run())
    assert answer(llm, [SYSTEM, Message("user", "hi")], "a")[1].cached_tokens > 10  # the thread is free


def test_long_talks_lose_old_turns_and_long_turns_are_refused(llm: Step1Chat):
    old = [Message("user", "that was long ago " * 8), Message("assistant", "yes " * 20)] * 10
    _, end = answer(llm, [SYSTEM, *old, Message("user", "", codes=codes(20))])
    assert 100 < end.prompt_tokens <= 512 - 24
    with pytest.raises(BackendError, match=r"llm\.context_tokens"):
        answer(llm, [SYSTEM, Message("user", "", codes=codes(100))])


def test_only_text_and_the_end_are_drawn():
    logits = torch.zeros(FIRST_ID + 5120)
    logits[FIRST_ID:] = 9.0
    logits[[0, 1, 2, 4]] = 8.0
    logits[3], logits[300] = 2.0, 1.9
    assert draw(logits, Sampling(temperature=0.0), torch.Generator()) == 3
    logits[3:5], logits[300] = -9.0, 30.0
    seen = {draw(logits, Sampling(temperature=1.0, top_p=0.9), torch.Generator()) for _ in range(20)}
    assert seen == {300}


def test_folders_and_devices_that_cannot_serve(folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no GPU for 'cuda:9'"):
        Step1Chat.load(folder, device="cuda:9")
    with pytest.raises(ModelMissing, match="is no folder"):
        Step1Chat.load(tmp_path / "none")
