"""Groups of ``bench voice`` about rendering: identity, streaming, speed, pitch.

Identity: a plan that nobody changed gives, sample for sample, what the published models give; Kokoro's
streamed path foretells its statistics on purpose and is measured in "streaming" instead. Streaming: time,
joins, quality and memory of Kokoro piece by piece beside the published model as a whole. Speed and pitch:
what is asked beside what is measured in the audio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stepaudio.bench.measures import Judge, mel_differences, pitch_errors, pitch_track, spoken_span
from stepaudio.bench.scores import Errors
from stepaudio.bench.tts import TEN_SECONDS, StockKokoro, sentences
from stepaudio.bench.voice import Bound, Case, Plot
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Clause
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.tts import hibari, kokoro, performance
from stepaudio.tts.base import Voice
from stepaudio.tts.prosody import FRAME, RATE, SILENT, ProsodyPlan
from stepaudio.tts.syllables import UNVOICED
from stepaudio.tts.voices import find

VOICES = ("af_heart", "am_michael", "zf_xiaobei", "hibari")
"""A female and a male English voice, a Mandarin one, and the fast one."""
SPEEDS = (0.5, 0.75, 1.25, 1.5, 1.75, 2.0)
SEMITONES = (-5, -3, 3, 5)
ROUNDS = 5
"""Times that the long sentence is spoken by either side; the median counts."""
JOIN_S = 0.03
"""What is nearer to the middle of a join belongs to it."""

Step = Callable[[], None]
Model = kokoro.Kokoro | hibari.Hibari


def models(engine: Engine) -> dict[str, Model]:
    """The engines of voices by name, of the engine's store and settings."""
    store, threads = engine.store, engine.config.tts.threads
    return {
        "kokoro": kokoro.Kokoro(
            store.path("kokoro-82m"),
            store.path("kokoro-voices"),
            store.derived("kokoro-82m", kokoro.RECIPE, kokoro.split),
            engine.pronouncer,
            threads=threads,
        ),
        "hibari": hibari.Hibari(
            store.path("hibari"),
            store.derived("hibari", hibari.RECIPE, hibari.split),
            engine.pronouncer,
        ),
    }


def spoken(
    model: Model, text: str, voice: Voice, style: SpeechStyle | None = None
) -> tuple[list[ProsodyPlan], AudioChunk]:
    """A text as one clause: its plans, and its audio."""
    plans = list(model.plan(Clause(0, text, style or SpeechStyle()), voice))
    return plans, join(piece.audio for piece in performance.perform(model, plans, voice))


def asked_pitch(plans: Sequence[ProsodyPlan]) -> np.ndarray:
    """The pitch that is asked for, a value for every 12.5 ms of the audio (of plans without stretch).

    Voiceless sounds and silence have none, whatever a network draws there: Hibari's curve passes through
    them, its spectra leave the voice out, and a tracker finds some pitch or other in the noise.
    """
    asked = []
    for plan in plans:
        voiceless = [symbol in UNVOICED or symbol in SILENT for symbol in plan.symbols]
        mute = plan.steps(np.array([True, *voiceless, True]))
        asked.append(np.where(mute, 0.0, plan.pitch)[2 * plan.heard[0] : 2 * plan.heard[1]])
    return np.concatenate(asked)


def texts(voice: Voice, limit: int | None, most: int) -> list[str]:
    """Sentences in the voice's language."""
    return sentences("zh" if voice.language == "cmn" else "en")[: min(limit or most, most)]


# --- identity ---------------------------------------------------------------------------------------------


