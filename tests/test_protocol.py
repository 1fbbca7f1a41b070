import json
from typing import get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from stepaudio.core import protocol
from stepaudio.core.errors import ProtocolError
from stepaudio.core.protocol import (
    AssistantMessage,
    ConversationItemCreate,
    RealtimeSettings,
    ResponseCreate,
    TranscriptionSettings,
    parse_client_event,
    updated,
)


def types_of(union) -> set[str]:
    """The values of ``type`` that a union of events knows."""
    members = get_args(union)
    if len(members) == 2 and not hasattr(members[0], "model_fields"):  # Annotated[Union[...], ...]
        members = get_args(members[0])
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def test_every_client_event_of_the_sdk_is_known():
    assert types_of(protocol.ClientEvent) == types_of(RealtimeClientEvent)


def test_no_server_event_is_ours_alone():
    assert types_of(protocol.ServerEvent) <= types_of(RealtimeServerEvent)


EVENTS = [
    {"type": "session.update", "session": {"type": "realtime", "instructions": "Hi.", "model": "m"}},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit", "event_id": "mine"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.retrieve", "item_id": "a"},
    {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 12},
    {"type": "conversation.item.delete", "item_id": "a"},
    {"type": "response.cancel"},
    {"type": "response.create"},
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "metadata": {"topic": "weather"},
            "output_modalities": ["text"],
            "max_output_tokens": 7,
            "tool_choice": {"type": "function", "name": "f"},
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "audio": {"output": {"voice": "marin", "format": {"type": "audio/pcma"}}},
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]},
                {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "!"}]},
                {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "1"},
            ],
        },
    },
    {
        "type": "conversation.item.create",
        "previous_item_id": "root",
        "item": {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_audio", "audio": "AAAA"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            ],
        },
    },
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_events_mean_what_they_mean_to_the_sdk(event):
    ours = parse_client_event(json.dumps(event)).model_dump(exclude_unset=True)
    theirs = TypeAdapter(RealtimeClientEvent).validate_python(event).model_dump(exclude_unset=True)
    assert ours == theirs


def test_references_are_items_of_a_response():
    event = parse_client_event(
        '{"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "a"}]}}'
    )
    assert isinstance(event, ResponseCreate) and event.response is not None
    assert event.response.input == [protocol.ItemReference(id="a")]


def test_answers_with_the_names_of_the_beta_are_taken():
    event = parse_client_event(
        json.dumps(
            {
                "type": "conversation.item.create",
                "item": {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "text", "text": "a"}, {"type": "output_audio", "transcript": "b"}],
                },
            }
        )
    )
    assert isinstance(event, ConversationItemCreate) and isinstance(event.item, AssistantMessage)
    assert [part.type for part in event.item.content] == ["output_text", "output_audio"]


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ('{"type": "response.cancel", "x": NaN}', "invalid_json", None),
        ('{"type": "response.cancel", "x": "\\ud800"}', "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ("[]", "invalid_json", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": 1}', "invalid_value", "type"),
        ('{"type": "x"}', "invalid_value", "type"),
        ('{"type": "session.created"}', "invalid_value", "type"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": []}', "invalid_value", "session"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 1}', "invalid_value", "audio"),
        ('{"type": "conversation.item.create", "item": {}}', "missing_required_parameter", "item.type"),
        ('{"type": "conversation.item.create", "item": 5}', "missing_required_parameter", "item.type"),
        (
            '{"type": "conversation.item.create", "item": {"type": "message"}}',
            "missing_required_parameter",
            "item.role",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "god"}}',
            "invalid_value",
            "item.role",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "assistant",'
            ' "content": "x"}}',
            "invalid_value",
            "item.content",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "user",'
            ' "content": [{"type": "input_text", "text": "a"}, {"type": "nope"}]}}',
            "invalid_value",
            "item.content[1].type",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "user",'
            ' "content": [{"type": "input_text"}]}}',
            "missing_required_parameter",
            "item.content[0].text",
        ),
        (
            '{"type": "response.create", "response": {"max_output_tokens": 0}}',
            "invalid_value",
            "response.max_output_tokens",
        ),
        (
            '{"type": "response.create", "response": {"metadata": {"a": 1}}}',
            "invalid_value",
            "response.metadata.a",
        ),
        (
            '{"type": "response.create", "response": {"tools": [{"type": "function", "name": ""}]}}',
            "invalid_value",
            "response.tools[0].name",
        ),
    ],
)
def test_what_is_wrong_is_named(frame, code, param):
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(frame)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_an_error_names_the_clients_event_and_repeats_nothing_of_it():
    with pytest.raises(ProtocolError) as caught:
        parse_client_event('{"type": "input_audio_buffer.append", "audio": ["secret"], "event_id": "e7"}')
    assert caught.value.event_id == "e7" and "secret" not in str(caught.value)


