"""A talk with the real small models over a real socket: a spoken question, its answer, and its replay."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import numpy as np
from websockets.sync.client import connect

import stepaudio
from stepaudio.core.audio import float_to_pcm16
from stepaudio.files import read_audio
from stepaudio.server.recorder import SUFFIX, replay
from tests.server.conftest import Running

RATE = 24_000
STEP = 960
QUESTION = Path(stepaudio.__file__).parent / "samples" / "question.wav"


def test_a_spoken_question_is_heard_and_answered_and_the_talk_can_be_replayed(
    real: Running, tmp_path: Path, monkeypatch
):
    settings = real.service.settings.model_copy(update={"record": tmp_path / "talks"})
    monkeypatch.setattr(real.service, "settings", settings)
    speech = read_audio(QUESTION, RATE).samples
    noise = np.random.default_rng(0).normal(0, 3e-4, 60 * RATE).astype(np.float32)
    noise[RATE // 2 : RATE // 2 + len(speech)] += speech
    events = []
    with connect(real.url.replace("http", "ws") + "/v1/realtime", compression=None, max_size=None) as client:
        update = {"type": "realtime", "audio": {"input": {"transcription": {"model": "any"}}}}
        client.send(json.dumps({"type": "session.update", "session": update}))
        began = time.monotonic()
        for at in range(0, len(noise), STEP):  # as a microphone gives it
            pcm = float_to_pcm16(noise[at : at + STEP]).astype("<i2").tobytes()
            client.send(
                json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()})
            )
            while (wait_s := began + at / RATE - time.monotonic()) > 0:
                try:
                    events.append(json.loads(client.recv(timeout=wait_s)))
                except TimeoutError:
                    break
            if any(event["type"] == "response.done" for event in events) and any(
                event["type"].endswith("transcription.completed") for event in events
            ):
                break
    assert not [event for event in events if event["type"] == "error"]
    kinds = [event["type"] for event in events]
    assert kinds.index("input_audio_buffer.speech_started") < kinds.index("input_audio_buffer.committed")
    assert kinds.index("input_audio_buffer.committed") < kinds.index("response.created")
    (heard,) = (e["transcript"] for e in events if e["type"].endswith("transcription.completed"))
    assert "capital" in heard.lower()
    done = next(event["response"] for event in events if event["type"] == "response.done")
    assert done["status"] == "completed"
    assert {"vad", "asr", "llm_ttft", "tts_ttfa", "queue", "voice_to_voice"} <= set(done["timings_ms"])
    pcm = [base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta"]
    assert sum(map(len, pcm)) > RATE  # half a second

    (file,) = (tmp_path / "talks").glob(f"*{SUFFIX}")
    end = time.monotonic() + 10
    while real.service.sockets and time.monotonic() < end:  # it is written to its end
        time.sleep(0.01)
    again = replay(file, real.service.engine.vad)
    assert again.difference is None
    assert again.changed == 0
    assert again.frames > 50
