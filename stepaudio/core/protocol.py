"""The wire of the OpenAI Realtime API (general availability) as pydantic models, and nothing else.

Names, fields and nesting are those of the ``openai`` package (``openai.types.realtime``). Ours are two extra
*fields*, which that package allows: ``start_time`` of transcript deltas, ``timings_ms`` of responses. There
is no event type of our own, since clients refuse those they do not know.

``parse_client_event`` reads what a client sends; ``updated`` merges a ``session.update`` into the settings.
Both raise ``ProtocolError`` with the path of what is wrong. Fields that we do not know are passed over:
clients are newer than servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator
from pydantic_core import ErrorDetails, from_json

from stepaudio.core.errors import ProtocolError

MAX_AUDIO_CHARS = 20 * 1024 * 1024
"""Of base64 in one event: 15 MiB of audio, as hosted."""

MAX_TEXT = 200_000
"""Characters of one text that a client sends; a frame of ours stays under 1 MiB with it."""

MAX_EVENT = 1_000_000
"""Characters of an event that holds no audio and no picture: of settings, which are sent back."""

MAX_METADATA = 16
"""Pairs in the metadata of a response."""

MAX_PARAM = 200
"""Characters of the path in an error: it may hold a key that the client made up."""


class Wire(BaseModel):
    """Base of everything on the wire: never changed once made."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _unless_none() -> Any:
    """A field that is left out of the JSON while it has no value."""
    return Field(default=None, exclude_if=lambda value: value is None)


# ------------------------------------------------------------------------------------------- items


class InputText(Wire):
    type: Literal["input_text"] = "input_text"
    text: str = Field(max_length=MAX_TEXT)


class InputAudio(Wire):
    """``audio`` is base64 in the session's input format."""

    type: Literal["input_audio"] = "input_audio"
    audio: str | None = Field(
        default=None, max_length=MAX_AUDIO_CHARS, exclude_if=lambda value: value is None
    )
    transcript: str | None = Field(default=None, max_length=MAX_TEXT)


class InputImage(Wire):
    """Taken, since clients send what they have, but no model here sees it: ``image_url`` is not kept."""

    type: Literal["input_image"] = "input_image"
    image_url: str | None = Field(
        default=None, max_length=MAX_AUDIO_CHARS, exclude_if=lambda value: value is None
    )
    detail: Literal["auto", "low", "high"] = "auto"


class OutputText(Wire):
    type: Literal["output_text"] = "output_text"
    text: str = Field(max_length=MAX_TEXT)


class OutputAudio(Wire):
    """``audio`` is base64 in the response's format."""

    type: Literal["output_audio"] = "output_audio"
    audio: str | None = Field(
        default=None, max_length=MAX_AUDIO_CHARS, exclude_if=lambda value: value is None
    )
    transcript: str | None = Field(default=None, max_length=MAX_TEXT)


Status = Literal["in_progress", "completed", "incomplete"]


class _Item(Wire):
    id: str | None = Field(default=None, min_length=1, max_length=64)
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"


class SystemMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["system"] = "system"
    content: list[InputText]


class UserMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["user"] = "user"
    content: list[Annotated[InputText | InputAudio | InputImage, Field(discriminator="type")]]


class AssistantMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    content: list[Annotated[OutputText | OutputAudio, Field(discriminator="type")]]

    @field_validator("content", mode="before")
    @classmethod
    def _older_names(cls, content: Any) -> Any:
        """Clients still replay answers with the names of the beta."""
        names = {"text": "output_text", "audio": "output_audio"}
        if not isinstance(content, list):
            return content
        return [
            {**part, "type": names[part["type"]]}
            if isinstance(part, dict) and part.get("type") in ("text", "audio")
            else part
            for part in content
        ]


class FunctionCall(_Item):
    type: Literal["function_call"] = "function_call"
    call_id: str | None = None
    name: str = Field(max_length=MAX_TEXT)
    arguments: str = Field(max_length=MAX_TEXT)


class FunctionCallOutput(_Item):
    type: Literal["function_call_output"] = "function_call_output"
    call_id: str
    output: str = Field(max_length=MAX_TEXT)


