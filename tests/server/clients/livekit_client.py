# type: ignore  # its packages are not in this environment
"""livekit's OpenAI realtime plug-in without a room: a typed and a spoken turn, a tool. URL, WAV."""

import asyncio
import json
import sys
from pathlib import Path

from livekit import rtc
from livekit.agents import llm
from livekit.agents.llm import function_tool
from livekit.plugins import openai

URL, WAV = sys.argv[1:]


@function_tool
async def weather(city: str) -> str:
    """The weather of a city."""
    return "sunny"


async def main():
    result = {"errors": [], "text": [], "audio": 0, "calls": [], "heard": []}
    model = openai.realtime.RealtimeModel(model="m", api_key="not-needed", base_url=f"{URL}/v1")
    session = model.session()
    session.on("error", lambda event: result["errors"].append(str(event.error)))
    heard = asyncio.Event()
    spoken: asyncio.Queue = asyncio.Queue()

    def on_transcript(event):
        if event.is_final:
            result["heard"].append(event.transcript)
            heard.set()

    def on_generation(event):
        if not event.user_initiated:
            spoken.put_nowait(event)

    session.on("input_audio_transcription_completed", on_transcript)
    session.on("generation_created", on_generation)

    async def read(generation):
        async for message in generation.message_stream:

            async def listen(message=message):
                async for frame in message.audio_stream:
                    result["audio"] += frame.samples_per_channel

            listening = asyncio.create_task(listen())
            text = ""
            async for piece in message.text_stream:
                text += piece
            await listening
            result["text"].append(text)
        async for call in generation.function_stream:
            result["calls"].append([call.name, call.arguments, call.call_id])

    await session.update_instructions("Be short.")
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Say hello.")
    context.add_message(role="assistant", content="Hello.")
    context.add_message(role="user", content="And again?")
    await session.update_chat_ctx(context)
    await read(await session.generate_reply())

    await session.update_tools([weather])
    context = session.chat_ctx.copy()
    context.add_message(role="user", content="Use the tool.")
    await session.update_chat_ctx(context)
    await read(await session.generate_reply(instructions="Be quick."))
    context = session.chat_ctx.copy()
    context.items.append(
        llm.FunctionCallOutput(call_id=result["calls"][0][2], name="weather", output="sunny", is_error=False)
    )
    await session.update_chat_ctx(context)
    await read(await session.generate_reply())
    await session.update_tools([])

    pcm = Path(WAV).read_bytes()[44:] + bytes(48_000 * 6)

    async def speak():
        for start in range(0, len(pcm), 1920):
            piece = pcm[start : start + 1920]
            session.push_audio(rtc.AudioFrame(piece, 24_000, 1, len(piece) // 2))
            await asyncio.sleep(0.04)

    speaking = asyncio.create_task(speak())
    await read(await spoken.get())
    await heard.wait()
    speaking.cancel()
    await session.aclose()
    print(json.dumps(result))


asyncio.run(asyncio.wait_for(main(), 90))
