"""Talks in virtual time: real session, real driver; fakes where the models are.

The user's audio is a script, one sign a frame of 32 ms: "#" speech, "." silence, "~" soft noise that is none.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stepaudio.config import Config, LLMConfig
from stepaudio.core import protocol as wire
from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.conversation import Message, is_summary
from stepaudio.core.errors import AudioError, BackendError, ConfigError
from stepaudio.core.realtime import GO_ON, RealtimeSession
from stepaudio.core.wishes import granted
from stepaudio.llm.base import PromptRead
from stepaudio.recognition.base import Transcript
from stepaudio.server.recorder import Recorder, ids, replay
from stepaudio.server.talk import HUNG_S, Talk
from stepaudio.tts.base import Speech
from stepaudio.tts.voices import named
from tests.fakes import FakeLLM
from tests.realtime_talk import Invariants, counted_ids
from tests.server.virtual import InlineGate, run

RATE = 24_000
FRAME = 768  # samples at 24 kHz
LEVEL = {"#": 0.5, "~": 0.01, ".": 0.0}


class Activity:
    """Speech is what is loud."""

    def stream(self) -> Activity:
        return self

    def push(self, frame: AudioChunk) -> float:
        return 0.9 if np.abs(frame.samples).max() > 0.1 else 0.05


class Ears:
    """Hears ``words``, in turn where there are several; an exception is raised."""

    languages = ("en", "zh")

    def __init__(self, *words: str | Exception) -> None:
        self.words: list[str | Exception] = list(words)
        self.calls = 0

    def transcribe(self, audio: AudioChunk, **options: Any) -> Transcript:
        self.calls += 1
        said = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if isinstance(said, Exception):
            raise said
        return Transcript(said, "en")


class Voice:
    """Half a second a word: a ramp, so that every sample is known. ``fail_on`` a word, it raises."""

    def __init__(self, fail_on: str = "", error: Exception | None = None) -> None:
        self.fail_on, self.error = fail_on, error
        self.ahead: list[float] = []
        self.clauses: list[Clause] = []

    def speak(self, clause: Clause, *, voice: Any = None, ahead_s: float = 0.0) -> Iterator[Speech]:
        self.ahead.append(ahead_s)
        self.clauses.append(clause)
        for n, word in enumerate(clause.text.split()):
            if self.fail_on and self.fail_on in word:
                raise self.error or RuntimeError("a bug")
            ramp = np.linspace(0.1, 0.2, RATE // 2, dtype=np.float32)
            yield Speech(AudioChunk(ramp, RATE, n * RATE // 2), (Mark(word, n * 500, n * 500 + 500),))

    def voices(self) -> list[Any]:
        return [SimpleNamespace(id="af_heart")]

    def find(self, id: str) -> Any:
        return named(id)


class Stage:
    """A talk with a client that plays what it gets."""

    def __init__(
        self,
        llm: Any = None,
        ears: Ears | None = None,
        voice: Voice | None = None,
        score: Callable[[], float] = lambda: 0.95,
        ears_take_s: float = 0.05,
        voice_takes_s: float = 0.05,
        recorder: Recorder | None = None,
        new_id: Callable[[str], str] | None = None,
        config: Config | None = None,
        **session: Any,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        clock = self.loop.time
        self.llm = llm or FakeLLM("One two three four five six.")
        self.voice = voice or Voice()
        engine: Any = SimpleNamespace(
            config=config or Config(),
            vad=Activity(),
            endpointing=SimpleNamespace(score=lambda audio: score()),
            recognizer=ears or Ears("what is it?"),
            llm=self.llm,
            speaker=self.voice,
            system=Message("system", "Be brief."),
            reads_codes=False,
            granted=lambda messages: granted(messages, "Be brief."),
        )
        self.settings = wire.RealtimeSettings(instructions="Be brief.")
        if session:
            self.settings = wire.updated(self.settings, session)
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.invariants = Invariants()
        self.talk = Talk(
            RealtimeSession(self.settings, new_id or counted_ids()),
            engine,
            InlineGate("ears", clock, ears_take_s),
            InlineGate("voice", clock, voice_takes_s),
            self._sent,
            recorder=recorder,
            clock=clock,
        )
        self.samples = 0

    def _sent(self, event: wire.ServerEvent) -> None:
        data = json.loads(wire.to_json(event))
        self.invariants.server(data)
        self.events.append((self.loop.time(), data))

    async def __aenter__(self) -> Stage:
        self.talk.start()
        self.running = self.loop.create_task(self.talk.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.talk.close()
        await self.running
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left

    async def send(self, type: str, **fields: Any) -> None:
        await self.talk.receive(json.dumps({"type": type, **fields}))

    async def hear(self, script: str) -> None:
        """The user's microphone, in real (virtual) time."""
        for sign in script:
            tone = LEVEL[sign] * np.where(np.arange(FRAME) % 2, 1, -1)
            if sign != ".":  # something that the resampler lets through
                tone = LEVEL[sign] * np.sin(np.arange(self.samples, self.samples + FRAME) * 0.1)
            self.samples += FRAME
            pcm = np.rint(tone * 32767).astype("<i2").tobytes()
            await asyncio.sleep(0.032)
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    async def until(self, type: str, count: int = 1, sign: str = ".") -> dict[str, Any]:
        """Go on (with this sign) until the client has got so many events of a type."""
        for _ in range(2000):
            if len(found := self.of(type)) >= count:
                return found[count - 1]
            await self.hear(sign)
        raise AssertionError(f"no {type}; there were {[e['type'] for _, e in self.events]}")

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for _, event in self.events if event["type"] == type]

    def times(self, type: str) -> list[float]:
        return [at for at, event in self.events if event["type"] == type]

    def audio(self) -> np.ndarray:
        octets = b"".join(base64.b64decode(e["delta"]) for e in self.of("response.output_audio.delta"))
        return np.frombuffer(octets, "<i2").astype(np.float32) / 32768


