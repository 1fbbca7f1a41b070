"""The Realtime session: every event it sends passes the SDK's models and the invariants (realtime_talk)."""

import base64
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from stepaudio.core import items, realtime, turns
from stepaudio.core import protocol as wire
from stepaudio.core.audio import AudioChunk, Law, float_to_g711
from stepaudio.core.clauses import Clause
from stepaudio.core.commands import (
    AppendAudio,
    ClearAudio,
    Closed,
    CloseSession,
    Expired,
    Played,
    ReleaseResponse,
    ResponseAudio,
    ResponseFinished,
    ResponseText,
    ResponseTimed,
    ResponseToolCall,
    SettingsChanged,
    StartResponse,
    StopResponse,
    TokenUsage,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
    plain,
)
from stepaudio.core.conversation import Message, ToolCall
from tests.realtime_talk import FRAME_MS, Talk, asked, pcm, play, types

MANUAL = {"audio": {"input": {"turn_detection": None}}}
TEXT = {"output_modalities": ["text"], **MANUAL}
SERVER_VAD = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
HEARD = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
QUESTION = "...." + 20 * "#" + 20 * "."

ADDED = ["conversation.item.added", "conversation.item.done"]
OPENED = ["response.output_item.added", "conversation.item.added", "response.content_part.added"]
AUDIO_CLOSED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
SAID = "response.output_audio_transcript.delta"
SOUNDED = "response.output_audio.delta"


def user(text: str, **fields):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **fields}


def ask(talk: Talk, text: str = "Hi.", **response) -> StartResponse:
    """A typed question, and the command to answer it."""
    talk.client("conversation.item.create", item=user(text))
    talk.client("response.create", response=response)
    return talk.commands[-1]


def answered(talk: Talk) -> str:
    """A spoken question, whose answer begins: "Yes, it is." heard word by word until 600 ms."""
    talk.hear(QUESTION)
    response_id = next(c.response_id for c in talk.commands[::-1] if isinstance(c, ReleaseResponse))
    marks = ("Yes", 0, 200), ("it", 200, 400), ("is", 400, 600)
    talk.speak(response_id, Clause(0, "Yes, it is."), 0, *marks)
    return response_id


def listening(**fields) -> dict:
    """Settings of ``audio.input``."""
    return {"audio": {"input": fields}}


def transcript(item: dict) -> str:
    return item["content"][0]["transcript"]


# Text


def test_a_written_turn():
    talk = Talk(TEXT)
    talk.client("conversation.item.create", item=user("Where is Paris?", id="q"))
    assert types(talk.new) == ADDED
    assert talk.new[0]["previous_item_id"] is None and talk.new[0]["item"]["status"] == "completed"
    talk.client("response.create")
    assert types(talk.new) == ["response.created", "StartResponse"]
    start = talk.new[1]
    assert (start.draft, start.modality, asked(start)) == (False, "text", [("user", "Where is Paris?")])
    assert types(talk.feed(ResponseText(start.response_id, "In "))) == [*OPENED, "response.output_text.delta"]
    assert types(talk.feed(ResponseText(start.response_id, ""))) == []
    assert types(talk.feed(ResponseText(start.response_id, "France."))) == ["response.output_text.delta"]
    usage = TokenUsage(input_text=9, cached=3, output_text=2)
    talk.feed(ResponseFinished(start.response_id, usage=usage, timings_ms={"first_token": 88.5}))
    assert types(talk.new) == [
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    response = talk.new[-1]["response"]
    assert response["output"][0]["content"] == [{"type": "output_text", "text": "In France."}]
    assert response["usage"]["total_tokens"] == 11
    assert response["usage"]["input_token_details"]["cached_tokens"] == 3
    assert response["metadata"] == {"stepaudio_first_token_ms": "88.5"}
    assert response["timings_ms"] == {"first_token": 88.5}
    assert asked(ask(talk, "And Rome?")) == [
        ("user", "Where is Paris?"),
        ("assistant", "In France."),
        ("user", "And Rome?"),
    ]


def test_who_is_asked_twice_is_told_to_go_on():
    talk = Talk(TEXT)
    start = ask(talk)
    talk.feed(ResponseText(start.response_id, "Hello."))
    talk.feed(ResponseFinished(start.response_id))
    talk.client("response.create")
    again = talk.commands[-1]
    assert asked(again)[1:] == [("assistant", "Hello."), ("system", realtime.GO_ON)]
    talk.feed(ResponseFinished(again.response_id))
    talk.client("response.create", response={"instructions": "Say goodbye."})
    assert asked(talk.commands[-1])[2:] == [("assistant", "Hello."), ("system", "Say goodbye.")]


def test_a_response_has_its_own_settings():
    talk = Talk({"instructions": "Be brief.", "tools": [{"name": "f"}], **MANUAL})
    start = ask(
        talk,
        instructions="Be long.",
        output_modalities=["text"],
        max_output_tokens=5,
        tool_choice={"type": "function", "name": "g"},
        tools=[{"name": "g", "description": "d", "parameters": {"type": "object"}}],
        metadata={"client_event_id": "x"},
        audio={"output": {"voice": "ash", "format": {"type": "audio/pcmu"}}},
    )
    assert asked(start) == [("system", "Be long."), ("user", "Hi.")]
    assert (start.max_tokens, start.tool_choice, start.voice, start.output_rate) == (5, "g", "ash", 8000)
    assert [tool.name for tool in start.tools] == ["g"]
    created = talk.new[-2]["response"]
    assert created["metadata"] == {"client_event_id": "x"} and created["max_output_tokens"] == 5
    talk.feed(ResponseFinished(start.response_id, "incomplete", timings_ms={"spoken": 5}))
    done = talk.new[-1]["response"]
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert done["metadata"] == {"client_event_id": "x", "stepaudio_spoken_ms": "5"}
    assert ask(talk).tools[0].name == "f"  # the session's are as before


def test_the_receipt_does_not_crowd_out_the_clients_metadata():
    talk = Talk(TEXT)
    metadata = {f"k{i}": "v" for i in range(16)}
    start = ask(talk, metadata=metadata)
    talk.feed(ResponseFinished(start.response_id, timings_ms={"spoken": 5}))
    assert talk.new[-1]["response"]["metadata"] == metadata
    assert talk.new[-1]["response"]["timings_ms"] == {"spoken": 5}


def test_a_failure_ends_the_response_and_not_the_session():
    talk = Talk(MANUAL)
    start = ask(talk)
    talk.speak(start.response_id, Clause(0, "Yes, it is."), 0, ("Yes", 0, 200))
    talk.feed(ResponseFinished(start.response_id, "failed", error_code="model_failed", error_message="No."))
    done = talk.new[-1]["response"]
    assert done["status_details"]["error"] == {
        "type": "server_error",
        "code": "model_failed",
        "message": "No.",
    }
    assert transcript(done["output"][0]) == "Yes, "  # what was not spoken is not claimed
    assert types(talk.feed(ResponseText(start.response_id, "late"))) == []
    assert ask(talk).response_id != start.response_id


def test_one_response_of_the_conversation_at_a_time_others_beside_it():
    talk = Talk(TEXT)
    first = ask(talk)
    talk.client("response.create", event_id="mine")
    assert talk.error()["code"] == "conversation_already_has_active_response"
    assert talk.error()["event_id"] == "mine"
    talk.client("response.create", response={"conversation": "none", "instructions": "Classify."})
    beside = talk.new[-1]
    assert talk.new[0]["response"]["conversation_id"] is None
    assert types(talk.feed(ResponseText(beside.response_id, "a"))) == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
    ]
    talk.feed(ResponseText(first.response_id, "b"))
    talk.feed(ResponseFinished(beside.response_id))
    assert types(talk.new)[-2:] == ["response.output_item.done", "response.done"]
    talk.feed(ResponseFinished(first.response_id))
    assert [text for _, text in asked(ask(talk, "More."))] == ["Hi.", "b", "More."]


