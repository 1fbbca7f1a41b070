"""Speech as two streams of codes, and as the one stream that Step-Audio's language models read and write.

=============  ========  ========  =============  ====================  ======================
stream         codes     a second  upstream name  in the merged stream  token id of the model
=============  ========  ========  =============  ====================  ======================
linguistic     1,024     16.7      vq02           0..1023               65536..66559
semantic       4,096     25        vq06           1024..5119            66560..70655
=============  ========  ========  =============  ====================  ======================

Both take 120 ms for a *group*: two linguistic codes, then three semantic ones (Step-Audio report, section on
the tokenizer). What is left over at the end of either stream has no partner and is dropped, never filled up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepaudio.core.errors import CodesError

LINGUISTIC_CODES = 1024
SEMANTIC_CODES = 4096
MERGED_CODES = LINGUISTIC_CODES + SEMANTIC_CODES
FIRST_ID = 65_536
"""The token id of ``<audio_0>``; the ids below it are text."""

GROUP = (2, 3)
"""Linguistic and semantic codes of one group."""
GROUP_SIZE = sum(GROUP)
GROUP_MS = 120

_TOKEN = re.compile(r"<audio_([0-9]{1,4})>")


@dataclass(frozen=True, slots=True, eq=False)
class AudioCodes:
    """A stretch of speech in both codes.

    Attributes:
        linguistic: int64, shape (n,), 0..1023.
        semantic: int64, shape (m,), 0..4095.

    Raises:
        CodesError: a code outside its range, or not a whole number.
    """

    linguistic: np.ndarray
    semantic: np.ndarray

    def __post_init__(self) -> None:
        for name, size in (("linguistic", LINGUISTIC_CODES), ("semantic", SEMANTIC_CODES)):
            object.__setattr__(self, name, _codes(getattr(self, name), name, size))

    @property
    def groups(self) -> int:
        """Whole groups of 120 ms."""
        return min(len(self.linguistic) // GROUP[0], len(self.semantic) // GROUP[1])

    def aligned(self) -> AudioCodes:
        """The whole groups: 2k linguistic and 3k semantic codes."""
        return AudioCodes(self.linguistic[: GROUP[0] * self.groups], self.semantic[: GROUP[1] * self.groups])

    def merged(self) -> np.ndarray:
        """The whole groups as one stream, 0..5119: what the flow embeds. int64, shape (5 * groups,)."""
        kept = self.aligned()
        linguistic = kept.linguistic.reshape(-1, GROUP[0])
        semantic = kept.semantic.reshape(-1, GROUP[1]) + LINGUISTIC_CODES
        return np.hstack([linguistic, semantic]).ravel()

    def ids(self) -> list[int]:
        """The merged stream as token ids of the language models."""
        return (self.merged() + FIRST_ID).tolist()

    def text(self) -> str:
        """The merged stream as the tokens' names, ``<audio_N>`` without anything between them."""
        return "".join(f"<audio_{code}>" for code in self.merged())

    @classmethod
    def from_merged(cls, merged: Sequence[int] | np.ndarray) -> AudioCodes:
        """The inverse of ``merged()``.

        Raises:
            CodesError: codes outside 0..5119, a part of a group at the end, or a code of the one stream where
                the other's should stand.
        """
        codes = _codes(merged, "merged", MERGED_CODES)
        left_over = len(codes) % GROUP_SIZE
        if left_over:
            raise CodesError(
                f"{len(codes)} codes are not whole groups of {GROUP_SIZE}; drop the last {left_over}"
            )
        groups = codes.reshape(-1, GROUP_SIZE)
        wrong = np.flatnonzero((groups < LINGUISTIC_CODES) != (np.arange(GROUP_SIZE) < GROUP[0]))
        if wrong.size:
            code = codes[wrong[0]]
            found, wanted = _STREAMS if code < LINGUISTIC_CODES else _STREAMS[::-1]
            raise CodesError(
                f"code {code} at place {wrong[0]} is {found} where a {wanted} one should stand: the order is "
                "two linguistic, then three semantic; cut the stream at whole groups"
            )
        return cls(groups[:, : GROUP[0]].ravel(), groups[:, GROUP[0] :].ravel() - LINGUISTIC_CODES)

    @classmethod
    def from_ids(cls, ids: Sequence[int] | np.ndarray) -> AudioCodes:
        """The inverse of ``ids()``; raises ``CodesError`` as ``from_merged`` does, and for ids of text."""
        values = _integers(ids, "token ids")
        if values.size and not FIRST_ID <= values.min() <= values.max() < FIRST_ID + MERGED_CODES:
            raise CodesError(
                f"token ids of audio are {FIRST_ID}..{FIRST_ID + MERGED_CODES - 1}, "
                f"these go from {values.min()} to {values.max()}: take text and special tokens out first"
            )
        return cls.from_merged(values - FIRST_ID)

    @classmethod
    def from_text(cls, text: str) -> AudioCodes:
        """The inverse of ``text()``; raises ``CodesError`` as ``from_merged`` does, and for anything else."""
        codes = [int(match[1]) for match in _TOKEN.finditer(text)]
        if _TOKEN.sub("", text):
            raise CodesError(
                "only <audio_0> to <audio_5119> without anything between them can be read as codes"
            )
        return cls.from_merged(codes)


_STREAMS = ("linguistic", "semantic")


def join(pieces: Iterable[AudioCodes]) -> AudioCodes:
    """Pieces of a stream, one after another; no piece is no code."""
    pieces = [EMPTY, *pieces]
    return AudioCodes(
        np.concatenate([piece.linguistic for piece in pieces]),
        np.concatenate([piece.semantic for piece in pieces]),
    )


def editx_pairs(merged: Sequence[int] | np.ndarray) -> np.ndarray:
    """The merged stream as the flow of Step-Audio-EditX embeds it: two codes a row, 40 ms each.

    A group becomes three rows: its linguistic codes with 1024 (none) as the third, beside its semantic codes,
    which are counted from 1025 there. A last group that is not whole is filled with 0 and 1024. Streams whose
    codes are out of order are taken by place, as the language model wrote them.

    Returns:
        int64, shape (3 * groups, 2).

    Raises:
        CodesError: codes outside 0..5119.
    """
    codes = _codes(merged, "merged", MERGED_CODES)
    filling = np.array([0] * GROUP[0] + [LINGUISTIC_CODES] * GROUP[1])
    lacking = -len(codes) % GROUP_SIZE
    groups = np.concatenate([codes, filling[GROUP_SIZE - lacking :]]).reshape(-1, GROUP_SIZE)
    linguistic = np.insert(groups[:, : GROUP[0]], GROUP[0], LINGUISTIC_CODES, axis=1)
    return np.stack([linguistic, groups[:, GROUP[0] :] + 1], axis=-1).reshape(-1, 2)


def _codes(values: Sequence[int] | np.ndarray, name: str, size: int) -> np.ndarray:
    codes = _integers(values, f"{name} codes")
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise CodesError(f"{name} codes are 0..{size - 1}, these go from {codes.min()} to {codes.max()}")
    return codes


def _integers(values: Sequence[int] | np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise CodesError(f"{what} are a flat list of whole numbers, not {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


EMPTY = AudioCodes(np.empty(0, np.int64), np.empty(0, np.int64))
