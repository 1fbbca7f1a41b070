"""What a Realtime session tells its driver to do (commands), and what the driver tells it (engine events).

The driver owns the models, the tasks and the socket; the session (``realtime``) owns every decision. What the
driver owes the session:

- after ``AppendAudio``: ``turns.Speech`` for every 32 ms of it, and ``turns.Tick`` from time to time;
- after ``turns.ScoreTurn`` and ``turns.Recognize``: ``turns.TurnScore`` and ``turns.Heard``;
- after ``StartResponse``: begin to answer. A draft's content is held until ``ReleaseResponse`` and dropped at
  ``StopResponse``. Content (``ResponseAudio``, ``ResponseText``, ``ResponseToolCall``) is fed just when it is
  to be sent, and ``ResponseFinished`` last. Stragglers of a stopped response are dropped by the session;
- ``turns.Duck``: hold the audio that was not sent yet; ``turns.Unduck``: go on from the same sample;
- after ``Transcribe``: ``Transcribed`` (final) or ``TranscriptionFailed``, once;
- ``Played``, a few times a second and when all is heard: how far the listener is, estimated from what was
  sent when. The session makes ``turns.ResponseStarted`` and ``turns.ResponseEnded`` of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from stepaudio.core import turns
from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.conversation import Message, ToolChoice, ToolSpec
from stepaudio.core.protocol import Settings
from stepaudio.core.tagged import disarmed

# Engine events: what the driver feeds


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What was said in an item.

    Attributes:
        item_id: as in ``Transcribe``.
        text: the words so far; with ``final``, all of them. Also final: "" where nothing was said.
        final: whether recognition is over. Words before it may be told as they become certain.
        language: as recognised ("en", "zh"), if known.
        seconds: audio that was recognised (for ``usage``).
    """

    item_id: str
    text: str
    final: bool = True
    language: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    """An item could not be transcribed. ``message`` goes to the client: no internals."""

    item_id: str
    message: str
    code: str = "transcription_failed"


@dataclass(frozen=True, slots=True, eq=False)
class ResponseAudio:
    """The next piece of a spoken answer, now to be sent.

    Attributes:
        response_id: of the response.
        audio: mono at ``StartResponse.output_rate``; ``start`` counts samples from the answer's first.
        clause: which this audio speaks. Its text is the transcript; clauses come in order.
        marks: the words of the clause that begin in this piece, in ms from the answer's first sample.
    """

    response_id: str
    audio: AudioChunk
    clause: Clause
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseText:
    """The next piece of a written answer (modality "text"), now to be sent. Never for a spoken one."""

    response_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ResponseToolCall:
    """The model calls a function of the client's. ``arguments`` is JSON text ("" counts as "{}")."""

    response_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one response; audio tokens are 0 for models that read and write text."""

    input_text: int = 0
    input_audio: int = 0
    cached: int = 0
    output_text: int = 0
    output_audio: int = 0


@dataclass(frozen=True, slots=True)
class ResponseFinished:
    """All of a response was fed; nothing of it follows.

    Attributes:
        status: "incomplete": ``reason`` says which limit; "failed": ``error_code`` and ``error_message``
            go to the client (no internals).
        timings_ms: the latency receipt, ms by stage (``Timeline.numbers_ms``).
    """

    response_id: str
    status: Literal["completed", "incomplete", "failed"] = "completed"
    usage: TokenUsage = field(default_factory=TokenUsage)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    reason: Literal["max_output_tokens", "content_filter"] = "max_output_tokens"
    error_code: str = "server_error"
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class ResponseTimed:
    """Where the time went until now: what is told of a response that is cancelled. May come again.

    Attributes:
        timings_ms: as in ``ResponseFinished``.
        usage: as far as it is known.
    """

    response_id: str
    timings_ms: Mapping[str, float]
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(frozen=True, slots=True)
class Played:
    """The listener has heard this much of a response, in ms from its first sample (never goes back)."""

    response_id: str
    ms: int


@dataclass(frozen=True, slots=True)
class Expired:
    """The session has lasted as long as it may."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is gone, or goes: stop everything. Whatever is received later gives an empty list."""


# Commands: what the driver does

_CONTROL = re.compile(
    r"<(?=\||/?(?:tool_call|tool_response|tools|think|s|start_of_turn|end_of_turn|audio_\d+)\b)|\[(?=/?INST\])"
)
"""How the control tokens of the models' templates begin (Qwen, Llama, Mistral, Gemma, Step-Audio)."""


