"""Prosody plans kept in a file: how a text is to sound, to be changed by hand or program and spoken again.

One JSON object: ``format``, ``rate`` (Hz of the audio), and ``clauses``, each with its ``text`` (for the
reader), the ``voice`` that speaks it, and its ``plans`` (``ProsodyPlan.to_json``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio.core.errors import TextError
from stepaudio.tts import performance
from stepaudio.tts.base import ProsodyModel, Speech, Voice
from stepaudio.tts.prosody import RATE, ProsodyPlan

FORMAT = "stepaudio plan 1"
MOST_BYTES = 64 << 20
"""Largest file of plans: half an hour of speech or so."""


@dataclass(frozen=True, slots=True)
class PlannedClause:
    """How a clause is to sound.

    Attributes:
        text: what is said; changing it changes nothing.
        voice: id of the voice that says it.
        plans: one after the other; most clauses have one.
    """

    text: str
    voice: str
    plans: tuple[ProsodyPlan, ...]


def to_json(clauses: Iterable[PlannedClause]) -> str:
    """The file."""
    plain = {
        "format": FORMAT,
        "rate": RATE,
        "clauses": [
            {"text": clause.text, "voice": clause.voice, "plans": [plan.to_json() for plan in clause.plans]}
            for clause in clauses
        ],
    }
    return json.dumps(plain, ensure_ascii=False, indent=1) + "\n"


def from_json(data: bytes) -> list[PlannedClause]:
    """What a file of plans says.

    Raises:
        TextError: it is none, or was changed into nonsense; the message says where, and what to change.
    """
    if len(data) > MOST_BYTES:
        raise TextError(f"the plan is larger than {MOST_BYTES >> 20} MB: plan the text in parts")
    try:
        plain = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TextError(f"the plan is not JSON: {error}") from None
    if not isinstance(plain, Mapping) or plain.get("format") != FORMAT:
        raise TextError(f'the plan must be an object with "format": "{FORMAT}"; make one with say --plan')
    if plain.get("rate") != RATE:
        raise TextError(f"rate: the voices speak at {RATE} Hz; leave it so")
    clauses = plain.get("clauses")
    if not isinstance(clauses, list) or not clauses:
        raise TextError("clauses: a list with at least one clause")
    return [_clause(i, clause) for i, clause in enumerate(clauses)]


def _clause(number: int, plain: Any) -> PlannedClause:
    place = f"clauses[{number}]"
    if not isinstance(plain, Mapping):
        raise TextError(f"{place}: an object with text, voice and plans")
    text, voice, plans = plain.get("text", ""), plain.get("voice"), plain.get("plans")
    if not isinstance(text, str):
        raise TextError(f"{place}.text: must be a string")
    if not isinstance(voice, str):
        raise TextError(f"{place}.voice: must be the name of a voice (`stepaudio voices list`)")
    if not isinstance(plans, list) or not plans:
        raise TextError(f"{place}.plans: a list with at least one plan")
    read = []
    for i, plan in enumerate(plans):
        try:
            read.append(ProsodyPlan.from_json(plan))
        except TextError as error:
            raise TextError(f"{place}.plans[{i}]: {error}") from None
    return PlannedClause(text, voice, tuple(read))


def perform(clause: PlannedClause, model: ProsodyModel, voice: Voice) -> Iterator[Speech]:
    """Speak a planned clause.

    Raises:
        TextError: the voice does not know a symbol of it, or cannot say so much in one plan.
    """
    for i, plan in enumerate(clause.plans):
        if strangers := "".join(sorted(set(plan.symbols) - set(model.vocabulary))):
            raise TextError(f"plans[{i}].symbols: {voice.id} does not know {strangers!r}; take them out")
        if len(plan.symbols) > model.limit:
            raise TextError(f"plans[{i}].symbols: {voice.id} says at most {model.limit} of them in one plan")
    yield from performance.perform(model, clause.plans, voice)
