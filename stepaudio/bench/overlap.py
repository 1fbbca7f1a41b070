"""Turn-taking on real sound: who is cut off, who is answered too early, how long the silence is.

Two parts, both offline and in audio time, with the real voice activity, turn and recognition models and
fixed delays in place of their running times: the figures do not depend on the machine.

**Overlaps.** While the agent speaks, the microphone hears one of: an interruption, a backchannel, noise,
coughs, music, the agent's own voice from a loudspeaker, or an interruption on top of that. Stopping is right
for the interruptions alone. **Ends of turns.** A clip is played to a listening agent: when is its answer
heard, and was the speaker done?

Even and odd examples of a kind are reported apart: the settings of ``TurnConfig`` were chosen on the even
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.bench import samples
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk, join, resample
from stepaudio.core.echo import EchoGuard
from stepaudio.core.turns import (
    FRAME_MS,
    Agent,
    Cancel,
    CreateResponse,
    Draft,
    Duck,
    Heard,
    Recognize,
    Release,
    ResponseStarted,
    ScoreTurn,
    Speech,
    TurnConfig,
    TurnEnded,
    TurnScore,
    TurnTaker,
    Unduck,
)
from stepaudio.engine import Engine
from stepaudio.recognition.base import RATE, Endpointing, Recognizer, VoiceActivity

if TYPE_CHECKING:
    from rich.console import RenderableType

FRAME = 512
STOPS = ("interruption", "order", "over echo")
"""Kinds of overlap at which the agent should stop."""
KINDS = (*STOPS, "backchannel", "noise", "cough", "music", "echo")
TARGETS = {"false_stops": 0.05, "missed_stops": 0.05, "early": 0.05}


@dataclass(frozen=True)
class Delays:
    """Running times, in ms of audio time (measured on one core: RECOGNITION figures, ``bench turn``)."""

    score: int = 40
    recognize: int = 100
    answer: int = 650
    """From a draft to the first sound of the answer."""


@dataclass(frozen=True)
class Ears:
    """The models."""

    vad: VoiceActivity
    endpointing: Endpointing
    recognizer: Recognizer


@dataclass(frozen=True)
class Loudspeaker:
    """How the agent's voice reaches the microphone.

    Attributes:
        gain_db: level there, against what was sent.
        delay_ms: until it arrives.
        room: impulse response of loudspeaker, room and microphone at 16 kHz.
    """

    gain_db: float
    delay_ms: int
    room: np.ndarray


@dataclass
class Course:
    """What happened, in ms of audio time."""

    ducked: list[int]
    unducked: list[int]
    stopped: list[int]
    ended: list[TurnEnded]
    released: list[int]
    heard: list[int]  # answers began to be heard
    answered: bool = False  # at the end an answer is under way, and nobody speaks


def converse(
    ears: Ears,
    microphone: np.ndarray,
    *,
    config: TurnConfig | None = None,
    delays: Delays | None = None,
    agent: np.ndarray | None = None,
    loudspeaker: Loudspeaker | None = None,
) -> Course:
    """Play ``microphone`` (16 kHz) to a ``TurnTaker`` and its models.

    Args:
        agent: what the agent says from the start on (16 kHz); it stops when it is cancelled, and is held
            while it is ducked. None: it listens, and answers are as long as the listening lasts.
        loudspeaker: lets the microphone hear the agent.
    """
    delays = delays or Delays()
    turns, course = TurnTaker(config), Course([], [], [], [], [], [])
    vad, guard = ears.vad.stream(), EchoGuard(RATE)
    heard = np.zeros(0, np.float32)
    echo = np.zeros(len(microphone) + 2 * RATE, np.float32)
    pending: list[tuple[int, TurnScore | Heard | ResponseStarted]] = []
    drafts: dict[str, int] = {}
    busy = said = 0
    playing = agent is not None
    if agent is not None:
        turns.receive(CreateResponse("agent"))
        turns.receive(ResponseStarted("agent"))

    for start in range(0, len(microphone) - FRAME + 1, FRAME):
        now = (start + FRAME) * 1000 // RATE
        if playing and agent is not None and not turns.ducked and said + FRAME <= len(agent):
            piece = agent[said : said + FRAME]
            said += FRAME
            guard.sent(AudioChunk(piece, RATE), start * 1000 / RATE)
            if loudspeaker is not None:
                wet = np.convolve(piece, loudspeaker.room) * 10 ** (loudspeaker.gain_db / 20)
                at = start + loudspeaker.delay_ms * RATE // 1000
                end = min(len(echo), at + len(wet))
                echo[at:end] += wet[: max(0, end - at)]
        frame = AudioChunk((microphone + echo[: len(microphone)])[start : start + FRAME], RATE, start)
        heard = np.concatenate([heard, frame.samples])

        due = sorted((p for p in pending if p[0] <= now), key=lambda p: p[0])
        pending = [p for p in pending if p[0] > now]
        events = [event for _, event in due]
        likelihood = guard.likelihood(frame) if agent is not None else 0.0
        for event in [*events, Speech(vad.push(frame), now, likelihood)]:
            if isinstance(event, ResponseStarted) and event.response_id == turns.response_id:
                course.heard.append(now)
            for effect in turns.receive(event):
                match effect:
                    case ScoreTurn(since, until):
                        score = ears.endpointing.score(_cut(heard, since, until))
                        pending.append((now + delays.score, TurnScore(score, until)))
                    case Recognize(since, until):
                        text = ears.recognizer.transcribe(_cut(heard, since, until)).text
                        busy = max(busy, now) + delays.recognize  # one at a time
                        pending.append((busy, Heard(text, until)))
                    case Draft(response_id):
                        drafts[response_id] = now
                    case Release(response_id):
                        course.released.append(now)
                        first = max(now, drafts[response_id] + delays.answer)
                        pending.append((first, ResponseStarted(response_id)))
                    case TurnEnded():
                        course.ended.append(effect)
                    case Duck():
                        course.ducked.append(now)
                    case Unduck():
                        course.unducked.append(now)
                    case Cancel(response_id):
                        if response_id == "agent":
                            course.stopped.append(now)
                            playing = False
                    case _:
                        pass
    course.answered = turns.agent in (Agent.RESPONDING, Agent.AUDIBLE)
    return course


def _cut(heard: np.ndarray, since_ms: int, until_ms: int) -> AudioChunk:
    return AudioChunk(heard[since_ms * RATE // 1000 : until_ms * RATE // 1000], RATE)


# The overlap set


@dataclass(frozen=True)
class Overlap:
    """One scene: the agent speaks, and from ``onset_ms`` the microphone hears something."""

    kind: str
    name: str
    microphone: np.ndarray
    onset_ms: int
    agent: np.ndarray
    loudspeaker: Loudspeaker | None = None


BACKCHANNELS = {
    "en": (
        "Mm-hmm.",
        "Right.",
        "Yeah.",
        "Okay.",
        "Uh-huh.",
        "I see.",
        "Sure.",
        "Yes.",
        "Oh, okay.",
        "Got it.",
    ),
    "zh": ("嗯。", "对。", "好的。", "是的。", "哦。", "嗯嗯。", "对对对。", "好。", "明白。", "是吗？"),
}
ORDERS = {
    "en": ("Stop.", "Wait, wait.", "Hold on.", "Stop, please.", "Wait a second.", "No, that's wrong."),
    "zh": ("等一下。", "停。", "别说了。", "停一下。", "等等。", "不对，不是这个。"),
}
VOICES = {
    "en": ("af_heart", "am_michael", "bf_emma", "am_puck", "af_nova", "bm_george"),
    "zh": ("zf_xiaoxiao", "zm_yunxi", "zf_xiaobei", "zm_yunjian"),
}
_ONSETS_MS = (1200, 2100, 3300, 1700, 2700)
_LEVEL_DB = -26.0  # of speech (root mean square), a usual level of recordings


def overlaps(engine: Engine, data: Path, limit: int | None = None) -> list[Overlap]:
    """The set, at most ``limit`` of each kind; the same every time."""
    agents = [
        _level(np.concatenate([clip.audio.samples for clip in samples.clips(data, kind)]))
        for kind in ("question_fact", "question_pause")
    ]
    rooms = [clip.audio.samples for clip in samples.clips(data, "rir")]
    rooms = [room[np.argmax(np.abs(room)) :][: RATE // 3] for room in rooms]  # the first 0.3 s, without lead
    rooms = [room / np.sqrt(np.sum(room**2)) for room in rooms]
    scenes: list[Overlap] = []

    def add(kind: str, name: str, sound: np.ndarray, loudspeaker: Loudspeaker | None = None) -> None:
        number = sum(scene.kind == kind for scene in scenes)
        if limit is not None and number >= limit:
            return
        onset = _ONSETS_MS[number % len(_ONSETS_MS)]
        microphone = _noise(len(sound) + (onset + 2000) * RATE // 1000, seed=number)
        at = onset * RATE // 1000
        microphone[at : at + len(sound)] += sound
        lead = _first_sound(sound) * 1000 // RATE if kind in STOPS or kind == "backchannel" else 0
        agent = np.resize(agents[number % 2], len(microphone) + RATE)
        scenes.append(Overlap(kind, name, microphone, onset + lead, agent, loudspeaker))

    for kind in ("asr_en", "asr_zh", "intent_en", "asr_en_spontaneous"):
        for clip in samples.clips(data, kind):
            if clip.seconds < 12:
                add("interruption", clip.path.name, _level(clip.audio.samples)[: 4 * RATE])
    for kind, phrases in (("order", ORDERS), ("backchannel", BACKCHANNELS)):
        for language, texts in phrases.items():
            for n, text in enumerate(texts):
                for voice in VOICES[language][n % 2 :: 2]:
                    add(kind, f"{voice}: {text}", _say(engine, text, voice, language))
    for clip in samples.clips(data, "turn"):
        if clip.path.name.startswith("backchannel"):
            add("backchannel", clip.path.name, _level(clip.audio.samples))
        if clip.path.name.startswith("wait"):
            add("order", clip.path.name, _level(clip.audio.samples))
    for clip in samples.clips(data, "noise"):
        for n, piece in enumerate(_pieces(clip.audio.samples, 4 * RATE)[:8]):
            for level in (-40.0, -26.0):
                add("noise", f"{clip.path.name} {4 * n} s {level:.0f} dB", _level(piece, level))
    for clip in samples.clips(data, "music"):
        for n, piece in enumerate(_pieces(clip.audio.samples, 4 * RATE)):
            add("music", f"{clip.path.name} {4 * n} s", _level(piece, -32.0))
    for n in range(16):
        add("cough", f"cough {n}", _level(_cough(n), -20.0))
    for n in range(24):
        speaker = Loudspeaker(
            (-6.0, -12.0, -18.0, -25.0)[n % 4], 30 + 90 * (n % 5), rooms[n // 4 % len(rooms)]
        )
        add(
            "echo",
            f"{speaker.gain_db:.0f} dB, {speaker.delay_ms} ms",
            np.zeros(5 * RATE, np.float32),
            speaker,
        )
    said = [scene for scene in scenes if scene.kind in ("interruption", "order")]
    for n, scene in enumerate(said[:: max(1, len(said) // 24)]):
        speaker = Loudspeaker(
            (-25.0, -18.0, -12.0, -6.0)[n % 4], 30 + 90 * (n % 5), rooms[n // 4 % len(rooms)]
        )
        onset = scene.onset_ms * RATE // 1000
        add("over echo", scene.name, scene.microphone[onset - RATE // 5 : -2 * RATE], speaker)
    return scenes


def _say(engine: Engine, text: str, voice: str, language: str) -> np.ndarray:
    audio = join(piece.audio for piece in engine.say(text, voice=voice, language=language))
    return _level(resample(audio, RATE).samples)


def _level(sound: np.ndarray, level_db: float = _LEVEL_DB) -> np.ndarray:
    """At a root mean square level (dB of full scale) over its loud frames; never clipped."""
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    power = np.mean(frames**2, axis=1)
    loud = power[power >= np.max(power) / 1000]  # of silence: all
    gain = 10 ** (level_db / 20) / (np.sqrt(np.mean(loud)) + 1e-12)
    return (sound * min(gain, 0.99 / (np.max(np.abs(sound)) + 1e-12))).astype(np.float32)


def _noise(n: int, seed: int) -> np.ndarray:
    """A quiet room: white noise at -70 dB."""
    return np.random.default_rng(seed).normal(0, 10 ** (-70 / 20), n).astype(np.float32)


def _pieces(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[i : i + size] for i in range(0, len(sound) - size // 2, size)]


def _first_sound(sound: np.ndarray) -> int:
    """First sample of the first 10 ms within 30 dB of the loudest."""
    power = _power(sound)
    return int(np.argmax(power > np.max(power) / 1000)) * 160


def _last_sound(sound: np.ndarray) -> int:
    """Last sample of the last 10 ms within 30 dB of the loudest."""
    power = _power(sound)
    return int(np.flatnonzero(power > np.max(power) / 1000)[-1] + 1) * 160


def _power(sound: np.ndarray) -> np.ndarray:
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    return np.mean(frames**2, axis=1)


def _cough(seed: int) -> np.ndarray:
    """One to three coughs: a burst through a throat's resonances, a breathy and a voiced decay."""
    rng = np.random.default_rng(seed)
    out: list[np.ndarray] = []
    for _ in range(1 + seed % 3):
        n = int(RATE * rng.uniform(0.25, 0.45))
        t = np.arange(n) / RATE
        pitch = rng.uniform(110, 300)
        voiced = np.sign(np.sin(2 * np.pi * pitch * t)) * np.exp(-((t - 0.22) ** 2) / 0.002) * 0.4
        breath = rng.normal(0, 1, n) * (np.exp(-t / 0.03) + 0.4 * np.exp(-t / 0.12)) + voiced
        spectrum, frequency = np.fft.rfft(breath), np.fft.rfftfreq(n, 1 / RATE)
        peaks = [(rng.uniform(400, 800), 200), (rng.uniform(1200, 1900), 300), (rng.uniform(2500, 3500), 500)]
        throat = sum(1 / (1 + ((frequency - f) / width) ** 2) for f, width in peaks)
        out += [np.fft.irfft(spectrum * throat, n), np.zeros(int(RATE * rng.uniform(0.1, 0.3)))]
    return np.concatenate(out).astype(np.float32)


