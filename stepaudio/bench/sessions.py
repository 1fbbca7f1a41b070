"""``bench sessions``: whole talks over the socket, as their users would have them.

A client (``talker``) speaks recorded speech into the socket in real time and plays what comes back; every
figure is taken at its end. The server is a child process with its models loaded, or the one at ``--url``.

- **turns**: from the true end of the speech to the first audio of the answer, one speaker a session. The
  manifest tells where the questions end; for real clips it is the last frame that is surely speech.
- **interruptions**: somebody talks into a long answer at a random moment; when is there silence, and does the
  conversation then hold what was heard: the words that had begun when the player stopped?
- **load**: more and more talks at once, until over 1 % of the answers' audio comes too late.
- **idle**: memory of a session, and the processor time of a thousand that are connected and silent.
- **hour**: 240 turns, an hour of talk, without the waiting: do memory and latency grow?
- **overlap**: who is stopped by what (``overlap``), offline.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.bench import samples
from stepaudio.bench.talker import Server, Talker, serving, talker
from stepaudio.client import RATE, connect
from stepaudio.config import Config
from stepaudio.core.audio import resample
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.engine import Engine
from stepaudio.recognition.vad import FRAME, probabilities

if TYPE_CHECKING:
    from rich.console import RenderableType

SECTIONS = ("turns", "interruptions", "load", "idle", "hour", "overlap")

TARGETS = {
    "voice_to_voice_ms": {"median": 600, "p95": 1200},
    "answered_early": 0.05,
    "silence_after_confirmation_ms": 250,
    "context_words_off": 1,
    "underruns": 0.01,
    "memory_of_a_session_mb": 10,
    "idle_thousand_cores": 0.5,
    "hour_growth": 0.05,
}
PIPECAT = "2080 / 4460 ms, 7 of 18 turns declared over too early (pipecat 1.14, same models, two cores)"

REAL_CLIPS = 20
CLIP_S = (2.0, 7.0)
"""Real clips that count as a turn: short ones are hardly a sentence, long ones are several."""
ANSWER_WITHIN_S = 10.0
INTERRUPTIONS = 50
OVER_S = 1.0
"""An answer that ends within so much of an interruption was not stopped by it, and need not have been."""
TALKS = (1, 2, 4, 6, 8, 12, 16)
TALK_S = 40.0
IDLE = (100, 1000)
IDLE_S = 20.0
TURN_S = 15.0
"""Of talk that a turn stands for, question and answer with the silence between: 240 make an hour."""

LONG = {
    "en": "Tell me a long story about a {0} who travels around the world.",
    "zh": "请给我讲一个关于{0}环游世界的很长的故事。",
}
HEROES = {
    "en": ("sailor", "baker", "clockmaker", "dog", "king", "painter", "robot", "teacher", "bird", "doctor"),
    "zh": ("水手", "面包师", "钟表匠", "小狗", "国王", "画家", "机器人", "老师", "小鸟", "医生"),
}


@dataclass(frozen=True)
class Utterance:
    """What is said into the socket: samples at 24 kHz, seconds at which the speech begins and ends."""

    kind: str
    samples: np.ndarray
    start_s: float
    end_s: float


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
    only: Sequence[str] = SECTIONS,
    url: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: at most so many clips of a kind, interruptions of a language, levels of load; idle sessions in
            hundreds; turns of the hour in tens.
        only: the sections wanted.
        url, key: a server that runs; its memory and processor time cannot be read.

    Raises:
        ConfigError: no such section, or no clips in ``data``.
        BackendError: the server does not come up, or is full.
    """
    for name in only:
        if name not in SECTIONS:
            raise ConfigError(f"no section {name!r}; there are: {', '.join(SECTIONS)}")
    steps = _Steps(on_progress, len(only))
    result: dict[str, Any] = {"targets": TARGETS}
    with Engine(config) as engine:
        heard = {kind: _utterances(engine, data, kind, limit) for kind in ("plain", "pause", "real")}
    # Enough places for every section; what the server would hold by itself is told as well.
    many = {"server.sessions": 4 * max(IDLE), "server.requests_per_minute": 1_000_000}
    if set(only) - {"overlap"}:
        _allow_many_files()
        with serving(config, url) as plain:
            result["capacity"] = plain.capacity()
        with serving(config, url, many) as server:
            measures = {
                "turns": lambda step: _turns(server, key, heard, step),
                "interruptions": lambda step: _interruptions(server, key, heard, limit, step),
                "load": lambda step: _load(server, key, heard["plain"], limit, step),
                "idle": lambda step: _idle(server, key, limit, step),
                "hour": lambda step: _hour(server, key, heard["plain"], limit, step),
            }
            for name, measure in measures.items():
                if name in only:
                    result[name] = asyncio.run(measure(steps.section()))
    if "overlap" in only:
        from stepaudio.bench import overlap

        result["overlap"] = overlap.run(config, data, limit=limit, on_progress=steps.section())
    return result


