"""EPUB opened up: the words of a book in reading order, and where its chapters begin.

Pure: bytes in, data out. The input is untrusted: every size is bounded, nothing is unpacked to disk, links
out of the book are refused, and pages are read by a parser that knows no entities of a document's own, so
that none can grow. What is not for the ear stays out: scripts, tables of contents, notes and their numbers,
the reading above Chinese characters (ruby).

By EPUB 3.3 and EPUB OCF 3.3 (W3C: container, package, navigation) and OPF 2.0.1 (IDPF: NCX).
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote

from stepaudio.core.errors import TextError

FILES = 20_000
PAGE_BYTES = 32 << 20
BOOK_BYTES = 256 << 20
"""Most that is unpacked of a book: files, bytes of one, bytes of all."""
SCENE = 7
"""The level of a block that has no words: the scene changes."""

_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_BLOCKS = frozenset(
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer"
    " form h1 h2 h3 h4 h5 h6 header hr li main ol p pre section summary table tbody tfoot thead tr ul".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNHEARD = frozenset("audio head math nav object rp rt script style svg template video".split())
_UNHEARD_TYPES = frozenset("endnote endnotes footnote footnotes noteref pagebreak rearnote toc".split())
_DEEPEST = 500  # elements in elements
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#rc")
"""Fonts may be scrambled in these ways, which lock nothing that we read."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading or change of scene.

    Attributes:
        level: 1 to 6 a heading, 0 a paragraph, ``SCENE``.
        text: its words; a line end within is the poet's.
        chapter: the title of the chapter that begins with it, None: none does.
    """

    level: int
    text: str
    chapter: str | None = None


@dataclass(frozen=True, slots=True)
class Epub:
    """A book: its title and author ("" where they are not told), and all blocks in reading order."""

    title: str
    author: str
    blocks: tuple[Block, ...]


def read(data: bytes, name: str) -> Epub:
    """Open a book.

    Chapters begin where its table of contents leads, or at the headings of the first two levels where it has
    none.

    Args:
        name: of the file, for messages.

    Raises:
        TextError: it is damaged, no EPUB, locked (DRM), larger than a book can be, or leads outside itself.
    """
    try:
        return _Container(data, name).book()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise TextError(f"{name} is damaged, or no EPUB: {error}; get it again") from None


class _Container:
    """The zip file: what of it may be read, and what leads where."""

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        self._left = BOOK_BYTES
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        if len(self._entries) > FILES:
            raise TextError(f"{name} holds more than {FILES} files, which no book does: it is not read")
        self._check_lock()

    def book(self) -> Epub:
        package = _Elements(self._read("META-INF/container.xml")).first("rootfile").get("full-path", "")
        if not package:
            raise TextError(f"{self._name} is no EPUB: its container names no package")
        package = self._inside(package, "")
        elements = _Elements(self._read(package))
        items = {item["id"]: item for item in elements.all("item") if "id" in item and "href" in item}
        contents = self._contents(elements, items, package)
        blocks: list[Block] = []
        for reference in elements.all("itemref"):
            item = items.get(reference.get("idref", ""))
            if item is None or reference.get("linear") == "no" or _has(item, "nav"):
                continue
            if "html" not in item.get("media-type", "html"):
                continue  # a picture
            path = self._inside(item["href"], package)
            page = _Page(self._read(path))
            begins = page.begins(contents.get(path, ()) if contents else None)
            blocks += (Block(level, text, begins.get(i)) for i, (level, text) in enumerate(page.blocks))
        return Epub(elements.text("title"), elements.text("creator"), tuple(blocks))

    def _contents(
        self, elements: _Elements, items: Mapping[str, Mapping[str, str]], package: str
    ) -> dict[str, list[tuple[str, str]]]:
        """The table of contents: file -> (anchor, title) in order; empty where the book has none."""
        nav = next((item for item in items.values() if _has(item, "nav")), None)
        ncx = items.get(elements.first("spine").get("toc", "")) or next(
            (item for item in items.values() if item.get("media-type") == "application/x-dtbncx+xml"), None
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for item in (nav, ncx):
            if item is None or found:
                continue
            path = self._inside(item["href"], package)
            for title, link in _Links(self._read(path)).links if path in self._entries else ():
                file, _, anchor = link.partition("#")
                if file and title:
                    found.setdefault(self._inside(file, path), []).append((unquote(anchor), title))
        return found

    def _inside(self, link: str, base: str) -> str:
        """The file that a link in the file ``base`` means."""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(link)))
        if path.startswith(("/", "../")) or path == ".." or "\\" in path or ":" in path.split("/")[0]:
            raise TextError(f"{self._name} leads to a file outside of itself ({link[:80]}): it is not read")
        return path

    def _read(self, path: str) -> str:
        entry = self._entries.get(path)
        if entry is None:
            raise TextError(f"{self._name} is no EPUB, or damaged: it lacks {path[:120]}")
        if entry.flag_bits & 1:
            raise self._locked()
        most = min(PAGE_BYTES, self._left)
        with self._zip.open(entry) as file:
            data = file.read(most + 1)  # what the directory says of its size may be a lie
        if len(data) > most:
            limit = PAGE_BYTES if most == PAGE_BYTES else BOOK_BYTES
            raise TextError(
                f"{self._name} unpacks to more than {limit >> 20} MB of text, as no book does: it is not read"
            )
        self._left -= len(data)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16", "replace")
        coding = re.match(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.-]{1,40})", data[:400])
        try:
            return data.decode(coding[1].decode() if coding else "utf-8", "replace").lstrip("\ufeff")
        except LookupError:
            return data.decode("utf-8", "replace")

    def _check_lock(self) -> None:
        if "META-INF/rights.xml" in self._entries or "META-INF/sinf.xml" in self._entries:
            raise self._locked()
        if "META-INF/encryption.xml" in self._entries:
            methods = _Elements(self._read("META-INF/encryption.xml")).all("encryptionmethod")
            if any(method.get("algorithm", "").lower() not in _FONTS for method in methods):
                raise self._locked()

    def _locked(self) -> TextError:
        return TextError(f"{self._name} is locked (DRM): only its shop's own programs can open it")


def _has(item: Mapping[str, str], property: str) -> bool:
    return property in item.get("properties", "").split()


class _Parser(HTMLParser):
    """Reads all of a source. What would make the parser look for its end again and again is taken out first:
    comments, sections and instructions, and a tag that never closes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        for begin, end in (("<!--", "-->"), ("<![", "]]>"), ("<?", ">"), ("<!", ">")):
            first, *others = source.split(begin)
            source = first + "".join(self._kept(begin, *part.partition(end)) for part in others)
        self.feed(source[: source.rfind(">") + 1])
        self.close()

    @staticmethod
    def _kept(begin: str, inside: str, end: str, after: str) -> str:
        return inside.removeprefix("CDATA[").replace("<", "&lt;") + after if begin == "<![" and end else after


