"""Codes, drawn one by one from TTS-3B's language model.

``InProcess`` draws from a network in this process, ``Served`` from vLLM, which is sent token ids and answers
with token ids. Both are plain generators: a code is there as soon as it is drawn, and closing the generator
stops the work, on a server too.

Sampling is that of the reference: temperature 0.7, the 50 likeliest, and never a token that has been twice
among the last ten. What is new: only codes, and the end, may be drawn; in process the two streams keep their
places (two linguistic, then three semantic) and the end falls between groups.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from stepaudio.core.codes import FIRST_ID, GROUP, GROUP_SIZE, LINGUISTIC_CODES, MERGED_CODES
from stepaudio.core.errors import BackendError, TextError
from stepaudio.tts.step.prompt import END_OF_TURN, code_of

MAX_TOKENS = 8192
"""Prompt and codes together, as in the reference: some three minutes of speech."""
WINDOW, SHARE = 10, 0.1
"""Tokens that a repetition is looked for in, and the share of them that a token may have."""
SEMANTIC = FIRST_ID + LINGUISTIC_CODES
LAST = FIRST_ID + MERGED_CODES


@dataclass(frozen=True, slots=True)
class CodeSampling:
    """How codes are drawn.

    Attributes:
        temperature: 0 always takes the likeliest.
        top_k: how many may be drawn.
        max_tokens: prompt and codes together.
        seed: None: another draw every time.
    """

    temperature: float = 0.7
    top_k: int = 50
    max_tokens: int = MAX_TOKENS
    seed: int | None = None


class CodeModel(Protocol):
    """A language model that writes codes."""

    def generate(self, prompt: Sequence[int], sampling: CodeSampling) -> Generator[int, None, None]:
        """Merged codes (0..5119), one by one, until the model ends or ``max_tokens`` are reached.

        Raises:
            TextError: the prompt leaves no room.
            BackendError: the engine or server failed.
            CodesError: the model wrote something else than codes.
        """
        ...


def banned(tokens: Sequence[int]) -> int | None:
    """The token that may not come next: the last one, where it has more than its share of the last ten."""
    recent = tokens[-WINDOW:]
    if len(recent) == WINDOW and list(recent).count(recent[-1]) / WINDOW > SHARE:
        return recent[-1]
    return None


def room(prompt: Sequence[int], sampling: CodeSampling) -> int:
    """Tokens that may follow the prompt.

    Raises:
        TextError: not even a group may.
    """
    left = sampling.max_tokens - len(prompt)
    if left < GROUP_SIZE:
        raise TextError(
            f"text and example of the voice are {len(prompt)} tokens long; {sampling.max_tokens} is all that "
            "the model can read and write: speak the text in shorter pieces"
        )
    return left


class InProcess:
    """A network in this process.

    Args:
        network: a Step-1 of Hugging Face's kind, called with ``input_ids``, ``cache``, ``use_cache`` and
            ``logits_to_keep``; gives ``logits`` and ``cache`` (or ``past_key_values``, its older name).
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    def generate(self, prompt: Sequence[int], sampling: CodeSampling) -> Generator[int, None, None]:
        """See ``CodeModel.generate``."""
        left = room(prompt, sampling)
        device = next(self._network.parameters()).device
        random = torch.Generator()  # on the CPU, so that a seed draws the same on every device
        random.manual_seed(sampling.seed) if sampling.seed is not None else random.seed()
        recent = list(prompt[-WINDOW:])
        new, past = list(prompt), None
        for step in range(left):
            with torch.inference_mode():
                ids = torch.tensor([new], device=device)
                answer = self._network(input_ids=ids, cache=past, use_cache=True, logits_to_keep=1)
                past = answer["cache" if "cache" in answer else "past_key_values"]
                logits = answer["logits"][0, -1].float().cpu()
            token = draw(logits, step, banned(recent), sampling, random)
            if token == END_OF_TURN:
                return
            new = [token]
            recent = [*recent, token][-WINDOW:]
            yield code_of(token)


def draw(
    logits: torch.Tensor, step: int, never: int | None, sampling: CodeSampling, random: torch.Generator
) -> int:
    """A token by its logits [vocabulary].

    Args:
        step: codes that were drawn before; it says whose turn it is.
        never: a token that may not be drawn.
    """
    place = step % GROUP_SIZE
    allowed = torch.full_like(logits, float("-inf"))
    turn = slice(FIRST_ID, SEMANTIC) if place < GROUP[0] else slice(SEMANTIC, LAST)
    allowed[turn] = logits[turn]
    if place == 0 and step > 0:
        allowed[END_OF_TURN] = logits[END_OF_TURN]
    if never is not None:
        allowed[never] = float("-inf")
    if sampling.temperature == 0:
        return int(allowed.argmax())
    likeliest = allowed.topk(min(sampling.top_k, len(allowed)))
    chances = (likeliest.values / sampling.temperature).softmax(-1)
    return int(likeliest.indices[torch.multinomial(chances, 1, generator=random)])


class Served:
    """vLLM's ``/v1/completions``. Nothing is sent before it is used.

    The repetition window is asked for by ``vllm_xargs``; a server without our plug-in draws without it.

    Args:
        base_url: up to the version: ``http://host:port/v1``.
        model: its name there.
        api_key: sent as a bearer token; None: none is needed.
        timeout_s: longest wait for the next codes.
    """

    def __init__(self, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 30) -> None:
        self._url = base_url.rstrip("/") + "/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s

    def generate(self, prompt: Sequence[int], sampling: CodeSampling) -> Generator[int, None, None]:
        """See ``CodeModel.generate``."""
        import httpx

        request = {
            "model": self._model,
            "prompt": list(prompt),
            "stream": True,
            "return_token_ids": True,
            "max_tokens": room(prompt, sampling),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "stop_token_ids": [END_OF_TURN],
            "allowed_token_ids": [END_OF_TURN, *range(FIRST_ID, LAST)],
            "vllm_xargs": {"repetition_window": WINDOW},
        }
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        where = f"the code server at {self._url.split('?')[0]}"
        try:
            with httpx.stream(
                "POST", self._url, json=request, headers=self._headers, timeout=self._timeout_s
            ) as answer:
                if answer.status_code != 200:
                    raise BackendError(
                        f"{where} answered HTTP {answer.status_code}: does vLLM serve {self._model!r} there?",
                        retryable=answer.status_code == 429 or answer.status_code >= 500,
                    )
                yield from _codes(answer.iter_lines(), where)
        except httpx.TimeoutException:
            raise BackendError(f"{where} fell silent for {self._timeout_s:g} s", retryable=True) from None
        except httpx.HTTPError:
            raise BackendError(f"{where} cannot be reached, or broke off", retryable=True) from None


def _codes(lines: Iterator[str], where: str) -> Iterator[int]:
    """Codes of a stream of server-sent events."""
    for line in lines:
        kind, _, data = line.partition(":")
        if kind != "data":
            continue
        if data.strip() == "[DONE]":
            return
        try:
            choices = json.loads(data)["choices"]
            tokens = [int(token) for choice in choices for token in choice["token_ids"] or ()]
        except (ValueError, KeyError, TypeError):
            raise BackendError(
                f"{where} sent no token ids; it should be vLLM 0.10.2 or newer (return_token_ids)"
            ) from None
        for token in tokens:
            if token == END_OF_TURN:
                return
            yield code_of(token)
    raise BackendError(f"{where} broke off", retryable=True)