QUESTION = "." * 10 + "#" * 40


def test_a_question_is_answered_and_the_answer_comes_as_it_is_heard():
    async def main() -> None:
        async with Stage() as stage:
            await stage.hear(QUESTION)
            spoken_at = stage.loop.time()
            done = await stage.until("response.done")
            assert done["response"]["status"] == "completed"
            assert len(stage.audio()) == 3 * RATE  # six words
            times = stage.times("response.output_audio.delta")
            assert times[0] - spoken_at < 0.5
            assert 2.5 < times[-1] - times[0] < 2.8  # 3 s of audio, 0.3 s ahead
            timings = done["response"]["timings_ms"]
            assert timings["voice_to_voice"] == round(1000 * (times[0] - spoken_at), 1)
            assert timings["vad"] + timings["first_audio"] == timings["voice_to_voice"]
            (user,) = (m for m in stage.llm.asked[-1] if m.role == "user")
            assert user.text == "what is it?"

    run(main)


def test_a_song_is_sung_when_it_is_asked_for():
    async def main() -> None:
        async with Stage(ears=Ears("Sing me a song about rain.")) as stage:
            await stage.hear(QUESTION)
            await stage.until("response.done")
            assert stage.voice.clauses[0].style.mode == "sing"
            assert "songwriter" in stage.llm.asked[-1][0].text

    run(main)


def test_of_an_answer_to_a_pause_nothing_is_sent():
    async def main() -> None:
        async with Stage(score=lambda: 0.05) as stage:
            await stage.hear(QUESTION + "." * 10 + "#" * 30)  # a draft was ready
            assert stage.llm.asked
            assert not stage.of("response.created")
            assert not stage.of("response.output_audio.delta")
            await stage.until("response.done")
            assert len(stage.of("response.created")) == 1

    run(main)


def test_an_interruption_silences_the_answer_and_cuts_it_to_what_was_heard():
    async def main() -> None:
        async with Stage(ears=Ears("what is it?")) as stage:
            await stage.hear(QUESTION)
            await stage.until("response.output_audio.delta")
            await stage.hear("." * 45)
            onset = stage.loop.time()
            await stage.hear("#" * 60)
            sent = stage.times("response.output_audio.delta")
            assert sent[-1] < onset + 0.4  # held after 0.1 s; what the client has lasts 0.3 s
            (done,) = stage.of("response.done")
            assert done["response"]["status"] == "cancelled"
            heard = done["response"]["output"][0]["content"][0]["transcript"]
            assert heard.split()[:3] == ["One", "two", "three"]
            assert "six" not in heard
            assert 0 < done["response"]["timings_ms"]["voice_to_voice"] < 1000
            assert done["response"]["metadata"]["stepaudio_voice_to_voice_ms"]
            await stage.until("response.done", 2)
            assert stage.of("response.done")[1]["response"]["status"] == "completed"
            assert any(
                m.role == "assistant" and m.text.startswith("One two three") for m in stage.llm.asked[-1]
            )

    run(main)