def plain(text: str) -> str:
    """Text of the user's or a tool's, such that no template reads a control token in it, and no voice an
    instruction tag where the model repeats it."""
    return disarmed(_CONTROL.sub(lambda bracket: bracket[0] + " ", text))


@dataclass(frozen=True, slots=True, eq=False)
class AppendAudio:
    """More of what the user's microphone hears.

    ``chunk`` is mono at 24,000 or 8,000 Hz (the session's input format); ``chunk.start`` counts samples from
    the first that the session ever received, at that rate. All ``*_ms`` of input audio count from there too.
    """

    chunk: AudioChunk


@dataclass(frozen=True, slots=True)
class ClearAudio:
    """What was appended before ``end_ms`` and is in no item will never be asked for: forget it."""

    end_ms: int


@dataclass(frozen=True, slots=True)
class AudioTurn:
    """Stands in a conversation for words of the user that are not written down yet.

    Attributes:
        start_ms, end_ms: where they lie in the input audio.
        item_id: of the item, for which ``Transcribe`` was asked; None in a draft, whose turn is not over.
    """

    start_ms: int
    end_ms: int
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class StartResponse:
    """Begin to answer.

    Attributes:
        response_id: of this answer.
        draft: hold everything until ``ReleaseResponse(response_id)``, and call no tool that changes
            anything before.
        messages: the instructions (role "system", if there are any) and the conversation, oldest first.
            ``written`` puts words in the place of every ``AudioTurn``. Where the last turn turns out to hold
            no words, there is nothing to answer: ``ResponseFinished`` at once.
        modality: "audio" (feed ``ResponseAudio``) or "text" (feed ``ResponseText``).
        voice: as the client named it.
        speed: 1.0 is as trained.
        output_rate: Hz at which ``ResponseAudio`` must come: 24,000, or 8,000 for G.711.
        max_tokens: bound on the answer; None: the server's own.
        tools: the client's functions.
        tool_choice: see ``conversation.ToolChoice``.
        truncation: "auto": shorten a conversation that is too long; "disabled": fail.
        beside: it is outside the conversation: nobody waits in silence for it.
    """

    response_id: str
    draft: bool
    messages: tuple[Message | AudioTurn, ...]
    modality: Literal["audio", "text"] = "audio"
    voice: str = ""
    speed: float = 1.0
    output_rate: int = 24_000
    max_tokens: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    truncation: Literal["auto", "disabled"] = "auto"
    beside: bool = False

    def audio_turns(self) -> list[AudioTurn]:
        """The turns that must be written down before a text model can answer."""
        return [message for message in self.messages if isinstance(message, AudioTurn)]

    def written(self, words: Callable[[AudioTurn], str]) -> list[Message]:
        """The messages with ``words(turn)`` in the place of every turn; a turn without words is left out."""
        out = []
        for message in self.messages:
            if isinstance(message, Message):
                out.append(message)
            elif text := words(message):
                out.append(Message("user", plain(text)))
        return out


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    """A draft has become the answer: feed what was held, and go on."""

    response_id: str


@dataclass(frozen=True, slots=True)
class StopResponse:
    """Drop a response at once, what is held of it, and its audio that was not sent yet."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Write down what was said between two moments of the input audio.

    Attributes:
        item_id: to be named in ``Transcribed``.
        language: that the client expects ("en"); None: find out.
        prompt: of the client's, to guide recognition ("" for none).
        audio: what to write down, where it does not lie in the input audio but came with the item.
    """

    item_id: str
    start_ms: int
    end_ms: int
    language: str | None = None
    prompt: str = ""
    audio: AudioChunk | None = None


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The settings are these from now on: noise reduction, input format and language are the driver's."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Write what was returned before this, then close the socket."""

    code: int
    reason: str


Command = (
    AppendAudio
    | ClearAudio
    | StartResponse
    | ReleaseResponse
    | StopResponse
    | Transcribe
    | SettingsChanged
    | CloseSession
    | turns.ScoreTurn
    | turns.Recognize
    | turns.Duck
    | turns.Unduck
)

EngineEvent = (
    Transcribed
    | TranscriptionFailed
    | ResponseAudio
    | ResponseText
    | ResponseToolCall
    | ResponseFinished
    | ResponseTimed
    | Played
    | Expired
    | Closed
    | turns.Speech
    | turns.TurnScore
    | turns.Heard
    | turns.Tick
)
