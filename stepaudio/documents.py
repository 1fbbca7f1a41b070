"""Written works as what is to be said: text, Markdown, EPUB, subtitles, and lists of jobs.

Pure: bytes in, data out. The input is untrusted, and every size is bounded. What is not for the ear stays
out: code, comments, where links lead. Markdown is read by CommonMark 0.31, as far as its blocks can be heard;
subtitles by WebVTT (W3C) and as players read SubRip.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Literal

from stepaudio import epub
from stepaudio.core import tags
from stepaudio.core.clauses import is_han, weight
from stepaudio.core.errors import ConfigError, TextError, unknown
from stepaudio.core.style import SpeechStyle

Kind = Literal["text", "markdown", "subtitles", "epub", "jobs"]

KINDS: Mapping[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".srt": "subtitles",
    ".vtt": "subtitles",
    ".epub": "epub",
    ".jsonl": "jobs",
    ".ndjson": "jobs",
}
"""What the ending of a file's name says of what is in it."""

TEXT_BYTES = 64 << 20
"""Largest text: War and Peace twenty times."""
LINE_BYTES = 4 << 20
"""Longest line of a list of jobs."""
LONGEST_MS = 24 * 3600 * 1000
"""Subtitles end within a day: a later time is damage, and would be filled with silence."""

PARAGRAPH_MS, HEADING_MS, BREAK_MS, CHAPTER_MS = 350, 800, 1200, 1800
"""Silence after a paragraph, after a heading, where the scene changes, and after a chapter, besides the
quarter of a second that a voice leaves after any sentence."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """What is said in one go: ``text``, and the silence after it. A tag in it holds to its end."""

    text: str
    pause_ms: int = PARAGRAPH_MS


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of a work that listeners look for by its title ("" where it has none)."""

    title: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """A work to be read aloud.

    Attributes:
        chapters: at least one, each with at least one paragraph that has words.
    """

    title: str
    author: str
    chapters: tuple[Chapter, ...]


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: when it is shown, in ms, and its words without their markup."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Job:
    """One line of a list of jobs.

    Attributes:
        line: its number, from 1.
        file: where the speech goes, relative to the folder of the results.
    """

    line: int
    text: str
    file: str
    voice: str | None = None
    language: str | None = None
    style: SpeechStyle = field(default_factory=SpeechStyle)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be done, and why."""

    line: int
    says: str


def kind_of(name: str) -> Kind:
    """What a file holds, by the ending of its name.

    Raises:
        ConfigError: the ending tells nothing.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in KINDS:
        kinds = ", ".join(sorted(set(KINDS.values())))
        raise ConfigError(f"what {name} holds is not told by its name; say it with --type: {kinds}")
    return KINDS[suffix]


def read_book(data: bytes, kind: Kind, name: str) -> Book:
    """A text, a Markdown document or an EPUB.

    Args:
        name: of the file, for messages; its stem is the title where the work has none.

    Raises:
        TextError: it cannot be read, or has no words in it.
    """
    stem = PurePosixPath(name).stem
    if kind == "epub":
        opened = epub.read(data, name)
        blocks = [(block.level, block.text, block.chapter) for block in opened.blocks]
        book = Book(opened.title, opened.author, _chapters(blocks))
    elif kind == "markdown":
        book = _markdown(decode(data, name))
    else:
        book = Book("", "", _chapters(_text(decode(data, name))))
    chapters = tuple(chapter for chapter in map(_spoken, book.chapters) if chapter.paragraphs)
    if not chapters:
        raise TextError(f"{name} holds no words that can be spoken")
    return replace(book, title=book.title or stem, chapters=chapters)


