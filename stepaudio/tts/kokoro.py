"""Kokoro-82M: the voice for English and Mandarin, heard while the rest of the sentence is still computed.

The published ONNX model makes a whole utterance at once. ``split`` cuts it, once, into four:

- *text*: phonemes -> features, and how long every phoneme lasts;
- *prosody*: features spread over frames of 25 ms -> pitch and energy, which may be changed;
- *blocks*: all of that -> features of half frames;
- *generator*: those -> audio; nearly all of the work. It alone runs piece by piece.

A piece alone would not sound like a part of the whole, for two reasons, and ``split`` mends both. The
harmonic source begins every run at phase 0: the generator gets an input for the phase to begin at. And
adaptive instance normalisation (Huang & Belongie 2017) measures mean and variance over whatever it is given:
the generator takes them as an input, foretold from what was measured once a voice (``_Manner``). With 100 ms
of neighbouring frames on each side, a join then differs from the whole utterance no more than any other
place does. Normalising by given statistics is one multiplication and one addition instead of seven passes
over the data, which pays for computing the neighbours.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from stepaudio.core.clauses import Clause
from stepaudio.core.errors import unknown
from stepaudio.core.tags import SPEEDS
from stepaudio.tts import holding, performance
from stepaudio.tts.base import Capabilities, Speech, Voice
from stepaudio.tts.graph import Graph, session
from stepaudio.tts.prosody import FRAME, RATE, ProsodyPlan, layout, whole_frames
from stepaudio.tts.voicebank import Character, VoiceBank, mixed
from stepaudio.tts.voices import DIALECTS, KOKORO, LANGUAGES, find, is_mix, language_of, parse_mix

if TYPE_CHECKING:
    from stepaudio.tts.text import Pronouncer

RECIPE = "split-5"
"""Names what ``split`` makes (for ``ModelStore.derived``); it changes when that does."""

MAX_TOKENS = 500
"""Longest run in phonemes; the model knows 510 positions."""
CONTEXT = 4
"""Frames computed and thrown away on each side of a piece."""
FADE = 120
"""Samples over which neighbouring pieces are blended (5 ms)."""
PIECES = (20, 30, 48)
"""Frames of a clause's pieces: 0.5 s to be heard soon, then growing, since each is computed while the one
before it is played. The last number is for all that follow; it bounds the memory, too."""

KEPT_DRAFTS = 4
"""Drafts that are remembered (5 kB a phoneme)."""

KEPT_MANNERS = 64
"""Voices that are remembered (1 MB each); anybody may ask for any mix."""

MODEL = "kokoro-v1.0.int8.onnx"
# Names inside the published graph, with shapes.
_FEATURES = "/encoder/predictor/text_encoder/Concat_4_output_0"  # (1, tokens, 640)
_TEXT = "/encoder/text_encoder/Transpose_2_output_0"  # (1, 512, tokens)
_LENGTHS = "/encoder/Div_output_0"  # (1, tokens): frames, after speed, not rounded
_ALIGNMENT = "/encoder/Cast_4_output_0"  # (tokens, frames) of 0 and 1
_ALIGNED = "/encoder/MatMul_1_output_0"  # (1, 512, frames)
_PITCH = "/encoder/Reshape_output_0"  # (1, 2 * frames), Hz
_ENERGY = "/encoder/Reshape_1_output_0"  # (1, 2 * frames)
_BLOCKS = "/decoder/decoder/decode.3/Div_4_output_0"  # (1, 512, 2 * frames)
_CYCLES = "/decoder/decoder/generator/m_source/l_sin_gen/CumSum_output_0"  # (1, 2 * frames, harmonics)
_HARMONICS = 9

_TYPICAL = {  # what a voice says while its statistics are measured: a word, a phrase, a sentence
    "en": (
        "ʃˈʊɹ!",
        "jˈɛs, ʌv kˈɔɹs.",
        "ðə mjuzˈiəm ˈOpənz æt nˈIn əklˈɑk, ænd ʧˈɪldɹən ˈʌndəɹ twˈɛlv mA ˈɛntəɹ fɔɹ fɹˈi.",
    ),
    "cmn": (
        "xau↓.",
        "xau↓tə, mei↗ wə↘ntʰi↗.",
        "tʰu↗ʂu→kwa↓n mei↓tʰjɛ→n ʦau↓ʂa↘ŋ pa→tjɛ↓n kʰai→mə↗n, ꭧou→mwo↘ je↓ pu↘ ɕjou→ɕi→.",
    ),
}


class Kokoro:
    """Kokoro-82M on the CPU. Threads may share it.

    Args:
        model: folder of the model (``kokoro-v1.0.int8.onnx``, ``vocab.json``).
        voices: folder of the voices (``<id>.bin``: float32, 510 x 256).
        derived: folder that ``split`` filled. The statistics of voices are kept there, too, if it can be
            written.
        pronouncer: written text -> words with phonemes.
        threads: CPU threads.
        bank: voices that were mixed or cloned and kept.
    """

    rate = RATE
    capabilities = Capabilities(languages=LANGUAGES["kokoro"], speed=SPEEDS, dialects=DIALECTS["kokoro"])
    limit = MAX_TOKENS

    def __init__(
        self,
        model: Path,
        voices: Path,
        derived: Path,
        pronouncer: Pronouncer,
        *,
        threads: int = 2,
        bank: VoiceBank | None = None,
    ) -> None:
        self.vocabulary: dict[str, int] = json.loads((model / "vocab.json").read_text("utf-8"))["vocab"]
        self._voices, self._derived, self._pronouncer, self._threads = voices, derived, pronouncer, threads
        self._bank = bank
        self._text = session(derived / "text.onnx", threads)
        self._prosody = session(derived / "prosody.onnx", threads)
        self._blocks = session(derived / "blocks.onnx", threads)
        self._generator = session(derived / "generator.onnx", threads)
        self._known: dict[tuple[str, tuple[int, int] | None], _Manner] = {}
        self._drafts: dict[tuple[str, str], _Draft] = {}
        self._lock = threading.Lock()

    def voices(self) -> tuple[Voice, ...]:
        """The official voices, as far as their files are there, and those that were kept."""
        stock = tuple(voice for voice in KOKORO if (self._voices / f"{voice.id}.bin").is_file())
        return stock + (self._bank.voices() if self._bank else ())

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        """Speak a clause piece by piece. The first clause that a voice ever speaks takes seconds longer.

        Raises:
            ConfigError: there is no file of this voice.
        """
        return performance.perform(self, self.plan(clause, voice), voice)

    def plan(self, clause: Clause, voice: Voice) -> Iterator[ProsodyPlan]:
        """How a clause would be spoken; raises as ``synthesize``."""
        dialect = clause.style.dialect
        accents = [tag for tag in (dialect, voice.language, "en-US") if tag in ("en-US", "en-GB")]
        language = language_of(clause) if dialect else None  # None: by what is around
        words = self._pronouncer.pronounce(clause.text, language, accents[0], dialect=dialect)
        return performance.plan(self, words, clause, voice)

    def draft(self, symbols: str, voice: Voice) -> _Draft:
        """See ``ProsodyModel``; raises as ``synthesize``."""
        character = self._manner(voice.id).character
        with self._lock:
            known = self._drafts.pop((symbols, voice.id), None)
        if known is None or known.character is not character:  # another voice may have that name by now
            known = self.draft_as(symbols, character)
        with self._lock:  # the last ones are kept: a plan is rendered right after it was made
            self._drafts[symbols, voice.id] = known
            if len(self._drafts) > KEPT_DRAFTS:
                del self._drafts[next(iter(self._drafts))]
        return known

    def render(self, plan: ProsodyPlan, voice: Voice, *, soon: bool = True) -> Iterator[np.ndarray]:
        """See ``ProsodyModel``; raises as ``synthesize``."""
        manner = self._manner(voice.id)
        rendered = self._blocked(plan, self.draft(plan.symbols, voice))
        statistics = manner.statistics(plan.energy.mean())
        skipped, last = plan.heard
        tail = np.zeros(FADE, np.float32)  # the first piece is faded in, the last one out
        for begin, end in pieces(last - skipped, 0 if soon else len(PIECES)):
            samples = self._decode(
                rendered, skipped + begin, skipped + end, statistics, manner.character.equaliser
            )
            samples[:FADE] = blend(tail, samples[:FADE])
            samples, tail = np.split(samples, [(end - begin) * FRAME])
            if end == last - skipped:
                samples[-FADE:] = blend(samples[-FADE:], np.zeros(FADE, np.float32))
            yield samples

    def render_whole(self, plan: ProsodyPlan, voice: Voice, *, foretold: bool = False) -> np.ndarray:
        """Audio of all frames of a plan at once, the silence at its ends included; raises as ``synthesize``.

        As published, the generator normalises by what it measures over the whole: a plan that nobody changed
        gives the published model's audio, bit for bit.

        Args:
            foretold: normalise by the voice's foretold statistics instead, as ``render`` does.
        """
        manner = self._manner(voice.id)
        blocked = self._blocked(plan, self.draft(plan.symbols, voice))
        inputs = blocked.cut(0, plan.frames)
        if foretold:
            inputs["statistics"] = manner.statistics(plan.energy.mean())
            return self._generator.run(["audio"], inputs)[0]
        return session(self._derived / "measure.onnx", self._threads).run(["audio"], inputs)[0]

    def draft_as(self, symbols: str, character: Character) -> _Draft:
        """Propose prosody as a voice that need not be kept anywhere."""
        tokens = np.array([[0, *(self.vocabulary[symbol] for symbol in symbols), 0]])
        style = character.table[min(len(symbols), len(character.table) - 1)]  # a row for every length
        features, text, exact = self._text.run(
            [_FEATURES, _TEXT, _LENGTHS],
            {"tokens": tokens, "style": style, "speed": np.ones(1, np.float32)},
        )
        return _Draft(self._prosody, character, exact[0] / character.tempo, features, text, style)

    def _blocked(self, plan: ProsodyPlan, draft: _Draft) -> _Blocked:
        pitch, energy = plan.pitch[None], plan.energy[None]
        lengths, drawn_pitch, drawn_energy = plan.lengths, plan.pitch, plan.energy
        short = holding.drawn(plan.symbols, lengths, draft.lengths)
        if short is not lengths:  # a song: its vowels are drawn as in speech, and held below
            at = holding.places(plan.symbols, lengths, short)
            back = np.interp(np.arange(2 * short.sum()), at, np.arange(len(at)))
            drawn_pitch = holding.spread(plan.pitch, np.round(back)).astype(np.float32)
            drawn_energy = holding.spread(plan.energy, back).astype(np.float32)
        aligned = np.repeat(draft.text, short, axis=2)
        (blocks,) = self._blocks.run(
            [_BLOCKS],
            {
                _ALIGNED: aligned,
                _PITCH: drawn_pitch[None],
                _ENERGY: drawn_energy[None],
                "style": draft.style,
            },
        )
        if short is not lengths:
            blocks = holding.spread(blocks, at).astype(np.float32)
        return _Blocked(pitch, energy, blocks, draft.style)

    def _decode(
        self, plan: _Blocked, begin: int, end: int, statistics: np.ndarray, equaliser: np.ndarray
    ) -> np.ndarray:
        """Audio of some frames, and of ``FADE`` samples after them where there are any."""
        low, high = max(0, begin - CONTEXT), min(plan.frames, end + CONTEXT)
        (samples,) = self._generator.run(None, plan.cut(low, high) | {"statistics": statistics})
        if len(equaliser):  # it is shorter than the context, so joins stay what they are
            samples = np.convolve(samples, equaliser, "same").astype(np.float32)
        stop = (end - low) * FRAME + (FADE if end < plan.frames else 0)
        return samples[(begin - low) * FRAME : stop].copy()

    def measured(self, character: Character) -> Character:
        """A character with what the generator's normalisation sees of it while it says typical things."""
        manner = self._measure(character)
        found = {"energies": manner.energies, "means": manner.means, "variances": manner.variances}
        return replace(character, measured=found)

    def symbols(self, text: str, language: str) -> str:
        """A written text as phonemes that the model knows."""
        words = self._pronouncer.pronounce(text, language, "en-US")
        return layout([word.phonemes for word in words], self.vocabulary)[0]

    def stock(self, id: str) -> np.ndarray:
        """The table of an official voice: (510, 1, 256) float32.

        Raises:
            ConfigError: there is no file of it.
        """
        path = self._voices / f"{id}.bin"
        if not path.is_file():
            raise unknown("Kokoro voice", id, [voice.id for voice in self.voices()])
        return np.fromfile(path, "<f4").reshape(-1, 1, 256)

    def _manner(self, id: str) -> _Manner:
        kept = self._bank.stamp(id) if self._bank else None
        with self._lock:
            manner = self._known.pop((id, kept), None) or self._new_manner(id, kept is not None)
            self._known[id, kept] = manner  # the latest
            if len(self._known) > KEPT_MANNERS:
                del self._known[next(iter(self._known))]
            return manner

    def _new_manner(self, id: str, kept: bool) -> _Manner:
        character = self._character(id, kept)
        if kept or is_mix(id):  # a kept voice has what was measured with it, and is removed with it
            return _known_manner(character, character.measured) or self._measure(character)
        return self._measured_once(id, character)

    def _character(self, id: str, kept: bool) -> Character:
        if kept and self._bank:
            return self._bank.load(id).character
        if is_mix(id):
            return mixed(parse_mix(id), self.stock)
        return Character(self.stock(id), find(id).language)

    def _measured_once(self, id: str, character: Character) -> _Manner:
        path = self._derived / f"{id}.npz"
        try:
            with np.load(path) as file:
                manner = _known_manner(character, file)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not there, or cut short
            manner = None
        if manner is None:
            manner = self._measure(character)
            _keep(manner, path)
        return manner

    def _measure(self, character: Character) -> _Manner:
        measuring = session(self._derived / "measure.onnx", self._threads)
        typical = _TYPICAL["cmn" if character.language == "cmn" else "en"]
        plans = sorted(
            (self._typical(symbols, character) for symbols in typical), key=lambda p: p.energy.mean()
        )
        found = [measuring.run(["statistics"], plan.cut(0, plan.frames))[0] for plan in plans]
        means, variances = np.split(np.stack(found), 2, axis=2)
        return _Manner(character, np.array([plan.energy.mean() for plan in plans]), means, variances)

    def _typical(self, symbols: str, character: Character) -> _Blocked:
        draft = self.draft_as(symbols, character)
        lengths = whole_frames(draft.lengths)
        pitch, energy = draft.contours(lengths)
        nothing = np.zeros_like(pitch)
        heard = (0, int(lengths.sum()))
        plan = ProsodyPlan(symbols, lengths, pitch, energy, nothing, nothing, nothing, (), heard)
        return self._blocked(plan, draft)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """See ``base.Draft``.

    Attributes:
        prosody: the network that draws pitch and energy.
        character: of the voice.
        features: (1, symbols + 2, 640) float32.
        text: (1, 512, symbols + 2) float32.
        style: (1, 256) float32.
    """

    prosody: Any
    character: Character
    lengths: np.ndarray
    features: np.ndarray
    text: np.ndarray
    style: np.ndarray

    def contours(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alignment = np.zeros((len(lengths), lengths.sum()), np.float32)
        alignment[np.repeat(np.arange(len(lengths)), lengths), np.arange(lengths.sum())] = 1
        pitch, energy = self.prosody.run(
            [_PITCH, _ENERGY],
            {_FEATURES: self.features, _ALIGNMENT: alignment, "style": self.style},
        )
        return self.character.melody(pitch[0]), energy[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Manner:
    """A voice, and what the generator measured while it said typical things.

    Attributes:
        character: style and melody.
        energies: (n,) mean energy of the typical utterances, rising.
        means: (n, 1, channels, 1) float32, over time, of all that is normalised.
        variances: the same of the variances.
    """

    character: Character
    energies: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def statistics(self, energy: float) -> np.ndarray:
        """Statistics of an utterance, foretold from its mean energy: (1, 2 * channels, 1) float32.

        What differs most between utterances is how much of them is silence. So means over time of x and of
        x^2 are mixed in proportion, and the energy, which is known beforehand, says in which. Given the
        statistics of a long sentence, a word alone (half silence) would be 60 dB too soft.
        """
        at = float(np.interp(energy, self.energies, np.arange(len(self.energies))))
        low = min(int(at), len(self.energies) - 2)
        means = self.means[low : low + 2].astype(np.float64)
        squares = self.variances[low : low + 2] + means**2
        mean, square = (part[0] + (part[1] - part[0]) * (at - low) for part in (means, squares))
        return np.concatenate([mean, square - mean**2], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocked:
    """A plan up to the generator.

    Attributes:
        pitch: (1, 2 * frames) float32, Hz.
        energy: (1, 2 * frames) float32.
        blocks: (1, 512, 2 * frames) float32.
        style: (1, 256) float32.
    """

    pitch: np.ndarray
    energy: np.ndarray
    blocks: np.ndarray
    style: np.ndarray

    @property
    def frames(self) -> int:
        return self.blocks.shape[2] // 2

    def cut(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """Generator inputs for some frames."""
        return {
            _BLOCKS: self.blocks[:, :, 2 * begin : 2 * end],
            _PITCH: self.pitch[:, 2 * begin : 2 * end],
            "style": self.style,
            "phase": source_phase(self.pitch[0, : 2 * begin]),
        }


def pieces(frames: int, done: int = 0) -> Iterator[tuple[int, int]]:
    """Begin and end of the pieces of a run, after ``done`` pieces before; no last piece is very short."""
    begin = 0
    while begin < frames:
        size = PIECES[min(done, len(PIECES) - 1)]
        end = begin + size if frames - begin >= 1.5 * size else frames
        yield begin, end
        begin, done = end, done + 1


def source_phase(pitch: np.ndarray) -> np.ndarray:
    """Where the harmonic source stands after ``pitch`` (half frames, Hz), as the split decoder wants it.

    It runs at half frames, 300 samples each, and interpolates: cycles are counted in units of 300.

    Returns:
        float32, shape (1, 1, harmonics).
    """
    cycles = np.arange(1, _HARMONICS + 1) * (FRAME // 2) * pitch.sum(dtype=np.float64) / RATE
    return (cycles % 1 / (FRAME // 2)).astype(np.float32).reshape(1, 1, -1)


def blend(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Linear cross-fade of two stretches of equal length."""
    weight = (np.arange(len(new), dtype=np.float32) + 0.5) / max(len(new), 1)
    return old * (1 - weight) + new * weight


def _known_manner(character: Character, measured: Mapping[str, np.ndarray]) -> _Manner | None:
    """A voice whose statistics were measured before, None if they were not."""
    if "energies" not in measured:
        return None
    return _Manner(character, measured["energies"], measured["means"], measured["variances"])


def _keep(manner: _Manner, path: Path) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.savez(file, energies=manner.energies, means=manner.means, variances=manner.variances)
        Path(file.name).replace(path)
    except OSError:
        pass  # a read-only or full disk: they are measured again next time


# What follows changes the published graph. It runs once, when the model is first used.


def split(model: Path, out: Path) -> None:
    """Write ``text.onnx``, ``prosody.onnx``, ``blocks.onnx``, ``generator.onnx`` and ``measure.onnx``.

    The generator has two inputs that the published graph has not: ``phase`` (1, 1, 9), see ``source_phase``,
    and ``statistics`` (1, 2 * n, 1), the means of all channels that it normalises and then their variances,
    which ``measure.onnx`` (the generator as published) gives as an output, beside the audio.

    Args:
        model: folder with the published model.
        out: folder to write to.
    """
    import onnx
    from onnx import helper

    published = onnx.load(model / MODEL)
    graph = Graph(published)
    floats = onnx.TensorProto.FLOAT
    style = {"style": (floats, [1, 256])}
    features, text = {_FEATURES: (floats, [1, "tokens", 640])}, {_TEXT: (floats, [1, 512, "tokens"])}
    contours = {_PITCH: (floats, [1, "half_frames"]), _ENERGY: (floats, [1, "half_frames"])}
    frames = {_ALIGNED: (floats, [1, 512, "frames"]), **contours}
    graph.write(
        out / "text.onnx",
        {"tokens": (onnx.TensorProto.INT64, [1, "tokens"]), "speed": (floats, [1]), **style},
        {**features, **text, _LENGTHS: (floats, [1, "tokens"])},
    )
    graph.write(
        out / "prosody.onnx", {**features, _ALIGNMENT: (floats, ["tokens", "frames"]), **style}, contours
    )

    blocks = {_BLOCKS: (floats, [1, 512, "half_frames"])}
    graph.write(out / "blocks.onnx", {**frames, **style}, blocks)

    graph.redirect(_CYCLES, "cycles")
    graph.add(helper.make_node("Add", [_CYCLES, "phase"], ["cycles"]))
    inputs = {**blocks, _PITCH: frames[_PITCH], **style, "phase": (floats, [1, 1, _HARMONICS])}
    biases = {tensor.name: tensor.dims[0] for tensor in published.graph.initializer if tensor.dims}
    means, variances, sizes = [], [], []
    for node in graph.nodes:
        if node.op_type != "ReduceMean" or not node.name.startswith("/decoder/decoder/generator/"):
            continue
        square = graph.maker(node.input[0])
        if square is not None and square.op_type == "Mul" and square.input[0] == square.input[1]:
            difference = graph.maker(square.input[0])
            assert difference is not None and difference.op_type == "Sub"  # (x - mean)^2
            means.append(difference.input[1])
            variances.append(node.output[0])
            sizes.append(biases[_module(node.name) + ".fc.bias"] // 2)  # its fc makes scale and offset
    measured = means + variances
    statistics = {"statistics": (floats, [1, 2 * sum(sizes), 1])}
    joined = helper.make_node("Concat", measured, ["statistics"], axis=1)
    graph.add(joined)
    audio = {"audio": (floats, ["samples"])}
    graph.write(out / "measure.onnx", inputs, {**audio, **statistics})

    graph.nodes.remove(joined)
    given = {name: f"{name}_given" for name in measured}
    for name in measured:
        graph.redirect(name, given[name])
    graph.constant("statistics_sizes", np.array(sizes + sizes, np.int64))
    graph.add(helper.make_node("Split", ["statistics", "statistics_sizes"], list(given.values()), axis=1))
    _fold_normalisation(graph, set(given.values()))
    graph.write(out / "generator.onnx", {**inputs, **statistics}, audio)


def _fold_normalisation(graph: Graph, means: set[str]) -> None:
    """(x - mean) / deviation * scale + offset as x * a + b: a and b are computed once a channel."""
    from onnx import helper

    for divide in [node for node in graph.nodes if node.op_type == "Div"]:
        subtract = graph.maker(divide.input[0])
        if subtract is None or subtract.op_type != "Sub" or subtract.input[1] not in means:
            continue
        (x, mean), deviation = subtract.input, divide.input[1]
        for multiply in graph.users(divide.output[0]):
            (add,) = graph.users(multiply.output[0])
            (scale,) = set(multiply.input) - {divide.output[0]}
            (offset,) = set(add.input) - {multiply.output[0]}
            a, b, moved = (f"{multiply.name}_{part}" for part in ("a", "b", "moved"))
            graph.add(helper.make_node("Div", [scale, deviation], [a]))
            graph.add(helper.make_node("Mul", [mean, a], [moved]))
            graph.add(helper.make_node("Sub", [offset, moved], [b]))
            multiply.input[:] = [x, a]
            add.input[:] = [multiply.output[0], b]


def _module(node: str) -> str:
    """Name of the layer in the network of which a node is a part: "/a/b/ReduceMean" is in "a.b"."""
    return node.strip("/").rpartition("/")[0].replace("/", ".")
