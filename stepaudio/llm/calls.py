"""Calls of tools that a model writes as text, which must not be spoken."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from stepaudio.core.conversation import ToolCall, ToolChoice, ToolSpec
from stepaudio.core.errors import BackendError, unknown
from stepaudio.llm.base import TextDelta

_SIGN = re.compile(r"[\[{<]|```")
"""What a call may begin with; speech has none of them."""

_FRAME = re.compile(r"(?:[\s,\[\]}]|```(?:json)?|</?tool_calls?>|\{(?=\s*\{))*")
"""What models write around their calls: tags (Hermes), fences, lists, a second brace (Qwen2.5-Coder)."""

_CALL = re.compile(rf'{_FRAME.pattern}\{{\s*"name"\s*:')

_DECIDED = 40
"""Characters after a sign that tell a call from words; the longest frame, and the key, fit in."""


class BadCall(BackendError):
    """The model called a tool that there is not, or wrote no whole call."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the language model wrote {what}; ask again, or try a larger model", retryable=True)


class CallReader:
    """Splits what a model writes into words and calls. After the first call, only calls count.

    Args:
        names: of the tools.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = set(names)
        self._held = ""  # not yet told apart
        self._calls: list[tuple[str, str]] = []
        self._calling = False
        self.over = False
        """Whether what else the model writes is of no use: words after a call, or the same call again."""

    def push(self, text: str, end: bool = False) -> list[TextDelta | ToolCall]:
        """What is new after ``text``; with ``end``, nothing follows it.

        Raises:
            BadCall: of a tool that there is not, or broken off at the end.
        """
        self._held += text
        found: list[TextDelta | ToolCall] = []
        while not self._calling and self._held:
            sign = _SIGN.search(self._held)
            # Back quotes may still be coming, one by one.
            words = sign.start() if sign else len(self._held.rstrip("`")) if not end else len(self._held)
            if words:
                found.append(TextDelta(self._held[:words]))
                self._held = self._held[words:]
            elif _CALL.match(self._held):
                self._calling = True
            elif sign and (end or len(self._held) >= _DECIDED):
                found.append(TextDelta(self._held[0]))
                self._held = self._held[1:]
            else:
                break
        while self._calling and not self.over:
            call, self._held = self._held[_FRAME.match(self._held).end() :], ""  # type: ignore[union-attr]
            try:
                read, length = json.JSONDecoder().raw_decode(call)
            except ValueError:
                if end and call.startswith("{"):
                    raise BadCall("half a call of a tool") from None
                self.over = bool(call) and call[0] not in "{<`"
                self._held = call
                break
            self._held = call[length:]
            found += self._read(read)
        return found

    def _read(self, call: Any) -> list[ToolCall]:
        assert isinstance(call, dict)  # it begins with a brace
        arguments = call.get("arguments", call.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        made = (str(call.get("name")), arguments)
        if made in self._calls:  # small models go on and on
            self.over = True
            return []
        self._calls.append(made)
        return [whole_call("", *made, self._names)]


def whole_call(call_id: str, name: str, arguments: str, names: Collection[str]) -> ToolCall:
    """A call as a tool can take it, with an id if it has none.

    Raises:
        BadCall: there is no such tool, or the arguments are no JSON object.
    """
    if name not in names:
        raise BadCall("a call of a tool that there is not")
    arguments = arguments.strip() or "{}"
    try:
        good = isinstance(json.loads(arguments), dict)
    except ValueError:
        good = False
    if not good:
        raise BadCall("a call of a tool with arguments that are no JSON object")
    return ToolCall(call_id or f"call_{uuid.uuid4().hex[:24]}", name, arguments)


def check_choice(tools: Sequence[ToolSpec], choice: ToolChoice) -> None:
    """See that ``choice`` can be followed.

    Raises:
        ConfigError: it cannot.
    """
    names = [tool.name for tool in tools]
    if choice not in ("auto", "none", *names) and not (choice == "required" and tools):
        raise unknown("tool choice", choice, ["auto", "none", *(["required"] if tools else []), *names])
