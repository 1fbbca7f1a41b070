# type: ignore  # its packages are not in this environment
"""pipecat's OpenAI realtime service in a pipeline: a first answer, a tool, a spoken turn. URL, WAV."""

import asyncio
import json
import sys
from pathlib import Path

from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

URL, WAV = sys.argv[1:]
logger.remove()
result = {"errors": [], "audio": 0, "text": "", "ends": 0, "heard": [], "tools": []}


class Ear(FrameProcessor):
    """Notes what passes."""

    def __init__(self, changed):
        super().__init__()
        self.changed = changed

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            result["audio"] += len(frame.audio)
        elif isinstance(frame, TTSTextFrame):
            result["text"] += frame.text
        elif isinstance(frame, LLMFullResponseEndFrame):
            result["ends"] += 1
        elif isinstance(frame, TranscriptionFrame):
            result["heard"].append(frame.text)
        elif isinstance(frame, ErrorFrame):
            result["errors"].append(frame.error)
        self.changed.set()
        await self.push_frame(frame, direction)


async def main():
    changed = asyncio.Event()
    weather = FunctionSchema(
        name="weather", description="The weather.", properties={"city": {"type": "string"}}, required=["city"]
    )
    service = OpenAIRealtimeLLMService(
        api_key="not-needed",
        base_url=URL.replace("http", "ws") + "/v1/realtime",
        settings=OpenAIRealtimeLLMService.Settings(
            model="m",
            system_instruction="Be short.",
            session_properties=events.SessionProperties(
                audio=events.AudioConfiguration(
                    input=events.AudioInput(
                        transcription=events.InputAudioTranscription(model="whisper-1"),
                        turn_detection=events.SemanticTurnDetection(),
                    )
                )
            ),
        ),
    )

    async def call(params):
        result["tools"].append(params.arguments)
        await params.result_callback({"weather": "sunny"})

    service.register_function("weather", call)
    messages = [{"role": "user", "content": "Use the tool."}]
    context = LLMContext(messages, tools=ToolsSchema(standard_tools=[weather]))
    pair = LLMContextAggregatorPair(context)
    before, after = Ear(changed), Ear(changed)  # what was heard goes up, the answer down
    pipeline = Pipeline([pair.user(), before, service, after, pair.assistant()])
    worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def until(what):
        while not what():
            changed.clear()
            await changed.wait()

    async def drive():
        await worker.queue_frame(LLMRunFrame())
        await until(lambda: result["tools"] and "Really" in result["text"] and result["audio"])
        first = result["audio"]
        pcm = Path(WAV).read_bytes()[44:] + bytes(48_000 * 6)
        for start in range(0, len(pcm), 1920):
            await worker.queue_frame(InputAudioRawFrame(pcm[start : start + 1920], 24_000, 1))
            await asyncio.sleep(0.04)
        await until(lambda: result["heard"] and result["audio"] > first)
        await worker.queue_frame(EndFrame())

    driving = asyncio.create_task(drive())
    await runner.run()
    await driving
    print(json.dumps(result))


asyncio.run(asyncio.wait_for(main(), 90))
