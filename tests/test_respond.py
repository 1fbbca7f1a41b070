"""respond(): order of events, overlap, errors of either side, cancelling."""

from __future__ import annotations

import asyncio

import pytest

from stepaudio.core.clauses import Mark
from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.core.errors import BackendError, TextError
from stepaudio.llm.base import Finished, TextDelta
from stepaudio.respond import AudioDelta, ClauseStarted, Done, Spoken, ToolCalled, respond
from tests.fakes import RATE, FakeLLM, FakeVoice

ASK = [Message("user", "hello?")]


def answer(llm, voice, **options):
    events = []

    async def emit(event):
        events.append(event)

    asyncio.run(respond(llm, voice, ASK, emit, **options))
    assert sum(isinstance(event, Done) for event in events) == 1 and isinstance(events[-1], Done)
    return events


def test_text_audio_and_marks_lie_on_one_time_line():
    llm, voice = FakeLLM("One two", " three. ", "Four", " five."), FakeVoice()
    events = answer(llm, voice)
    assert llm.asked == [ASK]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "One two three. Four five."
    assert [e.clause.text for e in events if isinstance(e, ClauseStarted)] == ["One two three.", "Four five."]
    audio = [e.audio for e in events if isinstance(e, AudioDelta)]
    assert [chunk.start for chunk in audio] == [n * RATE // 10 for n in range(5)]
    spoken = [e.marks for e in events if isinstance(e, Spoken)]
    assert spoken[1] == (Mark("Four", 300, 400), Mark("five.", 400, 500))
    assert events[-1] == Done("completed", Finished("stop"))


def test_the_first_clause_is_spoken_while_the_model_still_writes():
    written_at_first_audio = []
    llm, voice = FakeLLM("One. ", *["more "] * 500, "end."), FakeVoice()
    voice.on_piece = lambda: written_at_first_audio.append(llm.said)
    answer(llm, voice)
    assert written_at_first_audio[0] < 502


def test_the_voice_is_told_how_much_the_listener_still_has():
    now = iter([10.0, 10.05, 11.0])  # first audio; before the second clause; before the third
    voice = FakeVoice()
    answer(FakeLLM("One two. Three. Four."), voice, clock=lambda: next(now))
    assert [round(ahead, 3) for _, ahead in voice.heard] == [0.0, 0.15, 0.0]


def test_a_model_that_fails_mid_answer_keeps_what_was_said():
    error = BackendError("line dropped", retryable=True)
    events = answer(FakeLLM("One two. ", "Three fo", error), FakeVoice())
    assert [e.clause.text for e in events if isinstance(e, Spoken)] == ["One two."]
    assert events[-1] == Done("failed", None, error)


def test_a_voice_that_fails_stops_the_model():
    error = TextError("cannot say it")
    llm = FakeLLM("One. ", "Two. ", *["more "] * 10_000)
    events = answer(llm, FakeVoice(fail_on="Two", error=error))
    assert events[-1] == Done("failed", None, error)
    assert llm.said < 10_000


def test_a_bug_is_not_swallowed():
    with pytest.raises(ExceptionGroup) as caught:
        answer(FakeLLM("One. Two."), FakeVoice(fail_on="Two", error=ZeroDivisionError()))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


def test_cut_by_length_and_nothing_to_say():
    assert answer(FakeLLM("One", Finished("length")), FakeVoice())[-1].status == "incomplete"
    events = answer(FakeLLM(), FakeVoice())
    assert events == [Done("completed", Finished("stop"))]


def test_an_answer_ends_with_the_calls_of_tools():
    call, tools = ToolCall("c1", "weather", '{"city": "Rome"}'), [ToolSpec("weather")]
    llm = FakeLLM("Let me see. ", call)
    events = answer(llm, FakeVoice(), tools=tools, tool_choice="required", session="s", deadline=5.0)
    assert [e.call for e in events if isinstance(e, ToolCalled)] == [call]
    assert [e.clause.text for e in events if isinstance(e, Spoken)] == ["Let me see."]
    assert events[-1] == Done("completed", Finished("stop"))
    assert llm.options == {"tools": (tools, "required"), "session": "s", "deadline": 5.0}


def test_cancelling_stops_model_and_voice():
    llm = FakeLLM("One. ", *["more "] * 100_000)
    events = []

    async def main():
        started = asyncio.Event()

        async def emit(event):
            events.append(event)
            if isinstance(event, AudioDelta):
                started.set()

        task = asyncio.create_task(respond(llm, FakeVoice(), ASK, emit))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        said = llm.said
        await asyncio.sleep(0)
        assert llm.said == said

    asyncio.run(main())
    assert not any(isinstance(event, Done) for event in events)
    assert llm.said < 100_000
