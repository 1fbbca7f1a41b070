"""The REST shapes over real HTTP, with fakes at the engine's edges: what is sent, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import socket
import wave
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile

from stepaudio.core.audio import AudioChunk
from stepaudio.core.conversation import ToolCall
from stepaudio.core.errors import BackendError
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.files import read_audio
from stepaudio.llm.base import Finished, TextDelta
from stepaudio.recognition.base import Segment, Transcript, Word
from stepaudio.server.encoders import encode
from stepaudio.server.limits import MEASURED_TOKENS
from stepaudio.server.rest.chat import StopCutter
from stepaudio.server.rest.speech import manner_of
from tests.fakes import FakeLLM
from tests.server.conftest import Beeper, Running

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
SPEECH = {"model": "tts-1", "voice": "alloy", "input": "one two three four."}


@pytest.fixture(scope="module")
def http(fake: Running):
    with httpx2.Client(base_url=fake.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def client(fake: Running):
    with openai.OpenAI(base_url=f"{fake.url}/v1", api_key="not-needed", max_retries=0) as client:
        yield client


class Later(FakeLLM):
    """Says its script when it has been measured."""

    async def generate(self, messages, sampling, *tools, **options):
        if sampling.max_tokens == MEASURED_TOKENS:
            yield TextDelta("fine")
            yield Finished("stop")
            return
        async for event in super().generate(messages, sampling, *tools, **options):
            yield event


def events(text: str) -> list[Any]:
    rows = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [row if row == "[DONE]" else json.loads(row) for row in rows]


def assert_refused(response: httpx2.Response, status: int, code: str | None, param: str | None = None) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code and error["param"] == param and error["message"]
    assert response.headers["x-request-id"].startswith("req_")
    return error["message"]


# Models


def test_models_are_listed_and_found(client, http):
    ids = [model.id for model in client.models.list()]
    assert ids == ["qwen2.5-0.5b", "whisper-base", "kokoro-82m", "hibari"]
    assert client.models.retrieve("hibari").object == "model"
    assert_refused(http.get("/v1/models/gpt-4o"), 404, "model_not_found", "model")
    assert_refused(http.get("/v1/models/a/b%2Fc"), 404, "model_not_found", "model")


def test_strict_service_knows_only_its_models(start):
    strict = start({"server.strict_models": True})
    with httpx2.Client(base_url=strict.url) as http:
        assert_refused(http.post("/v1/chat/completions", json=CHAT), 404, "model_not_found", "model")
        assert_refused(http.post("/v1/audio/speech", json=SPEECH), 404, "model_not_found", "model")
        assert http.post("/v1/chat/completions", json={**CHAT, "model": "qwen2.5-0.5b"}).status_code == 200


# Speech


@pytest.mark.parametrize(
    ("format", "media"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("flac", "audio/flac"), ("wav", "audio/wav")],
)
def test_speech_in_every_format(client, format, media):
    with client.audio.speech.with_streaming_response.create(**SPEECH, response_format=format) as response:
        data = b"".join(response.iter_bytes())
    assert response.headers["content-type"].startswith(media)
    sound = read_audio(data, 24_000)
    assert sound.seconds == pytest.approx(0.4, abs=0.06)  # mp3 fills up its frames
    assert np.abs(sound.samples[3000:8000]).mean() == pytest.approx(0.1, abs=0.02) or format in (
        "mp3",
        "opus",
    )
    assert len(soundfile.read(io.BytesIO(data))[0]) > 0


def test_speech_as_pcm_is_16_bit_at_24_khz(client):
    with client.audio.speech.with_streaming_response.create(**SPEECH, response_format="pcm") as response:
        samples = np.frombuffer(b"".join(response.iter_bytes()), "<i2")
    assert len(samples) == 9600 and set(samples) == {3277}


def test_speech_as_events(http):
    response = http.post(
        "/v1/audio/speech", json={**SPEECH, "response_format": "pcm", "stream_format": "sse"}
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(response.text)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert sum(len(base64.b64decode(event["audio"])) for event in deltas) == 2 * 9600
    assert done == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 19, "output_tokens": 8, "total_tokens": 27},
    }


def test_streamed_wav_says_until_the_end_and_a_whole_one_its_length(http):
    streamed = http.post("/v1/audio/speech", json={**SPEECH, "response_format": "wav"}).content
    assert streamed[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(encode(AudioChunk(np.zeros(100, np.float32), 24_000), "wav"))) as whole:
        assert whole.getnframes() == 100


@pytest.mark.parametrize(
    ("change", "code", "param", "says"),
    [
        ({"response_format": "aac"}, "unsupported_format", "response_format", "mp3"),
        ({"response_format": "mp4"}, "invalid_value", "response_format", "mp3"),
        ({"voice": "af_heard"}, "invalid_value", "voice", "af_heart"),
        ({"voice": {"id": "nobody"}}, "invalid_value", "voice", "voice"),
        ({"speed": 3.0}, "invalid_value", "speed", "0.5 to 2"),
        ({"speed": "NaN"}, "invalid_value", "speed", ""),
        ({"input": ""}, "invalid_value", "input", ""),
        ({"input": "x" * 4097}, "invalid_value", "input", "4096"),
        ({"input": None}, "invalid_value", "input", ""),
        ({"input": "\ud800"}, "invalid_value", "input", ""),
        ({"model": 5}, "invalid_value", "model", ""),
    ],
)
def test_speech_that_is_refused(http, change, code, param, says):
    body = json.dumps({**SPEECH, **change})
    response = http.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert says in assert_refused(response, 400, code, param)


def test_fields_that_are_missing_are_named(http):
    assert_refused(
        http.post("/v1/audio/speech", json={"model": "m"}), 400, "missing_required_parameter", "input"
    )
    assert_refused(http.post("/v1/audio/speech", content=b"{"), 400, "invalid_value")
    broken = http.post("/v1/audio/speech", content=b"{", headers={"content-type": "application/json"})
    assert assert_refused(broken, 400, "invalid_json") == "the request is not valid JSON"


def test_text_without_anything_to_say_is_refused(start):
    mute = start(speaker=Beeper(mute="!"))
    response = httpx2.post(f"{mute.url}/v1/audio/speech", json={**SPEECH, "input": "!!!"})
    assert_refused(response, 400, "invalid_value")


def test_tags_in_the_text_are_followed_and_not_spoken(start):
    speaker = Beeper()
    with_tags = start(speaker=speaker)
    body = {**SPEECH, "input": "(very fast) hello （四川话） there (I think).", "speed": 0.8}
    assert httpx2.post(f"{with_tags.url}/v1/audio/speech", json=body).status_code == 200
    hello, there = speaker.clauses[-2:]
    assert (hello.text, hello.style) == ("hello", SpeechStyle(speed=1.5))
    assert (there.text, there.style.dialect) == ("there (I think).", "cmn-sichuan")


def test_ssml_is_known_by_its_first_element(start):
    speaker = Beeper()
    with_ssml = start(speaker=speaker)
    body = {**SPEECH, "input": '<speak><prosody rate="80%">a &lt; b</prosody></speak>'}
    assert httpx2.post(f"{with_ssml.url}/v1/audio/speech", json=body).status_code == 200
    assert (speaker.clauses[-1].text, speaker.clauses[-1].style.speed) == ("a < b", 0.8)
    body["input"] = "a <b or (b"
    assert httpx2.post(f"{with_ssml.url}/v1/audio/speech", json=body).status_code == 200
    assert speaker.clauses[-1].text == "a <b or (b"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("input", "(happy)(sad) hello"),
        ("input", "<speak>hello"),
        ("input", '<speak><break time="long"/></speak>'),
        ("instructions", "[happy 7]"),
    ],
)
def test_what_is_wrong_with_a_tag_is_told(http, field, text):
    response = http.post("/v1/audio/speech", json={**SPEECH, field: text})
    assert_refused(response, 400, "invalid_value", field)


@pytest.mark.parametrize(
    ("asked", "style", "told"),
    [
        ("Speak slowly and clearly.", SpeechStyle(speed=0.75), "speed=0.75, words not followed: 1"),
        ("Talk fast, please", SpeechStyle(speed=1.25), "speed=1.25"),
        ("请说慢一点", SpeechStyle(speed=0.75), "speed=0.75"),
        ("Speak in a cheerful tone", SpeechStyle(emotion="happy"), "emotion=happy"),
        ("whisper", SpeechStyle(mode="whisper"), "mode=whisper"),
        ("happy, slowly", SpeechStyle(emotion="happy", speed=0.75), "emotion=happy, speed=0.75"),
        (
            "（撒娇2）（慢速1）",
            SpeechStyle("playful", 2, speed=0.9),
            "emotion=playful, intensity=2, speed=0.9",
        ),
        ("not too fast", NO_STYLE, "ignored"),
        ("first slow, then fast", NO_STYLE, "ignored"),
        ("不要太快", NO_STYLE, "ignored"),
        ("breakfast news", NO_STYLE, "ignored"),
        ("be glad", NO_STYLE, "ignored"),
    ],
)
def test_of_instructions_what_names_a_tag_is_followed(asked, style, told):
    assert manner_of(asked) == (style, told)


def test_what_became_of_instructions_is_told(http):
    slow = http.post("/v1/audio/speech", json={**SPEECH, "instructions": "speak slowly"})
    assert slow.headers["x-stepaudio-instructions"] == "speed=0.75"
    glad = http.post("/v1/audio/speech", json={**SPEECH, "instructions": "be glad"})
    assert glad.headers["x-stepaudio-instructions"] == "ignored"
    assert "x-stepaudio-instructions" not in http.post("/v1/audio/speech", json=SPEECH).headers


# Transcriptions


class Timed:
    """A recogniser with times."""

    languages = ("en", "zh")

    def transcribe(self, audio: AudioChunk, **options: Any) -> Transcript:
        word = (Word("hello", 100, 400),) if options.get("words") else ()
        return Transcript("hello", options.get("language") or "en", (Segment("hello", 100, 500, word),))


@pytest.fixture(scope="module")
def timed(start):
    with httpx2.Client(base_url=start(recognizer=Timed()).url) as client:
        yield client


def post_audio(client: httpx2.Client, data: bytes, **fields: Any) -> httpx2.Response:
    return client.post(
        "/v1/audio/transcriptions", files={"file": ("a.wav", data)}, data={"model": "whisper-1", **fields}
    )


def test_transcription_as_json_and_text(timed, question_wav):
    assert post_audio(timed, question_wav).json() == {
        "text": "hello",
        "usage": {"type": "duration", "seconds": 1},
    }
    text = post_audio(timed, question_wav, response_format="text")
    assert text.text == "hello\n" and text.headers["content-type"].startswith("text/plain")


def test_transcription_as_subtitles(timed, question_wav):
    srt = post_audio(timed, question_wav, response_format="srt").text
    assert srt == "1\n00:00:00,100 --> 00:00:00,500\nhello\n\n"
    assert post_audio(timed, question_wav, response_format="vtt").text.startswith("WEBVTT\n\n00:00:00.100")


def test_verbose_json_has_what_was_asked_for(timed, question_wav):
    plain = post_audio(timed, question_wav, response_format="verbose_json").json()
    assert (plain["task"], plain["language"], plain["duration"]) == ("transcribe", "english", 1.0)
    assert plain["segments"][0]["start"] == 0.1 and "words" not in plain
    words = post_audio(
        timed, question_wav, response_format="verbose_json", **{"timestamp_granularities[]": "word"}
    ).json()
    assert words["words"] == [{"word": "hello", "start": 0.1, "end": 0.4}] and "segments" not in words


def test_transcription_as_events(timed, question_wav):
    delta, done = events(post_audio(timed, question_wav, stream="true").text)
    assert delta == {"type": "transcript.text.delta", "delta": "hello"}
    assert done["type"] == "transcript.text.done" and done["text"] == "hello"


@pytest.mark.parametrize("language", ["zh", "zh-CN", "Chinese", "cmn"])
def test_languages_by_their_names(timed, question_wav, language):
    answer = post_audio(timed, question_wav, response_format="verbose_json", language=language)
    assert answer.json()["language"] == "chinese"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": "diarized_json"}, "unsupported_value", "response_format"),
        ({"response_format": "xml"}, "invalid_value", "response_format"),
        ({"language": "fr"}, "unsupported_language", "language"),
        ({"temperature": "2"}, "invalid_value", "temperature"),
        ({"timestamp_granularities[]": "letter"}, "invalid_value", "timestamp_granularities[]"),
    ],
)
def test_transcription_that_is_refused(timed, question_wav, fields, code, param):
    assert_refused(post_audio(timed, question_wav, **fields), 400, code, param)


def test_a_path_or_address_is_no_file(timed):
    for given in ("/etc/passwd", "http://127.0.0.1/a.wav", "file:///etc/passwd"):
        response = timed.post("/v1/audio/transcriptions", data={"file": given, "model": "m"})
        assert_refused(response, 400, "invalid_value", "file")


# Chat completions


def test_chat_answers(client, fake):
    answer = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "It is a test. Really."
    assert answer.choices[0].finish_reason == "stop" and answer.model == "gpt-4o-mini"
    assert [message.role for message in fake.service.engine.llm.asked[-1]] == ["system", "user"]


def test_chat_streams(client):
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "It is a test. Really."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_own_system_prompt_takes_the_place_of_the_built_in_one(client, fake):
    client.chat.completions.create(
        model="m", messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    assert [(m.role, m.text) for m in fake.service.engine.llm.asked[-1]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_chat_hears(client, fake, question_wav):
    data = base64.b64encode(question_wav).decode()
    parts = [
        {"type": "text", "text": "Listen:"},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}},
    ]
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert fake.service.engine.llm.asked[-1][-1].text == "Listen: what is it? what is it?"


def test_chat_speaks_and_remembers_what_it_said(client, fake):
    answer = client.chat.completions.create(
        **CHAT, modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}
    )
    message = answer.choices[0].message
    assert message.content is None and message.audio.transcript == "It is a test. Really."
    assert read_audio(base64.b64decode(message.audio.data), 24_000).seconds == pytest.approx(0.5)
    client.chat.completions.create(
        model="m",
        messages=[
            *CHAT["messages"],
            {"role": "assistant", "audio": {"id": message.audio.id}},
            {"role": "user", "content": "Why?"},
        ],
    )
    assert fake.service.engine.llm.asked[-1][2].text == "It is a test. Really."


def test_chat_speaks_as_a_stream(client):
    chunks = list(
        client.chat.completions.create(
            **CHAT, modalities=["text", "audio"], audio={"voice": "nova", "format": "pcm16"}, stream=True
        )
    )
    audio = [chunk.model_dump()["choices"][0]["delta"].get("audio") or {} for chunk in chunks]
    assert audio[0]["id"].startswith("audio_")
    assert "".join(part.get("transcript") or "" for part in audio) == "It is a test. Really."
    assert sum(len(base64.b64decode(part.get("data") or "")) for part in audio) == 2 * 24_000 // 2
    assert audio[-2]["expires_at"] > 0 and chunks[-1].choices[0].finish_reason == "stop"


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "time_in",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def test_chat_calls_tools_and_gets_their_results(start):
    llm = Later(ToolCall("call_1", "time_in", '{"city":"Paris"}'), Finished("stop", 10, 2, 5))
    with openai.OpenAI(base_url=f"{start(llm=llm).url}/v1", api_key="x", max_retries=0) as client:
        choice: Any = {"type": "function", "function": {"name": "time_in"}}
        answer = client.chat.completions.create(**CHAT, tools=[TOOL], tool_choice=choice)
        call: Any = (answer.choices[0].message.tool_calls or [None])[0]
        assert answer.choices[0].finish_reason == "tool_calls"
        assert (call.id, call.function.name, call.function.arguments) == (
            "call_1",
            "time_in",
            '{"city":"Paris"}',
        )
        assert answer.usage.prompt_tokens == 10 and answer.usage.prompt_tokens_details.cached_tokens == 2
        assert llm.options["tools"][0][0].name == "time_in" and llm.options["tools"][1] == "time_in"
        chunks = list(client.chat.completions.create(**CHAT, tools=[TOOL], stream=True))
        delta: Any = chunks[1].choices[0].delta
        assert delta.tool_calls[0].function.name == "time_in"
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        history: Any = [
            *CHAT["messages"],
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        ]
        client.chat.completions.create(model="m", messages=history, tools=[TOOL])
    asked = llm.asked[-1]
    assert asked[-2].calls == (ToolCall("call_1", "time_in", '{"city":"Paris"}'),)
    assert (asked[-1].role, asked[-1].text, asked[-1].call_id) == ("tool", "noon", "call_1")


def test_stop_ends_the_text(http):
    answer = http.post("/v1/chat/completions", json={**CHAT, "stop": ["test", "x"]}).json()
    assert answer["choices"][0]["message"]["content"] == "It is a "


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        (["one STOP two"], ["STOP"], "one "),
        (["one ST", "OP two"], ["STOP"], "one "),
        (["one ST", "ONE"], ["STOP"], "one STONE"),
        (["abc"], ["c", "b"], "a"),
        (["a", "a", "b"], ["aab"], ""),
        (["plain"], [], "plain"),
    ],
)
def test_stop_in_pieces(pieces, stops, shown):
    cutter = StopCutter(stops)
    text = ""
    for piece in pieces:
        text += cutter.push(piece)
        if cutter.stopped:
            break
    assert text + cutter.flush() == shown


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", "messages"),
        ({"n": 2}, "invalid_value", "n"),
        ({"messages": [{"role": "user", "content": 1}]}, "invalid_value", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        ({"logprobs": True}, "invalid_value", "logprobs"),
        ({"response_format": {"type": "json_object"}}, "unsupported_value", "response_format"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"modalities": ["audio"], "audio": {"format": "aac"}}, "unsupported_format", "response_format"),
        (
            {"modalities": ["audio"], "audio": {"format": "mp3"}, "stream": True},
            "unsupported_value",
            "audio.format",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "invalid_value",
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "audio_url", "audio_url": {"url": "http://169.254.169.254/a.wav"}}
                        ],
                    }
                ]
            },
            "invalid_value",
            "messages[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_audio", "input_audio": {"data": "/etc/passwd", "format": "wav"}}
                        ],
                    }
                ]
            },
            "invalid_value",
            "messages[0]",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "missing_required_parameter", "messages[0]"),
        (
            {"messages": [{"role": "assistant", "audio": {"id": "audio_x"}}]},
            "audio_not_found",
            "messages[0].audio.id",
        ),
    ],
)
def test_chat_that_is_refused(http, change, code, param):
    response = http.post("/v1/chat/completions", json={**CHAT, **change})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["param"] == param


# Failures


def test_a_model_that_fails_is_told_without_innards(start):
    secret = "secret at /home/me and http://10.0.0.1"
    failing = start(llm=Later("A start. ", BackendError(secret)))
    failing_first = start(llm=Later(BackendError(secret, retryable=True)))
    broken = start(llm=Later(RuntimeError(secret)))
    for running, status, code in (
        (failing, 500, "engine_failed"),
        (failing_first, 503, "overloaded"),
        (broken, 500, "internal"),
    ):
        response = httpx2.post(f"{running.url}/v1/chat/completions", json=CHAT)
        assert "secret" not in assert_refused(response, status, code)
    streamed = httpx2.post(f"{failing.url}/v1/chat/completions", json={**CHAT, "stream": True})
    assert streamed.status_code == 200
    last = events(streamed.text)[-1]
    assert last["error"]["code"] == "engine_failed" and "secret" not in streamed.text


def test_logs_hold_no_contents(start, caplog):
    caplog.set_level("DEBUG")
    broken = start(llm=Later(RuntimeError("quokka in the message")))
    body = {"model": "m", "messages": [{"role": "user", "content": "my password is quokka"}]}
    httpx2.post(f"{broken.url}/v1/chat/completions", json=body, headers={"authorization": "Bearer quokka"})
    httpx2.post(f"{broken.url}/v1/audio/speech?key=quokka", json={**SPEECH, "input": "say quokka"})
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("stepaudio", "uvicorn"))]
    assert any("RuntimeError" in line for line in ours)
    assert not any("quokka" in line for line in ours)


def test_a_client_that_goes_away_stops_the_work(start):
    speaker = Beeper()
    slow = start(speaker=speaker)
    body = json.dumps({**SPEECH, "input": "word " * 800, "response_format": "wav"}).encode()
    with socket.create_connection(slow.address) as raw:
        raw.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: "
            + b"localhost"
            + b"\r\nContent-Type: application/json\r\nContent-Length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body
        )
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
        # While this client reads no more, others are served.
        answer = httpx2.post(f"{slow.url}/v1/audio/speech", json=SPEECH)
        assert answer.status_code == 200
    with httpx2.Client(base_url=slow.url) as http:
        for _ in range(200):
            running = http.get("/metrics").text.split("\nstepaudio:num_requests_running ")[1].split("\n")[0]
            if running == "0.0":
                break
        assert running == "0.0"


def test_a_client_that_reads_nothing_is_dropped(start, monkeypatch):
    monkeypatch.setattr("stepaudio.server.rest.shared.READ_S", 0.2)
    slow = start()
    body = json.dumps({**SPEECH, "input": "word " * 800, "response_format": "wav"}).encode()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(slow.address)
        length = str(len(body)).encode()
        head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(head + b"Content-Length: " + length + b"\r\n\r\n" + body)
        with httpx2.Client(base_url=slow.url) as http:
            for _ in range(1000):
                count = 'request_latency_seconds_count{route="/v1/audio/speech"} 1.0'
                if count in http.get("/metrics").text:
                    break
            else:
                pytest.fail("the client was not dropped")
    assert slow.service.admission.running == 0


# Client secrets


def test_client_secret_holds_a_session(client):
    made = client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"voice": "marin"}}},
    )
    assert made.value.startswith("ek_") and made.session.instructions == "Be brief."
    assert made.session.audio.output.voice == "marin" and made.session.audio.input.format.rate == 24_000


def test_client_secret_of_a_transcription(http):
    answer = http.post("/v1/realtime/client_secrets", json={"session": {"type": "transcription"}}).json()
    assert answer["session"]["object"] == "realtime.transcription_session"


@pytest.mark.parametrize(
    "body",
    [
        {"expires_after": {"seconds": 5}},
        {"expires_after": {"seconds": 7201}},
        {"session": {"type": "other"}},
        {"session": {"type": "realtime", "output_modalities": ["smell"]}},
    ],
)
def test_client_secret_that_is_refused(http, body):
    assert http.post("/v1/realtime/client_secrets", json=body).status_code == 400
