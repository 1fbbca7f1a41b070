"""A Realtime session under test: what it says is checked by the SDK's models and against the invariants."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any, cast, get_args

import numpy as np
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from stepaudio.core import commands, protocol, turns
from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.commands import (
    AppendAudio,
    AudioTurn,
    ReleaseResponse,
    ResponseAudio,
    StartResponse,
    StopResponse,
)
from stepaudio.core.realtime import Event, Output, RealtimeSession

_EVENTS: Any = get_args(RealtimeServerEvent)[0]
SDK: TypeAdapter[Any] = TypeAdapter(cast(Any, Annotated[_EVENTS, Field(discriminator="type")]))
FRAME_MS = turns.FRAME_MS
CONFIG = turns.TurnConfig(
    draft_after_ms=160,
    end_after_ms=320,
    words_wait_ms=0,
    score_every_ms=192,
    duck_after_ms=64,
    first_words_ms=160,
    words_every_ms=128,
    sustain_ms=640,
)
"""Told here, so that the talks stay the same when the defaults are tuned."""


def pcm(ms: float, rate: int = 24_000) -> str:
    """Silence as the wire has it."""
    return base64.b64encode(bytes(2 * round(ms * rate / 1000))).decode()


def counted_ids():
    counts: Counter[str] = Counter()

    def new_id(kind: str) -> str:
        counts[kind] += 1
        return f"{kind}_{counts[kind]}"

    return new_id


class Invariants:
    """What must hold of everything that a session ever says (FIELD.md, section 3), checked as it is said."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.open: dict[str, bool] = {}  # response: whether it is the conversation's
        self.over: set[str] = set()
        self.drafts: set[str] = set()
        self.parts: dict[str, str] = {}  # item: its deltas
        self.items: set[str] = set()
        self.done_items: set[str] = set()
        self.cut: set[str] = set()

    def server(self, event: dict[str, Any]) -> None:
        SDK.validate_python(event)
        assert event["event_id"] not in self.ids
        self.ids.add(event["event_id"])
        kind = event["type"]
        if kind == "response.created":
            response = event["response"]
            assert response["id"] not in self.open and response["id"] not in self.over
            default = response["conversation_id"] is not None
            assert not (default and any(self.open.values())), "two active responses"
            self.open[response["id"]] = default
            assert response["status"] == "in_progress" and response["output"] == []
        elif kind == "response.done":
            response = event["response"]
            self.open.pop(response["id"])  # once, and only what was created
            self.over.add(response["id"])
            assert response["status"] != "in_progress"
            assert all(item["status"] != "in_progress" for item in response["output"])
            assert {item["id"] for item in response["output"]} <= self.done_items
        elif kind.startswith("response."):
            assert event["response_id"] in self.open, f"{kind} outside of its response"
        if kind == "conversation.item.added":
            assert event["item"]["id"] not in self.items
            self.items.add(event["item"]["id"])
            assert event["previous_item_id"] in {None, *self.items}
        elif kind == "conversation.item.deleted":
            self.items.remove(event["item_id"])
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in self.items
        elif kind == "response.output_item.done":
            item = event["item"]
            self.done_items.add(item["id"])
            if item["type"] == "message" and item["id"] not in self.cut:
                said = "".join(part.get("transcript") or part.get("text", "") for part in item["content"])
                told = self.parts.get(item["id"], "")
                assert said == told or (item["status"] == "incomplete" and told.startswith(said))
        elif kind == "conversation.item.truncated":
            self.cut.add(event["item_id"])
        elif kind in ("response.output_audio_transcript.delta", "response.output_text.delta"):
            assert event["delta"]
            self.parts[event["item_id"]] = self.parts.get(event["item_id"], "") + event["delta"]
        elif kind == "response.output_audio_transcript.done":
            assert event["transcript"] == self.parts.get(event["item_id"], "")
        elif kind == "response.output_text.done":
            assert event["text"] == self.parts.get(event["item_id"], "")

    def command(self, command: object) -> None:
        match command:
            case StartResponse(response_id=response_id, draft=draft):
                if draft:
                    assert response_id not in self.over
                    self.drafts.add(response_id)
                else:
                    assert response_id in self.open
            case ReleaseResponse(response_id):
                assert response_id in self.open, "released before it was created"
                self.drafts.remove(response_id)
            case StopResponse(response_id):
                self.drafts.discard(response_id)