def identity(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """Both engines beside their published models, on the same phonemes."""
    made = models(engine)
    stock = {"kokoro": StockKokoro(engine), "hibari": StockHibari(engine)}
    for voice in map(find, VOICES):
        differences, lengths = [], []
        audio, text = AudioChunk(np.zeros(0, np.float32), RATE), ""
        for text in texts(voice, limit, 3):
            model = made[voice.engine]
            (plan,) = model.plan(Clause(0, text), voice)
            if isinstance(model, kokoro.Kokoro):
                ours = model.render_whole(plan, voice)
            else:
                everything = plan.edit(heard=(0, plan.frames))
                ours = np.concatenate(list(model.render(everything, voice)))
            theirs = stock[voice.engine].speak(plan.symbols, voice.id)
            lengths.append(abs(len(ours) - len(theirs)))
            shortest = min(len(ours), len(theirs))
            differences.append(float(np.abs(ours[:shortest] - theirs[:shortest]).max()))
            audio = AudioChunk(ours, RATE)
            step()
        yield Case(
            voice.id,
            "identity",
            audio,
            {
                "largest difference": max(differences),
                "samples too many or too few": float(sum(lengths)),
                "sentences": float(len(differences)),
            },
            {"largest difference": ("==", 0), "samples too many or too few": ("==", 0)},
            text=text,
        )


class StockHibari:
    """The published Hibari model as it is, and its own synthesis.

    Args:
        engine: where the weights come from.
    """

    def __init__(self, engine: Engine) -> None:
        import json

        from stepaudio.tts.graph import session

        folder = engine.store.path("hibari")
        self._model = session(folder / hibari.MODEL, threads=1)
        self._vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))

    def speak(self, symbols: str, voice: str) -> np.ndarray:
        """float32 at 24 kHz, as loud as ours, which is louder by a constant."""
        from hibari import dsp

        ids = np.array([[0, *(self._vocabulary[symbol] for symbol in symbols), 0]])
        outputs = self._model.run(
            ["lh", "theta", "ln", "lr", "phi", "f0"], {"ids": ids, "speed": np.ones(1, np.float32)}
        )
        lh, theta, ln, lr, phi, pitch = (part[0] for part in outputs)
        samples = dsp.synth(lh, theta, ln, lr, phi, pitch, np.random.default_rng(0))
        return samples * np.float32(hibari.GAIN)


# --- streaming --------------------------------------------------------------------------------------------