def test_a_response_beside_can_be_cancelled_by_its_id():
    talk = Talk(TEXT)
    talk.client("response.create", response={"conversation": "none"})
    response_id = talk.new[-1].response_id
    talk.client("response.cancel")
    assert talk.error()["code"] == "response_cancel_not_active"
    talk.client("response.cancel", response_id=response_id)
    assert types(talk.new) == ["StopResponse", "response.done"]
    assert talk.new[1]["response"]["status_details"]["reason"] == "client_cancelled"


def test_input_of_its_own_replaces_the_conversation():
    talk = Talk({"instructions": "S.", **TEXT})
    talk.client("conversation.item.create", item=user("one", id="a"))
    talk.client("conversation.item.create", item=user("two", id="b"))
    talk.client("response.create", response={"input": [{"type": "item_reference", "id": "b"}, user("three")]})
    assert asked(talk.commands[-1]) == [("system", "S."), ("user", "two"), ("user", "three")]
    talk.client(
        "response.create", response={"conversation": "none", "input": [{"type": "item_reference", "id": "z"}]}
    )
    assert talk.error()["param"] == "response.input[0].id"


# Speech


def test_a_spoken_turn():
    talk = Talk(HEARD)
    assert types(talk.new) == ["session.created", "SettingsChanged"]
    out = [event for event in talk.hear(QUESTION) if not isinstance(event, AppendAudio)]
    assert types(out) == [
        "input_audio_buffer.speech_started",
        "ScoreTurn",
        "Recognize",
        "StartResponse",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        *ADDED,
        "Transcribe",
        "response.created",
        "ReleaseResponse",
    ]
    started, _, _, draft, stopped, committed, added, _, transcribe, created, release = out
    item_id = started["item_id"]
    assert item_id == stopped["item_id"] == committed["item_id"] == added["item"]["id"] == transcribe.item_id
    assert draft.draft and asked(draft) == [("audio", "0-928")]
    assert transcribe == Transcribe(item_id, 0, stopped["audio_end_ms"])
    assert created["response"]["id"] == draft.response_id == release.response_id

    clause = Clause(0, "Yes, it is.")
    talk.speak(draft.response_id, clause, 0, ("Yes", 0, 200), ("it", 200, 400))
    assert types(talk.new) == [*OPENED, SAID, SAID, SOUNDED]
    assert [(e["delta"], e["start_time"]) for e in talk.new[3:5]] == [("Yes, ", 0.0), ("it ", 0.2)]
    talk.feed(Transcribed(item_id, "Is", final=False))
    talk.feed(Transcribed(item_id, "Is it here?", language="en", seconds=0.9))
    assert types(talk.new) == [
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert talk.new[0]["delta"] == " it here?" and talk.new[1]["usage"] == {
        "type": "duration",
        "seconds": 0.9,
    }
    talk.speak(draft.response_id, clause, 400, ("is", 400, 600))
    talk.speak(draft.response_id, Clause(1, "Look!"), 600, ("Look", 600, 900))
    assert [e["delta"] for e in talk.new if e["type"] == SAID] == [" Look!"]
    talk.feed(ResponseFinished(draft.response_id))
    assert types(talk.new) == AUDIO_CLOSED
    assert transcript(talk.new[-1]["response"]["output"][0]) == "Yes, it is. Look!"
    assert not talk.invariants.open
    talk.feed(Played(draft.response_id, 900))
    assert not talk.session._turns.answering
    assert transcript(talk.item(item_id)) == "Is it here?"


def test_a_draft_that_the_user_talks_over_leaves_no_trace():
    talk = Talk()
    talk.hear("...." + 20 * "#" + 5 * ".")
    before, draft = len(talk.said), talk.commands[-1]
    assert isinstance(draft, StartResponse) and draft.draft
    for event in (ResponseText(draft.response_id, "x"), ResponseFinished(draft.response_id)):
        assert talk.feed(event) == []  # the driver ought to hold it
    talk.feed(Played(draft.response_id, 5))
    talk.hear(10 * "#")
    assert [c for c in talk.commands if isinstance(c, StopResponse)] == [StopResponse(draft.response_id)]
    assert len(talk.said) == before
    talk.hear(20 * ".")
    again = next(c for c in talk.commands[::-1] if isinstance(c, StartResponse))
    assert asked(again) == [("audio", "0-1408")] and again.response_id != draft.response_id


def test_a_draft_that_does_not_know_what_the_client_did_is_begun_anew():
    talk = Talk()
    talk.hear("...." + 20 * "#" + 5 * ".")
    draft = talk.commands[-1]
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "It rains."}]}
    talk.client("conversation.item.create", item=system)
    out = types(talk.hear(10 * "."))
    at = out.index("response.created")
    assert out[at : at + 4] == ["response.created", "StopResponse", "StartResponse", "ReleaseResponse"]
    start = next(c for c in talk.commands[::-1] if isinstance(c, StartResponse))
    assert start.response_id == draft.response_id and asked(start)[0] == ("system", "It rains.")
    assert [m for m, _ in asked(start)] == ["system", "audio"]


def test_an_interruption_keeps_what_was_heard_to_the_word():
    talk = Talk()
    response_id = answered(talk)
    talk.feed(Played(response_id, 450))
    talk.feed(Played(response_id, 300))  # never goes back
    out = [event for event in talk.hear(40 * "#") if not isinstance(event, AppendAudio)]
    assert types(out)[0] == "Duck"
    assert types(out)[-8:] == ["input_audio_buffer.speech_started", "StopResponse", *AUDIO_CLOSED]
    done = out[-1]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert transcript(done["output"][0]) == "Yes, it" and done["output"][0]["status"] == "incomplete"
    assert out[-5]["transcript"] == "Yes, it is."  # what was sent
    item_id = done["output"][0]["id"]
    talk.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=250)
    assert types(talk.new) == ["conversation.item.truncated"]
    assert transcript(talk.item(item_id)) == "Yes,"
    talk.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=420)
    assert transcript(talk.item(item_id)) == "Yes, it"  # the client knows best
    talk.hear(20 * ".")
    start = next(c for c in talk.commands[::-1] if isinstance(c, StartResponse))
    assert Message("assistant", "Yes, it", interrupted=True) in start.messages


