"""Books opened up, good ones and bad ones. The books are made here."""

from __future__ import annotations

import io
import zipfile

import pytest

from stepaudio import epub
from stepaudio.core.errors import TextError
from stepaudio.documents import read_book

CONTAINER = '<?xml version="1.0"?><container><rootfiles><rootfile full-path="{}"/></rootfiles></container>'
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns:opf="http://www.idpf.org/2007/opf"><opf:metadata xmlns:dc="x">
<dc:title>The &amp; Tides</dc:title><dc:creator>Ann Orr</dc:creator></opf:metadata>
<manifest>{}</manifest><spine toc="ncx">{}</spine></package>"""
PAGE = "<html><head><title>no</title><style>p {{}}</style></head><body>{}</body></html>"


def packed(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        for name, text in files.items():
            box.writestr(name, text)
    return out.getvalue()


def book(*pages: str, nav: str = "", ncx: str = "", more: dict[str, str | bytes] | None = None) -> bytes:
    items = "".join(f'<item id="p{i}" href="text/p{i}.xhtml"/>' for i in range(len(pages)))
    items += '<item id="nav" href="nav.xhtml" properties="nav"/>' if nav else ""
    items += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>' if ncx else ""
    spine = '<itemref idref="nav"/>' + "".join(f'<itemref idref="p{i}"/>' for i in range(len(pages)))
    files: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER.format("OEBPS/book.opf"),
        "OEBPS/book.opf": PACKAGE.format(items, spine),
    }
    files |= {f"OEBPS/text/p{i}.xhtml": PAGE.format(page) for i, page in enumerate(pages)}
    files |= {"OEBPS/nav.xhtml": nav} if nav else {}
    files |= {"OEBPS/toc.ncx": ncx} if ncx else {}
    return packed(files | (more or {}))


def blocks(data: bytes) -> list[tuple[int, str, str | None]]:
    return [(b.level, b.text, b.chapter) for b in epub.read(data, "b.epub").blocks]


def test_title_author_and_chapters_by_headings():
    opened = epub.read(book("<h1>One</h1><p>First.</p>", "<p>More.</p><h2>Two</h2>"), "b.epub")
    assert (opened.title, opened.author) == ("The & Tides", "Ann Orr")
    assert [(b.level, b.text, b.chapter) for b in opened.blocks] == [
        (1, "One", "One"),
        (0, "First.", None),
        (0, "More.", None),
        (2, "Two", "Two"),
    ]


@pytest.mark.parametrize(
    ("nav", "ncx"),
    [
        (
            '<nav epub:type="landmarks"><ol><li><a href="text/p1.xhtml">no</a></li></ol></nav>'
            '<nav epub:type="toc"><ol><li><a href="text/p0.xhtml">Part <b>I</b></a><ol>'
            '<li><a href="text/p0.xhtml#b">Inside</a><ol><li><a href="text/p1.xhtml">deep</a></li></ol></li>'
            "</ol></li></ol></nav>",
            "",
        ),
        (
            "",
            "<ncx><docTitle><text>T</text></docTitle><navMap>"
            "<navPoint><navLabel><text>Part I</text></navLabel>"
            '<content src="text/p0.xhtml"/><navPoint><navLabel><text>Inside</text></navLabel>'
            '<content src="text/p0.xhtml#b"/></navPoint></navPoint></navMap></ncx>',
        ),
    ],
)
def test_chapters_by_the_table_of_contents(nav, ncx):
    data = book('<p>Opening.</p><p id="b">Middle.</p>', "<h1>No chapter</h1>", nav=nav, ncx=ncx)
    assert blocks(data) == [
        (0, "Opening.", "Part I"),
        (0, "Middle.", "Inside"),
        (1, "No chapter", None),
    ]


def test_what_is_not_for_the_ear_stays_out():
    page = (
        '<p>Words<a epub:type="noteref" href="#n">1</a> and <ruby>漢<rp>(</rp><rt>hàn</rt></ruby>.<br/>Next'
        "&nbsp;line &lt;3</p><script>no()</script><!-- no <p>no</p> --><p hidden=''>no</p><hr/>"
        '<aside epub:type="footnote"><p>no</p></aside><table><tr><td>a</td><td>b</td></tr></table>'
        "<h2>Head<br/>ing</h2><p>unclosed<p>twice"
    )
    assert blocks(book(page)) == [
        (0, "Words and 漢.\nNext line <3", None),
        (epub.SCENE, "", None),
        (0, "a, b", None),
        (2, "Head ing", "Head ing"),
        (0, "unclosed", None),
        (0, "twice", None),
    ]


def test_as_a_document():
    opened = read_book(
        book("<h1>One</h1><p>First.</p>", "<h1>Two</h1><p>* * *</p><p>x</p>"), "epub", "b.epub"
    )
    assert [(c.title, [p.text for p in c.paragraphs]) for c in opened.chapters] == [
        ("One", ["One", "First."]),
        ("Two", ["Two", "x"]),
    ]


ENTITIES = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


def test_entities_of_a_document_do_not_grow():
    data = book(f"{ENTITIES}<p>one &b; two</p>")
    assert len(blocks(data)[0][1]) < 60


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zip at all", "damaged, or no EPUB"),
        (packed({"a": "b"}), "lacks META-INF/container.xml"),
        (packed({"META-INF/container.xml": "<x/>"}), "names no package"),
        (packed({"META-INF/container.xml": CONTAINER.format("../../etc/passwd")}), "outside of itself"),
        (packed({"META-INF/container.xml": CONTAINER.format("/etc/passwd")}), "outside of itself"),
        (book("x", more={"META-INF/rights.xml": "<rights/>"}), "locked"),
        (
            book(
                "x", more={"META-INF/encryption.xml": '<EncryptionMethod Algorithm="http://x#aes256-cbc"/>'}
            ),
            "locked",
        ),
        (book("x")[:-200], "damaged"),
    ],
)
def test_bad_books_are_told(data, message):
    with pytest.raises(TextError, match=message):
        epub.read(data, "b.epub")


def test_scrambled_fonts_lock_nothing():
    method = '<EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/>'
    assert blocks(book("<p>Words.</p>", more={"META-INF/encryption.xml": method}))


def test_a_page_that_unpacks_without_end_is_not_read(monkeypatch):
    monkeypatch.setattr(epub, "PAGE_BYTES", 1 << 20)
    bomb = book("<p>" + "a" * (2 << 20) + "</p>")
    assert len(bomb) < 10_000
    with pytest.raises(TextError, match="more than 1 MB"):
        epub.read(bomb, "b.epub")


def test_many_pages_that_unpack_to_too_much_are_not_read(monkeypatch):
    monkeypatch.setattr(epub, "BOOK_BYTES", 1 << 20)
    with pytest.raises(TextError, match="more than 1 MB"):
        epub.read(book(*["<p>" + "a" * (1 << 18) + "</p>"] * 6), "b.epub")


def test_too_many_files(monkeypatch):
    monkeypatch.setattr(epub, "FILES", 3)
    with pytest.raises(TextError, match="more than 3 files"):
        epub.read(book("x"), "b.epub")


@pytest.mark.parametrize("piece", ["<!--", "<![CDATA[", "<a ", "</", "<?", "<p>", "<!x", "&", "<a b='"])
def test_broken_pages_end_soon(piece):
    assert epub.read(book("<p>Words.</p>" + piece * 100_000), "b.epub").blocks[0].text == "Words."
