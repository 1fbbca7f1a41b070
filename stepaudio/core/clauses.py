"""Clauses: what a voice gets to speak, cut from text as it is being written.

A voice needs enough text to know the melody, and the listener should not wait for it. So the first
clause is short on purpose (it ends at the first comma, verb or joining word worth a breath), and later ones,
written while the first is heard, are whole sentences or long halves of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass

from stepaudio.core.style import NO_STYLE, Span, SpeechStyle
from stepaudio.core.tagged import TagReader, Token, Track, Unknown


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of text to speak in one breath: never half a word, never half a number.

    Attributes:
        index: place in the answer, from 0.
        text: as written (not yet made speakable), without tags and outer white space. "" where something
            happens after the last words.
        style: how to speak it.
        spans: parts of it that are spoken another way, by ``begin``; inner ones after those around them.
    """

    index: int
    text: str
    style: SpeechStyle = NO_STYLE
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """One written word (or Chinese character) on the time line of a clause, in ms from its start."""

    text: str
    start_ms: int
    end_ms: int


# Lengths are in "weight": about one a Latin letter and three a Chinese character, so that 15 are
# about one second of speech in either language.
FIRST_WEIGHT = 6
"""The first clause may end at a comma from here on (0.4 s: "Yes, " alone is too little to bridge)."""
SOFT_WEIGHTS = (14, 40)
"""Without any sign, the first clause may end before a joining word from here on (0.9 s), and the second one,
which has to be written while the first is heard, from 2.7 s on."""
AND_WEIGHT = 40
"""But before "and" only from here on: what it joins is often one name ("Pride and Prejudice")."""
COMMA_WEIGHT = 45
"""Later clauses may end at a comma from here on (3 s); shorter ones wait for the sentence's end."""
MOST_WEIGHT = 300
"""No clause is longer (20 s); it is cut at the last white space, or where it stands."""
MOST_CHARACTERS = 4096
"""Nor longer than this, where most of it is white space, which has no weight."""

_ENDS = frozenset(".!?")
_ENDS_WIDE = frozenset("。！？｡")
_PAUSES = frozenset(",;:")
_PAUSES_WIDE = frozenset("，；：")
_DASHES = frozenset("—–")
_CLOSERS = frozenset("\"')]}»”’」』）》】*_")
_JOINING = frozenset(  # a phrase ends before these, verbs among them: "The capital of Australia / is …"
    "but or because which who while when where that so if although though with from by as for"
    " in on at to than until since is are was were has have had will can means".split()
)
_NO_VERB = frozenset(
    "但还就不总只要或而也若即正又于可便仅倒算"
)  # with one of these before it, 是 ends a word
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st vs no nos fig jr sr gen col sgt capt lt rev hon mt ft vol ch pp ed eds"
    " approx dept est inc ltd co corp e.g i.e cf al jan feb mar apr jun jul aug sep sept oct nov dec".split()
)


def is_han(char: str) -> bool:
    """Whether ``char`` is a Chinese character (CJK unified ideographs, extension A, or compatibility)."""
    return "一" <= char <= "鿿" or "㐀" <= char <= "䶿" or "豈" <= char <= "﫿"


def weight(text: str) -> int:
    """Length as heard: one a letter, digit or sign, three a Chinese character, none a white space."""
    return sum(3 if is_han(char) else 1 for char in text if not char.isspace())


class ClauseSplitter:
    """Cuts a stream of text into clauses.

    Args:
        eager: let the first clause end at the first pause (talk); False waits for sentence ends (files).
        style: the style that the clauses carry, where no tag in the text says another.
        unknown: what becomes of brackets that look like tags and are none.
        by_words: each piece ends with a whole word, as the tokens of a language model do: where a word or a
            sign at its end decides, the next piece (50 ms later) is not waited for.
    """

    def __init__(
        self,
        *,
        eager: bool = True,
        style: SpeechStyle | None = None,
        unknown: Unknown = "speak",
        by_words: bool = False,
    ) -> None:
        self._eager, self._by_words = eager, by_words
        self._tags = TagReader(unknown=unknown)
        self._track = Track(style or NO_STYLE)
        self._text = ""
        self._passed = 0  # characters cut off before it
        self._breaks: deque[int] = deque()  # places, from the first character, where a clause must end
        self._count = 0

    def push(self, text: str) -> list[Clause]:
        """Take the next piece of text; return the clauses that are now certain."""
        return self.feed(self._tags.push(text))

    def flush(self) -> list[Clause]:
        """The text is over: return what is left."""
        return self.feed(self._tags.flush(), final=True)

    def feed(self, tokens: Iterable[Token], *, final: bool = False) -> list[Clause]:
        """The same for text whose tags are already read."""
        pieces = [self._text]
        end = self._passed + len(self._text)
        for token in tokens:
            if isinstance(token, str):
                pieces.append(token)
                end += len(token)
            elif self._track.put(end, token):
                self._breaks.append(end)
        self._text = "".join(pieces)
        return self._cut(final=final)

    def _cut(self, *, final: bool) -> list[Clause]:
        clauses: list[Clause] = []
        text, at = self._text, 0
        over = len(text.rstrip()) if final else len(text) + 1
        while True:
            while at < len(text) and text[at].isspace():
                at += 1
            while self._breaks and self._breaks[0] <= self._passed + at:
                self._breaks.popleft()
            limit = self._breaks[0] - self._passed if self._breaks else len(text)
            stop = min(limit, at + MOST_CHARACTERS)
            window = self._track.masked(text[at:stop], self._passed + at)
            whole = stop == limit and (final or bool(self._breaks))
            place = self._count if self._eager else None
            end = find_end(window, place, final=whole, by_words=self._by_words)
            if end is None and len(window) == MOST_CHARACTERS:
                end = MOST_CHARACTERS
            if end is None:
                break
            said = text[at : at + end].rstrip()
            style, spans = self._track.take(said, self._passed + at, last=at + end >= over)
            clauses.append(Clause(self._count, said, style, spans))
            self._count += 1
            at += end
        self._text = text[at:]
        self._passed += at
        if final and self._track.is_pending:
            clauses.append(Clause(self._count, "", *self._track.take("", self._passed, last=True)))
            self._count += 1
        return clauses