def test_an_interruption_in_chinese_keeps_what_was_heard_to_the_character():
    talk = Talk(MANUAL)
    start = ask(talk)
    talk.speak(start.response_id, Clause(0, "今天,"), 0, ("今", 0, 200), ("天", 200, 400))
    talk.speak(start.response_id, Clause(1, "很好。"), 400, ("很", 400, 600), ("好", 600, 800))
    talk.feed(Played(start.response_id, 610))
    talk.client("response.cancel")
    assert transcript(talk.new[-1]["response"]["output"][0]) == "今天,很"
    assert talk.new[-1]["response"]["status_details"]["reason"] == "client_cancelled"


def test_nothing_heard_is_told_as_well():
    talk = Talk(MANUAL)
    start = ask(talk)
    talk.speak(start.response_id, Clause(0, "Yes."), 0, ("Yes", 0, 200))
    talk.client("response.cancel", response_id=start.response_id)
    assert Message("assistant", "", interrupted=True) in ask(talk).messages


def test_what_the_listener_did_not_hear_of_a_response_that_is_done():
    talk = Talk()
    response_id = answered(talk)
    talk.feed(ResponseFinished(response_id))
    item_id = talk.new[-1]["response"]["output"][0]["id"]
    talk.feed(Played(response_id, 210))
    talk.hear(40 * "#")
    assert StopResponse(response_id) in talk.commands
    assert sum(e["type"] == "response.done" for e in talk.said) == 1
    assert transcript(talk.item(item_id)) == "Yes,"


def test_truncation_of_what_plays_on_is_the_end_of_its_hearing():
    talk = Talk()
    response_id = answered(talk)
    talk.feed(ResponseFinished(response_id))
    item_id = talk.new[-1]["response"]["output"][0]["id"]
    talk.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=400)
    assert not talk.session._turns.answering and transcript(talk.item(item_id)) == "Yes, it"


@pytest.mark.parametrize(
    ("at_ms", "told_ms", "heard"), [(-5, 0, ""), (250.5, 250, "Yes,"), (9e9, 600, "Yes, it is.")]
)
def test_truncation_of_a_running_answer_is_clamped(at_ms, told_ms, heard):
    talk = Talk()
    response_id = answered(talk)
    item_id = next(e["item_id"] for e in talk.said if e["type"] == SOUNDED)
    talk.client("conversation.item.truncate", item_id=item_id, audio_end_ms=at_ms)
    assert talk.new[0]["audio_end_ms"] == told_ms
    talk.client("response.cancel")
    assert transcript(talk.new[-1]["response"]["output"][0]) == heard
    assert response_id == talk.new[-1]["response"]["id"]


def test_truncation_of_what_was_not_spoken():
    talk = Talk(TEXT)
    talk.client("conversation.item.create", item=user("Hi.", id="u"))
    content = [{"type": "output_audio", "transcript": "Hello."}]
    talk.client(
        "conversation.item.create",
        item={"type": "message", "role": "assistant", "id": "a", "content": content},
    )
    talk.client("conversation.item.truncate", item_id="a", content_index=0, audio_end_ms=300)
    assert types(talk.new) == ["conversation.item.truncated"] and transcript(talk.item("a")) == "Hello."
    talk.client("conversation.item.truncate", item_id="u", content_index=0, audio_end_ms=300)
    assert talk.error()["code"] == "invalid_value"
    talk.client("conversation.item.truncate", item_id="z", content_index=0, audio_end_ms=300)
    assert talk.error()["code"] == "item_truncate_invalid_item_id"


def test_the_next_response_may_follow_what_plays_on():
    talk = Talk()
    response_id = answered(talk)
    talk.feed(ResponseFinished(response_id))
    talk.client("response.create")
    assert types(talk.new) == ["response.created", "StartResponse"]


def test_a_turn_that_had_to_wait_goes_first():
    detection = {"type": "semantic_vad", "interrupt_response": False}
    talk = Talk({"audio": {"input": {"turn_detection": detection}}})
    response_id = answered(talk)
    talk.hear(40 * "#" + 30 * ".")  # heard, and not answered yet
    talk.feed(ResponseFinished(response_id))
    talk.client("response.create", event_id="mine")
    assert types(talk.new) == ["StartResponse", "response.created", "ReleaseResponse", "error"]
    assert [kind for kind, _ in asked(talk.new[0])] == ["audio", "assistant", "audio"]
    assert talk.new[-1]["error"]["event_id"] == "mine"


def test_words_that_the_voice_does_not_mark_are_told_all_the_same():
    talk = Talk(MANUAL)
    start = ask(talk)
    talk.speak(start.response_id, Clause(0, "“Yes” – 5 %, no."), 0, ("Yes", 0, 200), ("five", 200, 300))
    talk.speak(start.response_id, Clause(1, "Then"), 300)
    talk.feed(ResponseText(start.response_id, " (unspoken)"))
    talk.speak(start.response_id, Clause(2, "end"), 400, ("", 400, 450), ("end", 450, 500))
    talk.feed(ResponseFinished(start.response_id))
    assert transcript(talk.new[-1]["response"]["output"][0]) == "“Yes” – 5 %, no. Then (unspoken) end"


def test_audio_is_cut_into_frames_and_coded_as_the_client_wants():
    laws: dict[str, Law | None] = {"audio/pcm": None, "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
    for kind, law in laws.items():
        talk = Talk({"audio": {"input": {"turn_detection": None}, "output": {"format": {"type": kind}}}})
        start = ask(talk)
        samples = np.linspace(-1, 1, 3 * start.output_rate, dtype=np.float32)
        chunk = AudioChunk(samples, start.output_rate)
        talk.feed(ResponseAudio(start.response_id, chunk, Clause(0, "A.")))
        frames = [base64.b64decode(e["delta"]) for e in talk.new if e["type"] == SOUNDED]
        assert all(len(frame) <= 36_000 for frame in frames)
        if law:
            assert b"".join(frames) == float_to_g711(samples, law)
        else:
            assert np.allclose(np.frombuffer(b"".join(frames), "<i2") / 32768, samples, atol=1e-4)
        with pytest.raises(ValueError, match="Hz"):
            talk.feed(ResponseAudio(start.response_id, AudioChunk(samples, 16_000), Clause(0, "A.")))


@pytest.mark.parametrize("wanted", [True, False])
def test_idle_timeout_is_a_turn_without_words(wanted):
    detection = {"type": "server_vad", "idle_timeout_ms": 1000}
    talk = Talk(listening(turn_detection=detection, transcription={} if wanted else None))
    response_id = answered(talk)
    talk.feed(ResponseFinished(response_id))
    talk.feed(Played(response_id, 600))
    out = [e for e in talk.hear(40 * ".") if not isinstance(e, AppendAudio)]
    assert types(out) == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        *ADDED,
        *wanted * ["conversation.item.input_audio_transcription.completed"],
        "StartResponse",
        "response.created",
        "ReleaseResponse",
    ]
    assert asked(out[-3])[-1] == ("user", "…")


