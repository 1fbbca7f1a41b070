"""Whisper's network at work, and how its output becomes tokens: the encoder, the decoder, beam search.

``search`` decides on the decoder's numbers and knows no runtime. What an earlier search found for the start
of the same audio can be given to it. As far as the decoder would write the same again, it is read in one step
(a step of twenty tokens takes as long as three of one), and only the rest is written token by token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from stepaudio.recognition.whisper_graph import DECODER, EMBEDDINGS, ENCODER, HEAD, POSITIONS

_LATEST_START = 1.0  # seconds at which the first phrase begins at the latest (openai/whisper, decoding.py)
_TIME = 0.02  # seconds from one timestamp token to the next
MOST_TOKENS = 224
"""Of one window, as Whisper was trained."""


class Vocabulary:
    """Whisper's tokens.

    Args:
        folder: with ``vocabulary.txt`` and ``config.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.forms = (folder / "vocabulary.txt").read_text("utf-8").split("\n")
        self._ids = {form: i for i, form in enumerate(self.forms) if form.startswith("<|")}
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.end = self._ids["<|endoftext|>"]
        self.first_time = self._ids["<|0.00|>"]
        special = range(self.end + 1, self.first_time)
        self.never = np.array(sorted({*config["suppress_ids"], *special}))
        """Ids that are never written: instructions, and signs that nobody says ("♪", "[")."""
        self.heads: list[tuple[int, int]] = [(layer, head) for layer, head in config["alignment_heads"]]
        """Heads (layer, head) that look where the word is said."""

    def id(self, name: str) -> int:
        """Of the special token ``<|name|>``."""
        return self._ids[f"<|{name}|>"]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What the encoder made of a window: keys and values for the decoder, and the number of positions."""

    cross: Mapping[str, OrtValue]
    positions: int


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Keys and values of the tokens read so far, and how many they are."""

    values: Mapping[str, OrtValue]
    length: int