class _Steps:
    """Sections of unlike lengths as one bar: each is one unit."""

    def __init__(self, on_progress: Callable[[float, float | None], None], sections: int) -> None:
        self._report, self._total, self._done = on_progress, sections, -1

    def section(self) -> Callable[[float, float | None], None]:
        self._done += 1
        first = self._done
        return lambda done, total: self._report(first + (done / total if total else 0), self._total)


def _utterances(engine: Engine, data: Path, kind: str, limit: int | None) -> list[Utterance]:
    if kind == "real":
        low, high = CLIP_S
        half = min(limit or REAL_CLIPS, REAL_CLIPS) // 2 or 1
        clips = [
            clip
            for of in ("asr_en", "asr_zh")
            for clip in [c for c in samples.clips(data, of, verified=True) if low < c.seconds < high][:half]
        ]
        return [Utterance(kind, resample(clip.audio, RATE).samples, *_speech(engine, clip)) for clip in clips]
    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["kind"] == {"plain": "question_fact", "pause": "question_pause"}[kind]]
    places = {str(data / row["path"]): (row["speech_start"], row["speech_end"]) for row in rows}
    clips = samples.clips(data, rows[0]["kind"])[:limit]
    return [Utterance(kind, resample(clip.audio, RATE).samples, *places[str(clip.path)]) for clip in clips]


def _speech(engine: Engine, clip: samples.Clip) -> tuple[float, float]:
    """Where the speech of a clean clip begins and ends, to a frame of 32 ms."""
    sure = [i for i, prob in enumerate(probabilities(engine.vad, clip.audio)) if prob >= 0.5]
    return sure[0] * FRAME / clip.audio.rate, (sure[-1] + 1) * FRAME / clip.audio.rate


# Turns


async def _turns(
    server: Server, key: str | None, heard: dict[str, list[Utterance]], step: Any
) -> dict[str, Any]:
    await _turn(server, key, heard["plain"][0])  # warm, uncounted
    todo = [one for of in heard.values() for one in of]
    rows = []
    for n, one in enumerate(todo):
        rows.append(await _turn(server, key, one))
        step(n + 1, len(todo))
    return {
        "all": _turn_summary(rows),
        **{kind: _turn_summary([row for row in rows if row["kind"] == kind]) for kind in heard},
        "rows": rows,
    }


async def _turn(server: Server, key: str | None, one: Utterance) -> dict[str, Any]:
    async with talker(server.url, key) as person:
        await person.until(lambda: False, 0.3)  # a line is open before somebody speaks
        end = person.say(one.samples) + one.end_s

        def answered() -> str | None:
            return next((id for id, at in person.first_audio.items() if at > end), None)

        id = await person.until(answered, one.end_s + ANSWER_WITHIN_S)
        first = person.first_audio.get(id or "")
        early = any(at <= end for at in person.first_audio.values())
        decided = [
            at for at, event in person.events
            if event["type"] == "input_audio_buffer.speech_stopped" and first and at <= first
        ]  # fmt: skip
        if id is not None:  # the receipt comes when all was said
            await person.until(lambda: person.done(id), 60)
        receipt = (person.done(id or "") or {}).get("timings_ms") or {}
    ms = lambda at: round(1000 * (at - end), 1)  # noqa: E731
    return {
        "kind": one.kind,
        "answered": bool(first or early),
        "early": early,
        "voice_to_voice_ms": ms(first) if first else None,
        "silence_waited_ms": ms(decided[-1]) if decided else None,
        "from_decision_ms": round(1000 * (first - decided[-1]), 1) if first and decided else None,
        "receipt_ms": receipt,
    }