# The audio buffer


def test_a_manual_turn():
    talk = Talk({"instructions": "S.", **MANUAL})
    talk.hear("..####..")
    assert types(talk.client("input_audio_buffer.commit")) == [
        "input_audio_buffer.committed",
        *ADDED,
        "Transcribe",
    ]
    assert (talk.new[-1].start_ms, talk.new[-1].end_ms) == (0, 256)
    assert types(talk.client("response.create")) == ["response.created", "StartResponse"]
    assert asked(talk.new[1]) == [("system", "S."), ("audio", "0-256")]
    system = Message("system", "S.")
    (turn,) = talk.new[1].audio_turns()
    assert turn.item_id == "item_1"
    words = {turn: "What's <|im_end|> up?"}
    assert talk.new[1].written(words.__getitem__) == [system, Message("user", "What's < |im_end|> up?")]
    assert talk.new[1].written(lambda turn: "") == [system]


@pytest.mark.parametrize("ms", [0, 99])
def test_too_little_audio_is_no_turn(ms):
    talk = Talk(MANUAL)
    talk.client("input_audio_buffer.append", audio=pcm(ms))
    talk.client("input_audio_buffer.commit", event_id="c")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty" and talk.error()["event_id"] == "c"
    assert f"only has {ms}.00ms" in talk.error()["message"]


def test_a_commit_in_the_middle_of_speech_ends_the_turn_without_an_answer():
    talk = Talk()
    talk.hear("..." + 20 * "#")
    talk.client("input_audio_buffer.append", audio=pcm(64))  # not looked at yet
    assert types(talk.client("input_audio_buffer.commit"))[:2] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert talk.new[0]["audio_end_ms"] == 800
    for end_ms in (768, 800):  # it is the turn's that was committed
        assert talk.feed(turns.Speech(1.0, end_ms)) == []
    talk.hear(30 * ".")
    assert not any(isinstance(command, StartResponse) for command in talk.commands)


def test_a_cleared_buffer_is_no_turn():
    talk = Talk()
    talk.hear("..." + 20 * "#")
    assert types(talk.client("input_audio_buffer.clear")) == ["ClearAudio", "input_audio_buffer.cleared"]
    assert talk.commands[-1] == ClearAudio(736)
    talk.hear(30 * ".")
    assert not any(isinstance(command, StartResponse) for command in talk.commands)
    talk.client("input_audio_buffer.clear")
    talk.client("input_audio_buffer.commit")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty"


@pytest.mark.parametrize("audio", ["AAA", "AAAA*", "é", "A A="])
def test_what_is_not_base64_is_refused(audio):
    talk = Talk()
    talk.client("input_audio_buffer.append", audio=audio)
    assert (talk.error()["code"], talk.error()["param"]) == ("invalid_value", "audio")


def test_no_octet_of_the_input_is_lost():
    octets = np.arange(-500, 500, dtype="<i2").tobytes()
    talk = Talk(MANUAL)
    for start in range(0, len(octets), 7):
        piece = base64.b64encode(octets[start : start + 7]).decode()
        talk.client("input_audio_buffer.append", audio=piece)
    talk.client("input_audio_buffer.append", audio="")
    chunks = [c.chunk for c in talk.commands if isinstance(c, AppendAudio)]
    samples = np.concatenate([chunk.samples for chunk in chunks])
    assert np.array_equal(samples * 32768, np.arange(-500, 500))
    assert talk.session.now_ms == 41


def test_telephone_audio_keeps_the_clock():
    talk = Talk(MANUAL)
    talk.client("input_audio_buffer.append", audio=pcm(100))
    for kind, zero in (("audio/pcmu", 0xFF), ("audio/pcma", 0xD5)):
        talk.client("session.update", session={"audio": {"input": {"format": {"type": kind}}}})
        talk.client("input_audio_buffer.append", audio=base64.b64encode(bytes([zero] * 800)).decode())
        chunk = talk.commands[-1].chunk
        assert chunk.rate == 8000 and np.abs(chunk.samples).max() < 3e-4
    assert talk.session.now_ms == 300 and chunk.start == 1600


def test_how_far_back_audio_may_be_asked_for():
    talk = Talk()
    talk.client("input_audio_buffer.append", audio=pcm(20_000))
    assert talk.session.oldest_ms == 14_700
    manual = Talk(MANUAL)
    manual.client("input_audio_buffer.append", audio=pcm(20_000))
    assert manual.session.oldest_ms == 0
    for _ in range(20):
        manual.client("input_audio_buffer.append", audio=pcm(20_000))
    assert manual.session.oldest_ms == 120_000
    speaking = Talk()
    speaking.hear("...." + 300 * "#")
    assert speaking.session.oldest_ms == 0


def test_transcripts_that_are_not_wanted_are_kept():
    talk = Talk(MANUAL)
    talk.hear("########")
    talk.client("input_audio_buffer.commit")
    assert talk.feed(Transcribed("item_1", "Hello")) == []
    assert talk.feed(Transcribed("item_1", "Hello again")) == []  # told already
    assert talk.feed(Transcribed("item_9", "Hello")) == []
    assert asked(ask(talk, "You?")) == [("user", "Hello"), ("user", "You?")]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_transcript_that_fails_leaves_the_turn_out(wanted):
    talk = Talk({"audio": {"input": {"turn_detection": None, "transcription": {} if wanted else None}}})
    talk.hear("########")
    talk.client("input_audio_buffer.commit")
    talk.feed(TranscriptionFailed("item_1", "The recogniser failed."))
    assert types(talk.new) == wanted * ["conversation.item.input_audio_transcription.failed"]
    assert talk.feed(TranscriptionFailed("item_1", "Again.")) == []
    assert asked(ask(talk, "You?")) == [("user", "You?")]


def test_what_is_certain_is_told_while_the_user_still_speaks():
    talk = Talk(HEARD)
    item_id = next(e["item_id"] for e in talk.hear("...." + 20 * "#") if "speech_started" in str(e))
    assert talk.feed(Transcribed(item_id, "", final=False)) == []
    (told,) = talk.feed(Transcribed(item_id, "Is it", final=False))
    assert (told["item_id"], told["delta"]) == (item_id, "Is it")
    assert talk.feed(Transcribed("item_of_nobody", "Is it", final=False)) == []
    assert talk.feed(Transcribed(item_id, "Is it here?")) == []  # it is not over
    talk.hear(20 * ".")
    rest, _ = talk.feed(Transcribed(item_id, "Is it here?"))
    assert rest["delta"] == " here?"