def test_a_cough_does_not_stop_the_answer_and_costs_no_sample():
    async def main() -> None:
        async with Stage(ears=Ears("")) as stage:
            stage.talk._engine.recognizer.words = ["what is it?"]  # type: ignore[attr-defined]
            await stage.hear(QUESTION)
            await stage.until("response.output_audio.delta")
            stage.talk._engine.recognizer.words = [""]  # type: ignore[attr-defined]
            await stage.hear("." * 20 + "#" * 4 + "." * 20)
            done = await stage.until("response.done")
            assert done["response"]["status"] == "completed"
            ramp = np.linspace(0.1, 0.2, RATE // 2, dtype=np.float32)
            whole = np.rint(np.concatenate([ramp] * 6) * 32768) / 32768
            got = stage.audio()
            assert len(got) == len(whole)
            assert np.mean(np.abs(got - whole) > 1e-4) < 0.02  # all but a fade of some ms

    run(main)


def test_engines_that_fail_fail_one_answer_and_the_talk_goes_on():
    class Fails(FakeLLM):
        scripts: Any = ()

        async def generate(
            self, messages: Any, sampling: Any, *a: Any, **o: Any
        ) -> AsyncGenerator[Any, None]:
            self.script = self.scripts.pop(0)
            async for event in super().generate(messages, sampling, *a, **o):
                yield event

    async def main() -> None:
        llm = Fails()
        llm.scripts = [("One two. ", BackendError("away")), (ValueError("a bug"),), ("It is good.",)]
        async with Stage(llm=llm) as stage:
            for count, status in ((1, "failed"), (2, "failed"), (3, "completed")):
                await stage.hear(QUESTION)
                done = await stage.until("response.done", count)
                assert done["response"]["status"] == status
                assert "away" not in json.dumps(done)
                await stage.hear("." * 40)

    run(main)


def test_a_voice_that_breaks_in_mid_answer():
    async def main() -> None:
        for error in (BackendError("x"), None):
            async with Stage(voice=Voice("three", error)) as stage:
                await stage.hear(QUESTION)
                done = await stage.until("response.done")
                assert done["response"]["status"] == "failed"
                assert len(stage.audio()) == RATE  # two words were spoken
                stage.voice.fail_on = ""
                await stage.hear("." * 40 + QUESTION)
                assert (await stage.until("response.done", 2))["response"]["status"] == "completed"

    run(main)


def test_ears_that_fail_tell_the_client_and_the_next_turn_is_heard():
    async def main() -> None:
        ears = Ears(BackendError("no"))
        async with Stage(ears=ears, audio={"input": {"transcription": {"model": "any"}}}) as stage:
            await stage.hear(QUESTION)
            await stage.until("response.done")
            await stage.until("conversation.item.input_audio_transcription.failed")
            ears.words = ["what is it?"]
            await stage.hear("." * 40 + QUESTION)
            await stage.until("response.done", 2)
            await stage.until("conversation.item.input_audio_transcription.completed")
            assert len(stage.audio())

    run(main)


def test_without_a_turn_model_silence_decides():
    def fails() -> float:
        raise BackendError("no")

    async def main() -> None:
        async with Stage(score=fails) as stage:
            await stage.hear(QUESTION)
            assert (await stage.until("response.done"))["response"]["status"] == "completed"

    run(main)


def test_a_mind_that_hangs_is_given_up():
    class Hangs(FakeLLM):
        async def generate(
            self, messages: Any, sampling: Any, *a: Any, **o: Any
        ) -> AsyncGenerator[Any, None]:
            await asyncio.sleep(1e6)
            yield  # pragma: no cover

    async def main() -> None:
        async with Stage(llm=Hangs()) as stage:
            await stage.hear(QUESTION)
            asked = stage.loop.time()
            done = await stage.until("response.done")
            assert done["response"]["status"] == "failed"
            assert HUNG_S - 1 < stage.loop.time() - asked < HUNG_S + 2

    run(main)


def test_words_are_shown_while_they_are_spoken():
    async def main() -> None:
        ears = Ears("what is", "what is it", "what is it to you", "what is it to you?")
        async with Stage(ears=ears, audio={"input": {"transcription": {"model": "whisper-1"}}}) as stage:
            await stage.hear("." * 10 + "#" * 80)
            shown = stage.of("conversation.item.input_audio_transcription.delta")
            assert [e["delta"] for e in shown][:2] == ["what is", " it"]
            assert not stage.of("input_audio_buffer.committed")
            done = await stage.until("conversation.item.input_audio_transcription.completed")
            assert done["transcript"] == "what is it to you?"
            assert done["item_id"] == shown[0]["item_id"]

    run(main)


def test_who_talks_goes_before_what_is_outside_the_conversation():
    wanted: list[float] = []

    class Deadlines(FakeLLM):
        async def generate(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
            wanted.append(options["deadline"])
            async for event in super().generate(*args, **options):
                yield event

    async def main() -> None:
        async with Stage(llm=Deadlines("Yes."), output_modalities=["text"]) as stage:
            await stage.send("response.create", response={"conversation": "none"})
            await stage.send("response.create")
            await stage.until("response.done", 2)
            beside, talk = wanted
            assert beside > talk + 5

    run(main)


def test_text_alone_is_not_paced():
    async def main() -> None:
        async with Stage() as stage:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
            await stage.send("conversation.item.create", item=item)
            await stage.send("response.create", response={"output_modalities": ["text"]})
            done = await stage.until("response.done")
            assert done["response"]["output"][0]["content"][0]["text"] == "One two three four five six."
            assert stage.loop.time() < 0.5
            assert not len(stage.audio())

    run(main)


def test_telephone_audio_is_as_long():
    async def main() -> None:
        async with Stage(audio={"output": {"format": {"type": "audio/pcmu"}}}) as stage:
            await stage.hear(QUESTION)
            await stage.until("response.done")
            octets = [base64.b64decode(e["delta"]) for e in stage.of("response.output_audio.delta")]
            assert sum(map(len, octets)) == 3 * 8000

    run(main)


def test_the_model_reads_ahead_while_the_user_speaks():
    async def main() -> None:
        ears = Ears("what is", "what is the", "what is the time?")
        async with Stage(ears=ears) as stage:
            await stage.hear(QUESTION + "#" * 20)
            ahead = [[m.text for m in messages] for messages in stage.llm.asked]
            assert ahead == [
                ["Be brief."],
                ["Be brief.", "what is"],
                ["Be brief.", "what is the"],
                ["Be brief.", "what is the time"],
            ]
            await stage.until("response.done")
            assert stage.llm.asked[-1][-1].text == "what is the time?"

    run(main)


@pytest.mark.parametrize("instructions", ["Be brief.", "This is turn {n}."])
def test_a_long_talk_is_summed_up_while_nobody_speaks(instructions: str):
    """Also where each answer has instructions of its own."""

    async def main() -> None:
        llm = FakeLLM("This is a rather long answer to a short question. " * 4)
        config = Config(llm=LLMConfig(context_tokens=1024, max_tokens=128))
        async with Stage(llm=llm, config=config) as stage:
            for n in range(20):
                item = {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": f"{n}?"}],
                }
                await stage.send("conversation.item.create", item=item)
                wishes = {"output_modalities": ["text"], "instructions": instructions.format(n=n)}
                await stage.send("response.create", response=wishes)
                await stage.until("response.done", n + 1)
                await stage.hear("." * 20)
            asked = next(messages for messages in llm.asked if messages[-1].text == "19?")
            assert any(is_summary(message) for message in asked)
            assert len(asked) < 20  # of 40 there were
            assert asked[0].text == instructions.format(n=19)

    run(main)


def test_who_is_told_to_go_on_keeps_the_servers_instructions():
    async def main() -> None:
        async with Stage(instructions="", output_modalities=["text"]) as stage:
            for count in (1, 2):
                await stage.send("response.create")
                await stage.until("response.done", count)
            begins, *_, ends = stage.llm.asked[-1]
            assert (begins.text, ends.text) == ("Be brief.", GO_ON)

    run(main)


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_a_talk_that_must_not_be_shortened_fails_when_it_is_too_long(truncation: str):
    async def main() -> None:
        config = Config(llm=LLMConfig(context_tokens=1024, max_tokens=128))
        async with Stage(config=config, truncation=truncation, output_modalities=["text"]) as stage:
            content = [{"type": "input_text", "text": "word " * 800}]
            item = {"type": "message", "role": "user", "content": content}
            await stage.send("conversation.item.create", item=item)
            await stage.send("response.create")
            response = (await stage.until("response.done"))["response"]
            if truncation == "auto":
                assert response["status"] == "completed"
            else:
                error = response["status_details"]["error"]
                assert (response["status"], error["code"]) == ("failed", "invalid_value")
                assert error["type"] == "invalid_request_error" and "truncation" in error["message"]

    run(main)


def test_what_the_client_asked_wrongly_is_told():
    async def main() -> None:
        async with Stage(llm=FakeLLM(ConfigError("unknown tool choice 'g'"))) as stage:
            await stage.send("response.create")
            error = (await stage.until("response.done"))["response"]["status_details"]["error"]
            assert error["message"] == "unknown tool choice 'g'"

    run(main)


def test_push_to_talk():
    async def main() -> None:
        async with Stage(audio={"input": {"turn_detection": None}}) as stage:
            await stage.hear("#" * 40)
            await stage.send("input_audio_buffer.commit")
            assert not stage.of("response.created")
            await stage.send("response.create")
            assert (await stage.until("response.done"))["response"]["status"] == "completed"
            assert len(stage.audio()) == 3 * RATE

    run(main)


def test_an_hour_of_silence_is_not_kept():
    async def main() -> None:
        async with Stage() as stage:
            await stage.hear("." * 1000)
            assert len(stage.talk._hearing._frames) < 300
            await stage.hear("~" * 1000)
            assert len(stage.talk._hearing._frames) < 300

    run(main)


def test_a_client_that_leaves_in_mid_answer_leaves_nothing_behind():
    async def main() -> None:
        async with Stage() as stage:
            await stage.hear(QUESTION)
            await stage.until("response.output_audio.delta")
        assert stage.llm.closed_early or stage.llm.said  # and no task is left: see __aexit__

    run(main)


def test_only_little_more_is_made_than_will_soon_be_heard():
    async def main() -> None:
        llm = FakeLLM(PromptRead(30, 10), *(f"This is sentence number {n} of many. " for n in range(40)))
        async with Stage(llm=llm) as stage:
            await stage.hear(QUESTION)
            await stage.until("response.output_audio.delta")
            await stage.hear("." * 100)
            assert len(stage.voice.ahead) < 4  # clauses of 3.5 s
            await stage.send("response.cancel")
            response = stage.of("response.done")[0]["response"]
            assert response["status"] == "cancelled"
            assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (30, llm.said)
            assert response["usage"]["input_token_details"]["cached_tokens"] == 10

    run(main)


async def record(path: Path) -> list[tuple[float, dict[str, Any]]]:
    """A talk with a pause, an interruption and a cough."""
    recorder = Recorder(path, wire.RealtimeSettings(instructions="Be brief."), seed=7)
    async with Stage(recorder=recorder, new_id=ids(7), llm=FakeLLM("One two three four five six.")) as stage:
        await stage.hear(QUESTION + "." * 6 + "#" * 20)
        await stage.until("response.output_audio.delta")
        await stage.hear("." * 30 + "#" * 40)
        await stage.until("response.output_audio.delta", 100)
        await stage.hear("." * 20 + "~" * 9 + "#" * 2 + "." * 9)
        await stage.until("response.done", 2)
        await stage.hear("." * 20)
    recorder.close()
    return stage.events


def test_a_recorded_talk_is_decided_again_to_the_letter(tmp_path: Path):
    path = tmp_path / "a.talk.jsonl"
    events = run(lambda: record(path))
    again = replay(path, Activity())
    assert again.difference is None
    assert again.changed == 0
    assert again.frames > 200
    lines = [line.split()[0] for _, line in again.decisions]
    assert {"draft", "release", "stop", "duck", "speech", "done"} <= set(lines)
    started = [
        f"speech started at {e['audio_start_ms']} ms"
        for _, e in events
        if e["type"].endswith("speech_started")
    ]
    assert [line for _, line in again.decisions if line.startswith("speech started")] == started
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("breaks", ["write", "close"])
def test_a_full_disk_ends_the_recording_not_the_talk(tmp_path: Path, breaks: str):
    recorder = Recorder(tmp_path / "a.talk.jsonl", wire.RealtimeSettings(), 1)
    recorder._file.close()

    def full(*line: str) -> None:
        raise OSError(28, "No space left on device")

    recorder._file = SimpleNamespace(write=full, close=full)  # type: ignore[assignment]
    if breaks == "write":
        recorder.received("{}")
        recorder.received("{}")
    recorder.close()


def test_another_decision_is_found(tmp_path: Path):
    path = tmp_path / "a.talk.jsonl"
    run(lambda: record(path))
    text = path.read_text("utf-8")
    path.write_text(text.replace('"decided":"release', '"decided":"keep', 1), "utf-8")
    then, now = replay(path, Activity()).difference or ("", "")
    assert then.startswith("keep")
    assert now.startswith("release")


def test_of_a_file_that_ends_in_the_middle_what_is_there_is_replayed(tmp_path: Path):
    path = tmp_path / "a.talk.jsonl"
    run(lambda: record(path))
    path.write_bytes(path.read_bytes()[:-1000])
    assert replay(path, Activity()).frames > 100


def test_another_file_is_no_recording(tmp_path: Path):
    for text in ("", "{}\n", "RIFF\n", '{"format":99}\n'):
        path = tmp_path / "b"
        path.write_text(text)
        with pytest.raises(AudioError):
            replay(path, Activity())
