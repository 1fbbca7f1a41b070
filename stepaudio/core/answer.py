"""One response on the wire: the order of its events, and which words go out with which audio.

It does not know why a response begins or ends (``realtime`` does), nor what makes its content.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal

import numpy as np

from stepaudio.core import protocol as wire
from stepaudio.core.audio import AudioChunk, float_to_g711, float_to_pcm16
from stepaudio.core.clauses import Clause, Mark, is_han
from stepaudio.core.commands import ResponseFinished, ResponseTimed, TokenUsage
from stepaudio.core.conversation import SpokenWord, ToolChoice, ToolSpec
from stepaudio.core.items import Entry, Items

MAX_DELTA_BYTES = 36_000
"""Of audio in one event: 48 KB of base64. Some clients take frames of 1 MiB at most."""

RECEIPT = "stepaudio_{}_ms"
"""Key of a latency in the metadata of ``response.done``."""

_WIDE = frozenset("。！？，；：、…”’」』）》】")


class State(Enum):
    """Where a response stands: HELD (a draft, of which nobody knows), OPEN, or OVER (done was sent)."""

    HELD = auto()
    OPEN = auto()
    OVER = auto()


MOVES = {
    (State.HELD, "release"): State.OPEN,
    (State.OPEN, "done"): State.OVER,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one response from its beginning to its end, whatever the session becomes meanwhile."""

    instructions: str
    modality: Literal["audio", "text"]
    voice: str
    speed: float
    format: wire.Pcm | wire.Pcmu | wire.Pcma
    tools: tuple[ToolSpec, ...]
    tool_choice: ToolChoice
    max_tokens: int | Literal["inf"]
    truncation: Literal["auto", "disabled"]
    metadata: Mapping[str, str] | None