def test_what_was_told_of_cleared_speech_is_forgotten():
    talk = Talk(HEARD)
    item_id = next(e["item_id"] for e in talk.hear("...." + 20 * "#") if "speech_started" in str(e))
    assert len(talk.feed(Transcribed(item_id, "Is it", final=False))) == 1
    talk.client("input_audio_buffer.clear")
    assert talk.feed(Transcribed(item_id, "Is it here", final=False)) == []
    assert not talk.session._partial


def test_a_transcript_that_changed_its_beginning_is_told_at_the_end():
    talk = Talk(
        {"audio": {"input": {"turn_detection": None, "transcription": {"language": "en", "prompt": "x"}}}}
    )
    talk.hear("########")
    talk.client("input_audio_buffer.commit")
    assert (talk.new[-1].language, talk.new[-1].prompt) == ("en", "x")
    talk.feed(Transcribed("item_1", "Hallo", final=False))
    assert talk.feed(Transcribed("item_1", "Hello", final=False)) == []
    assert types(talk.feed(Transcribed("item_1", "Hello"))) == [
        "conversation.item.input_audio_transcription.completed"
    ]


def test_a_transcription_session():
    talk = Talk(kind="transcription")
    assert talk.said[0]["session"]["object"] == "realtime.transcription_session"
    out = [e for e in talk.hear(QUESTION) if not isinstance(e, AppendAudio)]
    assert types(out)[-5:] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        *ADDED,
        "Transcribe",
    ]
    talk.feed(Transcribed(out[-1].item_id, "Hello."))
    assert talk.new[-1]["transcript"] == "Hello."
    talk.client("response.create")
    assert talk.error()["code"] == "invalid_event"


# Items


def test_items_have_their_places():
    talk = Talk(TEXT)
    for item_id, after, before in (("a", None, None), ("c", None, "a"), ("b", "a", "a"), ("z", "root", None)):
        talk.client("conversation.item.create", item=user(item_id, id=item_id), previous_item_id=after)
        assert talk.new[0]["previous_item_id"] == before
    assert [text for _, text in asked(ask(talk, "d"))] == ["z", "a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "conversation.item.create", "item": user("x", id="a")}, "item_create_duplicate_item_id"),
        ({"type": "conversation.item.create", "item": user("x"), "previous_item_id": "z"}, "invalid_value"),
        ({"type": "conversation.item.retrieve", "item_id": "z"}, "item_retrieve_invalid_item_id"),
        ({"type": "conversation.item.delete", "item_id": "z"}, "item_delete_invalid_item_id"),
        ({"type": "response.cancel"}, "response_cancel_not_active"),
        ({"type": "nonsense"}, "invalid_value"),
    ],
)
def test_errors_name_the_clients_event_and_change_nothing(event, code):
    talk = Talk(TEXT)
    talk.client("conversation.item.create", item=user("y", id="a"))
    talk.text(json.dumps({**event, "event_id": "mine"}))
    assert (talk.error()["code"], talk.error()["event_id"]) == (code, "mine")
    assert asked(ask(talk, "b")) == [("user", "y"), ("user", "b")]


def test_the_item_of_a_turn_that_goes_on_cannot_be_taken():
    talk = Talk()
    talk.hear("..." + 20 * "#")
    talk.client("conversation.item.create", item=user("x", id="item_1"))
    assert talk.error()["code"] == "item_create_duplicate_item_id"


def test_deleted_items_are_forgotten_even_while_they_are_written():
    talk = Talk(TEXT)
    start = ask(talk)
    talk.feed(ResponseText(start.response_id, "Hello"))
    item_id = talk.new[0]["item"]["id"]
    assert types(talk.client("conversation.item.delete", item_id=item_id)) == ["conversation.item.deleted"]
    talk.feed(ResponseFinished(start.response_id))
    assert types(talk.new)[-2:] == ["response.output_item.done", "response.done"]
    assert "conversation.item.done" not in types(talk.new)
    assert asked(ask(talk, "b")) == [("user", "Hi."), ("user", "b")]


def test_a_cancelled_response_has_a_receipt():
    talk = Talk()
    response_id = answered(talk)
    assert talk.feed(ResponseTimed("resp_of_nobody", {"vad": 1.0})) == []
    assert talk.feed(ResponseTimed(response_id, {"vad": 120.0}, TokenUsage(input_text=9))) == []
    talk.client("response.cancel")
    response = talk.new[-1]["response"]
    assert (response["status"], response["timings_ms"]) == ("cancelled", {"vad": 120.0})
    assert response["metadata"] == {"stepaudio_vad_ms": "120"}
    assert response["usage"]["input_tokens"] == 9


def test_responses_outside_the_conversation_have_their_bound():
    talk = Talk(TEXT)
    beside = [ask(talk, "b", conversation="none") for _ in range(realtime.MAX_BESIDE)]
    talk.client("response.create", response={"conversation": "none"})
    assert talk.error()["code"] == "rate_limit_exceeded"
    assert all(command.beside for command in beside)
    assert not ask(talk, "a").beside  # the conversation goes on
    talk.feed(ResponseFinished(beside[0].response_id))
    assert ask(talk, "b", conversation="none") is talk.commands[-1]


def test_a_conversation_has_its_bound(monkeypatch):
    monkeypatch.setattr(items, "MAX_ITEMS", 3)
    monkeypatch.setattr(items, "MAX_CHARS", 100)
    many, long = Talk(TEXT), Talk(TEXT)
    for _ in range(3):
        many.client("conversation.item.create", item=user("x"))
    long.client("conversation.item.create", item=user("x" * 100, id="a"))
    for talk in (many, long):
        talk.client("conversation.item.create", item=user("y"))
        assert talk.error()["code"] == "conversation_full"
        talk.hear(8 * ".")
        talk.client("input_audio_buffer.commit")
        assert talk.error()["code"] == "conversation_full"
    long.client("conversation.item.delete", item_id="a")
    assert types(long.client("conversation.item.create", item=user("y"))) == ADDED


def test_audio_that_comes_as_an_item_is_written_down():
    talk = Talk(TEXT)
    part = {"type": "input_audio", "audio": pcm(50)}
    item = {"type": "message", "role": "user", "id": "a", "content": [part]}
    talk.client("conversation.item.create", item=item)
    assert types(talk.new) == [*ADDED, "Transcribe"]
    assert "audio" not in talk.new[0]["item"]["content"][0]
    assert talk.new[-1].audio.seconds == 0.05
    talk.feed(Transcribed("a", "Hello"))
    assert asked(ask(talk, "b"))[0] == ("user", "Hello")
    assert talk.item("a")["content"] == [{**part, "transcript": "Hello"}]
    talk.client("conversation.item.create", item={**item, "id": "b", "content": [{**part, "audio": "*"}]})
    assert talk.error()["code"] == "invalid_value"
    told = {**item, "id": "c", "content": [{**part, "transcript": "Known"}, {"type": "input_audio"}]}
    assert types(talk.client("conversation.item.create", item=told)) == ADDED


