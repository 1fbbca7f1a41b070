"""``/v1/chat/completions``: a conversation goes on, in text or aloud.

Spoken questions are recognised, and the language model reads their text; so tokens of sound are none.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Clause
from stepaudio.core.codes import AudioCodes
from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.core.errors import StepAudioError
from stepaudio.core.style import SpeechStyle
from stepaudio.llm.base import Finished, Sampling, TextDelta
from stepaudio.recognition.base import Transcript
from stepaudio.respond import AudioDelta, Done, ResponseEvent, ToolCalled, respond
from stepaudio.server.encoders import Encoder, encode
from stepaudio.server.errors import ApiError, invalid, refusal
from stepaudio.server.metrics import span
from stepaudio.server.rest.shared import WHENEVER, WORK, Serving, VoiceName, new_id, sse, streamed, voice_of
from stepaudio.server.rest.transcriptions import heard_of, joined, language_code
from stepaudio.server.uploads import from_base64
from stepaudio.tts.base import Speech, Voice

if TYPE_CHECKING:
    from stepaudio.server.app import Service

router = APIRouter()


class InputAudio(BaseModel):
    """Sound in base64."""

    data: str
    format: str = Field("wav", max_length=16, description="not needed: the content tells")


class DataUrl(BaseModel):
    """Sound in a data URL; no other URL is opened."""

    url: str


class TextPart(BaseModel):
    """Written text."""

    type: Literal["text"]
    text: str


class InputAudioPart(BaseModel):
    """Spoken text."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrlPart(BaseModel):
    """Spoken text."""

    type: Literal["audio_url"]
    audio_url: DataUrl


class FunctionCall(BaseModel):
    """What was called."""

    name: str = Field(max_length=128)
    arguments: str


class CalledTool(BaseModel):
    """A call in the history."""

    id: str = Field(max_length=128)
    type: Literal["function"] = "function"
    function: FunctionCall


class EarlierAudio(BaseModel):
    """A spoken answer in the history, by its id."""

    id: str = Field(max_length=128)


class ChatMessage(BaseModel):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        str | list[Annotated[TextPart | InputAudioPart | AudioUrlPart, Field(discriminator="type")]] | None
    ) = None
    audio: EarlierAudio | None = None
    tool_calls: list[CalledTool] | None = Field(None, max_length=64)
    tool_call_id: str | None = Field(None, max_length=128)


class Function(BaseModel):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = Field(None, max_length=8192)
    parameters: dict[str, Any] | None = None


class ChatTool(BaseModel):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    """A function by its name."""

    name: str = Field(max_length=64)