def decode(data: bytes, name: str) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark; line ends become ``\\n``.

    Raises:
        TextError: it is neither, or larger than ``TEXT_BYTES``.
    """
    if len(data) > TEXT_BYTES:
        raise TextError(f"{name} is larger than {TEXT_BYTES >> 20} MB: cut it into several files")
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not text in UTF-8 (byte {error.start} is none of it); turn it into that first, for "
            f"example: iconv -f GB18030 -t UTF-8 {name}"
        ) from None
    if "\0" in text:
        raise TextError(f"{name} is not text: it holds bytes that are 0")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def has_words(text: str) -> bool:
    """Whether there may be anything in a text to say."""
    return any(char.isalnum() for char in text)


_Blocks = Iterable[tuple[int, str, str | None]]
"""Level (1 to 6 a heading, 0 a paragraph, ``epub.SCENE``), words, title of the chapter that begins there."""


def _chapters(blocks: _Blocks) -> tuple[Chapter, ...]:
    chapters, title, paragraphs = list[Chapter](), "", list[Paragraph]()
    for level, words, begins in blocks:
        if begins is not None:
            chapters.append(Chapter(title, tuple(paragraphs)))
            title, paragraphs = begins, []
        pause_ms = BREAK_MS if level == epub.SCENE else HEADING_MS if level else PARAGRAPH_MS
        paragraphs.append(Paragraph(words, pause_ms))
    return (*chapters, Chapter(title, tuple(paragraphs)))


def _spoken(chapter: Chapter) -> Chapter:
    """Without the paragraphs that have no words: the silence before them grows to theirs."""
    kept: list[Paragraph] = []
    for paragraph in chapter.paragraphs:
        if has_words(paragraph.text):
            kept.append(paragraph)
        elif kept:
            kept[-1] = replace(kept[-1], pause_ms=max(kept[-1].pause_ms, paragraph.pause_ms))
    kept[-1:] = [replace(last, pause_ms=CHAPTER_MS) for last in kept[-1:]]
    return Chapter(chapter.title, tuple(kept))


# --- text ---------------------------------------------------------------------------------------------------

_NUMBER = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]{3,6}teen"
    "|(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(-[a-z]{3,5})?"
    "|the (first|second|third|[a-z]{3,9}th)"
)
_CHAPTER = re.compile(
    rf"(chapter|part|book|volume|canto) ([ivxlcdm]{{1,8}}|\d{{1,4}}|{_NUMBER})\b.{{0,80}}"
    r"|(prologue|epilogue|preface|foreword|introduction|afterword)\W{0,3}"
    r"|第[〇零一二三四五六七八九十百千两\d]{1,7}[章回节節卷部集].{0,40}|(楔子|序章|序言|引子|尾声|尾聲|后记|後記)",
    re.IGNORECASE,
)


def _text(text: str) -> _Blocks:
    """Chapters begin with paragraphs such as "Chapter 2: The Storm" or 第二回 …."""
    for block in _blocks(text):
        line = " ".join(block.split())
        if block.count("\n") < 2 and _CHAPTER.fullmatch(line):
            yield 1, line, line
        else:
            yield (0 if has_words(block) else epub.SCENE), block, None


def _blocks(text: str) -> Iterator[str]:
    """The paragraphs of a text. What an editor wrapped is joined again; other line ends stay."""
    lines = [line.strip() for line in text.split("\n")]
    followed = sorted(weight(a) for a, b in pairwise(lines) if a and b)
    width = followed[len(followed) * 9 // 10] if followed else 0
    if width > _WIDTHS[1] or (width < _WIDTHS[0] and "" not in lines[:-1]):
        yield from filter(None, lines)  # a line is a paragraph
        return
    block: list[str] = []
    for line in (*lines, ""):
        if line:
            block.append(line)
        elif block:
            yield _unwrapped(block, width if width >= _WIDTHS[0] else 0)
            block = []


_WIDTHS = (40, 120)
"""Narrowest and widest lines, as weights, that an editor makes by wrapping: 50 to 140 letters and spaces."""


def _unwrapped(lines: list[str], width: int) -> str:
    """One paragraph: a line that the next one's first word would still have fitted into ends on purpose.

    Args:
        width: at which lines were wrapped; 0: none was.
    """
    out = lines[0]
    for before, line in pairwise(lines):
        han = is_han(line[0])
        first = line[0] if han else line.split(maxsplit=1)[0]
        if width and weight(before) + weight(first) > 0.85 * width:
            out += line if han and not before[-1].isascii() else f" {line}"
        else:
            out += f"\n{line}"
    return out


# --- Markdown -----------------------------------------------------------------------------------------------

_ITEM = re.compile(r"([-*+]|\d{1,9}[.)])[ \t]+(?=\S)")
_LINK = re.compile(r"!?\[([^][]{0,500})\](?:\([^()\s]{0,2000}(?:\s+\"[^\"]{0,500}\")?\)|\[[^][]{0,200}\])")
_NOTE = re.compile(r"\[\^[^][]{1,60}\]")
_HTML = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
_ADDRESS = re.compile(r"<(https?://[^<>\s]{1,2000})>")
_STRONG = re.compile(r"(?<![\w\\*_~])(\*{1,3}|_{1,3}|~~)(?=[^\s*_~])(.{1,300}?)(?<=[^\s\\])\1(?![\w*_~])")
_HAN_STRONG = re.compile(r"(\*{2,3})(?=\S)([^*]{1,300})(?<=\S)\1")
_CODE = re.compile(r"(`{1,3})([^`]{1,2000})\1")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]<>()#+\-.!~|])")


def plain(line: str) -> str:
    """The words of inline Markdown. Brackets that are no links stay: they may be tags."""
    line = _NOTE.sub("", _LINK.sub(r"\1", _ADDRESS.sub(r"\1", line)))
    line = _CODE.sub(r"\2", _HTML.sub("", line))
    for _ in range(3):  # strong in emphasis
        line = _HAN_STRONG.sub(r"\2", _STRONG.sub(r"\2", line))
    return _ESCAPE.sub(r"\1", line).strip()


def _markdown(text: str) -> Book:
    meta, text = _front_matter(text)
    text = "".join(part.partition("-->")[2] if i else part for i, part in enumerate(text.split("<!--")))
    blocks = list(_markdown_blocks(text.split("\n")))
    levels = [level for level, _ in blocks if 1 <= level <= 6]
    title = meta.get("title", "")
    at = min(levels, default=0)
    if levels.count(at) == 1 and len(levels) > 1 and blocks[0][0] == at:  # the title of the whole
        title = title or blocks[0][1]
        at = min(level for level in levels if level > at)
    first = next((i for i, (level, _) in enumerate(blocks) if 1 <= level <= at), 0)
    chapters = (
        (level, words, words if 1 <= level <= at and (level == at or i > first) else None)
        for i, (level, words) in enumerate(blocks)
    )
    return Book(title, meta.get("author", ""), _chapters(chapters))


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    """The plain ``key: value`` lines between ``---`` at the very beginning, and the rest."""
    if not text.startswith("---\n"):
        return {}, text
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines[1:200], 1) if line.rstrip() in ("---", "...")), None)
    if end is None:
        return {}, text
    pairs = (line.partition(":") for line in lines[1:end] if not line.startswith((" ", "#")))
    return {k.strip().lower(): v.strip().strip("\"'") for k, _, v in pairs}, "\n".join(lines[end + 1 :])


def _markdown_blocks(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Level and words, as in ``_Blocks``."""
    block: list[str] = []
    fence = ""

    def words() -> Iterator[tuple[int, str]]:
        if block:
            yield 0, "\n".join(" ".join(line.split()) for line in plain(" ".join(block)).split("\n"))
            block.clear()

    for raw in lines:
        line = raw.strip()
        while line.startswith(">"):
            line = line[1:].strip()
        if fence or line.startswith(("```", "~~~")):
            if not fence:
                yield from words()
                fence = line[:3]
            elif line.startswith(fence) and not line.strip(fence[0]):
                fence = ""
        elif not line:
            yield from words()
        elif block and len(line) > 2 and (not line.strip("=") or not line.strip("-")):
            yield (1 if line[0] == "=" else 2), plain(" ".join(block))
            block.clear()
        elif (mark := line.split(maxsplit=1)[0]) and len(mark) <= 6 and not mark.strip("#"):
            yield from words()
            yield len(mark), plain(line[len(mark) :].strip().rstrip("#").rstrip())
        elif len(bare := line.replace(" ", "")) >= 3 and bare[0] in "*-_" and not bare.strip(bare[0]):
            yield from words()
            yield epub.SCENE, ""
        elif line.startswith("|"):
            yield from words()
            if cells := [cell for cell in map(plain, line.strip("|").split("|")) if cell.strip("-: ")]:
                yield 0, ", ".join(cells) + "."
        elif line.startswith("[") and re.match(r"\[[^][]{1,200}\]:\s", line):
            yield from words()  # where a link or a note leads
        elif item := _ITEM.match(line):
            yield from words()
            block.append(line[item.end() :] if item[1] in "-*+" else line)
        else:
            block.append(line + ("\n" if raw.endswith("  ") else ""))
    yield from words()