class Network:
    """The two graphs, in int8 on the CPU. Stateless; threads may share it.

    Args:
        derived: folder that ``write_graphs`` filled.
        threads: of one call.
    """

    def __init__(self, derived: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads sleep: spinning ones would take the cores from the language model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(derived / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self._embeddings = np.load(derived / EMBEDDINGS, mmap_mode="r")
        self._positions = np.load(derived / POSITIONS)
        self._cross = [output.name for output in self._encoder.get_outputs()]
        outputs = [output.name for output in self._decoder.get_outputs()]
        self._kept = [name for name in outputs if name.startswith(("key_", "value_"))]
        heads = self._embeddings.shape[1] // HEAD
        nothing = OrtValue.ortvalue_from_numpy(np.zeros((1, heads, 0, HEAD), np.float32))
        self.empty = Cache(dict.fromkeys(self._kept, nothing), 0)

    def encode(self, features: np.ndarray) -> Encoding:
        """Encode features (bands, frames), float32, an even number of frames."""
        given = {"features": OrtValue.ortvalue_from_numpy(np.ascontiguousarray(features[None]))}
        cross = self._encoder.run_with_ort_values(self._cross, given)
        return Encoding(dict(zip(self._cross, cross, strict=True)), features.shape[1] // 2)

    def read(
        self, encoding: Encoding, cache: Cache, tokens: Sequence[Sequence[int]], parents: Sequence[int]
    ) -> tuple[np.ndarray, Cache]:
        """Read more tokens.

        Args:
            tokens: of each beam, as many of each.
            parents: the row of the cache that each beam goes on from.

        Returns:
            logits (beams, tokens, vocabulary) of what follows each token, and the cache with them.
        """
        logits, *kept = self._decoder.run_with_ort_values(
            ["logits", *self._kept], self._given(encoding, cache, np.array(tokens), parents)
        )
        new = len(tokens[0])
        found = logits.numpy().reshape(len(tokens), new, -1)
        return found, Cache(dict(zip(self._kept, kept, strict=True)), cache.length + new)

    def looks(
        self, encoding: Encoding, tokens: Sequence[int], heads: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """How much each token looks at each position: logits (heads, tokens, positions)."""
        layers = sorted({layer for layer, _ in heads})
        given = self._given(encoding, self.empty, np.array([tokens]), [0])
        found = self._decoder.run_with_ort_values([f"query_{layer}" for layer in layers], given)
        queries = {layer: value.numpy() for layer, value in zip(layers, found, strict=True)}
        looks = []
        for layer, head in heads:
            keys = encoding.cross[f"cross_key_{layer}"].numpy()[0, head]
            looks.append(queries[layer][:, head * HEAD : (head + 1) * HEAD] @ keys.T / np.sqrt(HEAD))
        return np.stack(looks)

    def _given(
        self, encoding: Encoding, cache: Cache, tokens: np.ndarray, parents: Sequence[int]
    ) -> dict[str, OrtValue]:
        places = self._positions[cache.length : cache.length + tokens.shape[1]]
        given = {"x": self._embeddings[tokens].astype(np.float32) + places, "parents": np.array(parents)}
        return {
            **{name: OrtValue.ortvalue_from_numpy(value) for name, value in given.items()},
            **{f"past_{name}": value for name, value in cache.values.items()},
            **encoding.cross,
        }


def shortened(cache: Cache, length: int) -> Cache:
    """A cache as it was when ``length`` tokens had been read."""
    cut = {n: OrtValue.ortvalue_from_numpy(v.numpy()[:, :, :length].copy()) for n, v in cache.values.items()}
    return Cache(cut, length)


@dataclass(frozen=True, slots=True)
class Written:
    """What the decoder wrote.

    Attributes:
        tokens: without the end.
        total: sum of the log-probabilities, that of the end included where it ended.
    """

    tokens: tuple[int, ...]
    total: float

    @property
    def score(self) -> float:
        """Mean log-probability of its tokens and the end."""
        return self.total / (len(self.tokens) + 1)


Read = Callable[[Cache, Sequence[Sequence[int]], Sequence[int]], tuple[np.ndarray, Cache]]
"""``Network.read`` of one encoding."""


def search(
    read: Read,
    cache: Cache,
    prompt: Sequence[int],
    vocabulary: Vocabulary,
    beams: int,
    most: int,
    before: Sequence[int] = (),
) -> Written:
    """Beam search (Sutskever et al. 2014) for the most probable tokens, length taken into account.

    Args:
        prompt: tokens that are read first.
        beams: hypotheses kept.
        most: tokens written at most.
        before: what was found for the beginning of this audio.
    """  # fmt: skip
    before = before[: most - 1]
    logits, cache = read(cache, [[*prompt, *before]], [0])
    rows = logits[0, len(prompt) - 1 :]
    kept, total = 0, 0.0
    while True:
        found = log_probabilities(rows[kept], before[:kept], vocabulary)
        if kept == len(before) or found.argmax() != before[kept]:
            break
        total += float(found[before[kept]])
        kept += 1
    if kept < len(before):
        cache = shortened(cache, cache.length - len(before) + kept)
    live, known = [Written(tuple(before[:kept]), total)], [found]
    ended: list[Written] = []
    while True:
        candidates = [
            (one.total + float(found[token]), i, token)
            for i, (one, found) in enumerate(zip(live, known, strict=True))
            for token in best(found, beams + 1)
        ]
        following: list[tuple[Written, int]] = []
        for total, i, token in sorted(candidates, reverse=True):
            if token == vocabulary.end:
                ended.append(Written(live[i].tokens, total))
            else:
                following.append((Written((*live[i].tokens, token), total), i))
            if len(following) == beams:
                break
        live = [one for one, _ in following]
        if len(ended) >= beams or not live or len(live[0].tokens) >= most:
            return max(ended or live, key=lambda one: one.score)
        logits, cache = read(cache, [[one.tokens[-1]] for one in live], [i for _, i in following])
        known = [
            log_probabilities(row[-1], one.tokens, vocabulary) for row, one in zip(logits, live, strict=True)
        ]


def best(found: np.ndarray, count: int) -> list[int]:
    """The indices of the largest numbers, largest first, but of none that is minus infinity."""
    left, places = found.copy(), []
    for _ in range(count):  # a few passes take a tenth of the time of sorting 50,000 numbers in part
        place = int(left.argmax())
        if left[place] == -np.inf:
            break
        places.append(place)
        left[place] = -np.inf
    return places


def log_probabilities(logits: np.ndarray, written: Sequence[int], vocabulary: Vocabulary) -> np.ndarray:
    """Log-probabilities of what may follow ``written``, by the rules that Whisper was trained on.

    Text stands between two timestamps, the first one at most a second after the start; time does not go back;
    and where a timestamp of any value is more probable than the most probable text, there is one (Radford et
    al. 2022, section 2.3; the rules as in openai/whisper, ``ApplyTimestampRules``).
    """
    first, end = vocabulary.first_time, vocabulary.end
    found = logits.astype(np.float32)
    found[vocabulary.never] = -np.inf
    if not written:
        found[:first] = -np.inf
        found[first + round(_LATEST_START / _TIME) + 1 :] = -np.inf
    else:
        times = list(takewhile(lambda token: token >= first, reversed(written)))
        latest = next((token for token in reversed(written) if token >= first), first)
        if len(times) >= 2 or len(written) == 1:  # two in a row, or the first: text follows
            found[first:] = -np.inf
        elif times:  # the end of a phrase: the start of the next one follows, or nothing
            found[:end] = -np.inf
            found[first:latest] = -np.inf
        else:
            found[first : latest + 1] = -np.inf
    found -= found.max()
    chances = np.exp(found)
    text, time = chances[:first], chances[first:]
    if time.sum() > text.max():
        found[:first] = -np.inf
        return found - np.log(time.sum())
    return found - np.log(chances.sum())