# Ends of turns


@dataclass(frozen=True)
class Turn:
    """A clip with silence around it."""

    kind: str
    name: str
    microphone: np.ndarray
    end_ms: int


_BEFORE_MS, _AFTER_MS = 500, 5000


def spoken_turns(data: Path, limit: int | None = None) -> list[Turn]:
    """Questions, and real clips of English and Mandarin, at most ``limit`` of each kind."""
    found: list[Turn] = []
    for label, kind in (
        ("plain question", "question_fact"),
        ("question with a pause", "question_pause"),
        ("real, English", "asr_en"),
        ("real, Mandarin", "asr_zh"),
        ("real order", "intent_en"),
    ):
        fitting = [clip for clip in samples.clips(data, kind) if clip.seconds < 15]
        for n, clip in enumerate(fitting[:limit]):
            sound = _level(clip.audio.samples)
            microphone = _noise(len(sound) + (_BEFORE_MS + _AFTER_MS) * RATE // 1000, seed=n)
            at = _BEFORE_MS * RATE // 1000
            microphone[at : at + len(sound)] += sound
            end = _BEFORE_MS + _last_sound(sound) * 1000 // RATE
            found.append(Turn(label, clip.path.name, microphone, end))
    return found


@dataclass(frozen=True)
class Answer:
    """What became of a turn: ms from its true end, negative when too early; None: never."""

    turn: Turn
    decision_ms: int | None
    heard_ms: int | None
    early: bool
    answered: bool


def judge(turn: Turn, course: Course) -> Answer:
    """Early: an answer was heard before the end of speech."""
    early = any(at < turn.end_ms for at in course.heard)
    decision = course.released[-1] - turn.end_ms if course.released else None
    heard = course.heard[-1] - turn.end_ms if course.heard else None
    return Answer(turn, decision, heard, early, course.answered)


# The figures

HALVES = ("tuned on", "held out")


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Both parts, on at most ``limit`` examples of each kind.

    Raises:
        ConfigError: ``data`` lacks the clips.
    """
    with Engine(config) as engine:
        ears = Ears(engine.vad, engine.endpointing, engine.recognizer)
        scenes, turns = overlaps(engine, data, limit), spoken_turns(data, limit)
        total = len(scenes) + len(turns)
        stops: list[tuple[Overlap, Course]] = []
        for scene in scenes:
            course = converse(ears, scene.microphone, agent=scene.agent, loudspeaker=scene.loudspeaker)
            stops.append((scene, course))
            on_progress(len(stops), total)
        answers: list[Answer] = []
        for turn in turns:
            answers.append(judge(turn, converse(ears, turn.microphone)))
            on_progress(len(stops) + len(answers), total)
    return {"overlaps": confusion(stops), "turns": punctuality(answers), "targets": TARGETS}


def confusion(courses: list[tuple[Overlap, Course]]) -> dict[str, Any]:
    """How often the agent stopped, by kind; false and missed stops, by half; and how soon.

    A stop before the interruption begins is a false stop, and the interruption missed.
    """
    kinds: dict[str, dict[str, Any]] = {}
    counts = {half: {"false": 0, "missed": 0, "others": 0, "interruptions": 0} for half in HALVES}
    for kind in dict.fromkeys(scene.kind for scene, _ in courses):
        rows = [(scene, course) for scene, course in courses if scene.kind == kind]
        stops, ducks = [], []
        for n, (scene, course) in enumerate(rows):
            count = counts[HALVES[n % 2]]
            right = [at - scene.onset_ms for at in course.stopped if at >= scene.onset_ms - FRAME_MS]
            ducks += [at - scene.onset_ms for at in course.ducked if at >= scene.onset_ms - FRAME_MS][:1]
            stops += right
            if kind in STOPS:
                count["interruptions"] += 1
                count["missed"] += not right
                count["false"] += len(course.stopped) > len(right)
            else:
                count["others"] += 1
                count["false"] += bool(course.stopped)
        kinds[kind] = {
            "examples": len(rows),
            "stopped": len(stops) if kind in STOPS else sum(bool(course.stopped) for _, course in rows),
            "should_stop": kind in STOPS,
            "stop_ms": _quantiles(stops) if kind in STOPS else None,
            "duck_ms": _quantiles(ducks),
        }
    shares = {
        half: {
            "false_stops": _share(count["false"], count["others"]),
            "missed_stops": _share(count["missed"], count["interruptions"]),
        }
        for half, count in counts.items()
    }
    return {"kinds": kinds, **shares}


def punctuality(answers: list[Answer]) -> dict[str, Any]:
    """Answers heard too early, turns never answered, ms from the end of speech; by kind and by half."""
    kinds = dict.fromkeys(answer.turn.kind for answer in answers)
    ranked = [[a for a in answers if a.turn.kind == kind] for kind in kinds]
    groups = dict(zip(kinds, ranked, strict=True))
    for i, half in enumerate(HALVES):
        groups[half] = [answer for group in ranked for answer in group[i::2]]
    return {
        name: {
            "turns": len(group),
            "early": _share(sum(answer.early for answer in group), len(group)),
            "unanswered": sum(not answer.answered for answer in group),
            "decision_ms": _quantiles([a.decision_ms for a in group if a.decision_ms is not None]),
            "heard_ms": _quantiles([a.heard_ms for a in group if a.heard_ms is not None]),
        }
        for name, group in groups.items()
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0


def _quantiles(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {f"p{q}": round(float(np.percentile(values, q))) for q in (50, 95)}


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as tables."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    def cell(quantiles: dict[str, int] | None) -> str:
        return "" if quantiles is None else f"{quantiles['p50']} / {quantiles['p95']}"

    look = {"box": box.SIMPLE_HEAD, "pad_edge": False}
    stops = Table(
        "heard over the answer", "examples", "stopped", "went on", "ducked, ms", "stopped, ms", **look
    )
    for kind, row in result["overlaps"]["kinds"].items():
        wanted = "stop" if row["should_stop"] else "go on"
        went_on = row["examples"] - row["stopped"]
        stops.add_row(
            f"{kind} (should {wanted})",
            str(row["examples"]),
            str(row["stopped"]),
            str(went_on),
            cell(row["duck_ms"]),
            cell(row["stop_ms"]),
        )
    turns = Table("turns", "number", "answered early", "never", "decision, ms", "answer heard, ms", **look)
    for name, row in result["turns"].items():
        turns.add_row(
            name,
            str(row["turns"]),
            f"{row['early']:.1%}",
            str(row["unanswered"]),
            cell(row["decision_ms"]),
            cell(row["heard_ms"]),
        )
    lines = [
        f"{half}: false stops {shares['false_stops']:.1%}, missed stops {shares['missed_stops']:.1%}"
        f" (at most {result['targets']['false_stops']:.0%} wanted)"
        for half, shares in ((half, result["overlaps"][half]) for half in HALVES)
    ]
    return Group(stops, "\n".join(lines), "", turns, "times: median / 95th percentile, audio time")