def test_an_unknown_kind_of_item_is_answered_with_those_there_are():
    with pytest.raises(ProtocolError) as caught:
        parse_client_event('{"type": "conversation.item.create", "item": {"type": "mcp_call"}}')
    assert str(caught.value).startswith(
        "Invalid value for 'item.type'. Supported are: 'message', 'function_call'"
    )
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "developer"}}'
        )
    assert str(caught.value).endswith("Supported are: 'system', 'user', 'assistant'.")


def test_a_long_key_does_not_make_a_long_error():
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(json.dumps({"type": "response.create", "response": {"metadata": {"k" * 9999: 1}}}))
    assert len(str(caught.value)) < 1000


# Settings

START = RealtimeSettings(id="sess_1", model="m", expires_at=9)


def test_a_new_session_tells_all_its_settings():
    session = json.loads(START.model_dump_json())
    assert session["audio"]["input"]["transcription"] is None and session["tools"] == []
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "alloy",
        "speed": 1.0,
    }


def test_updates_merge_objects_and_replace_arrays():
    once = updated(START, {"audio": {"output": {"speed": 1.2}}, "tools": [{"name": "f"}]})
    twice = updated(once, {"audio": {"output": {"voice": "ash"}}, "tools": []})
    assert isinstance(twice, RealtimeSettings)
    assert (twice.audio.output.speed, twice.audio.output.voice, twice.tools) == (1.2, "ash", [])


def test_null_clears_what_can_be_cleared_and_says_nothing_elsewhere():
    vad = updated(START, {"audio": {"input": {"transcription": {"model": "whisper-1"}}}})
    none = updated(vad, {"audio": {"input": {"turn_detection": None, "transcription": None}}, "tools": None})
    assert none.audio.input.turn_detection is None and none.audio.input.transcription is None
    assert isinstance(none, RealtimeSettings) and none.tools == []


def test_turn_detection_changes_its_kind_and_keeps_what_fits():
    vad = updated(START, {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}})
    semantic = updated(vad, {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    assert semantic.audio.input.turn_detection == protocol.SemanticVad()
    longer = updated(vad, {"audio": {"input": {"turn_detection": {"silence_duration_ms": 900}}}})
    assert longer.audio.input.turn_detection == protocol.ServerVad(threshold=0.7, silence_duration_ms=900)


def test_identity_is_fixed_and_unknown_fields_are_passed_over():
    patch = {"type": "realtime", "id": "x", "model": "other", "expires_at": 1, "future": {"a": 1}}
    assert updated(START, patch) == START


def test_text_and_audio_together_mean_audio():
    both = updated(START, {"output_modalities": ["text", "audio"]})
    assert isinstance(both, RealtimeSettings) and both.output_modalities == ["audio"]


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"audio": 5}, "session.audio"),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            "session.audio.input.format.rate",
        ),
        ({"audio": {"input": {"format": {"type": "mp3"}}}}, "session.audio.input.format.type"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "session.audio.input.turn_detection.threshold",
        ),
        ({"audio": {"output": {"speed": 9}}}, "session.audio.output.speed"),
        ({"output_modalities": []}, "session.output_modalities"),
        ({"max_output_tokens": 5000}, "session.max_output_tokens"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "y"}]}, "session.tools[0].type"),
        ({"prompt": {"id": "pmpt_1"}}, "session.prompt"),
        (
            {"truncation": {"type": "retention_ratio", "retention_ratio": 2}},
            "session.truncation",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(patch, param):
    with pytest.raises(ProtocolError) as caught:
        updated(START, patch)
    assert caught.value.param == param


def test_tools_of_a_response_are_as_short_as_those_of_a_session():
    tool = {"type": "function", "name": "f", "description": "x" * 600_000}
    event = {"type": "response.create", "response": {"tools": [tool]}}
    assert parse_client_event(json.dumps(event))
    event["response"] = {"tools": [tool, tool]}
    with pytest.raises(ProtocolError, match="more than 1000000 characters; describe fewer") as caught:
        parse_client_event(json.dumps(event))
    assert caught.value.param == "response.tools"


def test_a_stored_prompt_is_refused_with_what_to_do():
    settings = RealtimeSettings()
    with pytest.raises(ProtocolError, match="kept at OpenAI; send their text as instructions"):
        updated(settings, {"prompt": {"id": "pmpt_1"}})
    assert updated(settings, {"prompt": None}) == settings


def test_transcription_sessions_write_down_by_default():
    settings = updated(TranscriptionSettings(), {"audio": {"input": {"transcription": {"language": "en"}}}})
    assert settings.audio.input.transcription == protocol.Transcription(language="en")


def test_frames_leave_out_what_has_no_value_and_keep_what_is_null():
    frame = protocol.to_json(
        protocol.TranscriptDelta(
            event_id="e", response_id="r", output_index=0, item_id="i", delta="Hi", start_time=0.5
        )
    )
    assert json.loads(frame)["start_time"] == 0.5
    item = protocol.UserMessage(id="a", content=[protocol.InputAudio()])
    added = json.loads(protocol.to_json(protocol.ItemAdded(event_id="e", previous_item_id=None, item=item)))
    assert added["previous_item_id"] is None
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