class ItemReference(Wire):
    """In ``response.create.input``: an item of the conversation."""

    type: Literal["item_reference"] = "item_reference"
    id: str


def _kind(item: Any) -> Any:
    """By what a union of items is told apart: ``type``, and the role of messages."""
    read = item.get if isinstance(item, dict) else lambda name: getattr(item, name, None)
    kind = read("type")
    return read("role") if kind == "message" else kind


Item = Annotated[
    Annotated[SystemMessage, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(_kind),
]
InputItem = Annotated[
    Annotated[SystemMessage, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind),
]

# ------------------------------------------------------------------------------------------- settings


class Pcm(Wire):
    """16-bit little-endian mono at 24,000 Hz."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class Pcmu(Wire):
    """G.711 mu-law, 8,000 Hz."""

    type: Literal["audio/pcmu"] = "audio/pcmu"


class Pcma(Wire):
    """G.711 A-law, 8,000 Hz."""

    type: Literal["audio/pcma"] = "audio/pcma"


AudioFormat = Annotated[Pcm | Pcmu | Pcma, Field(discriminator="type")]


class ServerVad(Wire):
    """Silence alone ends a turn."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=0, le=10_000)
    idle_timeout_ms: int | None = Field(default=None, ge=1000, le=600_000)
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(Wire):
    """Silence, the turn model and the words end a turn."""

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class NoiseReduction(Wire):
    type: Literal["near_field", "far_field"]


class Transcription(Wire):
    """Any model name is taken: the server has one recogniser."""

    model: str | None = None
    language: str | None = Field(default=None, max_length=16)
    prompt: str | None = Field(default=None, max_length=4000)


class VoiceId(Wire):
    id: str


class AudioInput(Wire):
    format: AudioFormat = Pcm()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = SemanticVad()


class AudioOutput(Wire):
    format: AudioFormat = Pcm()
    voice: str | VoiceId = "alloy"
    speed: float = Field(default=1.0, ge=0.25, le=1.5)


class Audio(Wire):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class TranscriptionAudio(Wire):
    input: AudioInput = AudioInput(transcription=Transcription())


class FunctionTool(Wire):
    type: Literal["function"] = "function"
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class NamedFunction(Wire):
    """As a tool choice: call this one."""

    type: Literal["function"] = "function"
    name: str


Modality = Literal["text", "audio"]
ToolChoice = Literal["auto", "none", "required"] | NamedFunction
MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]


def _one_modality(value: Any) -> Any:
    """Audio comes with its transcript, so clients that ask for both mean audio."""
    both = isinstance(value, list) and sorted(map(str, value)) == ["audio", "text"]
    return ["audio"] if both else value


class RetentionRatio(Wire):
    type: Literal["retention_ratio"] = "retention_ratio"
    retention_ratio: float = Field(ge=0, le=1)


class RealtimeSettings(Wire):
    """A conversation's session, whole, as in ``session.created`` and ``session.updated``."""

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str = ""
    model: str = "stepaudio"
    output_modalities: list[Modality] = Field(default=["audio"], min_length=1, max_length=1)
    instructions: str = Field(default="", max_length=MAX_TEXT)
    tools: list[FunctionTool] = Field(default=[], max_length=128)
    tool_choice: ToolChoice = "auto"
    max_output_tokens: MaxTokens = "inf"
    tracing: Literal["auto"] | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio = "auto"
    prompt: None = None
    expires_at: int = 0
    audio: Audio = Audio()
    include: list[str] | None = None

    _modalities = field_validator("output_modalities", mode="before")(_one_modality)

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_prompt(cls, prompt: Any) -> None:
        if prompt is not None:
            raise ValueError("stored prompts are kept at OpenAI; send their text as instructions")


class TranscriptionSettings(Wire):
    """A session that only writes down what it hears."""

    type: Literal["transcription"] = "transcription"
    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str = ""
    expires_at: int = 0
    audio: TranscriptionAudio = TranscriptionAudio()
    include: list[str] | None = None


Settings = RealtimeSettings | TranscriptionSettings

