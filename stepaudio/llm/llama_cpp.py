"""llama.cpp in this process: a GGUF model on the CPU.

Each talk has a slot with a context and a cache of its own, as long as there are enough of them; the talk that
was silent for longest gives its slot away.
What it does not know: how to stop one answer for the sake of a more urgent one. Who has a slot goes on.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import re
import socket
import tempfile
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepaudio.core.conversation import Message, ToolChoice, ToolSpec, fit
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.base import Finished, LLMEvent, PromptRead, Reads, Sampling, TextDelta
from stepaudio.llm.calls import CallReader, check_choice
from stepaudio.llm.gguf import check_gguf
from stepaudio.llm.prompt import render_as_text, write_call
from stepaudio.llm.slots import Slots

BATCH_TOKENS = 32
"""Prompt tokens that are computed at a time; a cancelled request stops after so many. As fast as 512."""

REUSE_TOKENS = 64
"""Shortest stretch of the cache that is moved, not computed anew, when turns before it were dropped."""

FRAME_TOKENS = 8
"""Tokens that a chat template puts around one message, at most (ChatML and Llama 3 use 5)."""

MARGIN_TOKENS = 64
"""For what a template adds once: the opening of the answer, a date, a default system prompt."""

AT_ONCE = 2
"""Answers that are written at the same time; others wait, the most urgent first. Of four talks on two cores
5 % of the answers came later than 2.9 s when four were written at once, 2.0 s when two; of six talks 8 and
3 % of the sound came late (``bench sessions --only load``)."""

SPINS = 1000
"""Turns of the loop in which an idle compute thread waits before it sleeps. libgomp's own 300,000 stop nearly
all progress when other work (ears, voice, other programs) holds a core: beside such work the 135M model took,
with two threads, 1000 ms of processor time to the first token instead of 260. On free cores, 1000 turns cost
about 10 % of the speed of writing, and nothing of the first token."""

STOP = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
"""Ends an answer in which a small model spells out a control token letter by letter."""


_CONTROL = re.compile(r"<(?=\||/?tool_)")

MOST_CALLS = 4
"""Calls in one answer."""


class LlamaCpp:
    """A GGUF model. Loading takes 1 to 3 s; ``warm`` then fills the cache.

    Resident memory, with 4096 tokens of context: 1.3 GB with Qwen2.5 1.5B Q4_K_M, 0.65 GB with 0.5B.

    Args:
        path: a ``.gguf`` file.
        context_tokens: prompt and answer together.
        threads: of the CPU; no more than there are cores.
        slots: talks that are kept in the cache; ``AT_ONCE`` of them are answered at the same time.

    Raises:
        ConfigError: the file is damaged or no GGUF file; the message says what to do.
        BackendError: llama.cpp cannot load it.
    """

    reads: frozenset[Reads] = frozenset({"text"})

    def __init__(self, path: Path, context_tokens: int = 4096, threads: int = 2, slots: int = 1) -> None:
        check_gguf(path)
        llama = _import_llama()
        self._context_tokens = context_tokens
        self._slots = Slots(slots, AT_ONCE)
        self._threads = ThreadPoolExecutor(slots, "llama.cpp")
        self._counts: dict[Message, int] = {}
        # llama.cpp's server object must listen somewhere. Here: on a socket in a folder that only this user
        # can open. Tokens are counted through it; everything else is called directly.
        # A socket's path may hold about 100 bytes.
        folder = tempfile.gettempdir()
        folder = folder if len(os.fsencode(folder)) < 70 else "/tmp"
        self._folder = tempfile.TemporaryDirectory(prefix="stepaudio-", dir=folder)
        self._socket = f"{self._folder.name}/llama.sock"

        params = llama.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.kv_unified = False
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_cache_reuse = REUSE_TOKENS
        params.cache_ram_mib = 0  # copies of old prompts; the slot itself is the cache
        threads = min(threads, os.cpu_count() or threads)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # Read, not mapped: most weights are repacked for AVX2 (the first token comes in 0.7 of the time),
        # and the pages of the file would stay beside the repacked copy: 1.9 GB instead of 1.3.
        params.load_mode = llama.llama_load_mode.LLAMA_LOAD_MODE_NONE
        params.warmup = False  # `warm` does it, with the real prompt
        params.enable_reasoning = 0  # a voice cannot wait for thoughts
        params.hostnames = [self._socket]
        params.n_threads_http = 1
        params.ui = params.endpoint_slots = False
        params.verbosity = -1  # its log would hold what people say
        try:
            self._server: Any = llama.Server(params)
        except (RuntimeError, ValueError) as error:
            self._folder.cleanup()
            raise BackendError(
                f"llama.cpp cannot load {path}: the file may be damaged (`stepaudio models verify` finds "
                f"that, `stepaudio models pull` mends it), be no language model, or not fit the free memory"
            ) from error

    async def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        tools: Sequence[ToolSpec] = (),
        tool_choice: ToolChoice = "auto",
        *,
        session: str = "",
        deadline: float = math.inf,
    ) -> AsyncGenerator[LLMEvent, None]:
        """See ``LLM.generate``."""
        check_choice(tools, tool_choice)
        request = {
            "messages": await self._fit(messages, sampling.max_tokens, tools),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "min_p": 0.0,
            "stop": STOP,
        }
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        if tools:
            # Asked with a result before it, the small models call the same tool again, for ever.
            told = messages[-1].role == "tool" and tool_choice == "auto"
            request["grammar"] = _grammar(tools, "none" if told else tool_choice)
        reader = CallReader([tool.name for tool in tools])
        reason = "stop"
        read: dict[str, int] | None = None  # of the prompt, until it is told
        async with aclosing(self._chunks(request, session, deadline)) as chunks:
            async for chunk in chunks:
                read = chunk.get("prompt_progress") or read
                for choice in chunk.get("choices", ()):
                    reason = choice["finish_reason"] or reason
                    text = choice["delta"].get("content") or ""
                    if text and read:
                        yield PromptRead(read["total"], read["cache"])
                        read = None
                    if tools:
                        ended = choice["finish_reason"] not in (None, "length")
                        for event in reader.push(text, ended):
                            yield event
                    elif text:
                        yield TextDelta(text)
                if usage := chunk.get("usage"):
                    yield Finished(
                        "length" if reason == "length" else "stop",
                        prompt_tokens=usage["prompt_tokens"],
                        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
                        completion_tokens=usage["completion_tokens"],
                    )

    async def warm(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, session: str = ""
    ) -> None:
        """See ``LLM.warm``."""
        # With the beginning of a question, so that the opening of the user's message is in the cache, too.
        question = [] if messages and messages[-1].role == "user" else [Message("user", "?")]
        # The opening of the answer is left out: what follows is another text, with the opening behind it.
        request = {
            "messages": await self._fit([*messages, *question], 1, tools),
            "max_tokens": 1,
            "add_generation_prompt": False,
        }
        for slot in [None] if session else self._slots.unowned() or [None]:
            async with aclosing(self._chunks(dict(request), session, slot=slot)) as chunks:
                async for _ in chunks:
                    pass

    def close(self) -> None:
        """Free the model, as soon as no answer is being written any more."""
        self._server = None
        self._threads.shutdown(wait=False)
        self._folder.cleanup()

    async def _chunks(
        self, request: dict[str, Any], session: str, deadline: float = math.inf, slot: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer. Closing it stops llama.cpp at its next token or batch.

        llama.cpp pushes its chunks into a callback, which only a second thread could turn into an iterator;
        that is why ``threads.iterate_in_thread`` is not used.
        """
        request |= {
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # a chunk for each batch of the prompt, so that it can be stopped there
        }
        async with self._slots.take(session, deadline, slot) as request["id_slot"]:
            server = self._server
            if server is None:
                raise BackendError("the language model was closed")
            loop = asyncio.get_running_loop()
            arrived: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
            stop = threading.Event()

            def push(chunk: dict[str, Any]) -> bool:
                if not stop.is_set():
                    loop.call_soon_threadsafe(arrived.put_nowait, chunk)
                return stop.is_set()  # True cancels

            done = loop.run_in_executor(self._threads, server.handle_chat_completions, request, push)
            done.add_done_callback(lambda _: arrived.put_nowait(None))
            try:
                while (chunk := await arrived.get()) is not None:
                    if error := chunk.get("error"):
                        if "grammar" in request and "grammar" in error["message"]:
                            raise ConfigError(
                                "the parameters of a tool are a JSON schema that llama.cpp cannot follow: "
                                "use fewer of its features"
                            )
                        raise BackendError(f"llama.cpp: {error['message']}")
                    yield chunk
                try:
                    await done
                except (RuntimeError, ValueError) as error:
                    raise BackendError(f"llama.cpp refused the request: {error}") from error
            finally:
                stop.set()
                await asyncio.shield(asyncio.wait([done]))
                if not done.cancelled():
                    done.exception()  # seen: no "exception was never retrieved" for an abandoned answer

    async def _fit(
        self, messages: Sequence[Message], max_tokens: int, tools: Sequence[ToolSpec]
    ) -> list[dict[str, Any]]:
        """What is sent: as much of the conversation as there is room for."""
        described = Message("system", str(render_as_text([], tools)[0]["content"])) if tools else None
        budget = self._context_tokens - max_tokens - MARGIN_TOKENS
        if described:
            budget -= await asyncio.to_thread(self._count, described)
        if budget < MARGIN_TOKENS:
            raise ConfigError(
                f"answers of {max_tokens} tokens{' and the tools' * bool(tools)} leave no room in a context "
                f"of {self._context_tokens}: lower llm.max_tokens or raise llm.context_tokens"
            )
        # The template's control tokens are not to be had by writing them, nor are calls and results.
        plain = [replace(message, text=_CONTROL.sub("< ", message.text)) for message in messages]
        if sum(map(_most_tokens, plain)) > budget:
            plain = await asyncio.to_thread(fit, plain, budget, self._count)
        return render_as_text(plain, tools)

    def _count(self, message: Message) -> int:
        """Tokens of a message in the prompt. Blocks for about 1 ms when the message is new."""
        if message not in self._counts:
            if len(self._counts) >= 4096:
                self._counts.clear()
            try:
                self._counts[message] = len(self._tokenize(_written(message))) + FRAME_TOKENS
            except (OSError, http.client.HTTPException):  # the socket was swept out of /tmp
                return _most_tokens(message)
        return self._counts[message]

    def _tokenize(self, text: str) -> list[int]:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(self._socket)
            connection.request("POST", "/tokenize", json.dumps({"content": text}))
            return json.load(connection.getresponse())["tokens"]
        finally:
            connection.close()