def _turn_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    stages: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["receipt_ms"].items():
            stages.setdefault(name, []).append(value)
    return {
        "turns": len(rows),
        "answered": sum(row["answered"] for row in rows),
        "early": sum(row["early"] for row in rows),
        **{
            name: _spread([r[name] for r in rows])
            for name in rows[0]
            if name.endswith("_ms") and name != "receipt_ms"
        },
        "receipt_ms": {name: round(statistics.median(values), 1) for name, values in stages.items()},
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median, 95th percentile and largest of what was measured."""
    found = sorted(value for value in values if value is not None)
    if not found:
        return None
    p95 = float(np.percentile(found, 95))
    return {"median": round(statistics.median(found), 1), "p95": round(p95, 1), "max": round(found[-1], 1)}


# Interruptions


async def _interruptions(
    server: Server, key: str | None, heard: dict[str, list[Utterance]], limit: int | None, step: Any
) -> dict[str, Any]:
    count = min(limit or INTERRUPTIONS // 2, INTERRUPTIONS // 2)
    dice = random.Random(4)
    rows: list[dict[str, Any]] = []
    for language in ("en", "zh"):
        done = tries = 0
        while done < count and tries < 3 * count:
            # A new talk every five: a long one would be measured by `hour`.
            async with talker(server.url, key) as person:
                for _ in range(min(5, count - done)):
                    hero = HEROES[language][tries % len(HEROES[language])]
                    tries += 1
                    row = await _interruption(
                        person, LONG[language].format(hero), dice.choice(heard["plain"]), dice
                    )
                    if row is not None:
                        rows.append({"language": language} | row)
                        done += 1
                        step(len(rows), 2 * count)
    stopped = [row for row in rows if row["stopped"]]
    return {
        "interruptions": len(rows),
        "stopped": len(stopped),
        "confirmation_ms": _spread([row["confirmation_ms"] for row in stopped]),
        "silence_ms": _spread([row["silence_ms"] for row in stopped]),
        "silence_after_confirmation_ms": _spread(
            [row["silence_ms"] - row["confirmation_ms"] for row in stopped]
        ),
        "context": {
            language: {
                "exact": sum(row["words_off"] == 0 for row in of),
                "within_one": sum(abs(row["words_off"]) <= 1 for row in of),
                "of": len(of),
                "worst": max((abs(row["words_off"]) for row in of), default=0),
            }
            for language in ("en", "zh")
            for of in [[row for row in stopped if row["language"] == language]]
        },
        "rows": rows,
    }


async def _interruption(
    person: Talker, question: str, said: Utterance, dice: random.Random
) -> dict[str, Any] | None:
    """Interrupt one answer; None where it was over before that."""
    before = time.monotonic()
    await person.client.send_text(question)
    found = await person.until(lambda: person.find("response.output_audio.delta", after=before), 30)
    if found is None:
        raise BackendError("a typed question got no spoken answer within 30 s")
    id, item = found[1]["response_id"], found[1]["item_id"]
    await person.until(lambda: False, dice.uniform(0.8, 5.0))
    if person.done(id):
        return None
    start = person.say(said.samples)
    onset = start + said.start_s
    player = person.client.player

    def over() -> bool:
        return person.done(id) is not None and not player.waiting_s

    await person.until(over, said.end_s + 6)
    response = person.done(id) or {}
    stopped = response.get("status") == "cancelled"
    if not stopped and person.sound_until < onset + OVER_S:
        return None  # it was at its end
    row: dict[str, Any] = {"stopped": stopped}
    if stopped:
        signs = [
            at for at, event in person.events
            if at > onset
            and (
                event["type"] == "input_audio_buffer.speech_started"
                or (event["type"] == "response.done" and event["response"]["id"] == id)
            )
        ]  # fmt: skip
        silence = person.sound_until
        sent = await person.client.send("conversation.item.retrieve", item_id=item)
        got = await person.until(
            lambda: person.find("conversation.item.retrieved", after=onset) or _failed(person, sent), 5
        )
        kept = ""
        if got and got[1]["type"] == "conversation.item.retrieved":
            kept = "".join(part.get("transcript") or "" for part in got[1]["item"]["content"])
        played_ms = player.played_ms(item)
        words = "".join(text for text, at in person.words.get(item, ()) if at < played_ms)
        row |= {
            "confirmation_ms": round(1000 * (signs[0] - onset), 1),
            "silence_ms": round(1000 * (silence - onset), 1),
            "played_ms": round(played_ms),
            "words_heard": len(units(words)),
            "words_off": len(units(kept)) - len(units(words)),
        }
    # The interruption is a turn too: let it end, and its answer be stopped.
    await person.until(
        lambda: any(at > onset + said.end_s for at in person.first_audio.values()), said.end_s + 5
    )
    await person.client.stop()
    await person.until(lambda: False, 0.3)
    return row


def _failed(person: Talker, event_id: str) -> Any:
    for at, event in person.events:
        if event["type"] == "error" and event["error"].get("event_id") == event_id:
            return at, event
    return None


def units(text: str) -> list[str]:
    """Words of a text as they are counted: each Chinese character is one; signs are none."""
    return re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+(?:['’.][^\W_\u3400-\u9fff]+)*", text)


# Load


async def _load(
    server: Server, key: str | None, heard: list[Utterance], limit: int | None, step: Any
) -> dict[str, Any]:
    levels = TALKS[:limit]
    rows = []
    for n, talks in enumerate(levels):
        rows.append(await _level(server, key, heard, talks))
        step(n + 1, len(levels))
        if rows[-1]["underruns"] >= TARGETS["underruns"] or rows[-1]["refused"]:
            break
    good = [r["talks"] for r in rows if r["underruns"] < TARGETS["underruns"] and not r["refused"]]
    return {"talks": max(good, default=0), "levels": rows}


async def _level(server: Server, key: str | None, heard: list[Utterance], talks: int) -> dict[str, Any]:
    """So many people at once, for ``TALK_S``; each asks, listens to the end, thinks a little, asks again."""
    latencies: list[float | None] = []
    missed = spoken = refused = 0
    end = time.monotonic() + TALK_S + talks

    async def person(n: int) -> None:
        nonlocal missed, spoken, refused
        dice = random.Random(n)
        await asyncio.sleep(n * 3.7 % 6)
        try:
            async with talker(server.url, key) as one:
                while time.monotonic() < end:
                    latencies.append(await _listen_to_the_end(one, dice.choice(heard)))
                    await one.until(lambda: False, dice.uniform(1, 3))
                missed += one.client.player.missed
                spoken += one.spoken
        except BackendError:
            refused += 1

    await asyncio.gather(*map(person, range(talks)))
    return {
        "talks": talks,
        "turns": len(latencies),
        "unanswered": sum(latency is None for latency in latencies),
        "refused": refused,
        "underruns": round(missed / max(1, missed + spoken), 5),
        "voice_to_voice_ms": _spread(latencies),
    }


async def _listen_to_the_end(one: Talker, said: Utterance) -> float | None:
    end = one.say(said.samples) + said.end_s

    def answered() -> str | None:
        return next((id for id, at in one.first_audio.items() if at > end), None)

    id = await one.until(answered, said.end_s + 3 * ANSWER_WITHIN_S)
    if id is None:
        return None
    await one.until(lambda: one.done(id) and not one.client.player.waiting_s, 120)
    return round(1000 * (one.first_audio[id] - end), 1)


# Idle sessions, and a long one


async def _idle(server: Server, key: str | None, limit: int | None, step: Any) -> dict[str, Any]:
    few, many = (min(100 * (limit or many), many) for many in IDLE)
    async with AsyncExitStack() as stack:
        at_start = server.memory_mb()
        memory: dict[int, float | None] = {}
        for n in range(1, many + 1):
            await stack.enter_async_context(await connect(server.url, api_key=key))
            if n in (few, many):
                await asyncio.sleep(1)
                memory[n] = server.memory_mb()
            step(n, 1.2 * many)
        before = server.cpu_s()
        await asyncio.sleep(IDLE_S)
        after = server.cpu_s()
        step(1.2 * many, 1.2 * many)

    def each(before: float | None, after: float | None, of: float) -> float | None:
        return None if before is None or after is None else round((after - before) / of, 3)

    return {
        "sessions": many,
        "memory_of_a_session_mb": each(at_start, memory[many], many),
        "memory_of_a_session_mb_first": each(at_start, memory[few], few),
        "cores": each(before, after, IDLE_S),
    }


async def _hour(
    server: Server, key: str | None, heard: list[Utterance], limit: int | None, step: Any
) -> dict[str, Any]:
    """Questions aloud, committed by hand; every tenth answer is spoken and heard to its end, the others are
    written, since the server sends speech no faster than it is heard."""
    turns = min(10 * (limit or 24), 240)
    rows: list[dict[str, Any]] = []
    async with await connect(server.url, api_key=key) as client:
        events = aiter(client)

        async def until(type: str) -> dict[str, Any]:
            async for event in events:
                if event["type"] == type:
                    return event
            raise BackendError(f"the server ended the talk: {client.closed}", retryable=True)

        await client.update(audio={"input": {"turn_detection": None}})
        for n in range(turns):
            spoken = n % 10 == 0
            said = heard[n % len(heard)].samples
            for start in range(0, len(said), RATE // 10):
                await client.send_audio(said[start : start + RATE // 10])
                await asyncio.sleep(0.06)  # the server takes no more than twice real time
            await client.commit()
            asked = time.monotonic()
            await client.respond(output_modalities=["audio" if spoken else "text"])
            await until("response.output_audio.delta" if spoken else "response.output_text.delta")
            first_ms = round(1000 * (time.monotonic() - asked), 1)
            await until("response.done")
            client.player.flush()
            minute = (n + 1) * TURN_S / 60
            rows.append(
                {"minute": minute, "spoken": spoken, "first_ms": first_ms, "memory_mb": server.memory_mb()}
            )
            step(n + 1, turns)
    written = [row for row in rows if not row["spoken"]]
    early = [row for row in written if 5 < row["minute"] <= 15] or written[: len(written) // 2]
    late = [row for row in written if row["minute"] > rows[-1]["minute"] - 10]
    at_10 = next((row["memory_mb"] for row in rows if row["minute"] >= 10), None)
    at_end = rows[-1]["memory_mb"]
    latency = [statistics.median(row["first_ms"] for row in of) for of in (early, late)]
    return {
        "turns": turns,
        "minutes": rows[-1]["minute"],
        "memory_mb": {"minute_10": at_10, "end": at_end},
        "memory_growth": round(at_end / at_10 - 1, 4) if at_10 and at_end else None,
        "first_word_ms": {"minutes_5_to_15": latency[0], "last_10_minutes": latency[1]},
        "latency_growth": round(latency[1] / latency[0] - 1, 4),
        "rows": rows,
    }


def _allow_many_files() -> None:
    """A thousand sockets are more than a process may open by default; the child inherits what is set here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * max(IDLE) if hard == resource.RLIM_INFINITY else min(hard, 4 * max(IDLE))
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# What is printed


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table, targets beside them."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    targets = result["targets"]
    table = Table("figure", "measured", "wanted", box=box.SIMPLE_HEAD, pad_edge=False)

    def row(figure: str, measured: object, wanted: str = "") -> None:
        table.add_row(figure, "not measured" if measured is None else str(measured), wanted)

    def spread(value: dict[str, float] | None) -> str | None:
        return f"{value['median']:.0f} / {value['p95']:.0f} / {value['max']:.0f}" if value else None

    if turns := result.get("turns"):
        wanted = targets["voice_to_voice_ms"]
        for kind in ("all", "plain", "pause", "real"):
            of = turns[kind]
            all_ = kind == "all"
            row(
                f"voice to voice, {kind}, {of['turns']} turns: median / p95 / max ms",
                spread(of["voice_to_voice_ms"]),
                f"{wanted['median']} / {wanted['p95']}" if all_ else "",
            )
            row("  silence waited for", spread(of["silence_waited_ms"]))
            row("  from the decision", spread(of["from_decision_ms"]))
            row("  answered aloud too early", of["early"], f"{targets['answered_early']:.0%}" if all_ else "")
            row("  answered", f"{of['answered']} of {of['turns']}", "every" if all_ else "")
        stages = ", ".join(f"{name} {ms:.0f}" for name, ms in turns["all"]["receipt_ms"].items())
        row("  receipts, medians, ms", stages)
        table.add_section()
    if cuts := result.get("interruptions"):
        row("interruptions that stopped the answer", f"{cuts['stopped']} of {cuts['interruptions']}")
        row("  speech onset to confirmation, ms", spread(cuts["confirmation_ms"]))
        row("  speech onset to silence, ms", spread(cuts["silence_ms"]))
        row(
            "  silence after the confirmation, ms",
            spread(cuts["silence_after_confirmation_ms"]),
            f"{targets['silence_after_confirmation_ms']}",
        )
        for language, of in cuts["context"].items():
            row(
                f"  context, {language}: exact / within one word / worst",
                f"{of['exact']} / {of['within_one']} of {of['of']} / {of['worst']}",
                f"within {targets['context_words_off']}",
            )
        table.add_section()
    if load := result.get("load"):
        row("talks at once with under 1 % underruns", load["talks"])
        for of in load["levels"]:
            row(
                f"  {of['talks']}: underruns; median / p95 / max ms",
                f"{of['underruns']:.2%}; {spread(of['voice_to_voice_ms'])}"
                + (f"; {of['unanswered']} unanswered" if of["unanswered"] else "")
                + (f"; {of['refused']} refused" if of["refused"] else ""),
                f"{targets['underruns']:.0%}",
            )
        table.add_section()
    if idle := result.get("idle"):
        row(
            "memory of an idle session, MB",
            idle["memory_of_a_session_mb"],
            f"{targets['memory_of_a_session_mb']}",
        )
        row(f"{idle['sessions']} silent sessions, cores", idle["cores"], f"{targets['idle_thousand_cores']}")
        table.add_section()
    if hour := result.get("hour"):
        memory, (early, late) = hour["memory_mb"], hour["first_word_ms"].values()
        of = lambda mb: "not measured" if mb is None else f"{mb:.0f}"  # noqa: E731
        grown = lambda value: "no growth known" if value is None else f"{value:+.1%}"  # noqa: E731
        row(
            f"{hour['minutes']:.0f} minutes of talk: memory at minute 10 and at the end, MB",
            f"{of(memory['minute_10'])} / {of(memory['end'])} ({grown(hour['memory_growth'])})",
            f"{targets['hour_growth']:.0%}",
        )
        row(
            "  first word, minutes 5 to 15 and the last 10, ms",
            f"{early:.0f} / {late:.0f} ({grown(hour['latency_growth'])})",
            f"{targets['hour_growth']:.0%}",
        )
    parts: list[RenderableType] = [table, f"for comparison, voice to voice: {PIPECAT}"]
    if talks := (result.get("capacity") or {}).get("talks"):
        parts.append(f"the server itself says that it holds {talks['talks']} talks")
    if "overlap" in result:
        from stepaudio.bench import overlap

        parts.append(overlap.render(result["overlap"]))
    return Group(*parts)
