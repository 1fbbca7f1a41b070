"""What a language model is told: the product's system prompt, and messages as chat APIs take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stepaudio.core.conversation import Message, ToolSpec

SYSTEM_PROMPT = (
    "You are a knowledgeable voice assistant. Your answer is spoken aloud. Reply in the language of the "
    "question, in one short sentence of plain words. Name the exact fact that is asked for. "
    "Write numbers as words."
)
"""Measured with Qwen2.5 1.5B, temperature 0: 98 of 150 LLaMA Questions right, 8 words an answer (median).
No Chinese in it: with a clause of it the model answers "Say hi." in Chinese."""


NO_RESULT = "no result yet"
"""Stands for the result of a call that has none: chat APIs want one after every call."""


INTERRUPTED = " —"
"""Ends an answer that the user broke into: how people write it. Of nine talks that went on after it, so many
said again what had been heard, with Qwen2.5 1.5B and 0.5B: 2 and 4. With "[interrupted by the user]" 3 and
4, and the models speak such signs themselves ("[again]"); without any sign 1 and 4, but nobody told them."""


def render(messages: Sequence[Message], *, codes: bool = False) -> list[dict[str, Any]]:
    """The conversation in OpenAI's chat format, which llama.cpp and all servers take.

    ``codes``: the model reads Step-Audio's; what the user said goes in as ``<audio_N>`` where it is there,
    alone in its turn (as the chat template of Step-Audio-Chat has it), else as its transcript.

    Results follow their calls at once, as the format wants them, even if the user spoke in between; a result
    without a call (its turn was dropped, or the client made it up) is left out.
    Halves of characters (lone surrogates, which JSON can hold and UTF-8 cannot) become question marks.
    """
    results = {message.call_id: message.text for message in messages if message.role == "tool"}
    rendered: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            continue
        text = message.text.rstrip() + INTERRUPTED if message.interrupted else message.text
        if codes and message.codes is not None:
            text = message.codes.text()
        rendered.append({"role": message.role, "content": _whole(text)})
        if message.calls:
            rendered[-1]["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _whole(call.arguments)},
                }
                for call in message.calls
            ]
        rendered += [
            {
                "role": "tool",
                "tool_call_id": call.call_id,
                "content": _whole(results.get(call.call_id, NO_RESULT)),
            }
            for call in message.calls
        ]
    return rendered


def render_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """The tools in OpenAI's chat format."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in tools
    ]


TOOLS_HEAD = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
TOOLS_END = """
</tools>

For each function call, return only a json object with function name and arguments:
{"name": <function-name>, "arguments": <args-json-object>}
For what no function is needed, answer in words."""
"""How tools are described to a model that writes its calls as text. The words are those that Qwen2.5 was
trained on (its chat template), without the tags around a call, which Qwen2.5-Coder leaves out, and with a
last sentence. Right calls of 13, and right answers in words of 12, by the 1.5B and the 0.5B model: 11 and 12,
13 and 8; with the template of the model's file: 8 and 12, 12 and 10 (and words that are neither)."""


def render_as_text(
    messages: Sequence[Message], tools: Sequence[ToolSpec], *, codes: bool = False
) -> list[dict[str, Any]]:
    """As ``render``, but with tools, calls and results written into the messages, for any chat template."""
    rendered: list[dict[str, Any]] = []
    for message in render(messages, codes=codes):
        content = message["content"]
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if rendered[-1]["role"] == "tool":
                rendered[-1]["content"] += "\n" + content
                continue
        calls = [write_call(**call["function"]) for call in message.get("tool_calls", ())]
        content = "\n".join(part for part in (content, *calls) if part)
        rendered.append({"role": message["role"], "content": content})
    for message in rendered:
        if message["role"] == "tool":
            message["role"] = "user"
    if tools:
        if not rendered or rendered[0]["role"] != "system":
            rendered.insert(0, {"role": "system", "content": ""})
        specs = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in render_tools(tools))
        rendered[0]["content"] = (rendered[0]["content"] + TOOLS_HEAD + specs + TOOLS_END).lstrip()
    return rendered


def write_call(name: str, arguments: str) -> str:
    """A call as a model writes it."""
    return f'{{"name": "{name}", "arguments": {arguments}}}'


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
