"""The engine with fakes at its edges: ask, say, transcribe, choice of the language model, diagnosis."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import stepaudio
from stepaudio import config, engine
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Mark
from stepaudio.core.conversation import Message
from stepaudio.core.errors import AudioError, BackendError, ConfigError, ModelMissing, TagError, TextError
from stepaudio.engine import LARGE, LARGE_MEMORY, SMALL, Engine
from stepaudio.llm.base import TextDelta
from stepaudio.recognition.base import Transcript
from stepaudio.respond import AudioDelta, Done
from tests.fakes import RATE, FakeLLM, FakeRecognizer, FakeSpeaker

QUESTION = AudioChunk(np.zeros(16_000, np.float32), 16_000)


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(llm=None, heard="what is it?", speaker=None, **flags) -> Engine:
        flags = {"models.root": tmp_path / "models", **flags}
        built = Engine(config.load(None, {}, flags).config)
        built.__dict__ |= {
            "llm": llm or FakeLLM("It is ", "a test. ", "Really."),
            "recognizer": FakeRecognizer(heard),
            "speaker": speaker or FakeSpeaker(),
        }
        return built

    return build


def test_ask_hears_thinks_and_speaks(make):
    seen = []
    asked = make()
    with asked:
        answer = asked.ask(
            QUESTION, history=[Message("user", "hi"), Message("assistant", "hello")], on_event=seen.append
        )
    assert answer.transcript.text == "what is it?"
    assert answer.text == "It is a test. Really." and answer.status == "completed" and answer.error is None
    assert (
        answer.audio is not None and answer.audio.rate == RATE and answer.audio.seconds == pytest.approx(0.5)
    )
    assert [mark.text for mark in answer.marks] == ["It", "is", "a", "test.", "Really."]
    assert answer.marks[-1] == Mark("Really.", 400, 500)
    assert list(answer.timings_ms) == [
        "recognition",
        "first_token",
        "first_clause",
        "voice",
        "first_audio",
        "spoken",
    ]
    messages = asked.llm.asked[0]
    assert [m.role for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[-1] == Message("user", "what is it?")
    assert isinstance(seen[0], Transcript) and isinstance(seen[-1], Done)
    assert {type(event) for event in seen} >= {TextDelta, AudioDelta}


def test_one_engine_answers_again_and_within_a_running_loop(make):
    asked = make()
    assert asked.ask(QUESTION).text == asked.ask(QUESTION).text

    async def notebook():
        return asked.ask(QUESTION).text

    assert asyncio.run(notebook()) == "It is a test. Really."
    asked.close()
    asked.close()


def test_a_model_that_fails_mid_answer_leaves_what_was_spoken(make, tmp_path):
    asked = make(llm=FakeLLM("It is a test. ", "And then", BackendError("line dropped")))
    answer = asked.ask(QUESTION)
    assert answer.status == "failed" and str(answer.error) == "line dropped"
    assert [mark.text for mark in answer.marks] == ["It", "is", "a", "test."]
    answer.save(tmp_path / "answer.wav")
    assert (tmp_path / "answer.wav").stat().st_size == 44 + 2 * RATE * 4 // 10


def test_an_answer_of_nothing_is_a_failure(make, tmp_path):
    answer = make(llm=FakeLLM(" ")).ask(QUESTION)
    assert answer.status == "failed" and "nothing to say" in str(answer.error)
    with pytest.raises(AudioError, match="nothing was spoken"):
        answer.save(tmp_path / "a.wav")
    assert not list(tmp_path.glob("*.wav"))


def test_silence_is_not_answered(make):
    asked = make(heard="")
    with pytest.raises(AudioError, match="no speech was heard"):
        asked.ask(QUESTION)
    assert asked.llm.asked == []


def test_missing_file(make, tmp_path):
    with pytest.raises(AudioError, match=r"nothing\.wav"):
        make().ask(tmp_path / "nothing.wav")


def test_say_moves_clauses_onto_one_time_line(make):
    speaker = FakeSpeaker()
    pieces = list(make(speaker=speaker).say("One two. Three, four.", speed=1.5, language="en"))
    assert join(piece.audio for piece in pieces).seconds == pytest.approx(0.4)
    assert [piece.audio.start for piece in pieces] == [n * RATE // 10 for n in range(4)]
    assert [m for piece in pieces for m in piece.marks][-1] == Mark("four.", 300, 400)
    assert [clause.text for clause in speaker.clauses] == ["One two.", "Three, four."]
    assert {(clause.style.speed, clause.style.dialect) for clause in speaker.clauses} == {(1.5, "en")}


@pytest.mark.parametrize("text", ["", "  \n", "!!! ... 🙂"])
def test_nothing_to_say(make, text):
    speaker = FakeSpeaker(mute="!.🙂")
    with pytest.raises(TextError, match="nothing in the text"):
        list(make(speaker=speaker).say(text))


def test_say_with_unknown_names(make):
    with pytest.raises(ConfigError, match="no language named 'eng'; did you mean en"):
        make().say("x", language="eng")
    with pytest.raises(ConfigError, match="no voice named"):
        make().say("x", voice="nobody")


def test_transcribe_uses_the_configured_language_and_brings_audio_to_16_khz(make):
    asked = make(**{"recognition.language": "zh"})
    asked.transcribe(AudioChunk(np.zeros(48_000, np.float32), 48_000))
    audio, options = asked.recognizer.calls[0]
    assert (audio.rate, len(audio.samples)) == (16_000, 16_000)
    assert options["language"] == "zh" and options["mode"] == "accurate"
    asked.transcribe(QUESTION, language="en", mode="fast")
    assert asked.recognizer.calls[1][1]["language"] == "en"


def test_warm_loads_the_system_prompt(make):
    asked = make()
    asked.warm()
    assert asked.llm.asked == [[asked.system]] and asked.speaker.warmed
    assert make(**{"llm.system": "Be brief."}).system == Message("system", "Be brief.")


def test_missing_models_are_named_with_the_command(make, tmp_path):
    bare = Engine(config.load(None, {}, {"models.root": tmp_path / "none"}).config)
    with pytest.raises(ModelMissing, match="stepaudio models pull whisper-base"):
        bare.transcribe(QUESTION)


class TestChoice:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        monkeypatch.setattr(engine, "available_memory", lambda: self.memory)
        self.memory: int | None = LARGE_MEMORY + 1

    def choose(self, tmp_path, **flags):
        loaded = config.load(None, {}, {"models.root": tmp_path, **flags}).config
        return engine.choose_llm(loaded, engine.open_store(loaded))[0]

    def test_the_larger_model_where_memory_and_disk_suffice(self, tmp_path):
        assert self.choose(tmp_path) == LARGE
        self.memory = None
        assert self.choose(tmp_path) == LARGE

    def test_the_smaller_where_memory_is_short(self, tmp_path):
        self.memory = LARGE_MEMORY - 1
        assert self.choose(tmp_path) == SMALL

    def test_the_smaller_where_disk_is_short(self, tmp_path, monkeypatch):
        monkeypatch.setattr(engine.shutil, "disk_usage", lambda path: type("", (), {"free": 10**9}))
        assert self.choose(tmp_path) == SMALL

    def test_what_is_configured(self, tmp_path):
        assert self.choose(tmp_path, **{"llm.model": "openai:http://x/v1"}) == "openai:http://x/v1"


def test_llm_path(tmp_path):
    def path(model):
        loaded = config.load(None, {}, {"models.root": tmp_path, "llm.model": model}).config
        return engine.llm_path(loaded, engine.open_store(loaded))

    with pytest.raises(ModelMissing, match=f"stepaudio models pull {SMALL}"):
        path(SMALL)
    own = tmp_path / "own.gguf"
    with pytest.raises(ConfigError, match="no file"):
        path(str(own))
    own.touch()
    assert path(str(own)) == own
    with pytest.raises(ConfigError, match=f"did you mean {SMALL}"):
        path("qwen2.5-0.5")
    with pytest.raises(ConfigError, match="no language model named 'kokoro-82m'"):
        path("kokoro-82m")


def test_diagnosis_names_what_is_missing_and_the_command(tmp_path):
    loaded = config.load(
        None, {}, {"models.root": tmp_path, "llm.model": "openai:http://127.0.0.1:9/v1"}
    ).config
    rows = {row["what"]: row for row in engine.diagnose(loaded)}
    assert "stepaudio models pull whisper-base" in rows["model whisper-base"]["says"]
    assert not rows["server"]["good"] and "127.0.0.1:9" in rows["server"]["says"]
    loaded = config.load(None, {}, {"models.root": tmp_path, "llm.model": "/none.gguf"}).config
    rows = {row["what"]: row for row in engine.diagnose(loaded)}
    assert not rows["model file"]["good"]


def test_the_library_face(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = stepaudio.load(tts__speed=1.25)
    assert isinstance(loaded, stepaudio.Engine) and loaded.config.tts.speed == 1.25
    with pytest.raises(ConfigError, match="did you mean"):
        stepaudio.load(tts__sped=1)
    with pytest.raises(AttributeError):
        stepaudio.nothing  # noqa: B018


def test_laughter_is_refused_rather_than_left_out(tmp_path):
    bare = Engine(config.load(None, {}, {"models.root": tmp_path / "none"}).config)
    with pytest.raises(TagError, match="no voice here can laugh"):
        bare.clauses("Well [laugh] hello.")
    (clause,) = bare.clauses("Well [sigh] hello.")
    assert [span.sound for span in clause.spans] == ["sigh"]


def test_who_speaks_for_a_voice_that_cannot_read(tmp_path):
    bare = Engine(config.load(None, {}, {"models.root": tmp_path / "none"}).config)
    mixed = bare.clauses("Hello there. 你好世界。")
    assert bare.stand_ins(mixed, "hibari") == [bare.config.tts.voice_zh]
    assert bare.stand_ins(mixed[:1], "hibari") == []
