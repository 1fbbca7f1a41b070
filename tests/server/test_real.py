"""The whole path with the real small models, through the official client: spoken, heard, answered."""

from __future__ import annotations

import base64

import httpx2
import openai
import pytest

from stepaudio.files import read_audio
from stepaudio.server import limits

SENTENCE = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(real):
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="not-needed", timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def spoken(client) -> bytes:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="marin", input=SENTENCE, response_format="wav"
    ) as response:
        return b"".join(response.iter_bytes())


def heard(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign.isalpha() or sign == " ").strip()


def test_what_is_spoken_is_heard(client, spoken):
    answer = client.audio.transcriptions.create(file=("a.wav", spoken), model="whisper-1", language="en")
    assert heard(answer.text) == heard(SENTENCE)
    assert answer.usage.seconds == pytest.approx(read_audio(spoken).seconds, abs=1)


@pytest.mark.parametrize("format", ["mp3", "opus", "flac"])
def test_coded_speech_is_heard(client, format):
    data = client.audio.speech.create(
        model="tts-1", voice="alloy", input=SENTENCE, response_format=format
    ).read()
    answer = client.audio.transcriptions.create(file=("a", data), model="whisper-1", response_format="text")
    assert heard(answer) == heard(SENTENCE)


def test_transcription_streams_and_times_words(client, spoken):
    events = list(client.audio.transcriptions.create(file=("a.wav", spoken), model="m", stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    timed = client.audio.transcriptions.create(
        file=("a.wav", spoken), model="m", response_format="verbose_json", timestamp_granularities=["word"]
    )
    starts = [word.start for word in timed.words]
    assert len(starts) == 6 and starts == sorted(starts) and timed.words[-1].end <= timed.duration


def test_a_spoken_question_gets_a_spoken_answer(client, real):
    question = client.audio.speech.create(
        model="tts-1", voice="nova", input="What is the capital of France?", response_format="wav"
    ).read()
    answer = client.chat.completions.create(
        model="gpt-4o-audio-preview",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "input_audio",
                        "input_audio": {"data": base64.b64encode(question).decode(), "format": "wav"},
                    }
                ],
            }
        ],
    )
    message = answer.choices[0].message
    assert "paris" in message.audio.transcript.lower()
    again = client.audio.transcriptions.create(
        file=("a.wav", base64.b64decode(message.audio.data)), model="whisper-1", language="en"
    )
    assert "paris" in again.text.lower()
    assert answer.usage.completion_tokens > 0


def test_a_written_question_is_answered_as_a_stream(client):
    chunks = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "What is the capital of France?"}], stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "Paris" in text


def test_the_machine_was_measured(real):
    told = httpx2.get(f"{real.url}/v1/capacity").json()
    assert real.service.paces is not None and limits.talks_of(real.service.paces) >= 1
    assert all(value > 0 for value in told["paces"].values())
