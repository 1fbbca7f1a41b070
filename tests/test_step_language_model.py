"""Codes drawn one by one, from a network here and from a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

import torch

from stepaudio.core.codes import AudioCodes
from stepaudio.core.errors import BackendError, CodesError, TextError
from stepaudio.tts.step.language_model import CodeSampling, InProcess, Served, banned

VOCABULARY = 74752


class Bigram(torch.nn.Module):
    """Its next token depends on the last one; after the prompt it must be fed one token at a time."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCABULARY, 8)
        self.head = torch.nn.Linear(8, VOCABULARY)
        torch.nn.init.constant_(self.head.bias, 0)
        self.head.bias.data[3] = end
        self.fed: list[int] = []

    def forward(self, input_ids, cache, use_cache, logits_to_keep):
        assert use_cache and (cache is None) == (not self.fed)
        self.fed.append(input_ids.shape[1])
        logits = self.head(self.table(input_ids[:, -logits_to_keep:]))
        return {"logits": logits, "cache": ()}


def network(end: float) -> Bigram:
    torch.manual_seed(0)
    return Bigram(end)


def test_what_is_drawn_is_whole_groups_in_order():
    codes = list(InProcess(network(8.0)).generate([1, 2, 3], CodeSampling(seed=1)))
    assert codes and AudioCodes.from_merged(codes).groups == len(codes) / 5


def test_a_seed_repeats_and_codes_come_one_by_one():
    first, second = network(0.0), network(0.0)
    sampling = CodeSampling(seed=5, max_tokens=43)
    drawn = list(InProcess(first).generate([1, 2, 3], sampling))
    assert drawn == list(InProcess(second).generate([1, 2, 3], sampling))
    assert len(drawn) == 40 and first.fed == [3] + [1] * 39
    stream = InProcess(third := network(0.0)).generate([1, 2, 3], sampling)
    next(stream)
    stream.close()
    assert third.fed == [3]


def test_a_token_that_was_twice_among_ten_is_not_drawn():
    assert banned([1, 2, 3, 4, 5, 6, 7, 8, 9]) is None  # fewer than ten
    assert banned([1, 2, 3, 4, 5, 6, 7, 8, 9, 0]) is None
    assert banned([7, 2, 3, 4, 5, 6, 1, 8, 9, 7]) == 7
    assert banned([7, 0, 2, 3, 4, 5, 6, 1, 8, 9, 7]) is None  # ten back is out of sight
    greedy = list(InProcess(network(-9.0)).generate(range(10), CodeSampling(temperature=0, max_tokens=410)))
    tokens = [*range(10), *(65536 + code for code in greedy)]
    assert all(banned(tokens[:at]) != tokens[at] for at in range(10, len(tokens)))


def test_a_prompt_that_fills_the_context_is_said():
    with pytest.raises(TextError, match="8190 tokens"):
        list(InProcess(network(0.0)).generate([1] * 8190, CodeSampling()))


class Server:
    """Speaks as vLLM does; the requests that came are in ``asked``."""

    def __init__(self, events: list[object], status: int = 200) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()
                for event in events:
                    data = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f"data: {data}\n\n".encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def event(*tokens: int) -> dict[str, object]:
    return {"choices": [{"text": "", "token_ids": list(tokens)}]}


def served(url: str) -> Generator[int, None, None]:
    return Served(url, "tts").generate([1, 2, 3], CodeSampling(seed=4))


def test_a_server_is_asked_with_ids_and_answers_with_ids():
    with Server([event(65536), event(65537, 66560), event(3), "[DONE]"]) as server:
        assert list(served(server.url)) == [0, 1, 1024]
    (asked,) = server.asked
    assert asked["prompt"] == [1, 2, 3] and asked["stop_token_ids"] == [3] and asked["seed"] == 4
    assert asked["max_tokens"] == 8189 and asked["return_token_ids"] and asked["stream"]
    assert asked["allowed_token_ids"] == [3, *range(65536, 70656)]


@pytest.mark.parametrize(
    ("events", "status", "error", "words"),
    [
        ([event(65536)], 200, BackendError, "broke off"),
        ([{"choices": [{"text": "x"}]}], 200, BackendError, "no token ids"),
        ([event(17)], 200, CodesError, "token 17"),
        ([], 404, BackendError, "HTTP 404"),
    ],
)
def test_what_a_server_does_wrong_is_said(events, status, error, words):
    with Server(events, status) as server, pytest.raises(error, match=words):
        list(served(server.url))


def test_no_server_is_said():
    with Server([]) as server:
        url = server.url
    with pytest.raises(BackendError, match="cannot be reached") as raised:
        list(served(url))
    assert raised.value.retryable
