# type: ignore  # its packages are not in this environment
"""The official client: a typed and a spoken turn, a function call. URL, WAV (24 kHz, int16 samples)."""

import asyncio
import base64
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI

URL, WAV = sys.argv[1:]
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def main() -> None:
    result: dict[str, object] = {"errors": []}
    client = AsyncOpenAI(api_key="not-needed", base_url=f"{URL}/v1")
    async with client.realtime.connect(model="gpt-realtime") as talk:

        async def turn() -> tuple[str, int, str, object]:
            text, audio, heard = "", 0, ""
            async for event in talk:
                if event.type in ("response.output_text.delta", "response.output_audio_transcript.delta"):
                    text += event.delta
                elif event.type == "response.output_audio.delta":
                    audio += len(base64.b64decode(event.delta))
                elif event.type == "conversation.item.input_audio_transcription.completed":
                    heard = event.transcript
                elif event.type == "error":
                    result["errors"].append(event.error.message)
                elif event.type == "response.done":
                    return text, audio, heard, event.response
            raise SystemExit("the talk ended")

        async def ask(text: str) -> None:
            content = [{"type": "input_text", "text": text}]
            await talk.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await talk.response.create()

        await talk.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await ask("Say hello.")
        result["text"] = (await turn())[0]

        await talk.session.update(
            session={"type": "realtime", "output_modalities": ["audio"], "tools": [TOOL]}
        )
        await ask("Use the tool.")
        call = (await turn())[3].output[-1]
        result["call"] = [call.type, call.name, json.loads(call.arguments)]
        await talk.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        )
        await talk.response.create()
        result["after_call"], result["audio"], _, _ = await turn()

        turn_detection = None
        await talk.session.update(
            session={
                "type": "realtime",
                "tools": [],
                "audio": {
                    "input": {"turn_detection": turn_detection, "transcription": {"model": "whisper-1"}}
                },
            }
        )
        await talk.input_audio_buffer.append(audio=base64.b64encode(Path(WAV).read_bytes()[44:]).decode())
        await talk.input_audio_buffer.commit()
        await talk.response.create()
        result["answer"], result["spoken"], heard, response = await turn()
        while not heard:
            event = await anext(aiter(talk))
            heard = getattr(event, "transcript", "") if "input_audio_transcription" in event.type else ""
        result["heard"], result["status"] = heard, response.status
    print(json.dumps(result))


asyncio.run(asyncio.wait_for(main(), 90))
