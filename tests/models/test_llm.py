"""The real llama.cpp: a tiny model for how it works, the small Qwen for what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stepaudio.bench.llm import UNSPEAKABLE
from stepaudio.core.conversation import Message, ToolCall, ToolSpec, is_summary
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.base import LLM, Finished, Sampling, TextDelta
from stepaudio.llm.compaction import compact
from stepaudio.llm.llama_cpp import REUSE_TOKENS, LlamaCpp
from stepaudio.llm.openai_chat import OpenAIChat
from stepaudio.llm.prompt import SYSTEM_PROMPT

SYSTEM = Message("system", SYSTEM_PROMPT)
CONTEXT = 512


@pytest.fixture(scope="module")
def tiny_file(model_dir: Callable[[str], Path]) -> Path:
    return next(model_dir("smollm2-135m").glob("*.gguf"))


@pytest.fixture(scope="module")
def tiny(tiny_file: Path) -> Iterator[LlamaCpp]:
    llm = LlamaCpp(tiny_file, context_tokens=CONTEXT)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def qwen(model_dir: Callable[[str], Path]) -> Iterator[LlamaCpp]:
    llm = LlamaCpp(next(model_dir("qwen2.5-0.5b").glob("*.gguf")))
    yield llm
    llm.close()


async def write(llm: LLM, messages: list[Message], **sampling: Any) -> tuple[str, Finished]:
    text, finished = "", None
    async with aclosing(llm.generate(messages, Sampling(**sampling))) as events:
        async for event in events:
            assert finished is None  # nothing comes after it
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finished):
                finished = event
    assert finished is not None
    return text, finished


def ask(llm: LLM, *texts: str, **sampling: Any) -> tuple[str, Finished]:
    """``texts``: question, answer, question, …"""
    roles = ("user", "assistant")
    talk = [Message(roles[n % 2], text) for n, text in enumerate(texts)]  # type: ignore[arg-type]
    return asyncio.run(write(llm, [SYSTEM, *talk], **{"max_tokens": 24} | sampling))


def test_the_same_question_gets_the_same_answer(tiny: LlamaCpp) -> None:
    first, finished = ask(tiny, "What is the capital of France?")
    assert "Paris" in first and finished.completion_tokens > 3
    assert ask(tiny, "What is the capital of France?")[0] == first


def test_a_seed_makes_chance_repeatable(tiny: LlamaCpp) -> None:
    told = [ask(tiny, "Tell me a story.", temperature=1.5, seed=seed)[0] for seed in (1, 1, 2)]
    assert told[0] == told[1] != told[2]


def test_the_length_limit_is_told(tiny: LlamaCpp) -> None:
    _, finished = ask(tiny, "Tell me a long story.", max_tokens=5)
    assert (finished.reason, finished.completion_tokens) == ("length", 5)


def test_after_warm_only_the_question_is_computed(tiny: LlamaCpp) -> None:
    ask(tiny, "Something else was asked before, by someone else.")
    asyncio.run(tiny.warm([SYSTEM]))
    frame = 8  # ends of the messages, and the opening of the answer
    question = "Who wrote Hamlet?"
    _, finished = ask(tiny, question)
    assert 0 < finished.prompt_tokens - finished.cached_tokens <= len(tiny._tokenize(question)) + frame


def test_earlier_turns_stay_in_the_cache(tiny: LlamaCpp) -> None:
    first, _ = ask(tiny, "Name a colour.")
    _, before = ask(tiny, "Name a colour.", first, "And one more?")
    assert before.cached_tokens > before.prompt_tokens - 20


def test_turns_that_are_left_after_a_cut_are_not_computed_again(tiny: LlamaCpp) -> None:
    turns = []
    for n in range(6):
        turns += [f"This is my remark number {n}. " + "I like it very much. " * 2, "So do I. " * 6]
    _, whole = ask(tiny, *turns, "And?", max_tokens=1)
    _, cut = ask(tiny, *turns[4:], "And?", max_tokens=1)
    assert cut.prompt_tokens < whole.prompt_tokens - REUSE_TOKENS
    assert cut.cached_tokens > cut.prompt_tokens - 20


def test_a_talk_that_outgrows_the_context_goes_on(tiny: LlamaCpp) -> None:
    turns: list[str] = []
    prompts = []
    for n in range(12):
        turns.append(f"This is my remark number {n}. " + "I like it very much. " * 5)
        text, finished = ask(tiny, *turns)
        turns.append(text)
        prompts.append(finished.prompt_tokens)
    assert max(prompts) + 24 <= CONTEXT and prompts[-1] > CONTEXT // 4
    assert any(after < before for before, after in pairwise(prompts))


@pytest.mark.parametrize(
    "text", ["word " * 5000, "字" * 5000, "<|im_end|>" * 500, "🙂" * 500, "\x00\ud800", ""]
)
def test_no_question_is_too_long_or_too_strange(tiny: LlamaCpp, text: str) -> None:
    _, finished = ask(tiny, text, max_tokens=4)
    assert finished.prompt_tokens < CONTEXT


def test_closing_frees_the_slot_at_once(tiny: LlamaCpp) -> None:
    async def interrupt() -> tuple[str, Finished]:
        story = [SYSTEM, Message("user", "Tell me a very long story about a king.")]
        for _ in range(5):
            async with aclosing(tiny.generate(story, Sampling(max_tokens=200))) as events:
                await anext(events)
        return await write(tiny, [SYSTEM, Message("user", "What is the capital of France?")], max_tokens=24)

    text, finished = asyncio.run(interrupt())
    assert "Paris" in text and finished.cached_tokens > 0


def test_a_prompt_that_is_being_read_can_be_stopped(tiny: LlamaCpp) -> None:
    async def interrupt() -> None:
        reading = asyncio.create_task(write(tiny, [Message("user", "word " * 400)], max_tokens=1))
        while not tiny._slots.busy:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled() and not tiny._slots.busy

    asyncio.run(interrupt())
    assert ask(tiny, "What is the capital of France?")[0]


def test_two_at_once_both_get_their_answer(tiny: LlamaCpp) -> None:
    async def both() -> list[tuple[str, Finished]]:
        talks = [[SYSTEM, Message("user", f"What is the capital of {land}?")] for land in ("France", "Italy")]
        return await asyncio.gather(*(write(tiny, talk, max_tokens=24) for talk in talks))

    (france, _), (italy, _) = asyncio.run(both())
    assert "Paris" in france and "Rome" in italy


def test_nothing_is_written_to_the_terminal_and_nothing_listens_on_the_network(tiny_file: Path) -> None:
    script = f"""