def split(
    text: str,
    *,
    style: SpeechStyle | None = None,
    unknown: Unknown = "speak",
    voices: Container[str] | None = None,
) -> list[Clause]:
    """A whole text in clauses that end with sentences.

    Args:
        style: see ``ClauseSplitter``.
        unknown, voices: see ``TagReader``.

    Raises:
        TagError: a tag in it is wrong; the message says where, and what to write.
    """
    tokens = TagReader(unknown=unknown, strict=True, voices=voices).flush(text)
    return ClauseSplitter(eager=False, style=style).feed(tokens, final=True)


def find_end(text: str, place: int | None, *, final: bool, by_words: bool = False) -> int | None:
    """Where the clause that ``text`` begins with ends (an index to slice at), or None: not certain yet.

    Args:
        place: of the clause in an answer that somebody waits for, from 0: the first ones may be short.
        final: nothing follows ``text``.
        by_words: no word is only begun in it, and no name or address goes on behind a sign at its end.
    """
    soft = SOFT_WEIGHTS[place] if place is not None and place < len(SOFT_WEIGHTS) else MOST_WEIGHT
    comma = FIRST_WEIGHT if place == 0 else COMMA_WEIGHT
    heavy = 0  # weight of what was passed
    space = 0  # the last white space passed, to cut at when there is no other place
    for i, char in enumerate(text):
        following = text[i + 1] if i + 1 < len(text) else None
        if char == "\n":
            if heavy:
                return i + 1
        elif char.isspace():
            if heavy >= soft and _joins(text[i + 1 :], heavy, final or by_words):
                return i + 1
            space = i + 1
        elif char == "是" and heavy >= soft and text[i - 1] not in _NO_VERB:
            return i
        if char in _ENDS_WIDE:
            return _past_closers(text, i + 1)
        if char in _PAUSES_WIDE and heavy >= comma:
            return _past_closers(text, i + 1)
        if char in _ENDS or char in _PAUSES or char in _DASHES:
            after = _past_closers(text, i + 1)
            # A sign inside a number, name or address has no white space behind it; wait for what follows.
            if after == len(text) and not (final or (by_words and text[:i][-1:].isalpha())):
                return None
            apart = after == len(text) or text[after].isspace() or is_han(text[after])
            if char in _ENDS and apart and not _is_abbreviation(text[: i + 1]):
                return after
            if char not in _ENDS and apart and heavy >= comma:
                return after
        heavy += 0 if char.isspace() else 3 if is_han(char) else 1
        if heavy >= MOST_WEIGHT and following is not None:
            return space or i + 1
    return len(text) if final and text else None


def _past_closers(text: str, i: int) -> int:
    """Past further end signs and closing quotes and brackets: they belong to the clause they close."""
    while i < len(text) and (text[i] in _CLOSERS or text[i] in _ENDS or text[i] in _ENDS_WIDE):
        i += 1
    return i


def _joins(rest: str, heavy: int, final: bool) -> bool:
    """Whether ``rest``, which a clause of weight ``heavy`` precedes, begins with a whole joining word."""
    word, found, _ = rest.partition(" ")
    joining = word.lower() in _JOINING or (word.lower() == "and" and heavy >= AND_WEIGHT)
    return (bool(found) or final) and joining


def _is_abbreviation(text: str) -> bool:
    """Whether the full stop at the end of ``text`` belongs to an abbreviation, initial or list number."""
    if not text.endswith("."):
        return False
    before = text[:-1]
    word = before.split()[-1].lstrip("\"'([“‘*_").lower() if before.split() else ""
    if word in _ABBREVIATIONS:
        return True
    if len(word) == 1 and word.isalpha() and word != "i" and before[-1:].isupper():
        return True  # J. K. Rowling
    return word.isdigit() and before.strip() == word  # "1. First …": the number of a list item