class Answer:
    """A response.

    Args:
        response_id: of the response.
        terms: what holds for it.
        items: the conversation that it goes into; None: into none.
        conversation_id: of that.
        new_id: makes ids, given their kind ("item", "event").

    Attributes:
        state: see ``State``.
        message: the item that holds its words, once there are any.
        played_ms: of its audio, by the listener.
        timed: where the time went, as last told.
    """

    def __init__(
        self,
        response_id: str,
        terms: Terms,
        items: Items | None,
        conversation_id: str,
        new_id: Callable[[str], str],
    ) -> None:
        self.id = response_id
        self.terms = terms
        self.state = State.HELD
        self.message: Entry | None = None
        self.played_ms = 0.0
        self.timed = ResponseTimed(response_id, {})
        self._items = items
        self._conversation_id = conversation_id if items is not None else None
        self._new_id = new_id
        self._output: list[Entry] = []
        self._clause: Clause | None = None
        self._said = 0  # characters of the clause that went out
        self._text = ""  # of the message, as sent
        self._samples = 0  # of audio that was sent

    @property
    def in_conversation(self) -> bool:
        """Whether it is an answer of the conversation, not beside it."""
        return self._items is not None

    @property
    def sent_ms(self) -> float:
        """Length of the audio that was sent."""
        return 1000 * self._samples / rate(self.terms.format)

    def _move(self, move: str) -> None:
        self.state = MOVES[self.state, move]

    def _event_id(self) -> str:
        return self._new_id("event")

    # What is sent

    def release(self) -> list[wire.ServerEvent]:
        """The client learns of it."""
        self._move("release")
        return [wire.ResponseCreated(event_id=self._event_id(), response=self._response("in_progress"))]

    def audio(self, chunk: AudioChunk, clause: Clause, marks: tuple[Mark, ...]) -> list[wire.ServerEvent]:
        """Audio, and before it the words that begin in it.

        Raises:
            ValueError: the audio is not at the rate that was asked for.
        """
        if chunk.rate != rate(self.terms.format):
            raise ValueError(f"audio at {chunk.rate} Hz, asked for was {rate(self.terms.format)} Hz")
        out = self._open()
        if self._clause is None or clause.index != self._clause.index:
            out += self._rest_of_clause()
            self._clause, self._said = clause, 0
        for mark in marks:
            out += self._word(mark, clause.text)
        self._samples += len(chunk.samples)
        assert self.message is not None
        self.message.sent_ms = self.sent_ms
        for octets in _pieces(chunk.samples, self.terms.format):
            self.message.sounds(octets)
            delta = base64.b64encode(octets).decode()
            out.append(wire.OutputAudioDelta(**self._part(), delta=delta))
        return out

    def text(self, delta: str) -> list[wire.ServerEvent]:
        """Text: of a spoken answer, what is not spoken."""
        if not delta:
            return []
        out = self._open() + self._rest_of_clause()
        if self.terms.modality == "audio":
            return [*out, self._transcript(delta, round(self.sent_ms), round(self.sent_ms))]
        self._text += delta
        return [*out, wire.OutputTextDelta(**self._part(), delta=delta)]

    def tool_call(self, call_id: str, name: str, arguments: str) -> list[wire.ServerEvent]:
        """A call of a function, whole: its name must be known when the item is added."""
        call = wire.FunctionCall(
            id=self._new_id("item"), call_id=call_id, name=name, arguments="", status="in_progress"
        )
        entry = Entry(call)
        out = self._place(entry)
        of: dict[str, Any] = {
            "response_id": self.id,
            "output_index": self._output.index(entry),
            "item_id": entry.id,
            "call_id": call_id,
        }
        arguments = arguments or "{}"
        entry.item = call.model_copy(update={"arguments": arguments, "status": "completed"})
        out += [
            wire.FunctionCallArgumentsDelta(event_id=self._event_id(), **of, delta=arguments),
            wire.FunctionCallArgumentsDone(event_id=self._event_id(), **of, name=name, arguments=arguments),
        ]
        return out + self._item_done(entry)

    def finish(self, end: ResponseFinished) -> list[wire.ServerEvent]:
        """All was sent."""
        match end.status:
            case "completed":
                details = None
            case "incomplete":
                details = wire.StatusDetails(type="incomplete", reason=end.reason)
            case _:
                kind = "invalid_request_error" if end.error_code == "invalid_value" else "server_error"
                error = wire.FailureDetails(type=kind, code=end.error_code, message=end.error_message)
                details = wire.StatusDetails(type="failed", error=error)
        out = [] if end.status == "failed" else self._rest_of_clause()
        out += self._close("completed" if end.status == "completed" else "incomplete")
        return [*out, self._done(end.status, details, end.usage, end.timings_ms)]

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"]) -> list[wire.ServerEvent]:
        """It is stopped: the item holds what was heard."""
        if self.message is not None and self.message.heard_ms is None:
            self.message.heard_ms = min(self.played_ms, self.sent_ms)
        out = self._close("incomplete")
        details = wire.StatusDetails(type="cancelled", reason=reason)
        return [*out, self._done("cancelled", details, self.timed.usage, self.timed.timings_ms)]

    # How

    def _open(self) -> list[wire.ServerEvent]:
        """The message that words go into, if it is not there yet."""
        if self.message is not None:
            return []
        item = wire.AssistantMessage(id=self._new_id("item"), status="in_progress", content=[])
        self.message = Entry(item)
        out = self._place(self.message)
        audio = self.terms.modality == "audio"
        part = wire.AudioPart(transcript="") if audio else wire.TextPart(text="")
        return [*out, wire.ContentPartAdded(**self._part(), part=part)]

    def _place(self, entry: Entry) -> list[wire.ServerEvent]:
        """A new item of the output, and of the conversation."""
        self._output.append(entry)
        out: list[wire.ServerEvent] = [
            wire.OutputItemAdded(
                event_id=self._event_id(),
                response_id=self.id,
                output_index=len(self._output) - 1,
                item=entry.item,
            )
        ]
        if self._items is not None:
            previous = self._items.add(entry)
            out.append(wire.ItemAdded(event_id=self._event_id(), previous_item_id=previous, item=entry.item))
        return out

    def _item_done(self, entry: Entry) -> list[wire.ServerEvent]:
        out: list[wire.ServerEvent] = []
        if self._items is not None and entry.id in self._items:  # the client may have deleted it
            previous = self._items.previous(entry.id)
            out.append(wire.ItemDone(event_id=self._event_id(), previous_item_id=previous, item=entry.item))
        at = self._output.index(entry)
        out.append(
            wire.OutputItemDone(
                event_id=self._event_id(), response_id=self.id, output_index=at, item=entry.item
            )
        )
        return out

    def _part(self) -> dict[str, Any]:
        """What every event about the message's only part has."""
        assert self.message is not None
        return {
            "event_id": self._event_id(),
            "response_id": self.id,
            "output_index": self._output.index(self.message),
            "item_id": self.message.id,
        }

    def _word(self, mark: Mark, text: str) -> list[wire.ServerEvent]:
        """The text of the clause as far as the word of ``mark``, and the signs and spaces behind it."""
        at = text.find(mark.text, self._said)
        if at < 0 or not mark.text:
            return []  # not as written: its text goes out with the next word
        end = at + len(mark.text)
        while end < len(text) and not text[end].isalnum():
            end += 1
        delta = self._joined(text[self._said : end])
        self._said = end
        return [self._transcript(delta, mark.start_ms, mark.end_ms)]

    def _rest_of_clause(self) -> list[wire.ServerEvent]:
        """What no mark told of, now that the clause was spoken."""
        if self._clause is None:
            return []
        rest = self._joined(self._clause.text[self._said :])
        self._clause = None
        return [self._transcript(rest, round(self.sent_ms), round(self.sent_ms))] if rest else []

    def _joined(self, text: str) -> str:
        """The next text of the clause; if it is the first, with what stands between two clauses."""
        return text if self._said else _joint(self._text, text) + text

    def _transcript(self, delta: str, start_ms: int, end_ms: int) -> wire.ServerEvent:
        assert self.message is not None
        self._text += delta
        self.message.spoken = self._text
        self.message.words.append(SpokenWord(len(self._text), start_ms, end_ms))
        return wire.TranscriptDelta(**self._part(), delta=delta, start_time=start_ms / 1000)

    def _close(self, status: Literal["completed", "incomplete"]) -> list[wire.ServerEvent]:
        """The message is over."""
        entry = self.message
        if entry is None:
            return []
        out: list[wire.ServerEvent] = []
        if self.terms.modality == "audio":
            if self._items is not None:
                self._items.sounded(entry)
            out += [
                wire.OutputAudioDone(**self._part()),
                wire.TranscriptDone(**self._part(), transcript=self._text),
                wire.ContentPartDone(**self._part(), part=wire.AudioPart(transcript=self._text)),
            ]
            content: wire.OutputText | wire.OutputAudio = wire.OutputAudio(transcript=entry.heard)
        else:
            out += [
                wire.OutputTextDone(**self._part(), text=self._text),
                wire.ContentPartDone(**self._part(), part=wire.TextPart(text=self._text)),
            ]
            content = wire.OutputText(text=self._text)
        entry.item = entry.item.model_copy(update={"status": status, "content": [content]})
        return out + self._item_done(entry)

    def _done(
        self,
        status: Literal["completed", "cancelled", "incomplete", "failed"],
        details: wire.StatusDetails | None,
        usage: TokenUsage | None,
        timings_ms: Mapping[str, float],
    ) -> wire.ServerEvent:
        self._move("done")
        response = self._response(status, details, usage, timings_ms)
        return wire.ResponseDone(event_id=self._event_id(), response=response)

    def _response(
        self,
        status: Literal["in_progress", "completed", "cancelled", "incomplete", "failed"],
        details: wire.StatusDetails | None = None,
        usage: TokenUsage | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ) -> wire.Response:
        terms = self.terms
        receipt = {RECEIPT.format(stage): f"{ms:g}" for stage, ms in (timings_ms or {}).items()}
        metadata = None if terms.metadata is None else dict(terms.metadata)
        if receipt and len(receipt) + len(metadata or {}) <= wire.MAX_METADATA:
            metadata = {**receipt, **(metadata or {})}
        return wire.Response(
            id=self.id,
            status=status,
            status_details=details,
            output=[entry.item for entry in self._output] if status != "in_progress" else [],
            conversation_id=self._conversation_id,
            output_modalities=[terms.modality],
            max_output_tokens=terms.max_tokens,
            audio=wire.ResponseAudioObject(
                output=wire.ResponseOutput(format=terms.format, voice=terms.voice)
            ),
            usage=usage and _usage(usage),
            metadata=metadata,
            timings_ms=dict(timings_ms) if timings_ms else None,
        )