# --- subtitles ----------------------------------------------------------------------------------------------

_TIMES = re.compile(
    r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[,.](\d{1,3})\s*-->\s*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[,.](\d{1,3})(?:\s.*)?"
)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<\d[\d:.]{0,20}>|\{\\[^{}]{0,200}\}")


def read_cues(data: bytes, name: str) -> tuple[Cue, ...]:
    """The cues of SubRip or WebVTT that have words, in order of their beginning.

    Raises:
        TextError: there are none, or a cue's times cannot be; its place is named.
    """
    cues: list[Cue] = []
    lines = decode(data, name).split("\n")
    at = 0
    while at < len(lines):
        times = _TIMES.fullmatch(lines[at].strip())
        at += 1
        if times is None:
            if "-->" in lines[at - 1]:
                raise TextError(f"{name}, line {at}: times are written 00:01:02,500 --> 00:01:04,000")
            continue
        line = at
        said: list[str] = []
        while at < len(lines) and lines[at].strip():
            said.append(lines[at].strip())
            at += 1
        start_ms, end_ms = _ms(*times.groups()[:4]), _ms(*times.groups()[4:])
        if end_ms <= start_ms:
            raise TextError(f"{name}, line {line}: the cue ends before it begins")
        if end_ms > LONGEST_MS:
            raise TextError(f"{name}, line {line}: {times[5]} hours are too many; subtitles end within 24")
        words = _unescaped(_MARKUP.sub("", "\n".join(said)))
        spoken = re.split(r"(?m)^[-–—]\s+", words.strip())  # a dash for each of two speakers
        parts = [[line.strip() for line in part.split("\n") if line.strip()] for part in spoken]
        words = "\n".join(_unwrapped(part, 1) for part in parts if part)
        if has_words(words):
            cues.append(Cue(start_ms, end_ms, words))
    if not cues:
        raise TextError(f"{name} holds no cues with words: is it SubRip (srt) or WebVTT (vtt)?")
    return tuple(sorted(cues, key=lambda cue: cue.start_ms))


