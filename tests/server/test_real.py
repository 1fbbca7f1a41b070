"""The whole path with the real small models, through the official client: spoken, heard, answered."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest

import stepaudio
from stepaudio.core.audio import AudioChunk
from stepaudio.files import read_audio
from stepaudio.server import limits

QUESTION = Path(stepaudio.__file__).parent / "samples" / "question.wav"
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


LONG = (
    "On Monday the baker opened his shop at six in the morning. He sold forty loaves of bread before noon. "
    "In the afternoon a heavy rain began, and the river rose above the old stone bridge. "
    "The children of the village stayed at home and read books about dragons and distant islands. "
    "Their teacher had gone to the city to buy paper, pencils and a large map of the world. "
    "When the clouds parted, a rainbow stood over the church tower for nearly ten minutes. "
    "An old farmer said that he had never seen such colours in all his seventy years. "
    "Late in the evening the musicians met in the garden and played until the candles were burnt. "
    "Nobody wanted to sleep, so they told each other stories of elephants and golden castles."
)


def test_a_long_recording_comes_in_stretches_on_one_time_line(client):
    data = client.audio.speech.create(model="m", voice="auto", input=LONG, response_format="flac").read()
    assert read_audio(data).seconds > 35
    events = list(client.audio.transcriptions.create(file=("a", data), model="m", language="en", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) >= 2 and "".join(deltas) == events[-1].text
    text = events[-1].text.lower()
    places = [text.find(word) for word in ("baker", "bridge", "teacher", "farmer", "elephants")]
    assert -1 not in places and places == sorted(places)
    timed = client.audio.transcriptions.create(
        file=("a", data), model="m", language="en", response_format="verbose_json"
    )
    starts = [segment.start for segment in timed.segments]
    assert starts == sorted(starts) and starts[-1] > 28 and timed.segments[-1].end <= timed.duration + 0.5


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


def test_all_that_is_spoken_carries_the_mark(client, real):
    verify = real.service.engine.verify
    for format in ("mp3", "wav"):
        data = client.audio.speech.create(model="m", voice="marin", input=LONG[:200], response_format=format)
        assert verify(data.read()).found
    answer = client.chat.completions.create(
        model="m",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[{"role": "user", "content": "What are the names of the twelve months?"}],
    )
    assert verify(base64.b64decode(answer.choices[0].message.audio.data)).found
    with client.realtime.connect(model="m") as talk:
        talk.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "What are the names of the twelve months?"}],
            }
        )
        talk.response.create()
        pcm = b""
        for event in talk:
            if event.type == "response.output_audio.delta":
                pcm += base64.b64decode(event.delta)
            if event.type == "response.done":
                break
    sound = AudioChunk(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, 24_000)
    assert verify(sound).found
    assert not verify(QUESTION).found


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