class NamedTool(BaseModel):
    """A tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class AudioWanted(BaseModel):
    """How the answer is to be spoken."""

    voice: VoiceName = "auto"
    format: Literal["wav", "mp3", "flac", "opus", "pcm16", "aac"] = "wav"


class StreamOptions(BaseModel):
    """How it is to be streamed."""

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """The shape of the text."""

    type: Literal["text", "json_object", "json_schema"] = "text"


class ChatRequest(BaseModel):
    """A conversation to go on with."""

    model_config = ConfigDict(title="CreateChatCompletionRequest")

    model: str = Field(max_length=256)
    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    modalities: list[Literal["text", "audio"]] = Field(["text"], min_length=1, max_length=2)
    audio: AudioWanted | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**31), lt=2**31)
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=4)] | None = None
    tools: list[ChatTool] | None = Field(None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    n: int | None = Field(1, ge=1, le=1, description="one answer at a time")
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None


@router.post(
    "/chat/completions",
    tags=["chat"],
    response_class=Response,
    responses={
        **WORK,
        200: {
            "description": "The answer.",
            "content": {
                "application/json": {"schema": {"type": "object", "required": ["id", "choices"]}},
                "text/event-stream": {},
            },
        },
    },
)
async def create_chat_completion(body: ChatRequest, service: Serving) -> Response:
    """Answer a conversation, in text or aloud."""
    service.need_ready()
    service.check_model(body.model)
    if body.response_format and body.response_format.type != "text":
        raise invalid(
            "only plain text can be written; a tool gives JSON",
            "response_format",
            code="unsupported_value",
        )
    aloud = "audio" in body.modalities
    wanted = body.audio or AudioWanted()
    format = "pcm" if wanted.format == "pcm16" else wanted.format
    if aloud:
        Encoder(format)  # raises for what cannot be made
        if body.stream and format != "pcm":
            raise invalid(
                "a streamed answer is spoken as pcm16 only", "audio.format", code="unsupported_value"
            )
    voice = voice_of(service, wanted.voice) if aloud else None
    request = _Asked(
        model=body.model,
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        format=format if aloud else None,
    )
    events = _answer(service, body, voice if aloud else None, aloud)
    if body.stream:
        return await streamed(_chat_chunks(service, request, events), "text/event-stream")
    return JSONResponse(await _chat_whole(service, request, events))


@dataclass(frozen=True, slots=True)
class _Asked:
    model: str
    id: str
    created: int
    include_usage: bool
    format: str | None  # of the sound; None: not aloud


async def _messages(service: Service, given: Sequence[ChatMessage]) -> list[Message]:
    """The history as the language model reads it: sound is recognised, and the last is codes, too, where
    the model reads them and it stands alone in its message."""
    messages: list[Message] = []
    for place, message in enumerate(given):
        param = f"messages[{place}]"
        text = message.content if isinstance(message.content, str) else ""
        if isinstance(message.content, list):
            parts = [await _part_text(service, part, param) for part in message.content]
            text = " ".join(part for part in parts if part)
        match message.role:
            case "system" | "developer":
                messages.append(Message("system", text))
            case "user":
                messages.append(Message("user", text))
            case "tool":
                if not message.tool_call_id:
                    raise invalid(
                        "a tool's result needs the tool_call_id that it answers",
                        param,
                        code="missing_required_parameter",
                    )
                messages.append(Message("tool", text, call_id=message.tool_call_id))
            case "assistant":
                if message.audio is not None and not text:
                    spoken = service.spoken(message.audio.id)
                    if spoken is None:
                        raise invalid(
                            "this spoken answer is not remembered any more; send its transcript",
                            f"{param}.audio.id",
                            code="audio_not_found",
                        )
                    text = spoken
                calls = tuple(
                    ToolCall(call.id, call.function.name, call.function.arguments)
                    for call in message.tool_calls or ()
                )
                messages.append(Message("assistant", text, calls=calls))
    if all(message.role == "system" for message in messages):
        raise ApiError(400, "there is no message to answer", code="invalid_value", param="messages")
    if service.engine.reads_codes and given[-1].role == "user" and isinstance(given[-1].content, list):
        (part, *more) = given[-1].content
        if not more and not isinstance(part, TextPart):
            codes = await _part_codes(service, part, f"messages[{len(given) - 1}]")
            messages[-1] = replace(messages[-1], codes=codes)
    if messages[0].role != "system":
        messages.insert(0, service.engine.system)
    return messages


async def _part_codes(service: Service, part: InputAudioPart | AudioUrlPart, param: str) -> AudioCodes:
    """Sound that was recognised already, as codes."""
    data = part.input_audio.data if isinstance(part, InputAudioPart) else part.audio_url.url
    audio = await service.decoder.decode(from_base64(data, param))
    try:
        return await service.ears.run(lambda: service.engine.codes_of(audio), WHENEVER, service.waited)
    except StepAudioError as error:
        raise ApiError(400, str(error), code="invalid_audio", param=param) from None


async def _part_text(service: Service, part: TextPart | InputAudioPart | AudioUrlPart, param: str) -> str:
    if isinstance(part, TextPart):
        return part.text
    data = part.input_audio.data if isinstance(part, InputAudioPart) else part.audio_url.url
    if isinstance(part, AudioUrlPart) and not data.startswith("data:"):
        raise invalid("addresses are not opened; send the sound in a data URL", param)
    said: list[Transcript] = []
    try:
        async with aclosing(
            heard_of(service, from_base64(data, param), language_code(service, None), False)
        ) as heard:
            async for _, transcript in heard:
                said.append(transcript)
    except ApiError as error:
        error.param = error.param if error.param != "file" else param
        raise
    return joined(said, None).text


async def _answer(
    service: Service, body: ChatRequest, voice: Voice | None, aloud: bool
) -> AsyncGenerator[ResponseEvent, None]:
    """The answer's events; the last is ``Done``, and no error is raised after the first."""
    settings = service.engine.config.llm
    with service.admission.job():
        messages = await _messages(service, body.messages)
        most = body.max_completion_tokens or body.max_tokens or settings.max_tokens
        sampling = Sampling(
            max_tokens=min(most, settings.context_tokens // 2),
            temperature=settings.temperature if body.temperature is None else body.temperature,
            top_p=settings.top_p if body.top_p is None else body.top_p,
            seed=None if body.seed is None else body.seed & 0x7FFFFFFF,
        )
        tools = [
            ToolSpec(
                t.function.name,
                t.function.description or "",
                t.function.parameters or ToolSpec("").parameters,
            )
            for t in body.tools or ()
        ]
        choice = body.tool_choice or "auto"
        choice = choice.function.name if isinstance(choice, NamedTool) else choice
        if not tools and choice not in ("auto", "none"):
            raise invalid("tool_choice asks for a tool, and there are none", "tool_choice")
        stops = [body.stop] if isinstance(body.stop, str) else [stop for stop in body.stop or () if stop]
        if aloud:
            if stops:
                raise ApiError(400, "stop is for written answers", code="unsupported_value", param="stop")
            events = _aloud(service, messages, sampling, tools, choice, voice)
        else:
            events = _written(service, messages, sampling, tools, choice, stops)
        began, began_s, first = time.monotonic(), time.time(), True
        async with aclosing(events):
            async for event in events:
                if first and isinstance(event, TextDelta):
                    service.metrics.time_to_first_token_seconds.observe(time.monotonic() - began)
                    first = False
                if isinstance(event, Done):
                    reason = event.finished.reason if event.finished else event.status
                    service.metrics.answered(event.finished, reason)
                    span(body.model, began_s, event.status, event.finished)
                yield event


async def _written(
    service: Service,
    messages: Sequence[Message],
    sampling: Sampling,
    tools: Sequence[ToolSpec],
    choice: str,
    stops: Sequence[str],
) -> AsyncGenerator[ResponseEvent, None]:
    cutter = StopCutter(stops)
    finished: Finished | None = None
    begun = False
    try:
        answer = service.engine.llm.generate(messages, sampling, tools, choice)
        async with aclosing(answer) as events:
            async for event in events:
                begun = True
                match event:
                    case TextDelta(text):
                        if shown := cutter.push(text):
                            yield TextDelta(shown)
                        if cutter.stopped:
                            finished = Finished("stop")
                            break
                    case ToolCall():
                        yield ToolCalled(event)
                    case Finished():
                        finished = event
    except StepAudioError as error:
        if not begun:
            raise
        yield Done("failed", finished, error)
        return
    if rest := cutter.flush():
        yield TextDelta(rest)
    cut = finished is not None and finished.reason == "length"
    yield Done("incomplete" if cut else "completed", finished)


class StopCutter:
    """Ends a text before the first of some strings, which may come in pieces.

    Args:
        stops: the strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held, self.stopped = stops, "", False

    def push(self, text: str) -> str:
        """What can be shown now: not what may be the beginning of a stop."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            shown, self._held, self.stopped = self._held[: min(found)], "", True
            return shown
        keep = max(
            (n for stop in self._stops for n in range(len(stop)) if self._held.endswith(stop[:n])), default=0
        )
        at = len(self._held) - keep
        shown, self._held = self._held[:at], self._held[at:]
        return shown

    def flush(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return rest


async def _aloud(
    service: Service,
    messages: Sequence[Message],
    sampling: Sampling,
    tools: Sequence[ToolSpec],
    choice: str,
    voice: Voice | None,
) -> AsyncGenerator[ResponseEvent, None]:
    """The events of ``respond``, which runs in a task that ends with this generator."""
    engine = service.engine
    events: asyncio.Queue[ResponseEvent | None] = asyncio.Queue(maxsize=8)

    def speak(clause: Clause, ahead_s: float) -> Iterator[Speech]:
        style = clause.style.over(SpeechStyle(speed=engine.config.tts.speed))
        # Nobody listens before it is there: the best voice may take its time.
        return engine.speaker.speak(replace(clause, style=style), voice=voice)

    def iterate(start: Callable[[], Iterator[Speech]]) -> AsyncGenerator[Speech, None]:
        return service.voice.iterate(start, lambda: WHENEVER, service.waited)

    async def run() -> None:
        asked, style = engine.granted(messages)
        await respond(
            engine.llm,
            speak,
            asked,
            events.put,
            style=style,
            sampling=sampling,
            tools=tools,
            tool_choice=choice,
            unknown_tags=engine.config.tts.unknown_tags,
            iterate=iterate,
        )

    task = asyncio.create_task(run())
    try:
        done = False
        while not done:
            getting = asyncio.ensure_future(events.get())
            await asyncio.wait([getting, task], return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                await task  # it ended without its last event: raises what it raised
                return
            event = getting.result()
            done = isinstance(event, Done)
            if event is not None:
                yield event
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _chat_whole(
    service: Service, asked: _Asked, events: AsyncGenerator[ResponseEvent, None]
) -> dict[str, Any]:
    text: list[str] = []
    pieces: list[AudioChunk] = []
    calls: list[ToolCall] = []
    done = Done("completed")
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta():
                    text.append(event.text)
                case AudioDelta():
                    pieces.append(event.audio)
                case ToolCalled():
                    calls.append(event.call)
                case Done():
                    done = event
    if done.error is not None:
        raise done.error
    written = "".join(text)
    message: dict[str, Any] = {"role": "assistant", "content": written or None, "refusal": None}
    if asked.format is not None and pieces:
        data = await asyncio.to_thread(encode, join(pieces), asked.format)
        id = new_id("audio")
        until = service.keep_spoken(id, written)
        message["content"] = None
        message["audio"] = {
            "id": id,
            "data": base64.b64encode(data).decode(),
            "expires_at": until,
            "transcript": written,
        }
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(done, bool(calls))}
    return {
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [choice],
        "usage": _usage(done.finished),
    }


async def _chat_chunks(
    service: Service, asked: _Asked, events: AsyncGenerator[ResponseEvent, None]
) -> AsyncGenerator[bytes, None]:
    head = {
        "id": asked.id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.model,
    }

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({**head, "choices": [choice], **({"usage": None} if asked.include_usage else {})})

    text: list[str] = []
    calls, begun, done = 0, False, Done("completed")
    encoder = Encoder("pcm")
    sounding = asked.format is not None
    audio_id = new_id("audio")
    async with aclosing(events):
        async for event in events:
            if not begun:
                begun = True
                first: dict[str, Any] = {"role": "assistant"}
                yield chunk({**first, "audio": {"id": audio_id}} if sounding else {**first, "content": ""})
            match event:
                case TextDelta() if sounding:
                    text.append(event.text)
                    yield chunk({"audio": {"transcript": event.text}})
                case TextDelta():
                    yield chunk({"content": event.text})
                case AudioDelta():
                    data = base64.b64encode(encoder.push(event.audio)).decode()
                    yield chunk({"audio": {"data": data}})
                case ToolCalled():
                    yield chunk({"tool_calls": [{"index": calls, **_call(event.call)}]})
                    calls += 1
                case Done():
                    done = event
    if done.error is not None:
        yield sse(refusal(done.error).body())
        return
    if sounding:
        until = service.keep_spoken(audio_id, "".join(text))
        yield chunk({"audio": {"expires_at": until}})
    yield chunk({}, _reason(done, calls > 0))
    if asked.include_usage:
        yield sse({**head, "choices": [], "usage": _usage(done.finished)})
    yield b"data: [DONE]\n\n"


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _reason(done: Done, called: bool) -> str:
    if called:
        return "tool_calls"
    return "length" if done.status == "incomplete" else "stop"


def _usage(finished: Finished | None) -> dict[str, Any]:
    finished = finished or Finished("stop")
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
    }
