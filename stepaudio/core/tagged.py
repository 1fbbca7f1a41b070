"""Text with instruction tags, read into text and the styles that hold in it.

::

    (happy 2) （四川话） (slow, whisper)     holds from here on, until another of its kind
    [strong]words[/strong]  [sad]…[/sad]    holds for the words between, and may be nested
    [sigh] （停顿1秒）  [mark chapter-2]      happens at this point
    \\(happy)                               means nothing: text

Brackets with anything else in them are text; so are those after a word and before a sign ("in two languages
(English, Chinese), both …"), and Markdown's ``[link](…)``. Tags may arrive in pieces, as models write them:
a bracket is held back only while it may become a tag, for ``LONGEST`` characters at most.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from stepaudio.core.errors import TagError
from stepaudio.core.style import NO_STYLE, Span, SpeechStyle
from stepaudio.core.tags import BY_NAME, Tag, Wrong, kinds, leading, may_become, meaning, styled

LONGEST = 40
"""Characters between the brackets of a tag."""
DEEPEST = 16
"""Tags around tags."""
FAR = 400
"""Characters in which the bracket that closes a tag is looked for, to tell that it was forgotten."""

Unknown = Literal["speak", "drop", "report"]
"""What becomes of a bracket that looks like a tag and is none: it is text; it is left out; it is an error."""


# --- what a text with tags consists of -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Switch:
    """From here on the style is another. ``reset``: as it was at the beginning (of what is around)."""

    style: SpeechStyle
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """What follows, up to its ``Close``, is spoken so; ``phonemes`` are said in its place."""

    style: SpeechStyle = NO_STYLE
    phonemes: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The end of the innermost ``Open``."""


@dataclass(frozen=True, slots=True)
class Point:
    """Something that happens here; see ``Span``."""

    pause_ms: int | None = None
    sound: str | None = None
    bookmark: str | None = None


Token = str | Switch | Open | Close | Point

_STOP = re.compile(r"\\+|[(（\[［]")
_CLOSERS = {"(": ")）", "（": "）)", "[": "]］", "［": "］]"}
_SQUARE = "[［"
_INSIDE = re.compile(rf"[^()（）\[\]［］\n\\]{{0,{LONGEST}}}")
_GROUP = re.compile(rf"([(（\[［])({_INSIDE.pattern})([)）\]］])")
_SLASHED = re.compile(rf"(?<!\\)(\\*)([(（\[［])(?=({_INSIDE.pattern}))")
_ENDS = frozenset(".!?。！？…;；:：\n—–-\"'“”‘’「」『』*_#>)]）】」』")
"""After these, a tag is no remark on the word before."""
_REMARKED = frozenset(".,;:!?)]}，。；：！？、）】」』”")
_IN_NO_TAG = re.compile("[.!?。！？;；]")
_NAME = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class _Opened:
    name: str
    written: str
    at: int