def _most_tokens(message: Message) -> int:
    # A tokenizer over bytes never makes more tokens than there are bytes.
    return len(_written(message).encode("utf-8", "replace")) + FRAME_TOKENS


def _written(message: Message) -> str:
    """A message with its calls; a result with the tags around it."""
    calls = [write_call(call.name, call.arguments) for call in message.calls]
    return "\n".join(
        [message.text, *calls, *(["<tool_response>", "</tool_response>"] if message.call_id else [])]
    )


def _grammar(tools: Sequence[ToolSpec], choice: ToolChoice) -> str:
    """What the model may write: words that cannot be taken for a call, or calls with arguments that fit.

    In the notation of llguidance (a Lark grammar with JSON schemas in it), which the binding is built with.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": {"additionalProperties": False, **tool.parameters},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
        if choice in ("auto", "required", tool.name)
    ]
    start = {"auto": "words | calls", "none": "words"}.get(choice, "calls")
    rules = ["%llguidance {}", f"start: {start}", "words: /[^{<`]+/"]
    if calls:
        rules += [
            f'calls: call ("\\n" call){{0,{MOST_CALLS - 1}}}',
            f"call: %json {json.dumps({'anyOf': calls})}",
        ]
    return "\n".join(rules)


def _import_llama() -> Any:
    """The binding. libgomp reads its settings when it is first loaded, so they are set around that."""
    ours = not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    if ours:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        import xllamacpp

        return xllamacpp
    except ImportError as error:
        raise BackendError(
            f"llama.cpp cannot be loaded ({error}): reinstall the package xllamacpp; if libgomp.so.1 is what "
            f"is missing, the system's package for it is libgomp1 (Debian, Ubuntu) or libgomp (Fedora)"
        ) from error
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
