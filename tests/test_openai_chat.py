"""``OpenAIChat`` against a small real server on this machine, which behaves as badly as servers do."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.base import Finished, Sampling, TextDelta
from stepaudio.llm.openai_chat import OpenAIChat, estimate_tokens

KEY = "sk-very-secret"
QUESTION = [Message("system", "be brief"), Message("user", "my private question")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {}))
        if self.server.models is None:
            self.answer(404, {"error": {"message": "no such page"}})
        else:
            self.answer(200, {"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        self.server.keys.append(self.headers["Authorization"])
        self.server.behave(self, body)

    def answer(self, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events: Any, end: bool = True) -> None:
        """Server-sent events in HTTP chunks; without ``end`` the line is dropped after them."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
            self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
            self.wfile.flush()
        if end:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.drop()

    def drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Remembers what it was asked; ``behave`` answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: list[str] | None = ["first", "second"]
        self.seen: list[tuple[str, dict]] = []
        self.keys: list[str | None] = []
        self.behave: Callable[[Handler, dict], None] = lambda handler, body: handler.stream(*answer("hi"))
        self.hang = threading.Event()  # set at the end of a test, so that no handler outlives it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def chats(self) -> list[dict]:
        return [body for path, body in self.seen if path == "/v1/chat/completions"]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.hang.set()
        server.shutdown()
        thread.join()


def delta(text: str | None = None, reason: str | None = None) -> dict:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage() -> dict:
    used = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return delta() | {"choices": [], "usage": used | {"prompt_tokens_details": {"cached_tokens": 4}}}


def answer(*texts: str, reason: str = "stop") -> list[Any]:
    return [*(delta(text) for text in texts), delta(reason=reason), usage(), "data: [DONE]\n\n"]


def refuse(status: int, message: str, **error: Any) -> Callable[[Handler, dict], None]:
    return lambda handler, body: handler.answer(status, {"error": {"message": message, **error}})


def ask(llm: OpenAIChat, messages: list[Message] | None = None, **sampling: Any) -> list[Any]:
    """All events; a ``BackendError`` is the last of them."""

    async def collect() -> list[Any]:
        events: list[Any] = []
        try:
            async with aclosing(llm.generate(messages or QUESTION, Sampling(**sampling))) as stream:
                async for event in stream:
                    events.append(event)
        except BackendError as error:
            events.append(error)
        return events

    return asyncio.run(collect())


def failure(llm: OpenAIChat, messages: list[Message] | None = None) -> BackendError:
    *before, error = ask(llm, messages)
    assert isinstance(error, BackendError) and before == []
    return error


def test_an_answer_streams_and_ends_with_usage(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(*answer("Hel", "lo."))
    events = ask(OpenAIChat(server.url, "m", api_key=KEY), max_tokens=50, seed=3)
    assert events == [TextDelta("Hel"), TextDelta("lo."), Finished("stop", 9, 4, 2)]
    (body,) = server.chats
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "my private question"},
    ]
    assert (body["model"], body["max_tokens"], body["seed"], body["stream"]) == ("m", 50, 3, True)
    assert server.keys == [f"Bearer {KEY}"]


