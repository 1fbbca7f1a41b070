"""A talk: the ears, the mind and the voice at work for one Realtime session.

``RealtimeSession`` decides, ``Talk`` does: it turns the user's audio into frames and has them scored, writes
down what is said while it is said, begins answers when it is told to and holds them until they may be heard,
and sends their audio as it is heard. Whatever the models or the clock say goes into the session as an event,
through one door (``_feed``), so that a talk can be recorded there and replayed. It does not know sockets.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stepaudio.core import commands as act
from stepaudio.core import protocol as wire
from stepaudio.core import turns
from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause
from stepaudio.core.codes import AudioCodes
from stepaudio.core.commands import AudioTurn, StartResponse
from stepaudio.core.conversation import Message, estimate_tokens
from stepaudio.core.errors import BackendError, ConfigError, StepAudioError
from stepaudio.core.resampling import SincResampler
from stepaudio.core.style import SpeechStyle
from stepaudio.llm.base import Sampling
from stepaudio.llm.compaction import compact
from stepaudio.recognition.base import RATE
from stepaudio.recognition.incremental import GrowingTranscript, Pass, same_words
from stepaudio.respond import Done, ResponseEvent, respond
from stepaudio.server.answering import WANTED_S, Answer
from stepaudio.server.hearing import Hearing
from stepaudio.server.metrics import span
from stepaudio.server.scheduler import Gate
from stepaudio.tts.base import Speech, Voice

if TYPE_CHECKING:
    from stepaudio.core.realtime import RealtimeSession
    from stepaudio.engine import Engine
    from stepaudio.server.metrics import Metrics
    from stepaudio.tokenizer.growing import GrowingCodes

log = logging.getLogger(__name__)

FRAMES_AT_ONCE = 8
"""Frames scored before others get a turn on the event loop (1 ms; 8 ms where echo is looked for)."""
TICK_S = 0.25
"""Between two ``Tick``."""
HUNG_S = 30.0
"""An answer of which nothing comes for so long has failed."""
FORETELL_MS = 96
"""Silence after which the turn model is asked already, with more silence put behind. Its 45 ms of work then
lie before the language model's, not beside it;"""
FORETOLD_MS = 160
"""and with so much silence, at 18 pauses and ends, it judged as it did later, but for one in doubt."""
TRIM_EVERY_MS = 1000
"""How often audio that nobody will ask for is forgotten."""
SILENT = "…"
"""Stands for words that could not be recognised."""
TOO_LONG = (
    "the conversation is longer than the model's context, and its truncation is disabled: delete items, or "
    "allow it"
)
TURNS_KEPT = 8
"""Transcripts of turns that are remembered by where they begin."""


class _NothingSaid(StepAudioError):
    """There is nothing to answer."""


class Recorder(Protocol):
    """Who writes down what a session was told and what it decided (``recorder``)."""

    def received(self, event: str | bytes | act.EngineEvent) -> None: ...
    def did(self, effect: wire.ServerEvent | act.Command) -> None: ...


@dataclass(slots=True, eq=False)
class _Turn:
    """What the user says from one moment on, its transcript, and its codes."""

    start_ms: int
    growing: GrowingTranscript
    item_id: str = ""  # that it will be, once somebody is told that it began
    listening: asyncio.Task[None] | None = None  # the pass that runs
    codes: GrowingCodes | None = None  # where the model reads them
    coding: asyncio.Task[None] | None = None  # the pass that runs


