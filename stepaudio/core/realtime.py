"""The Realtime session: what a client and the engines say goes in, what to send and to do comes out.

Sans-IO: no clock, no task, no model, no socket. ``RealtimeSession.receive`` takes one event and returns a
list, in order: server events (``protocol``), to be written to the socket, and ``commands``, to be carried out
by the driver. The clock is the audio that was appended; ids come from the caller.

Who speaks, ``turns.TurnTaker`` decides; how a response looks on the wire, ``answer.Answer`` knows; here both
meet the conversation and the client's wishes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

import numpy as np

from stepaudio.core import protocol as wire
from stepaudio.core import turns
from stepaudio.core.answer import Answer, State, Terms, rate
from stepaudio.core.audio import AudioChunk, g711_to_float, pcm16_to_float
from stepaudio.core.commands import (
    AppendAudio,
    AudioTurn,
    ClearAudio,
    Closed,
    CloseSession,
    Command,
    EngineEvent,
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
    Transcribe,
    Transcribed,
    TranscriptionFailed,
)
from stepaudio.core.conversation import Message, ToolSpec
from stepaudio.core.errors import ProtocolError
from stepaudio.core.items import MAX_CHARS, MAX_SOUND, SILENT, Entry, Items, bare, messages

Output = wire.ServerEvent | Command
Event = wire.ClientEvent | EngineEvent

UNITS = 24
"""Of input audio in a ms: one is a sample at 24,000 Hz; a sample at 8,000 Hz is three."""

MIN_COMMIT_MS = 100
MAX_BESIDE = 8
"""Responses outside the conversation at the same time."""
MAX_TURN_MS = 300_000
"""Audio that a client may gather before a commit; of more, the beginning is forgotten."""

KEEP_MS = 5_000
"""Audio that a turn which has not begun yet may still reach back to."""

HEARD_SLACK_MS = 20
"""An answer counts as heard this much before its end: clocks of two machines drift."""

GO_ON = "Go on."
"""What a model is told that is to speak again though nobody has spoken since, where the client does not say:
asked with its own words last, a model (Qwen2.5) answers nothing."""

EXPIRED_MESSAGE = "Your session has lasted as long as a session may. Open a new one."


class RealtimeSession:
    """One session of one client.

    Args:
        settings: at the start; ``id`` and ``expires_at`` are kept throughout.
        new_id: makes an id that was never given before, for a kind: "event", "item", "resp", "conv".
        voices: that there are; None takes any name.
        turn_config: of what the client cannot set.

    Attributes:
        settings: as they are now.
    """

    def __init__(
        self,
        settings: wire.Settings,
        new_id: Callable[[str], str],
        *,
        voices: Collection[str] | None = None,
        turn_config: turns.TurnConfig | None = None,
    ) -> None:
        self.settings = settings
        self._new_id = new_id
        self._voices = voices
        self._base_config = turn_config or turns.TurnConfig()
        self._turns = turns.TurnTaker(self._turn_config(), lambda: new_id("resp"))
        self._conversation_id = new_id("conv")
        self._items = Items()
        # Drafts, responses under way, and those of the conversation that are sent but not heard yet.
        self._answers: dict[str, Answer] = {}
        self._drafts: dict[str, int] = {}  # the version that each was begun with
        self._version = 0  # of everything that an answer depends on, but the user's speech
        self._last_response = ""
        self._closed = False
        # The input audio.
        self._units = 0
        self._odd = b""  # half a sample
        self._recent = bytearray()  # its last octets
        self._free_ms = 0  # end of the last item
        self._deaf_ms = 0  # speech before it was committed or cleared by the client
        self._speech: tuple[str, int] | None = None  # item and start of the turn that goes on
        self._partial: dict[str, str] = {}  # transcripts that are growing, as told

    def start(self) -> list[Output]:
        """What is to be sent first."""
        return [
            wire.SessionCreated(event_id=self._event_id(), session=self.settings),
            SettingsChanged(self.settings),
        ]

    @property
    def now_ms(self) -> int:
        """Length of the audio that was appended."""
        return self._units // UNITS

    @property
    def oldest_ms(self) -> int:
        """Audio before this may be forgotten, but for a ``Transcribe`` that was given already.

        Of a turn longer than ``MAX_TURN_MS``, commands name the beginning all the same.
        """
        since = self._speech[1] if self._speech else self._free_ms
        if self._turns.config.mode != "none" and self._speech is None:
            since = max(since, self.now_ms - KEEP_MS - self._turns.config.prefix_padding_ms)
        return max(since, self.now_ms - MAX_TURN_MS)

    def prompt(self) -> StartResponse | None:
        """What an answer would be told that began now: for a model to read ahead. None: nobody answers."""
        if self._closed or not isinstance(self.settings, wire.RealtimeSettings):
            return None
        answer = Answer("", self._terms(wire.ResponseParams()), self._items, "", self._new_id)
        return self._start(answer, self._items.messages(), draft=True)

    def receive_text(self, text: str | bytes) -> list[Output]:
        """As ``receive``, for a text frame of the client's."""
        try:
            return self.receive(wire.parse_client_event(text))
        except ProtocolError as error:
            return [] if self._closed else [self._error(error)]

    def receive(self, event: Event) -> list[Output]:
        """Take an event; return what is to be sent and done, in order. A client's faults give errors."""
        if self._closed:
            return []
        try:
            return self._receive(event)
        except ProtocolError as error:
            error.event_id = getattr(event, "event_id", None)
            return [self._error(error)]

    def _receive(self, event: Event) -> list[Output]:
        match event:
            case wire.SessionUpdate():
                return self._update(event.session)
            case wire.InputAudioBufferAppend():
                return self._append(event.audio)
            case wire.InputAudioBufferCommit():
                return self._commit()
            case wire.InputAudioBufferClear():
                return self._clear()
            case wire.OutputAudioBufferClear():
                return self._clear_output()
            case wire.ConversationItemCreate():
                return self._create_item(event)
            case wire.ConversationItemRetrieve():
                entry = self._entry(event.item_id, "item_retrieve_invalid_item_id")
                return [wire.ItemRetrieved(event_id=self._event_id(), item=entry.whole())]
            case wire.ConversationItemTruncate():
                return self._truncate(event)
            case wire.ConversationItemDelete():
                self._entry(event.item_id, "item_delete_invalid_item_id")
                self._items.delete(event.item_id)
                self._version += 1
                return [wire.ItemDeleted(event_id=self._event_id(), item_id=event.item_id)]
            case wire.ResponseCreate():
                return self._create_response(event.response or wire.ResponseParams(), event.event_id)
            case wire.ResponseCancel():
                return self._cancel_response(event.response_id)
            case Transcribed():
                return self._transcribed(event)
            case TranscriptionFailed():
                return self._transcription_failed(event)
            case ResponseAudio() | ResponseText() | ResponseToolCall() | ResponseFinished():
                answer = self._answers.get(event.response_id)
                if answer is None or answer.state is not State.OPEN:
                    return []  # a straggler
                return self._content(answer, event)
            case ResponseTimed():
                if event.response_id in self._answers:
                    self._answers[event.response_id].timed = event
                return []
            case Played():
                return self._played(event)
            case turns.Speech() if event.end_ms <= self._deaf_ms:
                return self._turn(replace(event, prob=0.0))
            case turns.Speech() | turns.TurnScore() | turns.Heard() | turns.Tick():
                return self._turn(event)
            case Expired():
                return self._expired()
            case Closed():
                return self._close()
            case _:  # pragma: no cover
                assert_never(event)

    def _event_id(self) -> str:
        return self._new_id("event")

    def _error(self, error: ProtocolError) -> wire.Error:
        body = wire.ErrorBody(
            type="invalid_request_error",
            code=error.code,
            message=str(error),
            param=error.param,
            event_id=error.event_id,
        )
        return wire.Error(event_id=self._event_id(), error=body)

    # Settings

    def _update(self, patch: Mapping[str, Any]) -> list[Output]:
        settings = wire.updated(self.settings, patch)
        if isinstance(settings, wire.RealtimeSettings):
            self._check_voice(settings.audio.output.voice, "session.audio.output.voice")
        if settings.audio.input.format != self.settings.audio.input.format:
            self._odd = b""
            self._recent.clear()
        out: list[Output] = []
        changed, self.settings = settings != self.settings, settings
        out.append(wire.SessionUpdated(event_id=self._event_id(), session=settings))
        if changed:
            self._version += 1
            out.append(SettingsChanged(settings))
        config = self._turn_config()
        return out + (self._turn(turns.Configure(config)) if config != self._turns.config else [])

    def _check_voice(self, voice: str | wire.VoiceId | None, param: str) -> None:
        name = voice.id if isinstance(voice, wire.VoiceId) else voice
        if name is not None and self._voices is not None and name not in self._voices:
            known = ", ".join(sorted(self._voices))
            raise ProtocolError(f"There is no such voice. There are: {known}.", "invalid_value", param)

    def _turn_config(self) -> turns.TurnConfig:
        answers = isinstance(self.settings, wire.RealtimeSettings)
        match self.settings.audio.input.turn_detection:
            case None:
                return replace(
                    self._base_config, mode="none", create_response=False, interrupt_response=False,
                    idle_timeout_ms=None,
                )  # fmt: skip
            case wire.SemanticVad() as vad:
                return replace(
                    self._base_config,
                    mode="semantic_vad",
                    eagerness=vad.eagerness,
                    create_response=vad.create_response and answers,
                    interrupt_response=vad.interrupt_response and answers,
                    idle_timeout_ms=None,
                )
            case vad:
                return replace(
                    self._base_config,
                    mode="server_vad",
                    threshold=vad.threshold,
                    prefix_padding_ms=vad.prefix_padding_ms,
                    silence_duration_ms=vad.silence_duration_ms,
                    create_response=vad.create_response and answers,
                    interrupt_response=vad.interrupt_response and answers,
                    idle_timeout_ms=vad.idle_timeout_ms if answers else None,
                )

    # The input audio

    def _append(self, audio: str) -> list[Output]:
        try:
            octets = base64.b64decode(audio, validate=True)
        except ValueError:
            raise ProtocolError(
                "Invalid value for 'audio': it is not base64.", "invalid_value", "audio"
            ) from None
        chunk = self._decode(octets)
        self._recent += octets
        if not len(chunk.samples):
            return []
        self._units += len(chunk.samples) * UNITS * 1000 // chunk.rate
        kept = min(MAX_SOUND, self._octets_since(self.oldest_ms)) + len(self._odd)
        del self._recent[: max(0, len(self._recent) - kept)]
        return [AppendAudio(chunk)]

    def _octets_since(self, ms: int) -> int:
        """Octets of the input audio from a moment on."""
        audio_format = self.settings.audio.input.format
        octet = 2 if isinstance(audio_format, wire.Pcm) else 1
        return octet * ((self._units - ms * UNITS) * rate(audio_format) // (UNITS * 1000))

    def _sound(self, start_ms: int, end_ms: int) -> bytes:
        """The octets of a stretch of the input audio; none, if they are not all there."""
        here = len(self._recent) - len(self._odd)
        start, end = (here - self._octets_since(ms) for ms in (start_ms, end_ms))
        return bytes(self._recent[start:end]) if start >= 0 else b""

    def _decode(self, octets: bytes) -> AudioChunk:
        audio_format = self.settings.audio.input.format
        start = self._units * rate(audio_format) // (UNITS * 1000)
        if isinstance(audio_format, wire.Pcm):
            octets = self._odd + octets
            whole = len(octets) // 2 * 2
            self._odd = octets[whole:]
            samples = pcm16_to_float(np.frombuffer(octets[:whole], "<i2"))
        else:
            samples = g711_to_float(octets, "mulaw" if isinstance(audio_format, wire.Pcmu) else "alaw")
        return AudioChunk(samples, rate(audio_format), start)

    def _commit(self) -> list[Output]:
        self._check_room()
        start = self._speech[1] if self._speech else max(self._free_ms, self.now_ms - MAX_TURN_MS)
        length = self.now_ms - start
        if length < MIN_COMMIT_MS:
            raise ProtocolError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {length:.2f}ms of audio.",
                "input_audio_buffer_commit_empty",
            )
        # Where the turn ends is the client's word: the machine's own figure lags behind the audio.
        effects = [e for e in self._turns.receive(turns.Commit()) if not isinstance(e, turns.TurnEnded)]
        self._deaf_ms = self.now_ms
        return self._effects(effects) + self._turn_ended(start, self.now_ms)

    def _clear(self) -> list[Output]:
        out = self._turn(turns.Clear())
        self._odd = b""
        self._recent.clear()
        if self._speech is not None:
            self._partial.pop(self._speech[0], None)
            self._speech = None
        self._free_ms = self._deaf_ms = self.now_ms
        return [*out, ClearAudio(self.now_ms), wire.Cleared(event_id=self._event_id())]

    def _turn_ended(self, start_ms: int, end_ms: int) -> list[Output]:
        """The user's turn becomes an item, and is written down."""
        out: list[Output] = []
        if self._speech is not None:
            item_id, self._speech = self._speech[0], None
            out.append(wire.SpeechStopped(event_id=self._event_id(), audio_end_ms=end_ms, item_id=item_id))
        else:
            item_id = self._new_id("item")
        entry = self._user_audio(item_id)
        entry.turn = AudioTurn(start_ms, end_ms, item_id)
        entry.sounds(self._sound(start_ms, end_ms))
        return [*out, *self._commit_item(entry, end_ms), self._transcribe(item_id, start_ms, end_ms)]

    def _user_audio(self, item_id: str) -> Entry:
        return Entry(wire.UserMessage(id=item_id, content=[wire.InputAudio()]))

    def _commit_item(self, entry: Entry, end_ms: int) -> list[Output]:
        previous = self._items.add(entry)
        self._free_ms = end_ms
        return [
            wire.Committed(event_id=self._event_id(), previous_item_id=previous, item_id=entry.id),
            *self._added(entry, previous),
        ]

    def _added(self, entry: Entry, previous: str | None) -> list[Output]:
        item = entry.item
        return [
            wire.ItemAdded(event_id=self._event_id(), previous_item_id=previous, item=item),
            wire.ItemDone(event_id=self._event_id(), previous_item_id=previous, item=item),
        ]

    # Transcripts

    def _transcribe(
        self, item_id: str, start_ms: int, end_ms: int, audio: AudioChunk | None = None
    ) -> Transcribe:
        wish = self.settings.audio.input.transcription or wire.Transcription()
        return Transcribe(item_id, start_ms, end_ms, wish.language, wish.prompt or "", audio)

    def _transcribed(self, event: Transcribed) -> list[Output]:
        entry = self._items.get(event.item_id)
        spoken = not event.final and self._speech is not None and self._speech[0] == event.item_id
        if not spoken and (entry is None or entry.turn is None):
            return []  # deleted, cleared, or told already
        out: list[Output] = []
        told = self._partial.get(event.item_id, "")
        # Deltas cannot be taken back: a transcript that changed its beginning is told when it is final.
        if event.text.startswith(told) and event.text != told:
            self._partial[event.item_id] = event.text
            out.append(
                wire.TranscriptionDelta(
                    event_id=self._event_id(), item_id=event.item_id, delta=event.text[len(told) :]
                )
            )
        if event.final:
            assert entry is not None
            self._partial.pop(event.item_id, None)
            entry.write(event.text)
            out.append(self._transcription_completed(event))
        return out if self.settings.audio.input.transcription is not None else []

    def _transcription_completed(self, event: Transcribed) -> wire.ServerEvent:
        return wire.TranscriptionCompleted(
            event_id=self._event_id(),
            item_id=event.item_id,
            transcript=event.text,
            usage=wire.Duration(seconds=event.seconds),
            languages=[wire.Language(code=event.language)] if event.language else None,
        )

    def _transcription_failed(self, event: TranscriptionFailed) -> list[Output]:
        entry = self._items.get(event.item_id)
        if entry is None or entry.turn is None:
            return []
        self._partial.pop(event.item_id, None)
        entry.turn = None
        if self.settings.audio.input.transcription is None:
            return []
        error = wire.TranscriptionFailure(type="server_error", code=event.code, message=event.message)
        return [wire.TranscriptionFailed(event_id=self._event_id(), item_id=event.item_id, error=error)]

    # Items

    def _entry(self, item_id: str, code: str) -> Entry:
        entry = self._items.get(item_id)
        if entry is None:
            raise ProtocolError("There is no item with that id in the conversation.", code, "item_id")
        return entry

    def _check_room(self, param: str | None = None) -> None:
        if self._items.full:
            raise ProtocolError(
                "The conversation is full. Delete items, or begin a new session.", "conversation_full", param
            )

    def _create_item(self, event: wire.ConversationItemCreate) -> list[Output]:
        self._check_room("item")
        item_id = event.item.id or self._new_id("item")
        if item_id in self._items or (self._speech is not None and item_id == self._speech[0]):
            raise ProtocolError(
                "There is an item with that id already.", "item_create_duplicate_item_id", "item.id"
            )
        after = event.previous_item_id
        if after not in (None, "root") and after not in self._items:
            raise ProtocolError(
                "There is no item with that id in the conversation.", "invalid_value", "previous_item_id"
            )
        entry, transcribe = self._new_entry(event.item, item_id)
        self._version += 1
        return [*self._added(entry, self._items.add(entry, after)), *transcribe]

    def _new_entry(self, item: wire.Item, item_id: str) -> tuple[Entry, list[Output]]:
        """An item of the client's, and the command to write down what it holds as audio alone."""
        entry = Entry(bare(item.model_copy(update={"id": item_id, "status": "completed"})))
        if entry.chars() > wire.MAX_TEXT:
            raise ProtocolError(
                f"The item has more than {wire.MAX_TEXT} characters.", "invalid_value", "item.content"
            )
        if not isinstance(item, wire.UserMessage):
            return entry, []
        octets = b""
        sounds = [part for part in item.content if isinstance(part, wire.InputAudio)]
        for part in sounds:
            if part.audio is not None and part.transcript is None:
                try:
                    octets += base64.b64decode(part.audio, validate=True)
                except ValueError:
                    raise ProtocolError("The audio is not base64.", "invalid_value", "item.content") from None
        odd, self._odd = self._odd, b""
        chunk = replace(self._decode(octets), start=0)
        self._odd = odd
        if not len(chunk.samples):
            return entry, []
        entry.turn = AudioTurn(0, 0, item_id)
        if len(sounds) == 1:  # else nobody could say which it is
            entry.sounds(octets)
        return entry, [self._transcribe(item_id, 0, 0, chunk)]

    def _truncate(self, event: wire.ConversationItemTruncate) -> list[Output]:
        entry = self._entry(event.item_id, "item_truncate_invalid_item_id")
        if not isinstance(entry.item, wire.AssistantMessage):
            raise ProtocolError("Only answers can be truncated.", "invalid_value", "item_id")
        out: list[Output] = []
        answer = next((a for a in self._answers.values() if a.message is entry), None)
        heard_ms, before = max(0, event.audio_end_ms), entry.item
        if entry.sent_ms:
            entry.cut(heard_ms)
            heard_ms = entry.heard_ms or 0
        self._version += entry.item != before
        out.append(
            wire.ItemTruncated(
                event_id=self._event_id(),
                item_id=event.item_id,
                content_index=event.content_index,
                audio_end_ms=round(min(heard_ms, MAX_TURN_MS)),
            )
        )
        if answer is not None and answer.state is State.OVER:  # it plays no more
            out += self._heard(answer)
        return out

    # Responses

    def _terms(self, params: wire.ResponseParams) -> Terms:
        """What holds for a response: its own wishes, before the session's."""
        session = self.settings
        assert isinstance(session, wire.RealtimeSettings)
        output = params.audio.output if params.audio else None
        voice = (output and output.voice) or session.audio.output.voice
        choice = session.tool_choice if params.tool_choice is None else params.tool_choice
        return Terms(
            instructions=session.instructions if params.instructions is None else params.instructions,
            modality=(params.output_modalities or session.output_modalities)[0],
            voice=voice.id if isinstance(voice, wire.VoiceId) else voice,
            speed=session.audio.output.speed,
            format=(output and output.format) or session.audio.output.format,
            tools=tuple(
                ToolSpec(
                    tool.name, tool.description or "", tool.parameters or {"type": "object", "properties": {}}
                )
                for tool in (session.tools if params.tools is None else params.tools)
            ),
            tool_choice=choice if isinstance(choice, str) else choice.name,
            max_tokens=params.max_output_tokens or session.max_output_tokens,
            truncation="disabled" if session.truncation == "disabled" else "auto",
            metadata=params.metadata,
        )

    def _start(
        self, answer: Answer, said: list[Message | AudioTurn], *, draft: bool = False
    ) -> StartResponse:
        terms = answer.terms
        instructions = [Message("system", terms.instructions)] if terms.instructions else []
        return StartResponse(
            answer.id,
            draft,
            (*instructions, *said),
            terms.modality,
            terms.voice,
            terms.speed,
            rate(terms.format),
            None if terms.max_tokens == "inf" else terms.max_tokens,
            terms.tools,
            terms.tool_choice,
            terms.truncation,
            beside=not answer.in_conversation,
        )

    def _new_answer(self, response_id: str, params: wire.ResponseParams) -> Answer:
        items = None if params.conversation == "none" else self._items
        answer = Answer(response_id, self._terms(params), items, self._conversation_id, self._new_id)
        self._answers[response_id] = answer
        if items is not None:
            self._last_response = response_id
        return answer

    def _create_response(self, params: wire.ResponseParams, event_id: str | None) -> list[Output]:
        if not isinstance(self.settings, wire.RealtimeSettings):
            raise ProtocolError("A transcription session gives no responses.", "invalid_event", "type")
        output = params.audio.output if params.audio else None
        self._check_voice(output.voice if output else None, "response.audio.output.voice")
        if params.conversation == "none":
            self._check_beside()
        said, transcribe = self._said(params)
        last = said[-1] if said else None
        if isinstance(last, Message) and last.role == "assistant" and not last.calls:
            said = [*said, Message("system", params.instructions or GO_ON)]
        response_id = self._new_id("resp")
        out: list[Output] = []
        if params.conversation != "none":
            answer = self._default()
            if (
                answer is not None and answer.state is State.OVER
            ):  # sent; the next one follows it without a gap
                out += self._heard(answer)
            if self._turns.answering:
                error = ProtocolError(
                    "Conversation already has an active response in progress. Wait until the response is "
                    "finished before creating a new one.",
                    "conversation_already_has_active_response",
                    event_id=event_id,
                )
                return [*out, self._error(error)]
            out += self._turn(turns.CreateResponse(response_id))
        answer = self._new_answer(response_id, params)
        return [*out, *transcribe, *answer.release(), self._start(answer, said)]

    def _check_beside(self) -> None:
        if sum(not answer.in_conversation for answer in self._answers.values()) >= MAX_BESIDE:
            raise ProtocolError(
                f"{MAX_BESIDE} responses outside the conversation are in progress. Wait for one to finish.",
                "rate_limit_exceeded",
                "response.conversation",
            )

    def _said(self, params: wire.ResponseParams) -> tuple[list[Message | AudioTurn], list[Output]]:
        """The conversation that a response answers, and what must be written down for it."""
        if params.input is None:
            return self._items.messages(), []
        entries, transcribe = [], []
        for i, item in enumerate(params.input):
            if isinstance(item, wire.ItemReference):
                entry = self._items.get(item.id)
                if entry is None:
                    param = f"response.input[{i}].id"
                    raise ProtocolError(
                        "There is no item with that id in the conversation.", "invalid_value", param
                    )
            else:
                entry, commands = self._new_entry(item, item.id or self._new_id("item"))
                transcribe += commands
            entries.append(entry)
        if sum(entry.chars() for entry in entries) > MAX_CHARS:
            raise ProtocolError(
                f"The input has more than {MAX_CHARS} characters.", "invalid_value", "response.input"
            )
        return messages(entries), transcribe

    def _default(self) -> Answer | None:
        """The response of the conversation that the client knows of and that is not heard yet."""
        answers = (a for a in self._answers.values() if a.in_conversation and a.state is not State.HELD)
        return next(answers, None)

    def _cancel_response(self, response_id: str | None) -> list[Output]:
        answer = self._default() if response_id is None else self._answers.get(response_id)
        if answer is None or answer.state is not State.OPEN:
            raise ProtocolError(
                "Cancellation failed: no active response found", "response_cancel_not_active", "response_id"
            )
        if answer.in_conversation:
            return self._turn(turns.CancelResponse(answer.id))
        return self._stop(answer, "client_cancelled")

    def _clear_output(self) -> list[Output]:
        answer = self._default()
        out = [] if answer is None else self._turn(turns.CancelResponse(answer.id))
        response_id = self._last_response if answer is None else answer.id
        return [*out, wire.OutputAudioCleared(event_id=self._event_id(), response_id=response_id)]

    def _content(
        self,
        answer: Answer,
        event: ResponseAudio | ResponseText | ResponseToolCall | ResponseFinished,
    ) -> list[Output]:
        out: list[Output] = []
        match event:
            case ResponseAudio():
                first = not answer.sent_ms
                out += answer.audio(event.audio, event.clause, event.marks)
                if first and answer.sent_ms and answer.in_conversation:
                    out += self._turn(turns.ResponseStarted(answer.id))
            case ResponseText():
                out += answer.text(event.delta)
            case ResponseToolCall():
                out += answer.tool_call(event.call_id, event.name, event.arguments)
            case ResponseFinished():
                out += answer.finish(event)
                if not answer.in_conversation:
                    del self._answers[answer.id]
                else:
                    out += self._heard_if_played(answer)
            case _:  # pragma: no cover
                assert_never(event)
        return out

    def _played(self, event: Played) -> list[Output]:
        answer = self._answers.get(event.response_id)
        if answer is None:
            return []
        answer.played_ms = max(answer.played_ms, event.ms)
        return self._heard_if_played(answer)

    def _heard_if_played(self, answer: Answer) -> list[Output]:
        done = answer.state is State.OVER and answer.played_ms >= answer.sent_ms - HEARD_SLACK_MS
        return self._heard(answer) if done else []

    def _heard(self, answer: Answer) -> list[Output]:
        """The listener is through with a response."""
        del self._answers[answer.id]
        return self._turn(turns.ResponseEnded(answer.id))

    def _stop(self, answer: Answer, reason: turns.Reason) -> list[Output]:
        """A response ends before its time."""
        del self._answers[answer.id]
        self._drafts.pop(answer.id, None)
        out: list[Output] = [StopResponse(answer.id)]
        if answer.state is State.OPEN and reason != "resumed":
            out += answer.cancel(reason)
        elif answer.state is State.OVER and answer.message is not None:  # sent, but not heard to its end
            answer.message.cut(answer.played_ms)
        return out

    # Turns

    def _turn(self, event: turns.Event) -> list[Output]:
        return self._effects(self._turns.receive(event))

    def _effects(self, effects: Sequence[turns.Effect]) -> list[Output]:
        return [output for effect in effects for output in self._effect(effect)]

    def _effect(self, effect: turns.Effect) -> list[Output]:
        match effect:
            case turns.SpeechStarted(start_ms):
                self._speech = (self._new_id("item"), start_ms)
                return [
                    wire.SpeechStarted(
                        event_id=self._event_id(), audio_start_ms=start_ms, item_id=self._speech[0]
                    )
                ]
            case turns.TurnEnded(start_ms, end_ms):
                return self._turn_ended(start_ms, end_ms)
            case turns.Draft():
                return self._draft(effect)
            case turns.Release(response_id):
                return self._release(self._answers[response_id])
            case turns.Cancel(response_id, reason):
                return self._stop(self._answers[response_id], reason)
            case turns.IdleTimeout(start_ms, end_ms):
                return self._idle(start_ms, end_ms)
            case turns.ScoreTurn() | turns.Recognize() | turns.Duck() | turns.Unduck():
                return [effect]
            case _:  # pragma: no cover
                assert_never(effect)

    def _draft(self, effect: turns.Draft) -> list[Output]:
        answer = self._new_answer(effect.response_id, wire.ResponseParams())
        self._drafts[answer.id] = self._version
        said = self._items.messages()
        if effect.end_ms > self._free_ms:  # of a turn that is no item yet
            said.append(AudioTurn(effect.start_ms, effect.end_ms))
        return [self._start(answer, said, draft=True)]

    def _release(self, answer: Answer) -> list[Output]:
        out: list[Output] = []
        if self._drafts.pop(answer.id) != self._version:  # the draft does not know what the client did since
            answer.terms = self._terms(wire.ResponseParams())
            out += [StopResponse(answer.id), self._start(answer, self._items.messages(), draft=True)]
        return [*answer.release(), *out, ReleaseResponse(answer.id)]

    def _idle(self, start_ms: int, end_ms: int) -> list[Output]:
        """Nobody spoke: a turn without words."""
        entry = self._user_audio(self._new_id("item"))
        entry.write(SILENT)
        out: list[Output] = [
            wire.TimeoutTriggered(
                event_id=self._event_id(), audio_start_ms=start_ms, audio_end_ms=end_ms, item_id=entry.id
            ),
            *self._commit_item(entry, end_ms),
        ]
        if self.settings.audio.input.transcription is not None:
            out.append(self._transcription_completed(Transcribed(entry.id, SILENT)))
        return out

    # The end

    def _expired(self) -> list[Output]:
        out: list[Output] = []
        for answer in self._answers.values():
            out.append(StopResponse(answer.id))
            if answer.state is State.OPEN:
                end = ResponseFinished(
                    answer.id,
                    "failed",
                    answer.timed.usage,
                    answer.timed.timings_ms,
                    error_code="session_expired",
                    error_message=EXPIRED_MESSAGE,
                )
                out += answer.finish(end)
        self._closed = True
        error = ProtocolError(EXPIRED_MESSAGE, "session_expired")
        return [*out, self._error(error), CloseSession(1000, "session_expired")]

    def _close(self) -> list[Output]:
        self._closed = True
        return [StopResponse(response_id) for response_id in self._answers]
