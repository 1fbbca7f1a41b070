"""How far two rows of words are apart."""

from __future__ import annotations


def edit_distance(a: list[str], b: list[str]) -> int:
    """Least number of substitutions, insertions and deletions from ``a`` to ``b`` (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]
