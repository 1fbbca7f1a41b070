"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, SGLang, or a paid one.

What it does not know: the server's tokenizer. It estimates, and believes the server when that says that a
conversation is too long.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NoReturn
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from stepaudio.core.conversation import Message, ToolChoice, ToolSpec, estimate_tokens, fit
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.base import Finished, LLMEvent, Reads, Sampling, TextDelta
from stepaudio.llm.calls import CallReader, check_choice, whole_call
from stepaudio.llm.prompt import render, render_tools

CONNECT_TIMEOUT_S = 5.0
"""A machine that is there answers a connection in well under a second."""

_TOO_LONG = re.compile(
    r"context.?(length|size|window)|maximum context|(prompt|input) is too long|too many tokens", re.I
)

_REFUSABLE = ("stream_options", "seed", "top_p", "temperature")
"""Parameters that a server may not know, without which the answer is still an answer."""


class OpenAIChat:
    """A model behind an OpenAI-compatible server. Nothing is sent before it is used.

    Args:
        base_url: up to the version: ``http://host:port/v1``.
        model: the name of the model there; None: the first that the server lists.
        api_key: sent as a bearer token; None: none is needed. The environment is not asked for one, so that
            a key for one server never goes to another.
        timeout_s: longest wait for the beginning of an answer, and then for each next piece.
        context_tokens: prompt and answer together. If the server has less, that is learned from its errors.
        codes: the model reads Step-Audio's codes, as ``<audio_N>`` in the text (Step-Audio-Chat on vLLM).

    Raises:
        ConfigError: not an address.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 30,
        context_tokens: int = 4096,
        codes: bool = False,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"the address of the language model server should look like http://127.0.0.1:8000/v1, "
                f"not {_without_login(base_url)!r}"
            )
        self.reads: frozenset[Reads] = frozenset({"text", "codes"} if codes else {"text"})
        self._address = _without_login(base_url)
        self._model = model
        self._secrets = [secret for secret in (api_key, parts.password) if secret]
        self._timeout_s = timeout_s
        self._context_tokens = context_tokens
        self._refused: set[str] = set()
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        )

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
        begun = False
        reason = None
        usage: Any = None
        names = [tool.name for tool in tools]
        reader = CallReader(names)
        called: dict[int, list[str]] = {}  # by index: id, name, arguments
        stream = await self._open(messages, sampling, _offer(tools, tool_choice))
        try:
            while True:
                # Around one chunk, never around a yield (PEP 789). Bytes that are no chunk, such as the
                # comments that keep a line alive, do not count as an answer.
                async with asyncio.timeout(self._timeout_s):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                text, parts, ended, used = _read_chunk(chunk)
                usage = used or usage
                reason = ended or reason
                begun = begun or bool(text or parts)
                for part in parts:
                    call = called.setdefault(part.index or 0, ["", "", ""])
                    call[0] = call[0] or part.id or ""
                    if part.function:
                        call[1] += part.function.name or ""
                        call[2] += part.function.arguments or ""
                if tools and text:  # some servers leave calls in the text
                    for event in reader.push(text):
                        yield event
                    if reader.over:
                        reason = "stop"
                        break
                elif text:
                    yield TextDelta(text)
            if tools and reason != "length":
                for event in reader.push("", end=True):
                    yield event
        except (openai.APIError, TimeoutError, ValueError) as error:
            self._fail(error, begun=begun)
        finally:
            await stream.close()
        if reason is None:
            self._fail(None, begun=begun)
        if reason != "length":  # else the last call is not whole
            for id, name, arguments in called.values():
                yield whole_call(id, name, arguments, names)
        details = getattr(usage, "prompt_tokens_details", None)
        yield Finished(
            "length" if reason == "length" else "stop",
            prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
            cached_tokens=getattr(details, "cached_tokens", None) or 0,
            completion_tokens=getattr(usage, "completion_tokens", None) or 0,
        )

    async def warm(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, session: str = ""
    ) -> None:
        """See ``LLM.warm``. Shows, too, whether the server can be reached and knows the model."""
        question = [] if messages and messages[-1].role == "user" else [Message("user", "?")]
        answer = self.generate([*messages, *question], Sampling(max_tokens=1), tools, session=session)
        async with aclosing(answer) as events:
            async for _ in events:
                pass

    def close(self) -> None:
        """Nothing to free: connections end with the event loop that they belong to."""

    async def _open(
        self, messages: Sequence[Message], sampling: Sampling, offer: dict[str, Any]
    ) -> openai.AsyncStream:
        """A stream of chunks, after what could be mended was mended: length, parameters, a stale line."""
        model = await self._first_model() if self._model is None else self._model
        lost_line = False
        while True:
            budget = self._context_tokens - sampling.max_tokens - len(json.dumps(offer)) // 3
            shortened = fit(messages, budget, estimate_tokens)
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._client.chat.completions.create(
                        **self._request(model, self._render(shortened), sampling), **offer
                    )
            except openai.APITimeoutError as error:
                self._fail(error)
            except openai.APIConnectionError as error:
                if lost_line:
                    self._fail(error)
                lost_line = True  # the server may have closed a line that we had kept open: once more
            except openai.APIStatusError as error:
                if not self._mend(error, shortened, sampling):
                    self._fail(error)
            except (openai.APIError, TimeoutError, ValueError) as error:
                self._fail(error)

    def _render(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return render(messages, codes="codes" in self.reads)

    def _request(self, model: str, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream_options": {"include_usage": True},
        }
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        if "max_tokens" in self._refused:  # OpenAI's newer models
            request["max_completion_tokens"] = request.pop("max_tokens")
        if "codes" in self.reads:
            # vLLM: the start token, which Step-Audio-Chat was trained with and its chat template leaves out.
            request["extra_body"] = {"add_special_tokens": True}
        request = {name: value for name, value in request.items() if name not in self._refused}
        return request | {"model": model, "messages": messages, "stream": True}

    def _mend(self, error: openai.APIStatusError, sent: list[Message], sampling: Sampling) -> bool:
        """Learn from a refusal; whether another try can go better."""
        if error.status_code not in (400, 413, 422, 500):
            return False
        said = f"{error.message} {error.body} {error.code} {error.type}"
        if _TOO_LONG.search(said):
            # What was sent is too long by the server's count, so the estimate, or the context, is too large.
            used = sum(map(estimate_tokens, sent))
            self._context_tokens = int(0.7 * used) + sampling.max_tokens
            return len(sent) > 1 and used > 100
        for name in (*_REFUSABLE, "max_tokens"):
            if name in said and name not in self._refused:
                self._refused.add(name)
                return True
        return False

    async def _first_model(self) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                page = await self._client.models.list()
            self._model = page.data[0].id
        except (openai.APIError, TimeoutError) as error:
            self._fail(error)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise BackendError(
                f"the language model server at {self._address} lists no models; name one with llm.name"
            ) from error
        return self._model

    def _fail(self, error: Exception | None, begun: bool = False) -> NoReturn:
        """Raise what the user should read. Says nothing of what was asked, and no secrets."""
        server = f"the language model server at {self._address}"
        retryable = True
        match error:
            case openai.APITimeoutError() | TimeoutError() if begun:
                text = f"{server} fell silent for {self._timeout_s:g} s in the middle of the answer"
            case openai.APITimeoutError() | TimeoutError():
                text = (
                    f"{server} gave no answer within {self._timeout_s:g} s; is it busy, or still loading? "
                    f"llm.timeout_s sets how long to wait"
                )
            case openai.APIConnectionError() if begun:
                text = f"{server} dropped the line in the middle of the answer"
            case openai.APIConnectionError():
                text = f"{server} cannot be reached; is it running, and is the address right?"
            case openai.APIStatusError():
                retryable = error.status_code == 429 or error.status_code >= 500
                text = f"{server} {self._status(error)}"
            case openai.APIError():  # said within the stream
                text = f"{server} failed: {self._said(error)}"
            case None if begun:
                text = f"{server} broke off in the middle of the answer"
            case _:
                retryable = False
                text = f"{server} sent no chat completion; does the address end as it should (usually /v1)?"
        # The cause is not chained: its text could hold what the user said, or the key.
        raise BackendError(text, retryable=retryable) from None

    def _status(self, error: openai.APIStatusError) -> str:
        match error.status_code:
            case 401 | 403:
                return f"refuses access (HTTP {error.status_code}); set llm.api_key to a key that it accepts"
            case 404:
                return (
                    f"knows no such address or model (HTTP 404: {self._said(error)}); the address usually "
                    f"ends in /v1, and llm.name is the model ({self._model})"
                )
            case 429:
                return f"is too busy, or your quota is used up (HTTP 429: {self._said(error)}); try later"
            case status if status >= 500:
                return f"failed (HTTP {status}: {self._said(error)}); its log should say why"
            case status:
                return f"refused the request (HTTP {status}: {self._said(error)})"

    def _said(self, error: openai.APIError) -> str:
        """The server's own words, one line of them, without secrets."""
        body = error.body
        said = body.get("message") if isinstance(body, dict) else None
        text = " ".join(str(said or error.message).split())
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text if len(text) <= 200 else text[:200] + "…"


def _offer(tools: Sequence[ToolSpec], choice: ToolChoice) -> dict[str, Any]:
    """What a request says of tools.

    Raises:
        ConfigError: ``choice`` names no tool.
    """
    check_choice(tools, choice)
    if not tools:
        return {}
    named = {"type": "function", "function": {"name": choice}}
    plain = choice in ("auto", "none", "required")
    return {"tools": render_tools(tools), "tool_choice": choice if plain else named}


def _read_chunk(chunk: Any) -> tuple[str, list[ChoiceDeltaToolCall], str | None, Any]:
    """Text, parts of calls, finish reason and usage of a chunk.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(chunk, ChatCompletionChunk):
        raise ValueError("not a chunk")
    choice = chunk.choices[0] if chunk.choices else None
    text = getattr(choice and choice.delta, "content", None) or ""
    if not isinstance(text, str):
        raise ValueError("not text")
    parts = getattr(choice and choice.delta, "tool_calls", None) or []
    if not all(isinstance(part, ChoiceDeltaToolCall) for part in parts):
        raise ValueError("not calls")
    return text, parts, choice.finish_reason if choice else None, chunk.usage


def _without_login(url: str) -> str:
    return re.sub(r"(?<=//)[^/@]*@", "", url).split("?")[0]