class TagReader:
    """Takes text in pieces and gives it back without its tags, and what these ask for.

    Args:
        unknown: what becomes of brackets that look like tags and are none.
        strict: raise ``TagError`` for tags whose names are known and that are wrong: nested in each other,
            not closed, contradicting, out of bounds. Otherwise they are treated as ``unknown`` says, of two
            that contradict the later one holds, and nothing is raised unless ``unknown`` is "report".
        voices: names of voices that there are; None: any name may be one.
    """

    def __init__(
        self, *, unknown: Unknown = "speak", strict: bool = False, voices: Container[str] | None = None
    ) -> None:
        self._unknown, self._strict, self._voices = unknown, strict, voices
        self._slashes = 0  # backslashes read, directly before what is held
        self._held = ""  # begins with a bracket
        self._passed = 0  # characters read before what is held
        self._last = ""  # the last character of the text
        self._word = ""  # the last one that is no white space
        self._skip = self._glue = False  # after a tag: drop white space; letters are on both sides
        self._fresh: dict[str, object] = {}  # what was said of the style since the last word
        self._opened: list[_Opened] = []

    def push(self, text: str) -> list[Token]:
        """Take more of the text; return what is now certain. Raises ``TagError``; see above."""
        return self._read(text, final=False)

    def flush(self, text: str = "") -> list[Token]:
        """The text is over, with this last piece: return the rest. Raises ``TagError``, also for tags that
        were not closed."""
        out = self.settle(text)
        if self._strict and self._opened:
            last = self._opened[-1]
            tag = BY_NAME.get(last.name)
            hold = "" if tag is None or tag.around else f", or ({last.name}) to let it hold from there on"
            problem = f"is not closed: write [/{last.name}] after the words that it is for{hold}"
            raise _error(last.written, last.at, problem)
        return out

    def settle(self, text: str = "") -> list[Token]:
        """Take a piece after which something else than text follows (an element of XML): no tag goes on."""
        out = self._read(text, final=True)
        self._after_tag()
        return out

    def literal(self, text: str) -> list[Token]:
        """Take a piece in which brackets mean nothing."""
        out: list[Token] = []
        self._say(text, out)
        return out

    def open(self, name: str) -> None:
        """An element of XML begins: tags that are opened in it must be closed in it."""
        self._opened.append(_Opened(f"<{name}>", f"<{name}>", self._passed))

    def close(self, name: str) -> None:
        """An element of XML ends. Raises ``TagError`` where a tag in it is still open."""
        last = self._opened.pop()
        if last.name != f"<{name}>":
            raise _error(last.written, last.at, f"is not closed before </{name}>: write [/{last.name}] there")

    # Reading

    def _read(self, text: str, *, final: bool) -> list[Token]:
        out: list[Token] = []
        text, at = self._held + text, 0
        self._held = ""
        while at < len(text):
            found = _STOP.search(text, at)
            stop = found.start() if found else len(text)
            if found is None or stop > at:
                self._say(text[at:stop], out)
                end = stop
            elif text[at] == "\\":
                end = found.end()
                self._slashes += end - at
            elif (bracket := self._bracket(text, at, final, out)) is not None:
                end = bracket
            else:
                self._held = text[at:]
                break
            self._passed += end - at
            at = end
        if final:
            self._say("", out)
        return out

    def _bracket(self, text: str, at: int, final: bool, out: list[Token]) -> int | None:
        """Read what the bracket at ``at`` begins; returns where it ends, None: that is not certain yet."""
        content, end = _inside(text, at)
        square = text[at] in _SQUARE
        if not final and self._may_be_tag(text, at):
            return None
        closed = end < len(text) and text[end] in _CLOSERS[text[at]]
        tag = meaning(content if closed else content.rstrip(), square=square, voices=self._voices)
        named = tag is not None or leading(content)
        if named and self._slashes % 2:  # escaped
            return self._text(text[at], at, out, slashes=self._slashes // 2)
        if not closed and named:
            return self._unclosed(text, at, tag is not None, final, out)
        if tag is None:
            return self._stranger(text, at, end + closed, closed, out)
        end += 1
        if square and not (isinstance(tag, Tag) and tag.closes):
            if not final and (end == len(text) or (text[end] == "(" and self._may_be_tag(text, end))):
                return None
            if text[end : end + 1] == "(" and not self._is_tag(text, end):  # a link
                return self._text(text[at], at, out, slashes=self._slashes // 2)
        if isinstance(tag, Wrong):
            return self._wrong(f"cannot be followed: {tag}", text, at, end, out)
        if not square and not tag.is_point and self._word and self._word not in _ENDS:
            if end == len(text) and not final:
                return None
            if end == len(text) or text[end] in _REMARKED:  # a remark on the word before
                return self._text(text[at], at, out, slashes=self._slashes // 2)
        if problem := self._problem(tag, square):
            return self._wrong(problem, text, at, end, out)
        self._say("", out, slashes=self._slashes // 2)
        self._take(tag, text[at:end], square, out)
        self._after_tag()
        self._glue = not square and self._last.isascii() and self._last.isalnum()
        return end

    def _problem(self, tag: Tag, square: bool) -> str | None:
        """Why a tag cannot be followed where it stands."""
        if tag.closes:
            names = [opened.name for opened in self._opened]
            if not names or names[-1][0] == "<" or (tag.name and tag.name not in names):
                return "closes nothing that is open: leave it out"
            if self._strict and tag.name not in ("", names[-1]):
                return f"comes before {self._opened[-1].written} is closed: write [/{names[-1]}] first"
        elif square and not tag.is_point and not tag.reset and len(self._opened) >= DEEPEST:
            return f"is one too many: at most {DEEPEST} tags stand around words"
        elif self._strict:
            for kind, value in kinds(tag.style).items():
                if self._fresh.get(kind, value) != value:
                    return f"contradicts the tag before it, which also says the {kind}: leave one of them out"
        return None

    def _take(self, tag: Tag, written: str, square: bool, out: list[Token]) -> None:
        """Follow a tag."""
        if tag.closes:
            names = [opened.name for opened in self._opened]
            depth = len(names) - 1 - (names[::-1].index(tag.name) if tag.name else 0)
            out += [Close()] * (len(names) - depth)
            del self._opened[depth:]
        elif tag.is_point:
            out.append(Point(tag.pause_ms, tag.sound, tag.bookmark))
        elif square and not tag.reset:
            self._opened.append(_Opened(tag.name, written, self._passed))
            out.append(Open(tag.style))
        else:
            out.append(Switch(tag.style, tag.reset))
        if tag.closes or tag.is_point or tag.reset:
            self._fresh.clear()
        self._fresh |= kinds(tag.style)

    # What is no tag

    def _unclosed(self, text: str, at: int, whole: bool, final: bool, out: list[Token]) -> int | None:
        """A bracket that begins with a tag's name (is one, if ``whole``) and does not end as one."""
        _, end = _inside(text, at)
        if whole and text[end : end + 1] in _CLOSERS:
            if not final and self._may_be_tag(text, end):
                return None
            if self._is_tag(text, end):
                return self._wrong("is a tag around a tag: write one after the other", text, at, end, out)
        following = text[end : end + 1]
        forgotten = whole and (following == "\n" or (final and not following))
        if forgotten or (self._strict and self._never_closed(text, at, final)):
            closer = _CLOSERS[text[at]][0]
            problem = f"is not closed: write {closer} after it, or \\{text[at]} if it is text"
            end = end if whole else at + 1 + len(leading(text[at + 1 : end]))
            return self._wrong(problem, text, at, end, out)
        return self._text(text[at], at, out, slashes=self._slashes // 2)

    def _never_closed(self, text: str, at: int, final: bool) -> bool:
        line, broken, _ = text[at + 1 : at + FAR].partition("\n")
        over = bool(broken) or (final and at + FAR >= len(text))
        return over and not any(closer in line for closer in _CLOSERS[text[at]])

    def _stranger(self, text: str, at: int, end: int, closed: bool, out: list[Token]) -> int:
        """A bracket that names no tag."""
        content, link = text[at + 1 : end - 1], text[at] in _SQUARE and text[end : end + 1] in ("(", "[")
        named = closed and not link and _NAME.search(content) and not _IN_NO_TAG.search(content)
        if not named or self._slashes % 2 or self._unknown == "speak":
            return self._text(text[at], at, out)
        if self._unknown == "report":
            near = difflib.get_close_matches(content.lower(), BY_NAME, n=3, cutoff=0.6)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise _error(text[at:end], self._passed, f"is no tag: {hint}write \\{text[at]} where it is text")
        return self._drop(end, out)

    def _wrong(self, problem: str, text: str, at: int, end: int, out: list[Token]) -> int:
        """A tag that is known and cannot be followed."""
        if self._strict:
            raise _error(text[at:end].rstrip(), self._passed, problem)
        if self._unknown == "drop":
            return self._drop(end, out)
        return self._text(text[at], at, out, slashes=self._slashes // 2)

    def _text(self, bracket: str, at: int, out: list[Token], *, slashes: int | None = None) -> int:
        """The bracket is text; what follows it is read on."""
        self._say(bracket, out, slashes=slashes)
        return at + 1

    def _drop(self, end: int, out: list[Token]) -> int:
        self._say("", out)
        self._after_tag()
        return end

    def _after_tag(self) -> None:
        self._skip = not self._last or self._last.isspace()

    def _say(self, text: str, out: list[Token], *, slashes: int | None = None) -> None:
        """Text, after the backslashes read before it, or only so many of them."""
        text = "\\" * (self._slashes if slashes is None else slashes) + text
        self._slashes = 0
        if self._skip:
            text = text.lstrip(" \t\u3000" if self._last else None)
        if not text:
            return
        if self._glue and text[0].isascii() and text[0].isalnum():
            text = " " + text
        self._skip = self._glue = False
        self._last = text[-1]
        if word := text.rstrip()[-1:]:
            self._word = "\n" if "\n" in text[text.rindex(word) :] else word
            self._fresh.clear()
        elif "\n" in text:
            self._word = "\n"
        out.append(text)

    def _may_be_tag(self, text: str, at: int) -> bool:
        """Whether the bracket at ``at`` is not closed yet, and may become a tag."""
        content, end = _inside(text, at)
        if end < len(text) or len(content) == LONGEST:
            return False
        return may_become(content) or (self._unknown != "speak" and not _IN_NO_TAG.search(content))

    def _is_tag(self, text: str, at: int) -> bool:
        group = _GROUP.match(text, at)
        return group is not None and _means(group, self._voices) is not None


def _inside(text: str, at: int) -> tuple[str, int]:
    """What follows the bracket at ``at`` and can stand in a tag, and where it ends."""
    inside = _INSIDE.match(text, at + 1)
    assert inside is not None
    return inside[0], inside.end()


def _error(written: str, at: int, problem: str) -> TagError:
    return TagError(f"{written} at character {at + 1} {problem}")


def _means(group: re.Match[str], voices: Container[str] | None = None) -> Tag | Wrong | None:
    """What a match of ``_GROUP`` asks for."""
    if group[3] not in _CLOSERS[group[1]]:
        return None
    return meaning(group[2], square=group[1] in _SQUARE, voices=voices)


def escaped(text: str) -> str:
    """The text with backslashes where it needs them to be read as it stands."""

    def escape(found: re.Match[str]) -> str:
        slashes, bracket, content = found.groups()
        square = bracket in _SQUARE
        named = (
            leading(content) or meaning(content, square=square) or meaning(content.rstrip(), square=square)
        )
        return f"{2 * slashes}\\{bracket}" if named else found[0]

    return _SLASHED.sub(escape, text)


def disarmed(text: str) -> str:
    """Text of somebody who may not say how to speak, such that nothing in it is a tag, also when a model
    repeats it: ``( happy)``."""
    return _GROUP.sub(lambda group: f"{group[1]} {group[0][1:]}" if _means(group) else group[0], text)


# --- which style holds where -----------------------------------------------------------------------------

_SUNG = ("rap", "hum", "sing")


class Track:
    """The styles that hold in a text, set while it is read and taken clause by clause.

    Places are characters from the beginning of the text; they never go back.

    Args:
        style: that holds from the beginning.
    """

    def __init__(self, style: SpeechStyle) -> None:
        self.style = style
        """That holds now."""
        self._scopes = [(style, style, 0, "")]  # of open tags: style before and in it, place, phonemes
        self._changes = deque([(0, style)])
        self._points: deque[tuple[int, Point]] = deque()
        self._replaced: deque[tuple[int, int, str]] = deque()

    def put(self, at: int, token: Switch | Open | Close | Point) -> bool:
        """Something is asked for at a place. Returns whether a new clause must begin there: a voice speaks
        all of one in the same language, and sings or speaks it."""
        before = self.style
        match token:
            case Point():
                self._points.append((at, token))
            case Switch():
                self.style = self._scopes[-1][1] if token.reset else token.style.over(before)
            case Open():
                self.style = token.style.over(before)
                self._scopes.append((before, self.style, at, token.phonemes or ""))
            case _:  # Close
                self.style, _, begin, phonemes = self._scopes.pop()
                if phonemes and at > begin:
                    self._replaced.append((begin, at, phonemes))
        if self.style == before:
            return False
        if self._changes[-1][0] == at:
            self._changes.pop()
        self._changes.append((at, self.style))
        sung = before.mode != self.style.mode and (before.mode in _SUNG or self.style.mode in _SUNG)
        return sung or (before.voice, before.dialect) != (self.style.voice, self.style.dialect)

    @property
    def is_pending(self) -> bool:
        """Whether a point was not taken yet."""
        return bool(self._points)

    def masked(self, text: str, begin: int) -> str:
        """``text``, which lies at ``begin``, with letters for what is replaced: no clause may end in it."""
        for first, end, _ in self._replaced:
            first, end = max(first - begin, 0), min(end - begin, len(text))
            if first >= len(text):
                break
            if end > first:
                text = f"{text[:first]}{'x' * (end - first)}{text[end:]}"
        return text

    def take(self, text: str, begin: int, *, last: bool = False) -> tuple[SpeechStyle, tuple[Span, ...]]:
        """The style of a clause that lies at ``begin``, and its spans; what lies before it is forgotten.

        ``last``: no text follows, so that what happens at its end is part of it.
        """
        end = begin + len(text)
        parts = self._parts(begin, end)
        said = [kinds(style) for _, _, style in parts]
        shared = {k: v for k, v in said[0].items() if all(k in other for other in said)}
        spans = []
        for (first, stop, _), own in zip(parts, said, strict=True):
            piece = text[first - begin : stop - begin]
            first, stop = stop - len(piece.lstrip()), first + len(piece.rstrip())
            if first < stop and (other := {k: v for k, v in own.items() if shared.get(k) != v}):
                spans.append(Span(first - begin, stop - begin, styled(other)))
        while self._replaced and self._replaced[0][0] < end:
            first, stop, phonemes = self._replaced.popleft()
            if first >= begin:
                spans.append(Span(first - begin, min(stop, end) - begin, phonemes=phonemes))
        while self._points and (last or self._points[0][0] < end):
            at, point = self._points.popleft()
            at = min(max(at - begin, 0), len(text))
            spans.append(Span(at, at, SpeechStyle(), None, point.pause_ms, point.sound, point.bookmark))
        spans.sort(key=lambda span: (span.begin, -span.end))
        return styled(shared), tuple(spans)

    def _parts(self, begin: int, end: int) -> list[tuple[int, int, SpeechStyle]]:
        """The stretches between two places in which one style holds; at least one."""
        parts: list[tuple[int, int, SpeechStyle]] = []
        while True:
            at, style = self._changes[0]
            over = self._changes[1][0] if len(self._changes) > 1 else end + 1
            if over > begin and (not parts or at < end):
                parts.append((max(at, begin), min(over, end), style))
            if over > end:
                return parts
            self._changes.popleft()


@dataclass(frozen=True, slots=True)
class Tagged:
    """A text without its tags, how to speak it, and what holds for parts of it only."""

    text: str
    style: SpeechStyle
    spans: tuple[Span, ...] = ()


def parse(
    text: str,
    *,
    style: SpeechStyle | None = None,
    unknown: Unknown = "speak",
    strict: bool = True,
    voices: Container[str] | None = None,
) -> Tagged:
    """Read a whole text; the arguments are those of ``TagReader`` and ``Track``.

    >>> parse("（四川话）(高兴2)你好")
    Tagged(text='你好', style=SpeechStyle(emotion='happy', intensity=2, dialect='cmn-sichuan', ...), spans=())
    """
    reader = TagReader(unknown=unknown, strict=strict, voices=voices)
    track = Track(style or SpeechStyle())
    pieces: list[str] = []
    at = 0
    for token in reader.flush(text):
        if isinstance(token, str):
            pieces.append(token)
            at += len(token)
        else:
            track.put(at, token)
    plain = "".join(pieces)
    return Tagged(plain, *track.take(plain, 0, last=True))
