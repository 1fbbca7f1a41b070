# type: ignore  # its packages are not in this environment
"""openai-agents: a realtime agent with a tool, asked in writing and aloud. URL, WAV (24 kHz, int16)."""

import asyncio
import json
import sys
from pathlib import Path

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner

URL, WAV = sys.argv[1:]
set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    agent = RealtimeAgent(name="helper", instructions="Be short.", tools=[weather])
    runner = RealtimeRunner(agent)
    config = {"api_key": "not-needed", "url": URL.replace("http", "ws") + "/v1/realtime?model=m"}
    result = {"errors": [], "tools": [], "audio": 0, "ends": 0, "items": []}
    async with await runner.run(model_config=config) as session:

        async def until_end(ends: int) -> None:
            async for event in session:
                if event.type == "error":
                    result["errors"].append(str(event.error))
                elif event.type == "raw_model_event" and event.data.type == "error":
                    result["errors"].append(str(event.data.error))
                elif event.type == "tool_end":
                    result["tools"].append(event.output)
                elif event.type == "audio":
                    result["audio"] += len(event.audio.data)
                elif event.type == "agent_end":
                    result["ends"] += 1
                    if result["ends"] == ends:
                        return

        await session.send_message("Use the tool.")
        await until_end(2)  # the call, and the answer after it
        pcm = Path(WAV).read_bytes()[44:] + bytes(2 * 24_000 * 12)

        async def speak() -> None:
            for start in range(0, len(pcm), 9600):
                await session.send_audio(pcm[start : start + 9600])
                await asyncio.sleep(0.2)

        speaking = asyncio.create_task(speak())
        await until_end(3)
        speaking.cancel()
        for item in session._history:
            for part in getattr(item, "content", None) or []:
                said = getattr(part, "transcript", None) or getattr(part, "text", None)
                result["items"].append([getattr(item, "role", ""), said])
    print(json.dumps(result))


asyncio.run(asyncio.wait_for(main(), 90))