def rate(audio_format: wire.Pcm | wire.Pcmu | wire.Pcma) -> int:
    """Hz of audio in a wire format."""
    return audio_format.rate if isinstance(audio_format, wire.Pcm) else 8000


def _pieces(samples: np.ndarray, audio_format: wire.Pcm | wire.Pcmu | wire.Pcma) -> Iterator[bytes]:
    """Samples as octets of the wire, in pieces that fit into a frame."""
    match audio_format:
        case wire.Pcm():
            octets = float_to_pcm16(samples).astype("<i2").tobytes()
        case wire.Pcmu():
            octets = float_to_g711(samples, "mulaw")
        case _:
            octets = float_to_g711(samples, "alaw")
    for start in range(0, len(octets), MAX_DELTA_BYTES):
        yield octets[start : start + MAX_DELTA_BYTES]


def _joint(before: str, after: str) -> str:
    """What stands between two clauses: a space, but not in Chinese."""
    if (
        not before
        or not after
        or before[-1].isspace()
        or before[-1] in _WIDE
        or is_han(before[-1])
        or is_han(after[0])
    ):
        return ""
    return " "


def _usage(usage: TokenUsage) -> wire.Usage:
    read, written = usage.input_text + usage.input_audio, usage.output_text + usage.output_audio
    return wire.Usage(
        total_tokens=read + written,
        input_tokens=read,
        output_tokens=written,
        input_token_details=wire.InputTokenDetails(
            text_tokens=usage.input_text, audio_tokens=usage.input_audio, cached_tokens=usage.cached
        ),
        output_token_details=wire.OutputTokenDetails(
            text_tokens=usage.output_text, audio_tokens=usage.output_audio
        ),
    )