FIXED = frozenset({"id", "object", "model", "expires_at"})
"""Of a session: clients send ``model`` with every update, and it cannot change."""
CLEARED_BY_NULL = frozenset(
    "turn_detection transcription noise_reduction tracing prompt include idle_timeout_ms language".split()
)
"""Elsewhere ``null`` says nothing: clients in typed languages send it for what they do not set."""


def updated(settings: Settings, patch: Mapping[str, Any]) -> Settings:
    """The settings with what ``patch`` holds: objects are merged, arrays replaced, ``null`` clears.

    Raises:
        ProtocolError: something in ``patch`` cannot be used; ``settings`` are as they were.
    """
    if patch.get("type", settings.type) != settings.type:
        raise ProtocolError(
            f"The type of a session cannot change: this one is '{settings.type}'.",
            "invalid_value",
            "session.type",
        )
    fresh = {key: value for key, value in patch.items() if key not in FIXED}
    merged = _merge(settings.model_dump(), fresh)
    try:
        return type(settings).model_validate(merged)
    except ValidationError as error:
        raise _protocol_error(error, merged, "session") from None


def _merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in patch.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(before, value)
        elif value is not None or key in CLEARED_BY_NULL:
            merged[key] = value
    return merged


# ------------------------------------------------------------------------------------------- client events


class _ClientEvent(Wire):
    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(_ClientEvent):
    """``session`` is the part of the settings that is to change; see ``updated``."""

    type: Literal["session.update"]
    session: dict[str, Any]