WEATHER = ToolSpec("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}})


def called(*parts: dict, reason: str | None = None) -> dict:
    """A chunk with parts of calls."""
    chunk = delta(reason=reason)
    chunk["choices"][0]["delta"] = {"tool_calls": list(parts)}
    return chunk


def ask_with_tools(server: Server, *choice: str) -> list[Any]:
    async def collect() -> list[Any]:
        events: list[Any] = []
        try:
            async for event in OpenAIChat(server.url, "m").generate(QUESTION, Sampling(), [WEATHER], *choice):
                events.append(event)
        except BackendError as error:
            events.append(error)
        return events

    return asyncio.run(collect())


def test_calls_come_whole_after_their_parts(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(
        delta("Let me see."),
        called({"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}),
        called({"index": 0, "function": {"arguments": '{"city": '}}, {"index": 1, "id": "c2"}),
        called({"index": 0, "function": {"arguments": '"Rome"}'}}),
        called({"index": 1, "function": {"name": "weather"}}, reason="tool_calls"),
        usage(),
        "data: [DONE]\n\n",
    )
    assert ask_with_tools(server, "required") == [
        TextDelta("Let me see."),
        ToolCall("c1", "weather", '{"city": "Rome"}'),
        ToolCall("c2", "weather", "{}"),
        Finished("stop", 9, 4, 2),
    ]
    (body,) = server.chats
    assert body["tools"][0]["function"]["name"] == "weather" and body["tool_choice"] == "required"


def test_a_tool_can_be_named_and_a_tool_that_is_not_there_cannot(server: Server) -> None:
    ask_with_tools(server, "weather")
    assert server.chats[0]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    with pytest.raises(ConfigError, match="tool choice"):
        ask_with_tools(server, "wether")


@pytest.mark.parametrize(
    ("name", "arguments"), [("weather", '{"city": '), ("weather", "[1]"), ("storm", "{}")]
)
def test_a_call_that_no_tool_can_take_is_an_error(server: Server, name: str, arguments: str) -> None:
    part = {"index": 0, "id": "c1", "function": {"name": name, "arguments": arguments}}
    server.behave = lambda handler, body: handler.stream(called(part), delta(reason="stop"))
    (error,) = ask_with_tools(server)
    assert isinstance(error, BackendError) and "call of a tool" in str(error)
    server.behave = lambda handler, body: handler.stream(called(part), delta(reason="length"))
    assert ask_with_tools(server) == [Finished("length")]  # cut: there is no call yet


def test_what_is_no_part_of_a_call(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(called("c1"))  # type: ignore[arg-type]
    (error,) = ask_with_tools(server)
    assert "sent no chat completion" in str(error)


def test_a_call_written_as_text_is_a_call(server: Server) -> None:
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    server.behave = lambda handler, body: handler.stream(*answer("Well. ", *written, "It is sunny."))
    words, call, finished = ask_with_tools(server)
    assert (words, call.arguments, finished.reason) == (TextDelta("Well. "), '{"city": "Rome"}', "stop")
    server.behave = lambda handler, body: handler.stream(*answer("{ not a call"))
    assert ask_with_tools(server)[:2] == [TextDelta("{"), TextDelta(" not a call")]


def test_length_is_told(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(*answer("long", reason="length"))
    assert ask(OpenAIChat(server.url, "m"))[-1].reason == "length"


def test_no_key_of_the_environment_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(OpenAIChat(server.url, "m"))
    assert KEY not in str(server.keys)


def test_without_a_name_the_first_model_is_asked_for_once(server: Server) -> None:
    llm = OpenAIChat(server.url)

    async def twice() -> None:
        for _ in range(2):
            async for _ in llm.generate(QUESTION, Sampling()):
                pass

    asyncio.run(twice())
    assert [body["model"] for body in server.chats] == ["first", "first"]
    assert [path for path, _ in server.seen].count("/v1/models") == 1


@pytest.mark.parametrize(("models", "says"), [([], "llm.name"), (None, "HTTP 404")])
def test_a_server_without_models(server: Server, models: list[str] | None, says: str) -> None:
    server.models = models
    error = failure(OpenAIChat(server.url))
    assert says in str(error) and not error.retryable


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    error = failure(OpenAIChat(url, "m"))
    assert url in str(error) and "cannot be reached" in str(error) and error.retryable


def test_warm_shows_that_a_server_is_down() -> None:
    llm = OpenAIChat("http://127.0.0.1:9/v1", "m")
    with pytest.raises(BackendError, match="cannot be reached"):
        asyncio.run(llm.warm([QUESTION[0]]))


def test_warm_sends_the_prompt_and_wants_one_token(server: Server) -> None:
    asyncio.run(OpenAIChat(server.url, "m").warm([QUESTION[0]]))
    (body,) = server.chats
    assert body["max_tokens"] == 1 and [m["role"] for m in body["messages"]] == ["system", "user"]


def test_a_server_that_never_answers(server: Server) -> None:
    def behave(handler: Handler, body: dict) -> None:
        server.hang.wait()

    server.behave = behave
    error = failure(OpenAIChat(server.url, "m", timeout_s=0.1))
    assert "no answer within 0.1 s" in str(error) and "llm.timeout_s" in str(error) and error.retryable


def test_a_server_that_keeps_the_line_alive_but_writes_nothing(server: Server) -> None:
    def behave(handler: Handler, body: dict) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(f"data: {json.dumps(delta('Hel'))}\n\n".encode())
        while not server.hang.wait(0.02):
            handler.wfile.write(b": still here\n\n")
            handler.wfile.flush()

    server.behave = behave
    first, error = ask(OpenAIChat(server.url, "m", timeout_s=0.3))
    assert first == TextDelta("Hel") and "fell silent for 0.3 s" in str(error) and error.retryable


def test_a_line_that_is_dropped_mid_answer(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(delta("Hel"), delta("lo"), end=False)
    *before, error = ask(OpenAIChat(server.url, "m"))
    assert before == [TextDelta("Hel"), TextDelta("lo")]
    assert "dropped the line in the middle" in str(error) and error.retryable
    assert len(server.chats) == 1  # no second try: the words would be said twice


def test_an_answer_that_ends_politely_but_too_early(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(delta("Hel"))
    *before, error = ask(OpenAIChat(server.url, "m"))
    assert before == [TextDelta("Hel")] and "broke off in the middle" in str(error) and error.retryable


def test_a_line_that_is_dropped_before_the_answer_is_tried_once_more(server: Server) -> None:
    def behave(handler: Handler, body: dict) -> None:
        handler.drop() if len(server.chats) == 1 else handler.stream(*answer("hi"))

    server.behave = behave
    assert ask(OpenAIChat(server.url, "m"))[0] == TextDelta("hi")
    server.behave = lambda handler, body: handler.drop()
    server.seen.clear()
    assert "cannot be reached" in str(failure(OpenAIChat(server.url, "m")))
    assert len(server.chats) == 2


@pytest.mark.parametrize(
    ("status", "retryable", "says"),
    [
        (400, False, "refused the request (HTTP 400: because)"),
        (401, False, "llm.api_key"),
        (403, False, "llm.api_key"),
        (404, False, "llm.name"),
        (429, True, "try later"),
        (500, True, "failed (HTTP 500: because)"),
        (503, True, "its log should say why"),
    ],
)
def test_refusals(server: Server, status: int, retryable: bool, says: str) -> None:
    server.behave = refuse(status, "because")
    error = failure(OpenAIChat(server.url, "m", api_key=KEY))
    assert says in str(error) and error.retryable is retryable
    assert server.url in str(error) and len(server.chats) == 1


def test_neither_the_key_nor_the_question_is_in_any_message(server: Server) -> None:
    for status in (400, 401, 404, 429, 500):
        server.behave = refuse(status, f"bad key {KEY} " + "x" * 1000)
        error = failure(OpenAIChat(server.url, "m", api_key=KEY))
        assert KEY not in str(error) and "private" not in str(error) and len(str(error)) < 500
        assert error.__suppress_context__  # a traceback shows no more

    address = server.url.replace("http://", "http://user:pass-word@") + "?token=hidden"
    server.behave = refuse(400, "because of pass-word")
    said = str(failure(OpenAIChat(address, "m")))
    assert "pass-word" not in said and "hidden" not in said


def test_an_error_within_the_stream(server: Server) -> None:
    server.behave = lambda handler, body: handler.stream(
        delta("Hel"), {"error": {"message": "out of memory"}}
    )
    first, error = ask(OpenAIChat(server.url, "m"))
    assert first == TextDelta("Hel") and "failed: out of memory" in str(error)


@pytest.mark.parametrize(
    "behave",
    [
        lambda handler, body: handler.answer(200, "<html>Welcome</html>", "text/html"),
        lambda handler, body: handler.answer(200, {"choices": [{"message": {"content": "whole"}}]}),
        lambda handler, body: handler.stream("data: {not json}\n\n"),
        lambda handler, body: handler.stream("data: [1, 2]\n\n"),
        lambda handler, body: handler.stream('data: "word"\n\n'),
        lambda handler, body: handler.stream(delta() | {"choices": [{"delta": {"content": [1]}}]}),
        lambda handler, body: handler.stream(),
        lambda handler, body: handler.answer(200, ""),
    ],
)
def test_what_is_no_chat_completion(server: Server, behave: Callable[[Handler, dict], None]) -> None:
    server.behave = behave
    error = failure(OpenAIChat(server.url, "m"))
    assert "sent no chat completion" in str(error) and "/v1" in str(error) and not error.retryable


@pytest.mark.parametrize("name", ["stream_options", "seed", "top_p", "temperature"])
def test_a_parameter_that_the_server_does_not_know_is_left_out(server: Server, name: str) -> None:
    def behave(handler: Handler, body: dict) -> None:
        if name in body:
            handler.answer(400, {"error": {"message": f"Unknown parameter: {name}"}})
        else:
            handler.stream(*answer("hi"))

    server.behave = behave
    assert ask(OpenAIChat(server.url, "m"), seed=1)[0] == TextDelta("hi")
    assert len(server.chats) == 2


def test_max_tokens_by_its_newer_name(server: Server) -> None:
    def behave(handler: Handler, body: dict) -> None:
        if "max_tokens" in body:
            refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")(handler, body)
        else:
            handler.stream(*answer("hi"))

    server.behave = behave
    assert ask(OpenAIChat(server.url, "m"), max_tokens=7)[0] == TextDelta("hi")
    assert server.chats[-1]["max_completion_tokens"] == 7


def test_a_talk_too_long_for_the_server_loses_whole_turns(server: Server) -> None:
    limit = 900  # characters

    def behave(handler: Handler, body: dict) -> None:
        if sum(len(message["content"]) for message in body["messages"]) > limit:
            refuse(400, "This model's maximum context length is 300 tokens.")(handler, body)
        else:
            handler.stream(*answer("hi"))

    server.behave = behave
    talk = [QUESTION[0]]
    for turn in range(20):
        talk += [Message("user", f"{turn} " + "q" * 48), Message("assistant", f"{turn} " + "a" * 48)]
    talk.append(Message("user", "and now?"))
    llm = OpenAIChat(server.url, "m")
    assert ask(llm, talk)[0] == TextDelta("hi")
    sent = server.chats[-1]["messages"]
    assert sent[0]["content"] == "be brief" and sent[-1]["content"] == "and now?"
    assert sent[1]["role"] == "user" and len(sent) > 4

    tries = len(server.chats)
    llm._client = OpenAIChat(server.url, "m")._client  # of the next event loop
    assert ask(llm, talk)[0] == TextDelta("hi")
    assert len(server.chats) == tries + 1  # the limit was learned


def test_a_question_that_is_always_too_long_is_an_error(server: Server) -> None:
    server.behave = refuse(400, "too long", code="context_length_exceeded")
    error = failure(OpenAIChat(server.url, "m"), [Message("user", "word " * 3000)])
    assert "refused the request" in str(error) and len(server.chats) < 20


def test_a_question_too_long_alone_loses_its_beginning(server: Server) -> None:
    ask(
        OpenAIChat(server.url, "m", context_tokens=600),
        [QUESTION[0], Message("user", "word " * 3000 + "end")],
    )
    content = server.chats[-1]["messages"][-1]["content"]
    assert content.startswith("… ") and content.endswith("end") and 500 < len(content) < 1200


def test_closing_the_answer_hangs_up(server: Server) -> None:
    hung_up = threading.Event()

    def behave(handler: Handler, body: dict) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(f"data: {json.dumps(delta('Hel'))}\n\n".encode())
        handler.wfile.flush()
        handler.connection.settimeout(10)
        if handler.connection.recv(1) == b"":
            hung_up.set()

    server.behave = behave

    async def start_and_close() -> None:
        async with aclosing(OpenAIChat(server.url, "m").generate(QUESTION, Sampling())) as events:
            assert await anext(events) == TextDelta("Hel")

    asyncio.run(start_and_close())
    assert hung_up.wait(10)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000/v1", "ftp://a/b", "http://", "http://u:secret@/v1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="should look like") as raised:
        OpenAIChat(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [  # by Qwen2.5's tokenizer, without the frame
        ("What is the longest river in South America?", 9),
        ("世界上最高的山峰是哪一座？", 8),
        ("0123456789" * 5, 50),
    ],
)
def test_the_estimate_is_not_too_small_and_not_far_too_large(text: str, tokens: int) -> None:
    assert tokens <= estimate_tokens(Message("user", text)) - 8 <= 3 * tokens