class _Elements(_Parser):
    """The elements of a small file, by their names without prefix: attributes, and the text of some."""

    def __init__(self, source: str) -> None:
        self._found: list[tuple[str, dict[str, str]]] = []
        self._texts: dict[str, str] = {}
        self._open = ""
        super().__init__(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = tag.rpartition(":")[2]
        self._found.append((name, {key.rpartition(":")[2]: value or "" for key, value in attrs}))
        self._open = name if name in ("title", "creator") and name not in self._texts else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self._texts[self._open] = self._texts.get(self._open, "") + data

    def all(self, name: str) -> list[dict[str, str]]:
        """The attributes of every element of a name."""
        return [attributes for found, attributes in self._found if found == name]

    def first(self, name: str) -> dict[str, str]:
        """Those of the first; {} where there is none."""
        return next(iter(self.all(name)), {})

    def text(self, name: str) -> str:
        """The text of the first ``title`` or ``creator``."""
        return " ".join(self._texts.get(name, "").split())[:200]


class _Links(_Parser):
    """(title, link) of a table of contents: ``nav`` of EPUB 3, or NCX."""

    DEEPEST = 2  # chapters and their parts; further down are headings of paragraphs

    def __init__(self, source: str) -> None:
        self.links: list[tuple[str, str]] = []
        self._depth, self._inside, self._link, self._title = 0, False, "", ""
        super().__init__(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = tag.rpartition(":")[2]
        if name == "nav":
            self._inside = (given.get("epub:type") or "toc") == "toc"
        elif name == "navmap":
            self._inside = True
        elif name in ("ol", "navpoint"):
            self._depth += 1
        elif name == "a" and self._inside:
            self._link, self._title = given.get("href") or "", ""
        elif name == "navlabel":
            self._title = ""
        elif name == "content" and self._inside:
            self._add(given.get("src") or "")

    def handle_endtag(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name in ("nav", "navmap"):
            self._inside = False
        elif name in ("ol", "navpoint"):
            self._depth -= 1
        elif name == "a" and self._inside:
            self._add(self._link)
            self._link = ""

    def handle_data(self, data: str) -> None:
        self._title += data

    def _add(self, link: str) -> None:
        if link and self._depth <= self.DEEPEST:
            self.links.append((" ".join(self._title.split())[:200], link))


class _Page(_Parser):
    """A page: (level, text) of its blocks, and where its anchors are."""

    def __init__(self, source: str) -> None:
        self.blocks: list[tuple[int, str]] = []
        self._anchors: dict[str, int] = {}
        self._open: list[tuple[str, bool]] = []  # name, and whether it is heard
        self._words: list[str] = []
        super().__init__(source)
        self._end_block()

    def begins(self, targets: Iterable[tuple[str, str]] | None) -> dict[int, str]:
        """Block -> title of the chapter that begins with it.

        Args:
            targets: (anchor, title) of the table of contents; None: there is none.
        """
        if targets is None:
            return {i: text for i, (level, text) in enumerate(self.blocks) if level in (1, 2)}
        found: dict[int, str] = {}
        for anchor, title in targets:
            found.setdefault(self._anchors.get(anchor, 0), title)
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = tag.rpartition(":")[2]
        given = {key: value or "" for key, value in attrs}
        if name in _BLOCKS:
            self._end_block()
        for anchor in (given.get("id"), given.get("name") if name == "a" else None):
            if anchor:
                self._anchors.setdefault(anchor, len(self.blocks))
        if name == "hr" and self._heard:
            self.blocks.append((SCENE, ""))
        if name == "br" and self._heard:
            self._words.append("\n")
        if name in ("td", "th") and self._heard and self._words:
            self._words.append(", ")
        if name in _VOID or len(self._open) >= _DEEPEST:
            return
        heard = self._heard and name not in _UNHEARD and "hidden" not in given
        self._open.append((name, heard and not _UNHEARD_TYPES & set(given.get("epub:type", "").split())))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag.rpartition(":")[2] not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name in _BLOCKS:
            self._end_block()
        last = next((i for i in range(len(self._open) - 1, -1, -1) if self._open[i][0] == name), None)
        if last is not None:
            del self._open[last:]

    def handle_data(self, data: str) -> None:
        if self._heard:
            self._words.append(re.sub(r"\s+", " ", data))

    @property
    def _heard(self) -> bool:
        return not self._open or self._open[-1][1]

    def _end_block(self) -> None:
        lines = [" ".join(line.split()) for line in "".join(self._words).split("\n")]
        self._words = []
        if text := "\n".join(line for line in lines if line):
            level = next((_HEADINGS[name] for name, _ in reversed(self._open) if name in _HEADINGS), 0)
            self.blocks.append((level, text.replace("\n", " ") if level else text))