def _ms(hours: str | None, minutes: str, seconds: str, fraction: str) -> int:
    return 1000 * (3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)) + int(fraction.ljust(3, "0"))


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&")


# --- lists of jobs ------------------------------------------------------------------------------------------

_KEYS = ("text", "voice", "style", "language", "file")


def read_jobs(lines: Iterable[bytes], endings: Collection[str], ending: str) -> Iterator[Job | BadLine]:
    """The jobs of JSON lines, as they come; empty lines are passed over.

    Args:
        endings: of the files that can be written (``files.WRITES``).
        ending: of a file that no line names: it is called by the number of its line.
    """
    names: dict[str, int] = {}
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            job = _job(number, raw, endings, ending)
            if (before := names.setdefault(job.file.casefold(), number)) != number:
                raise TextError(f"file: {job.file!r} is written by line {before} already")
        except (TextError, ConfigError) as error:
            yield BadLine(number, str(error))
        else:
            yield job


def _job(number: int, raw: bytes, endings: Collection[str], ending: str) -> Job:
    if len(raw) > LINE_BYTES:
        raise TextError(f"it is longer than {LINE_BYTES >> 20} MB")
    try:
        given = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise TextError("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise TextError(f"it is not JSON ({error}); write one object a line") from None
    if not isinstance(given, dict):
        raise TextError('it is no object; write {"text": "Hello.", "file": "hello.wav"}')
    for key in given:
        if key not in _KEYS:
            raise unknown("field", key, _KEYS)
    for key in ("text", "voice", "language", "file"):
        if not isinstance(given.get(key, ""), str | None):
            raise TextError(f"{key}: must be a string")
    text = given.get("text") or ""
    if not has_words(text):
        raise TextError("text: there is nothing to say")
    style = given.get("style") or {}
    if isinstance(style, str):
        style = style_of_tags(style)
    elif isinstance(style, dict):
        style = style_of(style)
    else:
        raise TextError('style: write {"emotion": "happy", "speed": 1.2}, or tags: "happy 2, slow"')
    file = _result(given.get("file") or f"{number:05}{ending}", endings)
    return Job(number, text, file, given.get("voice"), given.get("language"), style)


def _result(file: str, endings: Collection[str]) -> str:
    path = posixpath.normpath(file.replace("\\", "/"))
    if path.startswith(("/", "..")) or ":" in path or "\0" in path:
        raise TextError(f"file: {file!r} lies outside the folder of the results; name a file in it")
    if PurePosixPath(path).suffix.lower() not in endings:
        raise TextError(f"file: {file!r} must end in one of {', '.join(endings)}")
    return path


# --- styles -------------------------------------------------------------------------------------------------

_BOUNDS = {
    "intensity": (1, 3, ""),
    "speed": (*tags.SPEEDS, " times"),
    "pitch": (*tags.PITCHES, " semitones"),
    "volume": (*tags.VOLUMES, " dB"),
    "pitch_range": (*tags.RANGES, " times"),
    "emphasis": (-1, 2, ""),
}
_NAMED = {
    field: sorted({str(value) for tag in tags.TAGS if (value := getattr(tag.style, field)) is not None})
    for field in ("emotion", "dialect", "mode")
}


def style_of(given: Mapping[str, Any]) -> SpeechStyle:
    """A style by the names of its fields.

    Names of emotions, dialects and modes may be any that a tag has ("高兴", "whisper").

    Raises:
        TextError, ConfigError: there is no such field or name, or the number is out of bounds.
    """
    known = [field.name for field in fields(SpeechStyle) if field.name != "voice"]
    said: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise unknown("style", name, known)
        if value is None:
            continue
        said[name] = _name(name, value) if name in _NAMED else _measure(name, value)
    if "intensity" in said and "emotion" not in said:
        raise TextError("style: an intensity is that of an emotion; name the emotion, too")
    return SpeechStyle(**said)


def _name(field: str, value: Any) -> str:
    if isinstance(value, str):
        if value in _NAMED[field]:
            return value
        tag = tags.BY_NAME.get(tags.fold(value))
        if tag is not None and (found := getattr(tag.style, field)) is not None:
            return found
    raise unknown(f"{field} of a style", str(value), _NAMED[field])


def _measure(field: str, value: Any) -> float | int:
    low, high, unit = _BOUNDS[field]
    whole = field in ("intensity", "emphasis")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise TextError(f"style: {field} is a {'whole ' * whole}number from {low:g} to {high:g}{unit}")
    if not low <= value <= high:
        raise TextError(f"style: {field} goes from {low:g} to {high:g}{unit}, and {value:g} is beyond")
    return value


def style_of_tags(text: str) -> SpeechStyle:
    """A style as it stands in a tag, without the brackets: "happy 2, slow", "四川话".

    Raises:
        TextError: it is none.
    """
    tag = tags.meaning(text)
    if isinstance(tag, tags.Wrong):
        raise TextError(f"style: {tag}")
    if tag is None or tag.is_point or tag.reset:
        raise TextError(f'style: {text!r} is no style; write {{"emotion": "happy"}} or tags: "happy 2, slow"')
    return tag.style