class Talk:
    """Feeds a session, and plays the parts of the driver that a script names."""

    def __init__(
        self, session: dict[str, Any] | None = None, *, kind: str = "realtime", **keywords: Any
    ) -> None:
        settings: protocol.Settings = (
            protocol.RealtimeSettings(id="sess_1", expires_at=1)
            if kind == "realtime"
            else protocol.TranscriptionSettings(id="sess_1", expires_at=1)
        )
        if session:
            settings = protocol.updated(settings, session)
        self.session = RealtimeSession(settings, counted_ids(), turn_config=CONFIG, **keywords)
        self.invariants = Invariants()
        self.said: list[dict[str, Any]] = []
        self.commands: list[Any] = []
        self.audio_ms = 0.0
        self.vad_ms = 0
        self.new: list[Any] = self._take(self.session.start())

    def _take(self, outputs: list[Output]) -> list[Any]:
        self.new = []
        for output in outputs:
            if isinstance(output, protocol.Wire):
                event = json.loads(protocol.to_json(output))  # type: ignore[arg-type]
                self.invariants.server(event)
                self.said.append(event)
                self.new.append(event)
            else:
                self.invariants.command(output)
                self.commands.append(output)
                self.new.append(output)
                if isinstance(output, AppendAudio):
                    assert output.chunk.start == round(self.audio_ms * output.chunk.rate / 1000)
                    self.audio_ms += 1000 * len(output.chunk.samples) / output.chunk.rate
        return self.new

    def client(self, kind: str, **fields: Any) -> list[Any]:
        return self.text(json.dumps({"type": kind, **fields}))

    def text(self, frame: str | bytes) -> list[Any]:
        return self._take(self.session.receive_text(frame))

    def feed(self, event: Event) -> list[Any]:
        return self._take(self.session.receive(event))

    def hear(self, script: str) -> list[Any]:
        """One sign a frame of 32 ms, with its audio: "#" is speech, "." silence. All that came of it."""
        out = []
        for sign in script:
            self.client("input_audio_buffer.append", audio=pcm(FRAME_MS))
            self.vad_ms = round(self.audio_ms) // FRAME_MS * FRAME_MS
            out += self.feed(turns.Speech(1.0 if sign == "#" else 0.0, self.vad_ms))
            for ask in [c for c in self.new if isinstance(c, turns.ScoreTurn)]:
                out += self.feed(turns.TurnScore(1.0, ask.at_ms))
        return out

    def speak(
        self, response_id: str, clause: Clause, start_ms: int, *marks: tuple[str, int, int]
    ) -> list[Any]:
        """Audio until the end of the last mark."""
        end_ms = marks[-1][2] if marks else start_ms + 100
        samples = np.zeros((end_ms - start_ms) * 24, np.float32)
        audio = AudioChunk(samples, 24_000, start_ms * 24)
        return self.feed(ResponseAudio(response_id, audio, clause, tuple(Mark(*m) for m in marks)))

    def item(self, item_id: str) -> dict[str, Any]:
        return self.client("conversation.item.retrieve", item_id=item_id)[0]["item"]

    def error(self) -> dict[str, Any]:
        """The only thing that came last."""
        (event,) = self.new
        assert event["type"] == "error"
        return event["error"]


def types(new: list[Any]) -> list[str]:
    """Events by type, commands by name."""
    return [e["type"] if isinstance(e, dict) else type(e).__name__ for e in new]


def asked(command: StartResponse) -> list[tuple[str, ...]]:
    """What a model is asked, in short."""
    return [
        ("audio", f"{m.start_ms}-{m.end_ms}") if isinstance(m, AudioTurn) else (m.role, m.text)
        for m in command.messages
    ]


def play(talk: Talk, line: dict[str, Any]) -> list[dict[str, Any]]:
    """One line of a golden talk: what came of its ``in``, in the form that is kept.

    ``in`` is {"client": event}, {"hear": frames}, {"speak": [response, clause, text, start_ms, marks]}, or
    {"engine": name, …its fields}.
    """
    match line["in"]:
        case {"client": event}:
            out = talk.text(json.dumps(event))
        case {"hear": script}:
            out = talk.hear(script)
        case {"speak": [response_id, index, text, start_ms, marks]}:
            out = talk.speak(response_id, Clause(index, text), start_ms, *marks)
        case {"engine": name, **fields}:
            out = talk.feed(getattr(commands, name)(**fields))
        case other:
            raise AssertionError(f"no such line: {other}")
    return [kept(output) for output in out if not isinstance(output, AppendAudio)]


def octets(audio: str) -> str:
    return f"{len(base64.b64decode(audio))} octets"


def kept(output: Any) -> dict[str, Any]:
    """An output as a golden talk keeps it: audio by its length, commands by what matters of them."""
    match output:
        case {"type": "response.output_audio.delta"}:
            return {**output, "delta": octets(output["delta"])}
        case {"type": "conversation.item.retrieved", "item": {"content": content} as item}:
            content = [
                part | {"audio": octets(part["audio"])} if "audio" in part else part for part in content
            ]
            return {**output, "item": item | {"content": content}}
        case dict():
            return output
        case StartResponse(response_id=response_id, draft=draft):
            messages = [list(message) for message in asked(output)]
            return {
                "command": "StartResponse",
                "response_id": response_id,
                "draft": draft,
                "messages": messages,
            }
        case commands.SettingsChanged():
            return {"command": "SettingsChanged"}
        case _:
            fields = {name: value for name, value in asdict(output).items() if value not in (None, "")}
            return {"command": type(output).__name__, **fields}
