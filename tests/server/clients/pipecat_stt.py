# type: ignore  # its packages are not in this environment
"""pipecat's OpenAI realtime recognition in a pipeline, with the server's turns. URL, WAV (24 kHz, int16)."""

import asyncio
import json
import sys
from pathlib import Path

from loguru import logger
from pipecat.frames.frames import EndFrame, ErrorFrame, InputAudioRawFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

URL, WAV = sys.argv[1:]
logger.remove()
result = {"errors": [], "heard": []}
done = asyncio.Event()


class Ear(FrameProcessor):
    """Notes what passes."""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            result["heard"].append(frame.text)
            done.set()
        elif isinstance(frame, ErrorFrame):
            result["errors"].append(frame.error)
            done.set()
        await self.push_frame(frame, direction)


async def main():
    service = OpenAIRealtimeSTTService(
        api_key="not-needed",
        base_url=URL.replace("http", "ws") + "/v1/realtime",
        turn_detection={"type": "server_vad"},
    )
    params = PipelineParams(audio_in_sample_rate=24_000)
    worker = PipelineWorker(Pipeline([Ear(), service, Ear()]), cancel_on_idle_timeout=False, params=params)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def drive():
        pcm = Path(WAV).read_bytes()[44:] + bytes(48_000 * 5)
        for start in range(0, len(pcm), 1920):
            await worker.queue_frame(InputAudioRawFrame(pcm[start : start + 1920], 24_000, 1))
            await asyncio.sleep(0.04)
        await done.wait()
        await worker.queue_frame(EndFrame())

    driving = asyncio.create_task(drive())
    await runner.run()
    await driving
    print(json.dumps(result))


asyncio.run(asyncio.wait_for(main(), 60))