class InputAudioBufferAppend(_ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str = Field(max_length=MAX_AUDIO_CHARS)


class InputAudioBufferCommit(_ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(_ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class OutputAudioBufferClear(_ClientEvent):
    type: Literal["output_audio_buffer.clear"]


class ConversationItemCreate(_ClientEvent):
    type: Literal["conversation.item.create"]
    item: Item
    previous_item_id: str | None = None


class ConversationItemRetrieve(_ClientEvent):
    type: Literal["conversation.item.retrieve"]
    item_id: str


class ConversationItemTruncate(_ClientEvent):
    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: int = 0
    audio_end_ms: float


class ConversationItemDelete(_ClientEvent):
    type: Literal["conversation.item.delete"]
    item_id: str


class ResponseAudioOutput(Wire):
    format: AudioFormat | None = None
    voice: str | VoiceId | None = None


class ResponseAudioParams(Wire):
    output: ResponseAudioOutput | None = None


class ResponseParams(Wire):
    """What a response does otherwise than the session; None: as the session."""

    conversation: Literal["auto", "none"] | None = None
    instructions: str | None = Field(default=None, max_length=MAX_TEXT)
    input: list[InputItem] | None = Field(default=None, max_length=1000)
    output_modalities: list[Modality] | None = Field(default=None, min_length=1, max_length=1)
    audio: ResponseAudioParams | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = (
        Field(default=None, max_length=MAX_METADATA)
    )

    _modalities = field_validator("output_modalities", mode="before")(_one_modality)

    @field_validator("tools")
    @classmethod
    def _bounded(cls, tools: list[FunctionTool] | None) -> list[FunctionTool] | None:
        if sum(len(tool.model_dump_json()) for tool in tools or ()) > MAX_EVENT:
            raise ValueError(f"the tools have more than {MAX_EVENT} characters; describe fewer, or shorter")
        return tools


class ResponseCreate(_ClientEvent):
    type: Literal["response.create"]
    response: ResponseParams | None = None


class ResponseCancel(_ClientEvent):
    type: Literal["response.cancel"]
    response_id: str | None = None


ClientEvent = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | ConversationItemDelete
    | ResponseCreate
    | ResponseCancel
)

_CLIENT_EVENTS: dict[str, type[ClientEvent]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": InputAudioBufferAppend,
    "input_audio_buffer.commit": InputAudioBufferCommit,
    "input_audio_buffer.clear": InputAudioBufferClear,
    "output_audio_buffer.clear": OutputAudioBufferClear,
    "conversation.item.create": ConversationItemCreate,
    "conversation.item.retrieve": ConversationItemRetrieve,
    "conversation.item.truncate": ConversationItemTruncate,
    "conversation.item.delete": ConversationItemDelete,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}


_HOLD_AUDIO = (InputAudioBufferAppend, ConversationItemCreate, ResponseCreate)


def parse_client_event(text: str | bytes) -> ClientEvent:
    """One text frame of a client.

    Raises:
        ProtocolError: it is no JSON object, or no event that we know, or a field is missing or wrong. Its
            ``event_id`` is the client's, where it gave a usable one.
    """
    try:
        data = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise ProtocolError("The message is not valid JSON.", "invalid_json") from None
    if not isinstance(data, dict):
        raise ProtocolError("The message is not a JSON object.", "invalid_json")
    event_id = data.get("event_id")
    event_id = event_id[:512] if isinstance(event_id, str) else None
    kind = data.get("type")
    if kind is None:
        raise ProtocolError(
            "Missing required parameter: 'type'.", "missing_required_parameter", "type", event_id
        )
    model = _CLIENT_EVENTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        known = ", ".join(f"'{name}'" for name in _CLIENT_EVENTS)
        raise ProtocolError(f"Unknown event type. Supported are: {known}.", "invalid_value", "type", event_id)
    if len(text) > MAX_EVENT and model not in _HOLD_AUDIO:
        raise ProtocolError(
            f"The event has more than {MAX_EVENT} characters.", "invalid_value", None, event_id
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _protocol_error(error, data, "", event_id) from None


def _protocol_error(
    error: ValidationError, data: Any, root: str, event_id: str | None = None
) -> ProtocolError:
    """What pydantic found first, by the path that the client knows."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = _path(first, data, root)
    if first["type"] in ("missing", "union_tag_not_found"):
        message, code = f"Missing required parameter: '{param}'.", "missing_required_parameter"
    elif first["type"] == "union_tag_invalid":
        known = _known_tags(first.get("ctx", {})["expected_tags"], param)
        message, code = f"Invalid value for '{param}'. Supported are: {known}.", "invalid_value"
    else:
        said = first["msg"].removeprefix("Value error, ")
        message, code = f"Invalid value for '{param}': {said[:300]}.", "invalid_value"
    return ProtocolError(message, code, param, event_id)


_ROLES = "'system', 'user', 'assistant'"


def _known_tags(tags: str, param: str) -> str:
    """What may stand at ``param``: messages are told apart by their roles, which are no types."""
    if _ROLES not in tags:
        return tags
    return _ROLES if param.endswith(".role") else tags.replace(_ROLES, "'message'")


def _path(error: ErrorDetails, data: Any, root: str) -> str:
    """ "session.tools[0].name": pydantic's location without the names of the members of unions in it."""
    path, here = root, data
    for i, step in enumerate(error["loc"]):
        last = i == len(error["loc"]) - 1
        if isinstance(step, int) and isinstance(here, list):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or (last and error["type"] == "missing")):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    if error["type"].startswith("union_tag"):
        path += ".role" if isinstance(here, dict) and here.get("type") == "message" else ".type"
    return path[:MAX_PARAM]


# ------------------------------------------------------------------------------------------- server events


class _ServerEvent(Wire):
    event_id: str


class SessionCreated(_ServerEvent):
    type: Literal["session.created"] = "session.created"
    session: Annotated[RealtimeSettings | TranscriptionSettings, Field(discriminator="type")]


class SessionUpdated(_ServerEvent):
    type: Literal["session.updated"] = "session.updated"
    session: Annotated[RealtimeSettings | TranscriptionSettings, Field(discriminator="type")]


class ErrorBody(Wire):
    """``event_id`` is that of the client's event, if one was at fault."""

    type: str
    code: str | None
    message: str
    param: str | None
    event_id: str | None


class Error(_ServerEvent):
    type: Literal["error"] = "error"
    error: ErrorBody


class SpeechStarted(_ServerEvent):
    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(_ServerEvent):
    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class TimeoutTriggered(_ServerEvent):
    type: Literal["input_audio_buffer.timeout_triggered"] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class Committed(_ServerEvent):
    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


class Cleared(_ServerEvent):
    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class OutputAudioCleared(_ServerEvent):
    type: Literal["output_audio_buffer.cleared"] = "output_audio_buffer.cleared"
    response_id: str


class ItemAdded(_ServerEvent):
    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None
    item: Item


class ItemDone(_ServerEvent):
    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None
    item: Item


class ItemRetrieved(_ServerEvent):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Item


class ItemTruncated(_ServerEvent):
    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


class ItemDeleted(_ServerEvent):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class TranscriptionDelta(_ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int = 0
    delta: str


class Duration(Wire):
    type: Literal["duration"] = "duration"
    seconds: float


class Language(Wire):
    code: str


class TranscriptionCompleted(_ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int = 0
    transcript: str
    usage: Duration
    languages: list[Language] | None = _unless_none()


class TranscriptionFailure(Wire):
    type: str
    code: str
    message: str
    param: str | None = None


class TranscriptionFailed(_ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int = 0
    error: TranscriptionFailure


class InputTokenDetails(Wire):
    text_tokens: int
    audio_tokens: int
    cached_tokens: int


class OutputTokenDetails(Wire):
    text_tokens: int
    audio_tokens: int


class Usage(Wire):
    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: InputTokenDetails
    output_token_details: OutputTokenDetails


class FailureDetails(Wire):
    type: str
    code: str
    message: str


class StatusDetails(Wire):
    type: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"] | None = (
        _unless_none()
    )
    error: FailureDetails | None = _unless_none()


class ResponseOutput(Wire):
    format: AudioFormat
    voice: str


class ResponseAudioObject(Wire):
    output: ResponseOutput


class Response(Wire):
    """``timings_ms`` is ours: the latency receipt, ms by stage; ``metadata`` has it as text as well."""

    object: Literal["realtime.response"] = "realtime.response"
    id: str
    status: Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
    status_details: StatusDetails | None
    output: list[Item]
    conversation_id: str | None
    output_modalities: list[Modality]
    max_output_tokens: int | Literal["inf"]
    audio: ResponseAudioObject
    usage: Usage | None
    metadata: dict[str, str] | None
    timings_ms: dict[str, float] | None = _unless_none()


class ResponseCreated(_ServerEvent):
    type: Literal["response.created"] = "response.created"
    response: Response


class ResponseDone(_ServerEvent):
    type: Literal["response.done"] = "response.done"
    response: Response


class _OfResponse(_ServerEvent):
    response_id: str
    output_index: int


class OutputItemAdded(_OfResponse):
    type: Literal["response.output_item.added"] = "response.output_item.added"
    item: Item


class OutputItemDone(_OfResponse):
    type: Literal["response.output_item.done"] = "response.output_item.done"
    item: Item


class _OfItem(_OfResponse):
    item_id: str


class _OfPart(_OfItem):
    content_index: int = 0


class TextPart(Wire):
    type: Literal["text"] = "text"
    text: str


class AudioPart(Wire):
    type: Literal["audio"] = "audio"
    transcript: str


Part = Annotated[TextPart | AudioPart, Field(discriminator="type")]


class ContentPartAdded(_OfPart):
    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: Part


class ContentPartDone(_OfPart):
    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: Part


class OutputTextDelta(_OfPart):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str


class OutputTextDone(_OfPart):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str


class OutputAudioDelta(_OfPart):
    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    delta: str


class OutputAudioDone(_OfPart):
    type: Literal["response.output_audio.done"] = "response.output_audio.done"


class TranscriptDelta(_OfPart):
    """``start_time`` is ours (and read by livekit): when the word begins, in s from the answer's start."""

    type: Literal["response.output_audio_transcript.delta"] = "response.output_audio_transcript.delta"
    delta: str
    start_time: float | None = _unless_none()


class TranscriptDone(_OfPart):
    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


class FunctionCallArgumentsDelta(_OfItem):
    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    call_id: str
    delta: str


class FunctionCallArgumentsDone(_OfItem):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    call_id: str
    name: str
    arguments: str


ServerEvent = (
    SessionCreated
    | SessionUpdated
    | Error
    | SpeechStarted
    | SpeechStopped
    | TimeoutTriggered
    | Committed
    | Cleared
    | OutputAudioCleared
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemTruncated
    | ItemDeleted
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputAudioDelta
    | OutputAudioDone
    | TranscriptDelta
    | TranscriptDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
)


def to_json(event: ServerEvent) -> str:
    """The text frame of a server event."""
    return event.model_dump_json()
