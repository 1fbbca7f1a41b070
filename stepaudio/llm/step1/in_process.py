"""Step-Audio-Chat in this process, through Hugging Face: codes of speech in, words out.

For one talk at a time, and for machines without vLLM: answers are written one after another, on a thread of
their own. Each of the last talks keeps its keys and values, so that only what is new of a talk is read.
The checkpoint knows no format for tools; they are described in words, and calls are found in the text.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepaudio import checkpoint
from stepaudio.core.codes import FIRST_ID
from stepaudio.core.conversation import Message, ToolChoice, ToolSpec, fit
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.base import Finished, LLMEvent, PromptRead, Reads, Sampling, TextDelta
from stepaudio.llm.calls import CallReader, check_choice
from stepaudio.llm.prompt import render, render_as_text
from stepaudio.llm.step1 import network as networks
from stepaudio.llm.step1 import window
from stepaudio.llm.step1.chat import BEGIN_OF_TURN_ID, END_OF_TURN_ID, START_ID
from stepaudio.llm.step1.tokenizer import Step1Tokenizer
from stepaudio.threads import iterate_in_thread

READ_AT_ONCE = 512
"""Tokens of a prompt that are read before it is seen whether the answer is still wanted."""
_NEVER = [0, START_ID, 2, BEGIN_OF_TURN_ID]
"""Token ids, besides those of audio, that are no text."""


class Step1Chat:
    """See ``llm.base.LLM``.

    Args:
        network: of ``network.load`` or ``window.load``.
        tokenizer: of the same folder.
        context_tokens: prompt and answer together.
        talks: whose keys and values are kept.
    """

    reads: frozenset[Reads] = frozenset({"text", "codes"})

    def __init__(
        self, network: Any, tokenizer: Step1Tokenizer, *, context_tokens: int = 8192, talks: int = 1
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._context_tokens, self._talks = context_tokens, talks
        self._device = next(network.parameters()).device
        self._caches: OrderedDict[str, tuple[list[int], Any]] = OrderedDict()  # of the thread alone
        self._thread = ThreadPoolExecutor(1, "step1")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        context_tokens: int = 8192,
        talks: int = 1,
        memory: int | None = None,
    ) -> Step1Chat:
        """From a folder in the layout of Step-Audio-Chat.

        Args:
            memory: bytes that it may take, on the CPU; layers beyond are read from disk while they are
                needed, see ``window``. None: as much as it takes.

        Raises:
            ModelMissing, ConfigError: see ``network.load``, ``window.load``, ``Step1Tokenizer``; or there is
                no such device.
        """
        place = checkpoint.usable_device(device)
        if memory is None:
            network: networks.Step1ForCausalLM = networks.load(folder, place)
        elif place.type == "cpu":
            network = window.load(folder, memory, context_tokens, talks=talks + 1, at_once=READ_AT_ONCE)
        else:
            raise ConfigError(f"llm.memory_gb is kept on the CPU alone, and llm.device is {device}: set one")
        return cls(network, Step1Tokenizer(folder), context_tokens=context_tokens, talks=talks)

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
        """See ``LLM.generate``.

        Raises:
            BackendError: the last turn alone is longer than the context.
        """
        check_choice(tools, tool_choice)
        tools = () if tool_choice == "none" else tools
        ids = self._prompt(messages, tools, sampling.max_tokens)
        reader = CallReader([tool.name for tool in tools])
        written: list[int] = []
        told, ended, cached = "", False, 0

        def run() -> Iterator[tuple[int | None, int]]:
            return self._write(ids, sampling, session)

        # All that may come at most: a slow listener must not hold the thread that others wait for.
        ahead = sampling.max_tokens + len(ids) // READ_AT_ONCE + 2
        async with aclosing(iterate_in_thread(run, self._thread, ahead)) as tokens:
            async for token, held in tokens:
                cached = held
                if token is None:
                    continue
                if token == END_OF_TURN_ID:
                    ended = True
                    break
                if not written:
                    yield PromptRead(len(ids), cached)
                written.append(token)
                text = self._tokenizer.decode(written).lstrip()
                if text.endswith("\ufffd"):  # a part of a character
                    continue
                new, told = text[len(told) :], text
                for event in reader.push(new) if tools else [TextDelta(new)]:
                    yield event
                if reader.over:
                    ended = True
                    break
        if tools and ended:
            for event in reader.push("", end=True):
                yield event
        yield Finished("stop" if ended else "length", len(ids), cached, len(written))

    async def warm(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, session: str = ""
    ) -> None:
        """See ``LLM.warm``."""
        ids = self._prompt(messages, tools, 1)

        def run() -> Iterator[None]:
            for _ in self._read(ids, session):
                yield

        async with aclosing(iterate_in_thread(run, self._thread)) as steps:
            async for _ in steps:
                pass

    def close(self) -> None:
        """See ``LLM.close``."""
        self._thread.shutdown()
        self._caches.clear()
        if isinstance(self._network, window.WindowedStep1):
            self._network.close()

    def _prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], max_tokens: int) -> list[int]:
        def prompt(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
            if tools or any(message.calls for message in messages):
                return self._tokenizer.prompt(render_as_text(messages, tools, codes=True))
            return self._tokenizer.prompt(render(messages, codes=True))

        room = self._context_tokens - max_tokens
        described = len(prompt([], tools)) if tools else 0
        ids = prompt(fit(messages, room - described, lambda message: len(prompt([message]))), tools)
        if len(ids) > room:
            raise BackendError(
                f"the last turn is {len(ids)} tokens long with its instructions, and {room} is all that can "
                "be read before an answer: speak shorter, or raise llm.context_tokens (32768 at most)"
            )
        return ids

    # In the thread

    def _write(
        self, ids: list[int], sampling: Sampling, session: str
    ) -> Generator[tuple[int | None, int], None, None]:
        """Tokens of the answer, each with the number of tokens that were in the cache; None: reading on."""
        random = torch.Generator()  # on the CPU, so that a seed draws the same on every device
        random.manual_seed(sampling.seed) if sampling.seed is not None else random.seed()
        logits, cached = torch.empty(0), 0
        for last, held in self._read(ids, session):
            logits, cached = last, held
            yield None, cached
        for _ in range(sampling.max_tokens):
            token = draw(logits, sampling, random)
            yield token, cached
            if token == END_OF_TURN_ID:
                return
            known, cache = self._caches[session]
            logits, cache = self._step([token], cache)
            self._caches[session] = [*known, token], cache

    def _read(self, ids: list[int], session: str) -> Generator[tuple[Tensor, int], None, None]:
        """Read a prompt as far as the cache of the talk does not hold it; logits of the last token so far,
        and how many tokens the cache held."""
        known, cache = self._of(session)
        # The last token is always read: its logits are not kept.
        held = next((i for i, (a, b) in enumerate(zip(known, ids[:-1], strict=False)) if a != b), None)
        held = min(len(known), len(ids) - 1) if held is None else held
        if cache is not None and held < len(known):
            cache.crop(held - len(known))
        for start in range(held, len(ids), READ_AT_ONCE):
            piece = ids[start : start + READ_AT_ONCE]
            logits, cache = self._step(piece, cache)
            self._caches[session] = ids[: start + len(piece)], cache
            yield logits, held

    def _of(self, session: str) -> tuple[list[int], Any]:
        """What is known of a talk; of a new one, what was read for all talks."""
        if session not in self._caches and "" in self._caches:
            self._caches[session] = copy.deepcopy(self._caches[""])
        known = self._caches.pop(session, ([], None))
        self._caches[session] = known  # the last used
        while len(self._caches) > self._talks + 1:  # and that of all talks
            del self._caches[next(name for name in self._caches if name)]
        return known

    @torch.inference_mode()
    def _step(self, ids: list[int], cache: Any) -> tuple[Tensor, Any]:
        answer = self._network(
            input_ids=torch.tensor([ids], device=self._device), cache=cache, use_cache=True, logits_to_keep=1
        )
        cache = answer["cache" if "cache" in answer else "past_key_values"]  # renamed within transformers 5
        return answer.logits[0, -1].float().cpu(), cache


def draw(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """A token of text, or the end, by its logits [vocabulary]; the likeliest of ``top_p`` together."""
    logits = logits[:FIRST_ID].clone()
    logits[_NEVER] = float("-inf")
    if sampling.temperature == 0:
        return int(logits.argmax())
    chances, tokens = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0
    return int(tokens[torch.multinomial(chances, 1, generator=random)])