class Talk:
    """Drives one session.

    Args:
        session: decides.
        engine: the models.
        ears, voice: gates that all talks share.
        send: takes what is to be sent to the client; must not block.
        metrics: to count in; None: nobody does.
        recorder: writes down what the session is told; None: nobody.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        session: RealtimeSession,
        engine: Engine,
        ears: Gate,
        voice: Gate,
        send: Callable[[wire.ServerEvent], None],
        *,
        metrics: Metrics | None = None,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.ended: tuple[int, str] | None = None
        """Close code and reason, once the session wants to end."""
        self._engine, self._ears, self._voice, self._send = engine, ears, voice, send
        self._metrics, self._recorder, self._clock = metrics, recorder, clock
        self._hearing = Hearing(engine.vad)
        self._next_trim = 0
        self._arrived: deque[tuple[int, float]] = deque(maxlen=128)  # (audio time, clock) of what came last
        self._speech_end_ms = 0
        self._loud = False
        self._foretold: tuple[int, asyncio.Task[float | None]] | None = None  # end of the speech, score
        self._language: str | None = None
        self._overheard = ""  # while the agent spoke
        self._turns: dict[int, _Turn] = {}
        self._open: _Turn | None = None  # the one that is still being spoken
        self._sent: dict[str, _Turn] = {}  # by item: those that came with one
        self._gain = 1.0  # that the last turn asked for
        self._words: dict[str, asyncio.Task[str]] = {}  # by item
        self._answers: dict[str, Answer] = {}
        self._ahead: asyncio.Task[None] | None = None  # the model reads ahead, or sums up
        self._read = ""  # what it has read of the turn that goes on
        self._summed: tuple[tuple[Message, ...], list[Message]] = (), []  # turns, and what stands for them
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._failure: BaseException | None = None

    # What the socket calls

    async def run(self) -> None:
        """Work until the session ends (``ended`` says how) or ``close`` is called; then stop everything.

        Raises:
            Exception: a bug. The session is over.
        """
        try:
            self._spawn(self._pace())
            self._spawn(self._tick())
            await self._over.wait()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._failure is None:
                self._feed(act.Closed())
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """The client is gone."""
        self._over.set()

    def start(self) -> None:
        """Greet the client."""
        for effect in self.session.start():
            self._do(effect)

    def fail(self, error: BaseException) -> None:
        """A bug was met: the talk is over, and ``run`` raises it."""
        self._failure = self._failure or error
        self._over.set()

    async def receive(self, text: str | bytes) -> None:
        """A frame of the client. Returns when its audio was listened to: then read the next one."""
        if self._recorder is not None:
            self._recorder.received(text)
        for effect in self.session.receive_text(text):
            self._do(effect)
        if not self._arrived or self._arrived[-1][0] != self.session.now_ms:
            self._arrived.append((self.session.now_ms, self._clock()))
        await self._listen()

    def expire(self) -> None:
        """The session has lasted as long as it may."""
        self._feed(act.Expired())

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way that the listener may wait for."""
        return any(answer.released for answer in self._answers.values())

    # The session

    def _feed(self, event: act.EngineEvent) -> None:
        """Tell the session, and do what it says."""
        if self._recorder is not None:
            self._recorder.received(event)
        for effect in self.session.receive(event):
            self._do(effect)

    def _do(self, effect: wire.ServerEvent | act.Command) -> None:
        if self._recorder is not None:
            self._recorder.did(effect)
        match effect:
            case act.AppendAudio(chunk):
                self._hearing.push(chunk)
            case act.ClearAudio():
                self._open = None
                self._turns.clear()
                self._hearing.forget(self.session.oldest_ms)
            case act.StartResponse():
                self._start(effect)
            case act.ReleaseResponse(response_id):
                self._release(response_id)
            case act.StopResponse(response_id):
                self._stop(response_id)
            case act.Transcribe():
                self._words[effect.item_id] = self._spawn(self._transcribe(effect, self._turn_of(effect)))
            case act.SettingsChanged(settings):
                transcription = settings.audio.input.transcription
                self._language = getattr(transcription, "language", None)
            case act.CloseSession(code, reason):
                self.ended = code, reason
                self._over.set()
            case turns.ScoreTurn(start_ms, at_ms):
                self._spawn(self._score(start_ms, at_ms))
            case turns.Recognize(start_ms, at_ms):
                self._spawn(self._recognize(start_ms, at_ms))
            case turns.Duck(response_id):
                self._hold(response_id)
            case turns.Unduck(response_id):
                self._unhold(response_id)
            case _:
                if isinstance(effect, wire.SpeechStarted):
                    self._begin_turn(effect.audio_start_ms, effect.item_id)
                self._send(effect)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this talk; a bug in it ends the talk."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            self._feed(turns.Tick(round(1000 * now)))
            for answer in list(self._answers.values()):
                busy = not answer.is_made and answer.room.is_set()
                if busy and now - answer.progress > HUNG_S:
                    self._fail(answer, BackendError("nothing came of it for too long"))

    # The user's audio

    async def _listen(self) -> None:
        count = 0
        while (frame := self._hearing.hear()) is not None:
            self._heard(*frame)
            count += 1
            if count % FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _heard(self, speech: turns.Speech, samples: np.ndarray) -> None:
        now = self._clock()
        self._loud = speech.prob >= (0.35 if self._loud else 0.5)
        if self._loud:
            self._speech_end_ms = speech.end_ms
        if self._open is not None:
            self._open.growing.push(samples, self._loud)
            if self._open.codes is not None:
                self._open.codes.push(samples)
        for answer in list(self._answers.values()):
            for event in answer.played(now):
                self._feed(event)
        self._feed(speech)
        if self._open is not None:
            self._advance(self._open)
            if speech.end_ms - self._speech_end_ms == FORETELL_MS:
                self._foretell(self._open.start_ms)
        if self._next_trim <= speech.end_ms:
            self._next_trim = speech.end_ms + TRIM_EVERY_MS
            self._hearing.forget(self.session.oldest_ms)

    def _clock_at(self, audio_ms: int) -> float:
        """When the audio of that moment arrived."""
        for until_ms, at in self._arrived:
            if until_ms >= audio_ms:
                return at
        return self._clock()

    # What the user says

    def _begin_turn(self, start_ms: int, item_id: str) -> None:
        """Somebody speaks since then: write it down as it grows."""
        self._open = self._turns.get(start_ms)
        if self._open is None:
            self._open = self._new_turn(start_ms, self._hearing.between(start_ms, self._hearing.now_ms))
        self._open.item_id = item_id
        self._read_ahead("")

    def _new_turn(self, start_ms: int, samples: np.ndarray, language: str | None = None) -> _Turn:
        turn = self._turn_with(start_ms, samples, language)
        self._turns[start_ms] = turn
        while len(self._turns) > TURNS_KEPT:
            del self._turns[next(iter(self._turns))]
        return turn

    def _turn_with(self, start_ms: int, samples: np.ndarray, language: str | None) -> _Turn:
        turn = _Turn(start_ms, GrowingTranscript(self._engine.recognizer, language or self._language))
        if self._engine.reads_codes:
            turn.codes = self._engine.growing_codes(self._gain)
        if len(samples):
            turn.growing.push(samples, True)
            if turn.codes is not None:
                turn.codes.push(samples)
        return turn

    def _turn_of(self, part: act.Transcribe | AudioTurn) -> _Turn:
        """The turn that an item or a draft is made of. Its audio is taken now: it may soon be forgotten."""
        if isinstance(part, act.Transcribe) and part.audio is not None:
            resampler = SincResampler(part.audio.rate, RATE)
            samples = np.concatenate([resampler.push(part.audio.samples), resampler.flush()])
            turn = self._sent[part.item_id] = self._turn_with(0, samples, part.language)
            while len(self._sent) > TURNS_KEPT:
                del self._sent[next(iter(self._sent))]
            return turn
        if part.item_id in self._sent:
            return self._sent[part.item_id]
        turn = self._turns.get(part.start_ms)
        if turn is None:
            turn = self._new_turn(part.start_ms, self._hearing.between(part.start_ms, part.end_ms))
        if isinstance(part, act.Transcribe) and turn is self._open:
            self._open = None  # it is over
        return turn

    def _advance(self, turn: _Turn) -> None:
        """Listen to what is new in a turn, if that is worth its time now."""
        if turn.listening is None and (due := turn.growing.due()) is not None:
            turn.listening = self._spawn(self._pass(turn, due, self._clock() + WANTED_S))

        if turn.codes is not None and turn.coding is None and (step := turn.codes.due()) is not None:
            turn.coding = self._spawn(self._encode(turn, step, self._clock() + WANTED_S))

    async def _encode(self, turn: _Turn, step: Callable[[], None], deadline: float) -> None:
        try:
            await self._ears.run(step, deadline)
        finally:
            turn.coding = None

    async def _codes_of(self, part: AudioTurn) -> AudioCodes:
        """All that was said in a turn until now, as codes."""
        turn = self._turn_of(part)
        while turn.coding is not None:
            await asyncio.wait([turn.coding])
        assert turn.codes is not None  # the model reads them
        self._gain = turn.codes.gain
        return await self._ears.run(turn.codes.last(), self._clock_at(self._speech_end_ms))

    async def _pass(self, turn: _Turn, due: Pass, deadline: float) -> None:
        try:
            heard = await self._ears.run(due.run, deadline)
            turn.growing.take(due, heard)
        except StepAudioError as error:
            log.warning("recognition failed: %s", type(error).__name__)
            return
        finally:
            turn.listening = None
        self._feed(turns.Heard(turn.growing.text, turn.start_ms + due.heard_ms))
        if turn is self._open:
            # What two passes agree on hardly changes: it can be shown already.
            self._feed(act.Transcribed(turn.item_id, turn.growing.agreed, final=False))
            self._advance(turn)
            if self._loud:  # else an answer will soon need the model
                # Words that come out otherwise cost no more than words that were not read; the sign at the
                # end is a guess each time.
                self._read_ahead(turn.growing.text.rstrip(" .,?!…。，？！"))

    async def _final(self, turn: _Turn) -> str:
        """All that was said in a turn until now."""
        for _ in range(16):  # passes that are needed at most, if somebody speaks on
            if turn.listening is not None:
                await asyncio.wait([turn.listening])
                continue
            last = turn.growing.last()
            if last is None:
                return turn.growing.text
            deadline = self._clock_at(self._speech_end_ms)
            heard = await self._ears.run(last.run, deadline)
            turn.growing.take(last, heard)
        return turn.growing.text

    async def _transcribe(self, command: act.Transcribe, turn: _Turn) -> str:
        try:
            text = await self._final(turn)
        except StepAudioError as error:
            log.warning("recognition of %s failed: %s", command.item_id, type(error).__name__)
            self._feed(act.TranscriptionFailed(command.item_id, "The audio could not be transcribed."))
            return ""
        for answer in list(self._answers.values()):
            before = answer.heard.get(turn.start_ms, text)
            if not same_words(before, text) and not answer.pacer.sent and not answer.told:
                self._begin(answer)  # it answers what was not said
        growing = turn.growing
        seconds = growing.length_ms / 1000
        self._feed(act.Transcribed(command.item_id, text, True, growing.language, seconds))
        return text

    async def _recognize(self, start_ms: int, at_ms: int) -> None:
        turn = self._turns.get(start_ms)
        try:
            if turn is not None:
                text = await self._final(turn)
            else:
                samples = self._hearing.between(start_ms, at_ms)
                once = GrowingTranscript(self._engine.recognizer, self._language)
                once.push(samples, True)
                if (only := once.last()) is None:
                    return
                text = (await self._ears.run(only.run, self._clock())).text
        except StepAudioError as error:
            log.warning("recognition failed: %s", type(error).__name__)
            text = ""
        self._overheard = text
        self._feed(turns.Heard(text, at_ms))

    def _foretell(self, start_ms: int) -> None:
        """Ask the turn model before it is asked for."""
        detection = self.session.settings.audio.input.turn_detection
        if detection is None or detection.type != "semantic_vad":
            return
        samples = self._turn_audio(start_ms, self._hearing.now_ms)
        more = (FORETOLD_MS - FORETELL_MS) * RATE // 1000
        samples = np.concatenate([samples, samples[: -more - 1 : -1]])  # the silence, mirrored
        self._foretold = self._speech_end_ms, self._spawn(self._judge(samples))

    async def _score(self, start_ms: int, at_ms: int) -> None:
        foretold, self._foretold = self._foretold, None
        if foretold is not None and foretold[0] == self._speech_end_ms:
            prob = await foretold[1]
        else:
            prob = await self._judge(self._turn_audio(start_ms, at_ms))
        if prob is not None:
            self._feed(turns.TurnScore(prob, at_ms))

    def _turn_audio(self, start_ms: int, at_ms: int) -> np.ndarray:
        return self._hearing.between(max(start_ms, at_ms - 8000), at_ms)

    async def _judge(self, samples: np.ndarray) -> float | None:
        """The turn model's word on a turn; None: it has none, and silence alone decides."""
        if not len(samples):
            return None
        audio = AudioChunk(samples, RATE)
        try:
            return await self._ears.run(lambda: self._engine.endpointing.score(audio), self._clock() - 1)
        except StepAudioError as error:
            log.warning("the turn model failed: %s", type(error).__name__)
            return None

    # The answer

    def _start(self, command: StartResponse) -> None:
        spoken = bool(command.messages) and isinstance(command.messages[-1], AudioTurn)
        answer = Answer(command, self._clock, self._clock_at(self._speech_end_ms) if spoken else None)
        self._answers[command.response_id] = answer
        self._begin(answer)

    def _begin(self, answer: Answer) -> None:
        """Begin to answer, or begin anew."""
        if self._ahead is not None:
            self._ahead.cancel()
        if answer.task is not None:
            answer.task.cancel()
        answer.begin()
        answer.task = self._spawn(self._answer(answer))

    def _release(self, response_id: str) -> None:
        if answer := self._answers.get(response_id):
            answer.release()
            self._wake.set()

    def _stop(self, response_id: str) -> None:
        if answer := self._answers.pop(response_id, None):
            answer.pacer.clear()
            if answer.task is not None:
                answer.task.cancel()
            self._count(answer)
            if answer.released and not answer.told and self._metrics is not None:
                self._metrics.turn(answer.receipt())
            if answer.sound_at is not None and self._metrics is not None:
                self._metrics.interruptions_total.labels("true").inc()
                silent_s = max(0.0, answer.sent_at - answer.sound_at)
                self._metrics.barge_in_stop_latency_seconds.observe(silent_s)

    def _count(self, answer: Answer) -> None:
        """An answer is over."""
        if self._metrics is not None and answer.pacer.underruns:
            self._metrics.audio_underruns_total.inc(answer.pacer.underruns)

    def _hold(self, response_id: str) -> None:
        """Perhaps the user interrupts."""
        if self._ahead is not None:
            self._ahead.cancel()  # what is being said must be heard soon
        if answer := self._answers.get(response_id):
            answer.pacer.duck()
            onset_ms = self._hearing.now_ms - turns.TurnConfig().duck_after_ms
            answer.sound_at = self._clock_at(onset_ms)
            self._wake.set()

    def _unhold(self, response_id: str) -> None:
        if answer := self._answers.get(response_id):
            answer.pacer.unduck()
            answer.sound_at = None
            if self._metrics is not None:
                kind = "backchannel" if self._overheard else "noise"
                self._metrics.interruptions_total.labels(kind).inc()
            self._overheard = ""
            self._wake.set()

    def _fail(self, answer: Answer, error: BaseException) -> None:
        """The rest of an answer will not come; what was made of it is still heard."""
        if isinstance(error, StepAudioError):
            log.warning("%s failed: %s", answer.id, type(error).__name__)
        else:
            log.error("%s failed: %s\n%s", answer.id, type(error).__name__, places(error))
        if answer.task is not None and answer.task is not asyncio.current_task():
            answer.task.cancel()
        answer.fail(error)
        self._wake.set()

    async def _answer(self, answer: Answer) -> None:
        command, timeline = answer.command, answer.timeline

        def spoken(start: Callable[[], Iterator[Speech]]) -> AsyncGenerator[Speech, None]:
            return self._voice.iterate(start, answer.deadline, answer.waited)

        async def emit(event: ResponseEvent) -> None:
            if said is not None and not await asyncio.shield(said):
                raise _NothingSaid
            await self._made(answer, event)

        try:
            last = command.messages[-1] if command.messages else None
            said: asyncio.Task[str] | None = None
            words: dict[AudioTurn, str] = {}
            shown: list[Message] = []
            if isinstance(last, AudioTurn) and self._engine.reads_codes:
                # The model need not wait for words; the listener does: noise is not answered.
                shown = [Message("user", "", codes=await self._codes_of(last))]
                said, words[last] = self._spawn(self._said(last)), ""
            for turn in command.audio_turns():
                if turn not in words:
                    words[turn] = await self._written(answer, turn)
            timeline.stamp("transcript")
            if isinstance(last, AudioTurn) and not words[last] and not shown:
                raise _NothingSaid
            settings = self._engine.config.llm
            max_tokens = min(command.max_tokens or settings.max_tokens, settings.max_tokens)
            messages = command.written(words.__getitem__)
            if command.truncation == "disabled":
                messages = self._whole(messages)
                if sum(map(estimate_tokens, messages)) > settings.context_tokens - max_tokens:
                    raise ConfigError(TOO_LONG)
            else:
                messages = self._shortened(messages)
            messages, style = self._engine.granted([*messages, *shown])
            voice = self._voice_named(command.voice)
            await respond(
                self._engine.llm,
                lambda clause, ahead_s: self._speak(answer, clause, voice),
                messages,
                emit,
                sampling=Sampling(
                    max_tokens=max_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                ),
                tools=command.tools,
                tool_choice=command.tool_choice,
                session=self.session.settings.id,
                deadline=answer.wanted_at,
                style=style,
                unknown_tags=self._engine.config.tts.unknown_tags,
                iterate=spoken if command.modality == "audio" else _mute,
                clock=self._clock,
            )
        except _NothingSaid:
            answer.nothing_to_say()
            self._wake.set()
        except Exception as error:
            self._fail(answer, error)

    async def _said(self, part: AudioTurn) -> str:
        """The words of a turn that is answered by its codes."""
        if part.item_id is not None and part.item_id in self._words:
            return await asyncio.shield(self._words[part.item_id])
        try:
            return await self._final(self._turn_of(part))
        except StepAudioError as error:
            log.warning("recognition failed: %s", type(error).__name__)
            return SILENT  # something was said, whatever it was

    async def _written(self, answer: Answer, part: AudioTurn) -> str:
        if part.item_id is not None and part.item_id in self._words:
            return await asyncio.shield(self._words[part.item_id])
        text = await self._final(self._turn_of(part))
        answer.heard[part.start_ms] = text
        return text

    def _voice_named(self, name: str) -> Voice | None:
        """The voice to speak with; None leaves the choice to the clause (the default voice of its language,
        or the fast one)."""
        try:
            voice = self._engine.speaker.find(name)
        except ConfigError:
            return None  # the session has accepted the name: it stands for the default
        return None if voice.id in (self._engine.speaker.voices()[0].id, "auto") else voice

    def _speak(self, answer: Answer, clause: Clause, voice: Voice | None) -> Iterator[Speech]:
        speed = answer.command.speed * self._engine.config.tts.speed
        clause = replace(clause, style=clause.style.over(SpeechStyle(speed=speed)))
        now = self._clock()
        ahead_s = answer.pacer.runs_dry_at(now) - now
        return self._engine.speaker.speak(clause, voice=voice, ahead_s=ahead_s)

    async def _made(self, answer: Answer, event: ResponseEvent) -> None:
        answer.made(event)
        if isinstance(event, Done):
            if event.error is not None:
                log.warning("%s failed: %s", answer.id, type(event.error).__name__)
            if self._metrics is not None:
                self._metrics.answered(event.finished, event.status)
                took_s = self._clock() - (answer.timeline.at("begun") or self._clock())
                model = getattr(self.session.settings, "model", "stepaudio")
                span(model, time.time() - took_s, event.status, event.finished, answer.receipt())
        self._wake.set()
        await answer.room.wait()
        answer.progress = self._clock()

    # While nobody waits for it

    def _read_ahead(self, text: str) -> None:
        """Have the model read the talk as far as it goes, and what the user has said so far."""
        if self._engine.config.llm.model.startswith("openai:"):
            return  # a server is paid for what it reads
        if self._ears.waiting or self._voice.waiting:
            return  # others need the cores
        if text and self._engine.reads_codes:
            return  # it will be shown something else
        if self._ahead is not None and not self._ahead.done():
            return
        prompt = self.session.prompt()
        if prompt is None or prompt.audio_turns() or self._answers or text == self._read != "":
            return
        self._read = text
        messages = self._shortened(
            [*prompt.written(str), *([Message("user", act.plain(text))] if text else [])]
        )
        warm = self._engine.llm.warm(messages, prompt.tools, session=self.session.settings.id)
        self._ahead = self._spawn(self._quietly(warm))

    def _sum_up(self) -> None:
        """Make a long talk shorter, if nobody speaks."""
        prompt = self.session.prompt()
        if prompt is None or prompt.truncation == "disabled" or self._open is not None:
            return
        if self._ahead is not None and not self._ahead.done():
            return
        if not prompt.audio_turns():
            messages = self._whole(prompt.written(str))
            self._ahead = self._spawn(self._quietly(self._compact(messages, prompt)))

    async def _compact(self, messages: Sequence[Message], prompt: StartResponse) -> None:
        settings = self._engine.config.llm
        shorter = await compact(
            self._engine.llm,
            self._shortened(messages),
            settings.context_tokens - settings.max_tokens,
            tools=prompt.tools,
            session=self.session.settings.id,
        )
        if shorter is not None:
            self._summed = tuple(messages[1:]), shorter[1:]

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """Nobody waits for it, so nobody hears of its failure."""
        try:
            await work
        except StepAudioError as error:
            log.warning("the language model could not work ahead: %s", type(error).__name__)

    def _shortened(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with the summary in place of what it sums up, whatever the instructions are."""
        instructions, *turns = self._whole(messages)
        whole, shorter = self._summed
        if whole and tuple(turns[: len(whole)]) == whole:
            turns[: len(whole)] = shorter
        return [instructions, *turns]

    def _whole(self, messages: Sequence[Message]) -> list[Message]:
        """With the server's own instructions where the talk does not begin with any."""
        bare = not messages or messages[0].role != "system"
        return [self._engine.system, *messages] if bare else list(messages)

    # Sending it

    async def _pace(self) -> None:
        """Send what is due, when it is due."""
        while True:
            self._wake.clear()
            next_at = min((self._send_due(a) for a in list(self._answers.values())), default=math.inf)
            wait_s = next_at - self._clock()
            if wait_s <= 0:
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout(None if wait_s == math.inf else wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _send_due(self, answer: Answer) -> float:
        """Send what is due of an answer; returns when the next is, seconds on the clock."""
        now = self._clock()
        for event in answer.due(now):
            if isinstance(event, act.ResponseAudio):
                self._hearing.sent(event.audio)
            self._feed(event)
            if answer.id not in self._answers:  # it was stopped
                return math.inf
            if isinstance(event, act.ResponseFinished) and self._metrics is not None:
                self._metrics.turn(event.timings_ms)
        if answer.is_over(now):
            self._answers.pop(answer.id, None)
            self._count(answer)
            if not self._answers:
                self._sum_up()
            return math.inf
        return answer.due_at(now)


def places(error: BaseException) -> str:
    """Where in the code a bug showed. Not what it says, which may hold what somebody said."""
    return "".join(traceback.format_tb(error.__traceback__)[-8:])


async def _mute(start: Callable[[], Iterator[Speech]]) -> AsyncGenerator[Speech, None]:
    """The voice of a written answer."""
    return
    yield
