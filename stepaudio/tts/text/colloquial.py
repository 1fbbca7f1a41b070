"""Written Chinese in a dialect's own words, where one word stands for one: 我们 -> 我哋, 知道 -> 晓得.

Only whole words are exchanged (是 but not that of 但是), by tables. What would need the sentence to be
understood is left as it is: the aspects of 了 and 没有, where 在 is no verb, the order of words.
"""

from __future__ import annotations

from functools import cache

import rjieba

from stepaudio.tts.text.rules import Piece
from stepaudio.tts.text.tables import table

_LONGEST = 4
"""Words of Chinese text in the longest entry of a table."""


def words(line: str, dialect: str) -> list[Piece]:
    """The words of a line that the dialect has others for, in order, without overlap.

    Args:
        line: in simplified script.
        dialect: the name of its table ("cantonese").
    """
    said = _said(dialect)
    cut = rjieba.cut(line)
    pieces: list[Piece] = []
    index = at = 0
    while index < len(cut):
        size = next(
            (
                n
                for n in range(min(_LONGEST, len(cut) - index), 0, -1)
                if "".join(cut[index : index + n]) in said
            ),
            0,
        )
        written = "".join(cut[index : index + max(size, 1)])
        if size:
            pieces.append(Piece(at, at + len(written), said[written], "zh"))
        index += max(size, 1)
        at += len(written)
    return pieces


@cache
def _said(dialect: str) -> dict[str, str]:
    return table(dialect, "said")