@pytest.mark.parametrize("octets", [0, 5_000_000])
def test_pictures_are_taken_and_not_seen(octets):
    talk = Talk(TEXT)
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * octets}
    content = [picture, {"type": "input_text", "text": "What is it?"}]
    talk.client("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert talk.new[0]["item"]["content"][0] == {"type": "input_image", "detail": "auto"}
    assert asked(ask(talk, "b"))[0] == ("user", "(a picture that you cannot see)\nWhat is it?")


# Audio that is retrieved


def noise(ms: float, octet: int = 48, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(int(ms * octet))


def test_what_was_committed_can_be_heard_again_to_the_octet():
    talk = Talk(MANUAL)
    sent = noise(400)
    for start in range(0, len(sent), 777):  # halves of samples, too
        talk.client("input_audio_buffer.append", audio=base64.b64encode(sent[start : start + 777]).decode())
    talk.client("input_audio_buffer.commit")
    assert "audio" not in talk.new[1]["item"]["content"][0]
    (part,) = talk.item(talk.new[0]["item_id"])["content"]
    assert base64.b64decode(part["audio"]) == sent
    talk.client("session.update", session=listening(format={"type": "audio/pcmu"}))
    call = noise(200, 8)
    talk.client("input_audio_buffer.append", audio=base64.b64encode(call).decode())
    talk.client("input_audio_buffer.commit")
    (part,) = talk.item(talk.new[0]["item_id"])["content"]
    assert base64.b64decode(part["audio"]) == call


def test_what_the_vad_committed_can_be_heard_again():
    talk = Talk()
    talk.hear(QUESTION)
    start, stop, committed = (
        next(e for e in talk.said if e["type"].endswith(name))
        for name in ("speech_started", "speech_stopped", "buffer.committed")
    )
    (part,) = talk.item(committed["item_id"])["content"]
    assert len(base64.b64decode(part["audio"])) == 48 * (stop["audio_end_ms"] - start["audio_start_ms"])


def test_of_an_answer_what_was_heard_can_be_heard_again():
    talk = Talk()
    response_id = answered(talk)
    item_id = next(e["item_id"] for e in talk.said if e["type"] == SOUNDED)
    sent = b"".join(base64.b64decode(e["delta"]) for e in talk.said if e["type"] == SOUNDED)
    talk.feed(Played(response_id, 250))
    talk.client("response.cancel")
    (part,) = talk.item(item_id)["content"]
    assert base64.b64decode(part["audio"]) == sent[: 48 * 250]
    talk.client("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
    assert talk.item(item_id)["content"] == [{"type": "output_audio", "audio": "", "transcript": ""}]


def test_audio_that_is_kept_has_its_bounds(monkeypatch):
    monkeypatch.setattr(realtime, "MAX_SOUND", 48 * 200)
    monkeypatch.setattr(items, "MAX_SOUND", 48 * 200)
    monkeypatch.setattr(items, "SOUNDS", 48 * 350)
    talk = Talk(MANUAL)
    ids = []
    for ms in (201, 200, 150, 100):
        talk.client("input_audio_buffer.append", audio=pcm(ms))
        talk.client("input_audio_buffer.commit")
        ids.append(talk.new[0]["item_id"])
    kept = [len(base64.b64decode(talk.item(id)["content"][0].get("audio", ""))) // 48 for id in ids]
    assert kept == [0, 0, 150, 100]  # too long; too old
    talk.hear(1000 * ".")
    assert len(talk.session._recent) <= 48 * 200 + 1


def test_of_items_that_are_gone_no_audio_is_kept():
    talk = Talk(TEXT)
    for _ in range(5):
        item = {"type": "message", "role": "user", "id": "a", "content": [{"type": "input_audio"}]}
        item["content"][0]["audio"] = pcm(50)
        talk.client("conversation.item.create", item=item)
        assert list(talk.session._items._sounding) == ["a"]
        talk.client("conversation.item.delete", item_id="a")
        assert not talk.session._items._sounding
    spoken = Talk()
    response_id = answered(spoken)
    item_id = next(e["item_id"] for e in spoken.said if e["type"] == SOUNDED)
    spoken.client("conversation.item.delete", item_id=item_id)
    spoken.feed(ResponseFinished(response_id))
    assert item_id not in spoken.session._items._sounding


def test_audio_is_not_given_to_another_part():
    talk = Talk(TEXT)
    content = [{"type": "input_audio", "transcript": "Known"}, {"type": "input_audio", "audio": pcm(50)}]
    item = {"type": "message", "role": "user", "id": "a", "content": content}
    talk.client("conversation.item.create", item=item)
    assert not any("audio" in part for part in talk.item("a")["content"])


def test_long_texts_are_refused():
    talk = Talk(TEXT)
    part = {"type": "input_text", "text": "x" * 150_000}
    item = {"type": "message", "role": "user", "content": [part, part]}
    talk.client("conversation.item.create", item=item)
    assert talk.error()["param"] == "item.content"
    item["content"] = [part]
    talk.client("response.create", response={"input": 30 * [item]})
    assert talk.error()["param"] == "response.input"
    talk.client("session.update", session={"tracing": {"group_id": "x" * 1_000_000}})
    assert talk.error()["code"] == "invalid_value"


# Functions


def test_a_function_call():
    talk = Talk({"tools": [{"name": "clock"}], **MANUAL})
    start = ask(talk, "What time is it?")
    talk.speak(
        start.response_id, Clause(0, "Let me see."), 0, ("Let", 0, 200), ("me", 200, 400), ("see", 400, 600)
    )
    talk.feed(ResponseToolCall(start.response_id, "call_1", "clock", ""))
    assert types(talk.new) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    added, done = talk.new[0], talk.new[-1]
    assert (added["output_index"], added["item"]["name"], added["item"]["arguments"]) == (1, "clock", "")
    assert added["item"]["call_id"] == "call_1" and added["item"]["status"] == "in_progress"
    assert done["item"]["status"] == "completed" and done["item"]["arguments"] == "{}"
    talk.feed(ResponseFinished(start.response_id))
    assert [item["type"] for item in talk.new[-1]["response"]["output"]] == ["message", "function_call"]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "<|im_start|>noon"}
    talk.client("conversation.item.create", item=output)
    talk.client("response.create")
    assert list(talk.commands[-1].messages)[1:] == [
        Message("assistant", "Let me see.", calls=(ToolCall("call_1", "clock", "{}"),)),
        Message("tool", "< |im_start|>noon", call_id="call_1"),
    ]


def test_calls_that_a_client_replays():
    talk = Talk(TEXT)
    talk.client(
        "conversation.item.create", item={"type": "function_call", "name": "f", "arguments": "{}", "id": "c"}
    )
    talk.client(
        "conversation.item.create", item={"type": "function_call_output", "call_id": "other", "output": "1"}
    )
    assert list(ask(talk).messages)[:2] == [
        Message("assistant", "", calls=(ToolCall("c", "f", "{}"),)),
        Message("tool", "1", call_id="other"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<|im_start|>system", "< |im_start|>system"),
        ("<tool_call>{}</tool_call>", "< tool_call>{}< /tool_call>"),
        ("[INST] x [/INST] <s>", "[ INST] x [ /INST] < s>"),
        ("<audio_17><start_of_turn>", "< audio_17>< start_of_turn>"),
        ("a < b, <div>, <summary>, [1]", "a < b, <div>, <summary>, [1]"),
    ],
)
def test_what_users_write_holds_no_control_tokens(text, told):
    assert plain(text) == told
    assert asked(ask(Talk(TEXT), text)) == [("user", told)]


# Settings


def test_settings_change_as_a_whole_or_not_at_all():
    talk = Talk(voices={"alloy", "ash"})
    talk.client(
        "session.update", session={"instructions": "Be kind.", "audio": {"output": {"voice": "nobody"}}}
    )
    assert talk.error()["param"] == "session.audio.output.voice"
    talk.client("session.update", session={"type": "realtime"})
    assert types(talk.new) == ["session.updated"] and talk.new[0]["session"]["instructions"] == ""
    talk.client(
        "session.update", session={"instructions": "Be kind.", "audio": {"output": {"voice": {"id": "ash"}}}}
    )
    assert types(talk.new) == ["session.updated", "SettingsChanged"]
    assert talk.commands[-1] == SettingsChanged(talk.session.settings)
    talk.client("response.create", response={"audio": {"output": {"voice": "nobody"}}})
    assert talk.error()["param"] == "response.audio.output.voice"
    talk.client("response.create")
    assert talk.new[0]["response"]["audio"]["output"]["voice"] == "ash" == talk.new[1].voice


def test_turn_detection_is_handed_on():
    detection = {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 200, "idle_timeout_ms": 5000}
    talk = Talk()
    talk.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    config = talk.session._turns.config
    assert (config.mode, config.threshold, config.silence_duration_ms) == ("server_vad", 0.7, 200)
    assert config.idle_timeout_ms == 5000 and config.create_response
    talk.client(
        "session.update", session={"audio": {"input": {"turn_detection": {"create_response": False}}}}
    )
    assert not talk.session._turns.config.create_response
    talk.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    assert talk.session._turns.config.mode == "none"


def test_other_inputs_of_turn_taking_pass_through():
    talk = Talk()
    assert talk.feed(Played("resp_9", 5)) == []  # of one that was stopped
    assert talk.feed(turns.Tick(5)) == [] and talk.feed(turns.Heard("hi", 5)) == []


def test_a_model_may_read_ahead():
    talk = Talk({"instructions": "S.", **TEXT})
    talk.client("conversation.item.create", item=user("one"))
    ahead = talk.session.prompt()
    assert ahead is not None and asked(ahead) == [("system", "S."), ("user", "one")]
    assert Talk(kind="transcription").session.prompt() is None
    talk.feed(Closed())
    assert talk.session.prompt() is None


# What plays, and the end


def test_the_output_can_be_cleared():
    talk = Talk()
    assert types(talk.client("output_audio_buffer.clear")) == ["output_audio_buffer.cleared"]
    response_id = answered(talk)
    talk.client("output_audio_buffer.clear")
    assert types(talk.new) == ["StopResponse", *AUDIO_CLOSED, "output_audio_buffer.cleared"]
    assert talk.new[-1]["response_id"] == response_id
    assert types(talk.client("output_audio_buffer.clear")) == ["output_audio_buffer.cleared"]


def test_the_end_of_a_session():
    talk = Talk()
    answered(talk)
    talk.client("response.create", response={"conversation": "none"})
    talk.feed(Expired())
    assert types(talk.new)[-2:] == ["error", "CloseSession"]
    assert talk.new[-2]["error"]["code"] == "session_expired" and talk.commands[-1].code == 1000
    done = [e["response"] for e in talk.new[:-1] if isinstance(e, dict) and e["type"] == "response.done"]
    assert all(r["usage"]["total_tokens"] == 0 for r in done)
    assert [(r["status"], r["status_details"]["error"]["code"]) for r in done] == 2 * [
        ("failed", "session_expired")
    ]
    assert (
        talk.feed(Expired()) == talk.feed(Closed()) == talk.client("response.create") == talk.text("{") == []
    )
    assert isinstance(talk.commands[-1], CloseSession)


def test_a_closed_connection_stops_everything():
    talk = Talk()
    response_id = answered(talk)
    assert talk.feed(Closed()) == [StopResponse(response_id)]
    assert talk.feed(Closed()) == []


def test_expiry_drops_a_draft():
    talk = Talk()
    talk.hear("...." + 20 * "#" + 5 * ".")
    assert types(talk.feed(Expired())) == ["StopResponse", "error", "CloseSession"]


# Talks, whole

GOLDEN = sorted((Path(__file__).parent / "data" / "realtime").glob("*.jsonl"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_talk(path):
    """To keep what a session says now: STEPAUDIO_WRITE_GOLDEN=1, and read the difference."""
    talk = Talk(kind="transcription" if path.stem == "transcription" else "realtime")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    now = [{"in": line["in"], "out": play(talk, line)} for line in lines]
    if os.environ.get("STEPAUDIO_WRITE_GOLDEN"):
        path.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in now), encoding="utf-8"
        )
    assert now == lines


# Whatever comes, in whatever order


KINDS = (
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
)


class Chaos:
    """A client that sends anything, and a driver that does what it is told, in a seeded order."""

    def __init__(self, seed: int, **keywords) -> None:
        self.random = random.Random(seed)
        self.talk = Talk(**keywords)
        self.live: dict[str, StartResponse] = {}  # responses that the driver works on
        self.held: set[str] = set()
        self.sent: dict[str, int] = {}  # ms of audio of each
        self.pending: list[str] = []  # transcripts that are owed
        self.taken = 0

    def step(self) -> None:
        self.random.choice(
            (self.client, self.client, self.junk, self.hear, self.hear, self.drive, self.drive)
        )()
        self.obey()

    def obey(self) -> None:
        for command in self.talk.commands[self.taken :]:
            match command:
                case StartResponse(response_id=response_id, draft=draft):
                    assert response_id not in self.live
                    self.live[response_id] = command
                    self.sent.setdefault(response_id, 0)
                    if draft:
                        self.held.add(response_id)
                case ReleaseResponse(response_id):
                    self.held.remove(response_id)
                case StopResponse(response_id):
                    self.live.pop(response_id, None)
                    self.held.discard(response_id)
                case Transcribe(item_id=item_id):
                    self.pending.append(item_id)
        self.taken = len(self.talk.commands)

    def item_id(self) -> str:
        known = sorted(self.talk.invariants.items)
        return self.random.choice(known) if known and self.random.random() < 0.7 else "none"

    def fields(self, kind: str) -> dict:
        choose = self.random.choice
        match kind:
            case "session.update":
                detection = choose(
                    (
                        {"type": "server_vad", "idle_timeout_ms": 1000},
                        {"type": "semantic_vad"},
                        {"interrupt_response": False},
                        {"create_response": False},
                        None,
                    )
                )
                audio = choose((listening(turn_detection=detection), {}, {}, HEARD))
                return {"session": {**audio, "instructions": choose(("A.", "B."))}}
            case "input_audio_buffer.append":
                return {"audio": pcm(FRAME_MS)}
            case "conversation.item.create":
                item = choose(
                    (
                        user("Hi."),
                        user("Hi.", id=f"mine_{self.random.randint(1, 30)}"),
                        {"type": "function_call", "name": "f", "arguments": "{}"},
                        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
                    )
                )
                return {"item": item, "previous_item_id": choose((None, "root", self.item_id()))}
            case "conversation.item.truncate":
                return {"item_id": self.item_id(), "audio_end_ms": self.random.randint(-10, 900)}
            case "conversation.item.retrieve" | "conversation.item.delete":
                return {"item_id": self.item_id()}
            case "response.create":
                return {"response": choose(({}, {"conversation": "none"}, {"output_modalities": ["text"]}))}
            case _:
                return {}

    def client(self) -> None:
        kind = self.random.choice(KINDS)
        if kind == "input_audio_buffer.append":
            self.hear()
        else:
            self.talk.client(kind, **self.fields(kind))

    def junk(self) -> None:
        kind = self.random.choice(KINDS)
        frame = json.dumps({"type": kind, **self.fields(kind)})
        at = self.random.randrange(len(frame))
        spoiled = self.random.choice(
            (
                frame[:at],
                frame[:at] + self.random.choice('{}[]",:0x\\\u4f60') + frame[at + 1 :],
                json.dumps({"type": kind}),
                json.dumps(
                    {"type": kind, **dict.fromkeys(self.fields(kind), self.random.choice((0, [], None)))}
                ),
                json.dumps({**json.loads(frame), "type": kind[::-1]}),
            )
        )
        # What is audio after all must not fall out of the driver's count of it.
        if "append" not in kind:
            self.talk.text(spoiled)

    def hear(self) -> None:
        self.talk.hear(self.random.choice((".", "#", 8 * "#", 20 * ".")))

    def drive(self) -> None:
        if self.pending and self.random.random() < 0.5:
            item_id = self.pending.pop()
            final = self.random.choice(
                (Transcribed(item_id, "so so"), TranscriptionFailed(item_id, "It failed."))
            )
            self.talk.feed(Transcribed(item_id, "so", final=False))
            self.talk.feed(final)
        speaking = [response_id for response_id in self.live if response_id not in self.held]
        for response_id in speaking[: self.random.randint(0, 2)]:
            self.content(response_id, self.random.random())
        for response_id, sent_ms in list(self.sent.items())[-3:]:
            self.talk.feed(Played(response_id, self.random.randint(0, sent_ms)))
            if response_id not in self.live:
                self.talk.feed(Played(response_id, sent_ms))

    def content(self, response_id: str, chance: float) -> None:
        if chance < 0.2:
            del self.live[response_id]
            status = self.random.choice(("completed", "incomplete", "failed"))
            self.talk.feed(ResponseFinished(response_id, status))
        elif chance < 0.3:
            self.talk.feed(ResponseToolCall(response_id, "call_1", "f", ""))
        elif self.live[response_id].modality == "text":
            self.talk.feed(ResponseText(response_id, "so "))
        else:
            start_ms = self.sent[response_id]
            self.sent[response_id] += 300
            clause = Clause(start_ms // 600, "one two.")
            word = ("one", "two")[start_ms // 300 % 2]
            self.talk.speak(response_id, clause, start_ms, (word, start_ms, start_ms + 300))

    def settle(self) -> None:
        """The driver does all that it owes, and the user says no more."""
        for _ in range(100):
            self.talk.hear(16 * ".")
            self.obey()
            for response_id in [r for r in self.live if r not in self.held]:
                del self.live[response_id]
                self.talk.feed(ResponseFinished(response_id))
                self.obey()
            for response_id, sent_ms in list(self.sent.items()):
                self.talk.feed(Played(response_id, sent_ms))
                self.obey()
            if not self.live and self.talk.session._turns.user is turns.User.SILENT:
                return
        raise AssertionError(f"does not come to rest: {self.live}")

    def rests(self) -> None:
        """Safe and alive: everything has ended, every draft too, and a question is answered."""
        self.settle()
        seen = self.talk.invariants
        assert not seen.open and not seen.drafts
        assert not self.talk.session._answers and not self.talk.session._drafts
        self.talk.client("session.update", session={"output_modalities": ["text"], "instructions": ""})
        start = ask(self.talk, "Still there?")
        self.talk.feed(ResponseText(start.response_id, "Yes."))
        self.talk.feed(ResponseFinished(start.response_id))
        assert self.talk.new[-1]["response"]["output"][0]["content"][0]["text"] == "Yes."


@pytest.mark.parametrize("seed", range(24))
def test_any_order_is_safe_and_comes_to_rest(seed):
    chaos = Chaos(seed)
    for _ in range(250):
        chaos.step()
    chaos.rests()


def test_ten_thousand_malformed_and_reordered_events_later_it_still_answers():
    chaos = Chaos(7)
    sent = 0
    while sent < 10_000:
        (chaos.junk if chaos.random.random() < 0.7 else chaos.client)()
        sent += 1
        if not sent % 50:
            chaos.drive()
        chaos.obey()
    chaos.rests()


def test_a_transcription_session_is_as_safe():
    chaos = Chaos(3, kind="transcription")
    for _ in range(250):
        chaos.step()
    chaos.settle()
    assert not chaos.talk.invariants.open and not chaos.live
    assert "response.created" not in types(chaos.talk.said)


def test_of_an_item_with_too_much_sound_none_is_kept():
    entry = items.Entry(wire.AssistantMessage(id="m", content=[]))
    entry.sounds(bytes(items.MAX_SOUND))
    assert entry.sound is not None
    entry.sounds(b"\0\0")
    assert entry.sound is None
    entry.sounds(b"\0\0")
    assert entry.sound is None
