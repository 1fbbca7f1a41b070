"""The service as a whole over real sockets: what it tells, whom it lets in, how it begins and ends."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.server import auth
from stepaudio.server.app import STUCK_S, create_app
from stepaudio.server.auth import Key
from stepaudio.server.limits import MEASURED_TOKENS
from stepaudio.tts import voices
from tests.fakes import FakeLLM
from tests.server.conftest import Running, running

KEY = "sk-step-of-the-test-000000000000"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def http(fake: Running):
    with httpx2.Client(base_url=fake.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def keyed(start):
    keys = [
        Key("all", auth.hash_of(KEY)),
        Key("tts", auth.hash_of(f"{KEY}tts"), ("speech",)),
        Key("slow", auth.hash_of(f"{KEY}slow"), requests_per_minute=2),
    ]
    service = start(keys=keys)
    with httpx2.Client(base_url=service.url, timeout=30) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def socket_url(http: httpx2.Client) -> str:
    return str(http.base_url).replace("http", "ws").rstrip("/") + "/v1/realtime?model=m"


def raw(running: Running, *lines: bytes, body: bytes = b"") -> bytes:
    """Send an HTTP request as it is; what comes back."""
    with socket.create_connection(running.address, timeout=20) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


# What it tells of itself


def test_alive_and_ready(http):
    assert http.get("/health").json()["status"] == "ok"
    ready = http.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["talks"] == {"talks": 4, "open": 0, "free": 4}
    assert ready.json() == http.get("/v1/capacity").json()
    assert set(ready.json()["paces"]) == {"activity", "hearing", "speaking", "first_token_s", "tokens_per_s"}


def test_a_model_that_hangs_is_told(fake, http):
    begun = fake.service.voice._begun
    begun[-1] = time.monotonic() - STUCK_S - 1
    try:
        ready = http.get("/ready")
        assert ready.status_code == 503
        assert (ready.json()["status"], ready.json()["stuck"]) == ("stuck", ["voice"])
    finally:
        del begun[-1]
    assert http.get("/ready").status_code == 200


def test_metrics_can_be_scraped(http):
    http.post("/v1/chat/completions", json=CHAT)
    families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    for name in (
        "voice_to_voice_latency_seconds", "time_to_first_audio_seconds", "turn_stage_seconds",
        "barge_in_stop_latency_seconds", "interruptions", "audio_underruns", "events", "errors",
        "sessions_active", "sessions_capacity", "sessions_rejected", "request_success", "asr_rtf", "tts_rtf",
        "e2e_request_latency_seconds", "time_to_first_token_seconds",
    ):  # fmt: skip
        assert f"stepaudio:{name}" in families
    assert families["stepaudio:sessions_capacity"].samples[0].value == 4
    done = [s for s in families["stepaudio:request_success"].samples if s.name.endswith("_total")]
    assert done[0].labels == {"finished_reason": "stop"} and done[0].value >= 1


def test_turns_are_counted_by_their_receipts(fake, http):
    fake.service.metrics.turn({"voice_to_voice": 480.0, "first_audio": 200.0, "asr": 90.0, "other": 1.0})
    text = http.get("/metrics").text
    assert 'stepaudio:voice_to_voice_latency_seconds_bucket{le="0.5"} 1.0' in text
    assert 'stepaudio:voice_to_voice_latency_seconds_bucket{le="0.4"} 0.0' in text
    assert 'stepaudio:turn_stage_seconds_count{stage="asr"} 1.0' in text and 'stage="vad"' not in text


def test_answers_are_told_to_tracers(fake, http, monkeypatch):
    trace = pytest.importorskip("opentelemetry.trace", reason="opentelemetry is not installed")
    told = []

    class Tracer:
        def start_span(self, name, start_time, attributes):
            told.append((name, start_time, attributes))
            return self

        def end(self, end_time):
            told.append(end_time)

    monkeypatch.setattr(trace, "get_tracer", lambda name: Tracer())
    http.post("/v1/chat/completions", json=CHAT)
    (name, began, attributes), ended = told
    assert name == "chat m" and began < ended
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"] and "hello" not in str(told)

    told.clear()
    with connect(fake.url.replace("http", "ws") + "/v1/realtime?model=m", max_size=None) as client:
        content = [{"type": "input_text", "text": "hello"}]
        item = {"type": "message", "role": "user", "content": content}
        client.send(json.dumps({"type": "conversation.item.create", "item": item}))
        client.send(json.dumps({"type": "response.create"}))
        while json.loads(client.recv(timeout=20))["type"] != "response.done":
            pass
    (name, began, attributes), ended = told
    assert name == "chat m" and began < ended
    assert "gen_ai.usage.output_tokens" in attributes
    assert attributes["stepaudio.llm_ttft_ms"] >= 0 and "hello" not in str(told)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/realtime", 426, "upgrade_required"),
        ("GET", "/v1/audio/speech", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/hibari", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/v1/audio/speech/", 404, "not_found"),
    ],
)
def test_what_is_not_there(http, method, path, status, code):
    response = http.request(method, path)
    assert response.status_code == status and response.json()["error"]["code"] == code
    assert ("allow" in response.headers) == (status == 405)


def test_every_response_has_an_id_and_says_nothing_of_the_server(http):
    seen = set()
    for path in ("/health", "/v1/models", "/v1/nothing", "/metrics", "/openapi.json"):
        headers = http.get(path).headers
        seen.add(headers["x-request-id"])
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
    assert len(seen) == 5


# Whom it lets in


def test_a_key_is_needed_for_the_api_and_for_metrics(keyed):
    for path in ("/v1/models", "/v1/capacity", "/metrics", "/v1/nothing"):
        refused = keyed.get(path)
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert keyed.get(path, headers=bearer("sk-mistaken")).status_code == 401
    assert keyed.get("/health").status_code == keyed.get("/ready").status_code == 200
    assert keyed.get("/v1/models", headers=bearer(KEY)).status_code == 200
    assert keyed.get("/v1/models", headers={"api-key": KEY}).status_code == 200


def test_a_key_for_one_thing_is_not_for_another(keyed):
    speech = {"model": "m", "voice": "alloy", "input": "hello there."}
    headers = bearer(f"{KEY}tts")
    assert keyed.post("/v1/audio/speech", json=speech, headers=headers).status_code == 200
    refused = keyed.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "missing_scope"
    assert keyed.get("/metrics", headers=headers).status_code == 403


def test_a_keys_rate_is_told_and_kept(keyed):
    headers = bearer(f"{KEY}slow")
    assert keyed.get("/v1/models", headers=headers).headers["x-ratelimit-remaining-requests"] == "1"
    keyed.get("/v1/models", headers=headers)
    refused = keyed.get("/v1/models", headers=headers)
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert keyed.get("/v1/models", headers=bearer(KEY)).status_code == 200


def test_client_secret_opens_talks_only(keyed):
    secret = keyed.post("/v1/realtime/client_secrets", json={}, headers=bearer(KEY)).json()["value"]
    assert keyed.post("/v1/chat/completions", json=CHAT, headers=bearer(secret)).status_code == 403
    again = keyed.post("/v1/realtime/client_secrets", json={}, headers=bearer(secret))
    assert again.status_code == 403
    assert keyed.get("/v1/models", headers=bearer("ek_guess")).status_code == 401


def test_pages_of_others_may_not_come(fake, http):
    for path in ("/v1/models", "/health", "/"):
        refused = http.get(path, headers={"origin": "http://evil.example"})
        assert refused.status_code == 403 and refused.json()["error"]["code"] == "unknown_origin"
        assert "access-control-allow-origin" not in refused.headers
    own = http.get("/v1/models", headers={"origin": fake.url})
    assert own.status_code == 200 and own.headers["access-control-allow-origin"] == fake.url


def test_a_page_that_is_allowed_may_ask_first(start):
    service = start({"server.origins": "https://app.example.com"}, keys=[Key("k", auth.hash_of(KEY))])
    headers = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    preflight = httpx2.options(f"{service.url}/v1/chat/completions", headers=headers)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers


def test_strange_names_are_refused(fake):
    answer = raw(fake, b"GET /v1/models HTTP/1.1", b"Host: evil.example", b"Connection: close")
    assert answer.startswith(b"HTTP/1.1 403") and b"unknown_host" in answer
    assert raw(fake, b"GET /health HTTP/1.1", b"Host: a", b"Host: b", b"Connection: close").startswith(
        b"HTTP/1.1 400"
    )


@pytest.mark.parametrize(
    ("headers", "subprotocols", "status"),
    [
        ({"Origin": "http://evil.example", "Authorization": f"Bearer {KEY}"}, [], 403),
        ({}, [], 401),
        ({"Authorization": "Bearer mistaken"}, [], 401),
        ({}, ["realtime", "openai-insecure-api-key.mistaken"], 401),
        ({"Authorization": f"Bearer {KEY}tts"}, [], 403),
    ],
)
def test_sockets_are_refused_before_they_open(keyed, headers, subprotocols, status):
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(keyed), additional_headers=headers, subprotocols=subprotocols or None)
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body)["error"]["message"] and response.headers["x-request-id"]
    assert b"mistaken" not in response.body


@pytest.mark.parametrize(
    ("headers", "subprotocols", "answered"),
    [
        ({"Authorization": f"Bearer {KEY}"}, None, None),
        ({}, ["realtime", f"openai-insecure-api-key.{KEY}", "openai-agents-sdk.0.20.0"], "realtime"),
    ],
)
def test_sockets_open_with_a_key(keyed, headers, subprotocols, answered):
    with connect(socket_url(keyed), additional_headers=headers, subprotocols=subprotocols) as talk:
        assert talk.subprotocol == answered and talk.response and talk.response.headers["x-request-id"]
        assert json.loads(talk.recv(timeout=10))["type"] == "session.created"


def test_a_talk_begins_with_the_session_of_its_secret(keyed):
    wanted = {"session": {"type": "realtime", "instructions": "Speak like a pirate."}}
    secret = keyed.post("/v1/realtime/client_secrets", json=wanted, headers=bearer(KEY)).json()["value"]
    with connect(socket_url(keyed), additional_headers=bearer(secret)) as talk:
        session = json.loads(talk.recv(timeout=10))["session"]
    assert session["instructions"] == "Speak like a pirate."


def test_no_more_talks_than_the_machine_holds(start):
    keys = [Key("a", auth.hash_of(KEY)), Key("one", auth.hash_of(f"{KEY}one"), sessions=1)]
    service = start({"server.sessions": 2}, keys=keys)
    with httpx2.Client(base_url=service.url) as http:
        url, one = socket_url(http), bearer(f"{KEY}one")

        def refused(headers: dict[str, str]) -> tuple[int, str]:
            with pytest.raises(InvalidStatus) as error:
                connect(url, additional_headers=headers)
            response = error.value.response
            assert int(response.headers["retry-after"]) > 0
            return response.status_code, json.loads(response.body)["error"]["code"]

        with connect(url, additional_headers=one) as first:
            first.recv(timeout=10)
            assert refused(one) == (429, "session_limit_reached")
            with connect(url, additional_headers=bearer(KEY)) as second:
                second.recv(timeout=10)
                assert refused(bearer(KEY)) == (503, "session_limit_reached")
                assert http.get("/ready").json()["talks"] == {"talks": 2, "open": 2, "free": 0}
        text = http.get("/metrics", headers=bearer(KEY)).text
        assert 'sessions_rejected_total{reason="capacity"} 1.0' in text


def test_talks_are_closed_with_1001_at_the_end(fake_engine):
    with (
        running(fake_engine()) as service,
        httpx2.Client(base_url=service.url) as http,
        connect(socket_url(http)) as talk,
        pytest.raises(ConnectionClosed) as closed,
    ):
        talk.recv(timeout=10)
        service.server.should_exit = True
        while True:
            talk.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001


def test_a_talk_in_mid_answer_is_closed_with_1001_at_the_deadline(fake_engine):
    with (
        running(fake_engine({"server.drain_s": 0.3}, llm=FakeLLM("One two three four. " * 30))) as service,
        httpx2.Client(base_url=service.url) as http,
        connect(socket_url(http)) as talk,
        pytest.raises(ConnectionClosed) as closed,
    ):
        talk.send('{"type": "response.create"}')
        while "output_audio.delta" not in str(talk.recv(timeout=10)):
            pass
        service.server.should_exit = True
        while True:
            talk.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001


# Hostile requests


def test_too_large_is_refused(fake, http):
    for size in (25_000_001, 100_000_000):  # below and above what any body may have
        sound = {"file": ("bomb.wav", bytes(size))}
        refused = http.post("/v1/audio/transcriptions", files=sound, data={"model": "m"})
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "request_too_large"
        assert "audio is larger than 25 MB" in refused.json()["error"]["message"]
    # Of a body that does not say how long it is, no more is kept than is allowed.
    speech = [b"POST /v1/audio/speech HTTP/1.1", b"Host: localhost", b"Content-Type: application/json"]
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    body = chunk * 3 + b"0\r\n\r\n"
    answer = raw(fake, *speech, b"Transfer-Encoding: chunked", b"Connection: close", body=body)
    assert answer.startswith(b"HTTP/1.1 413") and b"request_too_large" in answer


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"input": NaN}', b"{}" * 1000,
     b'{"model": "' + b"9" * 5000 + b'"}', b'{"input": 1' + b"0" * 5000 + b"}"],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/chat/completions", "/v1/realtime/client_secrets"])
def test_bodies_that_are_no_requests(http, path, body):
    response = http.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500 or (path.endswith("secrets") and response.status_code == 200)
    assert response.status_code == 200 or response.json()["error"]["message"]


# Beginning and end


def test_before_it_is_ready_it_says_so(start):
    let_go = threading.Event()

    class Slow(FakeLLM):
        async def warm(self, messages, tools=()):
            await asyncio.to_thread(let_go.wait)

    loading = start(llm=Slow("fine"), wait=False)
    try:
        with httpx2.Client(base_url=loading.url) as http:
            assert http.get("/health").status_code == 200
            ready = http.get("/ready")
            assert ready.status_code == 503 and ready.json()["status"] == "loading"
            refused = http.post("/v1/chat/completions", json=CHAT)
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    finally:
        let_go.set()


def test_models_that_cannot_be_loaded_are_told_to_the_owner_only(start):
    class Away(FakeLLM):
        async def warm(self, messages, tools=()):
            raise BackendError("http://10.0.0.1:8000 does not answer")

    failed = start(llm=Away())
    assert "10.0.0.1" in str(failed.service.failure)
    ready = httpx2.get(f"{failed.url}/ready")
    assert ready.status_code == 503 and "10.0.0.1" not in ready.text and ready.json()["status"] == "failed"


def test_a_bug_while_loading_is_told_too(start):
    class Broken(FakeLLM):
        async def warm(self, messages, tools=()):
            raise ZeroDivisionError

    assert "ZeroDivisionError" in str(start(llm=Broken()).service.failure)


def test_answers_under_way_are_finished_at_the_end(fake_engine):
    begun, let_go = threading.Event(), threading.Event()

    class Thinking(FakeLLM):
        async def generate(self, messages, sampling, *tools, **options):
            if sampling.max_tokens != MEASURED_TOKENS:
                begun.set()
                await asyncio.to_thread(let_go.wait)
            async for event in super().generate(messages, sampling, *tools, **options):
                yield event

    answers = []
    with running(fake_engine(llm=Thinking("Here it is."))) as service:

        def ask() -> None:
            answers.append(httpx2.post(f"{service.url}/v1/chat/completions", json=CHAT, timeout=30))

        asking = threading.Thread(target=ask)
        asking.start()
        begun.wait(10)
        service.server.should_exit = True
        while not service.service.admission.closing:
            time.sleep(0.01)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{service.url}/health")
        let_go.set()
        asking.join(20)
    assert answers[0].status_code == 200 and "Here it is." in answers[0].text


def test_talks_are_asked_to_leave_and_the_end_does_not_wait_for_ever(fake_engine):
    asked = []

    class Talk:
        async def leave(self, deadline: float) -> None:
            asked.append(deadline - time.monotonic())
            await asyncio.sleep(3600)

    with running(fake_engine({"server.drain_s": 0.2})) as service:
        service.service.sockets.add(Talk())
    assert len(asked) == 1 and 0 < asked[0] <= 0.2


def test_beyond_loopback_a_key_is_needed(fake_engine):
    with pytest.raises(ConfigError, match="stepaudio keys add"):
        create_app(fake_engine({"server.host": "0.0.0.0"}))
    with pytest.raises(ConfigError, match="shorter than 16"):
        create_app(fake_engine({"server.api_key": "1234"}))
    app = create_app(fake_engine({"server.host": "0.0.0.0", "server.api_key": KEY}))
    assert app.state.service.auth.caller(KEY).name == "configured"


def test_the_command_ends_with_the_reason(tmp_path):
    command = [sys.executable, "-m", "stepaudio", "serve", "--host", "0.0.0.0", "--set"]
    done = subprocess.run(
        [*command, f"server.keys={tmp_path / 'keys.json'}"], capture_output=True, text=True, timeout=60,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (1, 2) and done.stderr.startswith("stepaudio: ")
    assert "keys add" in done.stderr or "models pull" in done.stderr


def test_asking_does_not_load_the_server():
    code = (
        "import sys, stepaudio, stepaudio.cli, stepaudio.engine; stepaudio.cli.build_parser(); "
        "sys.exit(' '.join({'fastapi', 'uvicorn', 'starlette', 'prometheus_client'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Names of voices


def test_every_voice_of_openai_is_somebody_here():
    names = "alloy ash ballad coral echo sage shimmer verse marin cedar fable onyx nova".split()
    assert sorted(voices.OPENAI) == sorted(names)
    speakers = [voices.named(name) for name in names]
    assert len(set(speakers)) == len(names)
    assert voices.named("af_heart").id == "af_heart"