import asyncio, os
from pathlib import Path
from stepaudio.core.conversation import Message, ToolCall, ToolSpec, is_summary
from stepaudio.llm.base import Sampling
from stepaudio.llm.llama_cpp import LlamaCpp
async def main():
    llm = LlamaCpp(Path({str(tiny_file)!r}), context_tokens=256)
    async for event in llm.generate([Message("user", "my private question")], Sampling(max_tokens=2)):
        pass
    own = {{os.readlink(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd") if n.isdigit() and
        os.path.exists(f"/proc/self/fd/{{n}}")}}
    for table in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{{table}}").readlines()[1:]:
            assert f"socket:[{{line.split()[9]}}]" not in own, line
    llm.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_damaged_model_is_an_error_not_a_crash(tiny_file: Path, tmp_path: Path) -> None:
    data = tiny_file.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match="models pull"):
        LlamaCpp(broken)
    # A header that looks right, of an architecture that no llama.cpp knows.
    broken.write_bytes(data.replace(b"llama", b"lamal"))
    with pytest.raises(BackendError, match="models verify"):
        LlamaCpp(broken)


def test_a_real_openai_server(tiny_file: Path) -> None:
    """llama.cpp's own HTTP server, in a process of its own, with a key and a small context."""
    script = f"""
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = {str(tiny_file)!r}
params.n_ctx, params.n_ubatch, params.verbosity, params.api_keys = 512, 64, -1, ["the-key"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin and process.stdout
        url = process.stdout.readline().strip() + "/v1"
        text, finished = ask(OpenAIChat(url, api_key="the-key"), "What is the capital of France?")
        assert "Paris" in text and finished.prompt_tokens > 20 and finished.completion_tokens > 3
        talk = [f"This is my remark number {n}. I like it very much. " * 2 for n in range(41)]
        _, finished = ask(OpenAIChat(url, api_key="the-key"), *talk, max_tokens=4)
        assert 100 < finished.prompt_tokens < 512
        with pytest.raises(BackendError, match=r"llm\.api_key"):
            ask(OpenAIChat(url, api_key="wrong"), "What is the capital of France?")
        process.stdin.close()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "Paris"),
        ("中国的首都是哪里？", "北京"),
        ("Who wrote Hamlet?", "Shakespeare"),
    ],
)
def test_answers_are_right_short_and_speakable(qwen: LlamaCpp, question: str, answer: str) -> None:
    text, finished = ask(qwen, question, max_tokens=256)
    assert answer in text and finished.reason == "stop" and finished.completion_tokens < 60
    assert not UNSPEAKABLE.search(text)
    assert any("\u4e00" <= c <= "\u9fff" for c in text) == (answer == "北京")


def test_the_talk_before_is_understood(qwen: LlamaCpp) -> None:
    text, _ = ask(qwen, "My name is Margaret.", "Nice to meet you, Margaret.", "What is my name?")
    assert "Margaret" in text


WEATHER = ToolSpec(
    "get_weather",
    "Current weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(scope="module", params=["qwen2.5-0.5b", "qwen2.5-1.5b"])
def caller(request: pytest.FixtureRequest, model_dir: Callable[[str], Path]) -> Iterator[LlamaCpp]:
    llm = LlamaCpp(next(model_dir(request.param).glob("*.gguf")), context_tokens=1024)
    asyncio.run(llm.warm([SYSTEM], [WEATHER]))
    yield llm
    llm.close()


async def call(llm: LlamaCpp, messages: list[Message], choice: str = "auto") -> tuple[str, list[ToolCall]]:
    events = [event async for event in llm.generate(messages, Sampling(max_tokens=60), [WEATHER], choice)]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, [event for event in events if isinstance(event, ToolCall)]


@pytest.mark.parametrize(
    ("question", "city", "told"),
    [
        ("What is the weather in Paris?", "Paris", "21"),
        ("北京今天天气怎么样？", "北京", "21"),
    ],
)
def test_a_tool_is_called_and_its_result_is_not_asked_for_again(
    caller: LlamaCpp, question: str, city: str, told: str
) -> None:
    async def talk() -> None:
        messages = [SYSTEM, Message("user", question)]
        text, calls = await call(caller, messages)
        assert text == "" and [(made.name, made.arguments) for made in calls] == [
            ("get_weather", f'{{"city": "{city}"}}')
        ]
        result = Message("tool", f'{{"temperature_c": {told}, "sky": "sunny"}}', call_id=calls[0].call_id)
        text, calls = await call(caller, [*messages, Message("assistant", "", tuple(calls)), result])
        assert text and not calls and not UNSPEAKABLE.search(text)

    asyncio.run(talk())


def test_a_forced_call_and_a_forbidden_one(caller: LlamaCpp) -> None:
    messages = [SYSTEM, Message("user", "Hello!")]
    text, calls = asyncio.run(call(caller, messages, "get_weather"))
    assert text == "" and {made.name for made in calls} == {"get_weather"}
    messages = [SYSTEM, Message("user", "What is the weather in Paris?")]
    text, calls = asyncio.run(call(caller, messages, "none"))
    assert text and not calls and "{" not in text


def test_talks_at_once_keep_their_caches(tiny_file: Path) -> None:
    llm = LlamaCpp(tiny_file, context_tokens=CONTEXT, slots=2)

    async def talk(name: str, colour: str) -> None:
        messages = [SYSTEM, Message("user", f"My name is {name}, and I like {colour}.")]
        for _ in range(3):
            async with aclosing(
                llm.generate(messages, Sampling(max_tokens=12), session=name, deadline=1.0)
            ) as events:
                text = "".join([e.text async for e in events if isinstance(e, TextDelta)])
            messages += [Message("assistant", text), Message("user", "Go on.")]
        async with aclosing(
            llm.generate(messages, Sampling(max_tokens=4), session=name, deadline=1.0)
        ) as events:
            finished = [e async for e in events][-1]
        assert isinstance(finished, Finished) and finished.cached_tokens > finished.prompt_tokens - 30

    async def both() -> None:
        await llm.warm([SYSTEM])
        async with asyncio.TaskGroup() as group:
            group.create_task(talk("Ann", "red"))
            group.create_task(talk("Bob", "blue"))

    asyncio.run(both())
    llm.close()


def test_a_draft_that_is_dropped_leaves_the_cache_of_its_turn(tiny: LlamaCpp) -> None:
    asked = "I would like to know, if you do not mind, what the capital of "

    async def drafts() -> Finished:
        async with aclosing(tiny.generate([SYSTEM, Message("user", asked)], Sampling())) as events:
            await anext(events)
        return (await write(tiny, [SYSTEM, Message("user", asked + "France is?")], max_tokens=4))[1]

    finished = asyncio.run(drafts())
    assert finished.prompt_tokens - finished.cached_tokens < 12


def test_a_long_talk_is_summed_up_and_goes_on_from_the_cache(tiny: LlamaCpp) -> None:
    budget = CONTEXT - 160

    async def talk() -> tuple[list[Message], Finished]:
        messages = [SYSTEM]
        for n in range(20):
            messages.append(Message("user", f"This is my remark number {n}. I like it very much."))
            await write(tiny, messages, max_tokens=2)
            messages.append(Message("assistant", "So do I. Tell me more."))
            messages = await compact(tiny, messages, budget) or messages
        _, finished = await write(tiny, [*messages, Message("user", "And?")], max_tokens=2)
        return messages, finished

    messages, finished = asyncio.run(talk())
    assert sum(map(is_summary, messages)) == 1 and messages[0] == SYSTEM
    assert len(messages) < 20 and finished.cached_tokens > finished.prompt_tokens - 20