def streaming(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """A sentence of 10 s, then joins and quality on several sentences of three voices."""
    model, judge, stock = models(engine)["kokoro"], Judge(engine), StockKokoro(engine)
    assert isinstance(model, kokoro.Kokoro)
    yield _time(model, stock, engine.config.tts.threads, step)
    yield _memory(step)
    joins, drops = [], []
    for voice in map(find, ("af_heart", "am_michael", "zf_xiaobei")):
        english = voice.language != "cmn"
        for text in ([TEN_SECONDS] if english else []) + texts(voice, limit, 5):
            case, at_joins, inside = _joins(model, stock, judge, voice, text)
            if at_joins:
                joins.append((statistics.mean(at_joins), statistics.mean(inside)))
            drops.append(float(case.figures["DNSMOS, whole"]) - float(case.figures["DNSMOS, streamed"]))
            yield case
            step()
    at, inside = np.mean(joins, axis=0)
    yield Case(
        f"{len(drops)} sentences, three voices",
        "streaming",
        None,
        {
            "error at joins / inside": float(at / inside),
            "error at joins, dB": float(at),
            "error inside, dB": float(inside),
            "DNSMOS drop, mean": statistics.mean(drops),
            "DNSMOS drop, largest": max(drops),
        },
        {"error at joins / inside": ("<=", 1.1), "DNSMOS drop, mean": ("<=", 0.1)},
    )


def _time(model: kokoro.Kokoro, stock: StockKokoro, threads: int, step: Step) -> Case:
    """First audio of the long sentence beside the whole of the published model, in turn."""
    voice = find("af_heart")
    (plan,) = model.plan(Clause(0, TEN_SECONDS), voice)
    list(model.synthesize(Clause(0, "Warm."), voice))
    stock.speak(plan.symbols, voice.id)
    rows = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        stock.say(TEN_SECONDS)
        whole = time.perf_counter() - began
        for word in ("Yes.", "No.", "Now.", "Then.", "Well."):  # the sentence itself is forgotten
            list(model.synthesize(Clause(0, word), voice))
        first = now = late = seconds = 0.0
        began = time.perf_counter()
        for piece in model.synthesize(Clause(0, TEN_SECONDS), voice):
            now = time.perf_counter() - began
            first = first or now
            late = max(late, now - first - seconds)  # a listener has heard all that there was
            seconds += piece.audio.seconds
        rows.append((first, whole, now, late, seconds))
        step()
    first, whole, streamed, late, seconds = np.median(rows, axis=0)
    return Case(
        "the long sentence: time",
        "streaming",
        None,
        {
            "first audio / whole": float(np.median([row[0] / row[1] for row in rows])),
            "first audio, ms": 1000 * float(first),
            "whole, published model, ms": 1000 * float(whole),
            "whole, streamed, ms": 1000 * float(streamed),
            "longest gap in playing, ms": 1000 * float(late),
            "length, s": float(seconds),
            "threads": float(threads),
        },
        {"first audio / whole": ("<=", 1 / 6), "longest gap in playing, ms": ("<=", 0)},
        text=TEN_SECONDS,
    )


def _joins(
    model: kokoro.Kokoro, stock: StockKokoro, judge: Judge, voice: Voice, text: str
) -> tuple[Case, list[float], list[float]]:
    """One sentence streamed, beside the same in one go; and the differences at joins and elsewhere, dB."""
    (plan,) = model.plan(Clause(0, text), voice)
    streamed = np.concatenate(list(model.render(plan, voice)))
    first, stop = plan.heard
    whole = model.render_whole(plan, voice, foretold=True)[first * FRAME : stop * FRAME]
    published = stock.speak(plan.symbols, voice.id)[first * FRAME : stop * FRAME]
    off = mel_differences(AudioChunk(streamed, RATE), AudioChunk(whole, RATE))
    seconds = np.arange(len(off)) * 0.01
    ends = [end * FRAME / RATE for _, end in kokoro.pieces(stop - first)][:-1]
    near = np.zeros(len(off), bool)
    for end in ends:
        near |= np.abs(seconds - end) <= JOIN_S
    figures = {
        "DNSMOS, streamed": judge.mos(AudioChunk(streamed, RATE)),
        "DNSMOS, whole": judge.mos(AudioChunk(published, RATE)),
        "joins": float(len(ends)),
    }
    if ends:
        figures["error at joins, dB"] = float(off[near].mean())
        figures["error inside, dB"] = float(off[~near].mean())
    audio = AudioChunk(streamed, RATE)
    case = Case(
        f"{voice.id}: {text[:40]}", "streaming", audio, figures, plot=Plot(asked_pitch([plan])), text=text
    )
    return case, list(off[near]), list(off[~near])


# A child's peak begins with that of the process that started it, so each side is a process of its own, and
# tells the peak of its own memory (VmHWM, proc(5)).
_SIDE = """
import sys
from pathlib import Path
from stepaudio import load
from stepaudio.bench.tts import TEN_SECONDS, StockKokoro
from stepaudio.bench.voice_rendering import models
from stepaudio.core.clauses import Clause
from stepaudio.tts.voices import find

def held(what):
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith(what))

engine = load()
engine.pronouncer.pronounce("Warm.")
before = held("VmRSS")
if sys.argv[1] == "whole":
    say = StockKokoro(engine).say
else:
    model, voice = models(engine)["kokoro"], find("af_heart")
    say = lambda text: sum(piece.audio.seconds for piece in model.synthesize(Clause(0, text), voice))
say("Warm.")
say(TEN_SECONDS)
print(before, held("VmHWM"))
"""


def _memory(step: Step) -> Case:
    """Memory that Kokoro takes to speak the long sentence, weights and all: streamed, and as published.

    What the process holds before (Python, libraries, the pronouncer) is not the voice's and is told apart.
    """
    found = {}
    for side in ("whole", "streamed"):
        command = [sys.executable, "-c", _SIDE, side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[side] = [int(number) for number in done.stdout.split()]
        step()
    (before, whole), (before_too, streamed) = found["whole"], found["streamed"]
    return Case(
        "the long sentence: memory",
        "streaming",
        None,
        {
            "peak, streamed / whole": (streamed - before_too) / (whole - before),
            "peak, streamed, MB": float(streamed - before_too),
            "peak, published model, MB": float(whole - before),
            "held before, MB": float(before),
            "peak of the whole process, streamed / whole": streamed / whole,
        },
        {"peak, streamed / whole": ("<=", 0.5)},
        text=TEN_SECONDS,
    )


# --- speed ------------------------------------------------------------------------------------------------


def speed(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """Sentences at several speeds: how much shorter what is spoken gets, and what is understood of it."""
    made, judge = models(engine), Judge(engine)
    for voice in map(find, VOICES):
        model, language = made[voice.engine], "zh" if voice.language == "cmn" else "en"
        of_voice = texts(voice, limit, 8)
        say = partial(spoken, model, voice=voice)
        plain = [say(text=text)[1] for text in of_voice]
        lengths = [_length(audio) for audio in plain]
        errors = sum((judge.errors(a, t, language) for a, t in zip(plain, of_voice, strict=True)), Errors())
        mos = statistics.mean(map(judge.mos, plain))
        step()
        for asked in SPEEDS:
            made_audio = [say(text=text, style=SpeechStyle(speed=asked))[1] for text in of_voice]
            ratios = [length / _length(audio) for length, audio in zip(lengths, made_audio, strict=True)]
            realised = sum(lengths) / sum(map(_length, made_audio))
            worse = sum(
                (judge.errors(a, t, language) for a, t in zip(made_audio, of_voice, strict=True)), Errors()
            )
            figures = {
                "realised": realised,
                "off, %": 100 * abs(realised / asked - 1),
                "off, worst sentence, %": 100 * max(abs(ratio / asked - 1) for ratio in ratios),
                "error rate rise, points": 100 * (worse.rate - errors.rate),
                "DNSMOS drop": mos - statistics.mean(map(judge.mos, made_audio)),
                "sentences": float(len(of_voice)),
            }
            targets: dict[str, Bound] = {"off, %": ("<=", 2 if asked <= 1.5 else 5)}
            if asked <= 1.5:
                targets["error rate rise, points"] = ("<=", 5)
            name = f"{voice.id} at {asked:g}"
            yield Case(name, "speed", made_audio[0], figures, targets, text=of_voice[0])
            step()


def _length(audio: AudioChunk) -> float:
    begin, end = spoken_span(audio)
    return end - begin


# --- pitch ------------------------------------------------------------------------------------------------


def pitch(engine: Engine, data: Path, limit: int | None, step: Step) -> Iterator[Case]:
    """Sentences moved by some semitones: the pitch measured beside the pitch asked for."""
    made, judge = models(engine), Judge(engine)
    for voice in map(find, VOICES):
        model, language = made[voice.engine], "zh" if voice.language == "cmn" else "en"
        of_voice = texts(voice, limit, 6)
        plain = [spoken(model, text, voice)[1] for text in of_voice]
        mos = statistics.mean(map(judge.mos, plain))
        errors = sum((judge.errors(a, t, language) for a, t in zip(plain, of_voice, strict=True)), Errors())
        step()
        for semitones in SEMITONES:
            found, worse, drops = [], Errors(), []
            first: tuple[AudioChunk, Plot] | None = None
            for text in of_voice:
                plans, audio = spoken(model, text, voice, SpeechStyle(pitch=semitones))
                asked, track = asked_pitch(plans), pitch_track(audio)
                found.append(pitch_errors(track, asked))
                worse += judge.errors(audio, text, language)
                drops.append(judge.mos(audio))
                first = first or (audio, Plot(asked, track))
            assert first is not None
            yield Case(
                f"{voice.id} {semitones:+} st",
                "pitch",
                first[0],
                {
                    "error, cents": statistics.mean(e.median for e in found),
                    "error, 90th percentile, cents": statistics.mean(e.percentile_90 for e in found),
                    "bias, cents": statistics.mean(e.bias for e in found),
                    "voiced where asked": statistics.mean(e.voiced for e in found),
                    "DNSMOS drop": mos - statistics.mean(drops),
                    "error rate rise, points": 100 * (worse.rate - errors.rate),
                    "sentences": float(len(of_voice)),
                },
                {
                    "error, cents": ("<=", 20 if voice.engine == "hibari" else 50),
                    "DNSMOS drop": ("<=", 0.2),
                },
                first[1],
                of_voice[0],
            )
            step()
