"""The items of a conversation: as the client sees them, and as the model is told of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stepaudio.core.commands import AudioTurn, plain
from stepaudio.core.conversation import Message, SpokenWord, ToolCall, truncate_to_heard
from stepaudio.core.protocol import (
    AssistantMessage,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    OutputAudio,
    OutputText,
    SystemMessage,
    UserMessage,
)

MAX_ITEMS = 4096
MAX_CHARS = 4_000_000
"""Of all items together: an hour of talk has about 500 items and 50,000 characters."""

MAX_SOUND = 640_000
"""Octets of audio of one item that are kept to be retrieved (13 s of PCM): as base64, they go into a frame of
1 MiB, which is the most that some clients take. Of a longer item none is kept."""
SOUNDS = 2_000_000
"""Octets of audio that all items keep together. The oldest lose theirs first."""

SILENT = "…"
"""What the model is told of a turn in which the user said nothing until the idle timeout."""

UNSEEN = "(a picture that you cannot see)"


@dataclass(slots=True)
class Entry:
    """An item, and what the client does not see of it.

    Attributes:
        item: as the client sees it.
        spoken: of an answer, all of its text that was sent with audio, whatever was heard of it.
        words: of ``spoken``.
        sent_ms: of its audio.
        heard_ms: where its hearing ended; None: it was heard, or will be.
        turn: of the user's words, where they lie in the input audio; None once they are written down.
        sound: its audio, as it was on the wire; None: it is too long, or too old.
    """

    item: Item
    spoken: str = ""
    words: list[SpokenWord] = field(default_factory=list)
    sent_ms: float = 0.0
    heard_ms: float | None = None
    turn: AudioTurn | None = None
    sound: bytearray | None = field(default_factory=bytearray)

    @property
    def id(self) -> str:
        """Of the item."""
        assert self.item.id is not None  # whoever makes an entry names its item
        return self.item.id

    @property
    def interrupted(self) -> bool:
        """Whether the listener missed the end of what was sent."""
        return self.heard_ms is not None and self.heard_ms < self.sent_ms

    @property
    def heard(self) -> str:
        """``spoken`` as far as the listener heard it."""
        if self.heard_ms is None or not self.interrupted:
            return self.spoken
        return truncate_to_heard(self.spoken, self.words, self.heard_ms)

    def cut(self, heard_ms: float) -> None:
        """The listener heard so much of the answer, and will hear no more."""
        self.heard_ms = min(max(heard_ms, 0.0), self.sent_ms)
        self.item = self.item.model_copy(update={"content": [OutputAudio(transcript=self.heard)]})

    def write(self, transcript: str) -> None:
        """The user's words are known."""
        self.turn = None
        assert isinstance(self.item, UserMessage)
        content = [
            part.model_copy(update={"transcript": transcript}) if isinstance(part, InputAudio) else part
            for part in self.item.content
        ]
        self.item = self.item.model_copy(update={"content": content})

    def sounds(self, octets: bytes) -> None:
        """More of its audio."""
        if self.sound is not None:
            self.sound += octets
            if len(self.sound) > MAX_SOUND:
                self.sound = None

    def whole(self) -> Item:
        """The item with its audio, as far as that is kept: of an answer, what was heard."""
        if not self.sound or isinstance(self.item, FunctionCall | FunctionCallOutput | SystemMessage):
            return self.item
        octets = self.sound
        if self.heard_ms is not None and self.interrupted:
            octets = octets[: int(len(octets) * self.heard_ms / self.sent_ms) // 2 * 2]
        audio = base64.b64encode(octets).decode()
        content = [
            part.model_copy(update={"audio": audio}) if isinstance(part, InputAudio | OutputAudio) else part
            for part in self.item.content
        ]
        return self.item.model_copy(update={"content": content})

    def chars(self) -> int:
        """Length of the text that it holds."""
        match self.item:
            case FunctionCall():
                return len(self.item.arguments)
            case FunctionCallOutput():
                return len(self.item.output)
            case _:
                return sum(len(_written(part)) for part in self.item.content)


class Items:
    """The conversation, in order."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._sizes: dict[str, int] = {}  # characters, when added
        self._sounding: dict[str, Entry] = {}  # those that keep audio, the oldest first

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._entries

    def get(self, item_id: str) -> Entry | None:
        """The item of that id."""
        return self._entries.get(item_id)

    @property
    def full(self) -> bool:
        """Whether a client may add no more."""
        return len(self._order) >= MAX_ITEMS or self._chars >= MAX_CHARS

    @property
    def _chars(self) -> int:
        return sum(self._sizes.values())

    def previous(self, item_id: str) -> str | None:
        """Id of the item before; None for the first."""
        at = self._order.index(item_id)
        return self._order[at - 1] if at else None

    def add(self, entry: Entry, after: str | None = None) -> str | None:
        """Put an item behind another ("root": at the beginning; None: at the end); the id before it."""
        if after is None:
            self._order.append(entry.id)
        else:
            self._order.insert(0 if after == "root" else self._order.index(after) + 1, entry.id)
        self._entries[entry.id] = entry
        self._sizes[entry.id] = entry.chars()
        self.sounded(entry)
        return self.previous(entry.id)

    def sounded(self, entry: Entry) -> None:
        """An item has all of its audio: of an answer, after it was added."""
        if entry.sound and self._entries.get(entry.id) is entry:  # the client may have deleted it
            self._sounding[entry.id] = entry
        while sum(len(entry.sound or b"") for entry in self._sounding.values()) > SOUNDS:
            self._sounding.pop(next(iter(self._sounding))).sound = None

    def delete(self, item_id: str) -> None:
        """Forget an item."""
        self._order.remove(item_id)
        del self._entries[item_id], self._sizes[item_id]
        self._sounding.pop(item_id, None)

    def messages(self) -> list[Message | AudioTurn]:
        """The conversation as the model is told of it."""
        return messages([self._entries[item_id] for item_id in self._order])


def bare(item: Item) -> Item:
    """An item of a client's without audio and pictures, for which frames of ours have no room."""
    if isinstance(item, FunctionCall | FunctionCallOutput | SystemMessage):
        return item
    content = [
        part.model_copy(update={"audio": None})
        if isinstance(part, InputAudio | OutputAudio)
        else part.model_copy(update={"image_url": None})
        if isinstance(part, InputImage)
        else part
        for part in item.content
    ]
    return item.model_copy(update={"content": content})


def messages(entries: Sequence[Entry]) -> list[Message | AudioTurn]:
    """Items as a model is told of them.

    Answers hold what was heard. Calls belong to the answer before them. What users and tools wrote holds no
    control tokens. Items without words are left out.
    """
    out: list[Message | AudioTurn] = []
    for entry in entries:
        match entry.item:
            case SystemMessage():
                out.append(Message("system", _text(entry.item.content)))
            case UserMessage():
                if entry.turn is not None:
                    out.append(entry.turn)
                elif text := plain(_text(entry.item.content)):
                    out.append(Message("user", text))
            case AssistantMessage():
                text = _text(entry.item.content)
                if text or entry.interrupted:
                    out.append(Message("assistant", text, interrupted=entry.interrupted))
            case FunctionCall(call_id=call_id, name=name, arguments=arguments):
                call = ToolCall(call_id or entry.id, name, arguments)
                last = out[-1] if out else None
                if isinstance(last, Message) and last.role == "assistant" and not last.interrupted:
                    out[-1] = replace(last, calls=(*last.calls, call))
                else:
                    out.append(Message("assistant", "", calls=(call,)))
            case result:
                out.append(Message("tool", plain(result.output), call_id=result.call_id))
    return out


def _text(content: Sequence[InputText | InputAudio | OutputText | OutputAudio | object]) -> str:
    return "\n".join(filter(None, map(_written, content)))


def _written(part: object) -> str:
    match part:
        case InputText(text=text) | OutputText(text=text):
            return text
        case InputAudio(transcript=transcript) | OutputAudio(transcript=transcript):
            return transcript or ""
        case _:
            return UNSEEN
