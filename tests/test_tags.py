"""The grammar of tags: names, brackets, escapes, what is wrong with one, and that no text breaks it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core.clauses import ClauseSplitter, split
from stepaudio.core.commands import plain
from stepaudio.core.errors import TagError
from stepaudio.core.style import NO_STYLE, Span, SpeechStyle
from stepaudio.core.tagged import (
    DEEPEST,
    LONGEST,
    Tagged,
    TagReader,
    disarmed,
    escaped,
    parse,
)
from stepaudio.core.tags import ARGUMENTS, TAGS, Instructions, Tag, Wrong, instructions, may_become, meaning

PARTS = [
    *"()（）[]［］/\\\n ,，.。:!-+2xßİ½０",
    *"happy sad 高兴 撒娇 四川话 rap 哼唱 慢速 strong laugh 笑 pause 停顿 非常 speed voice mark".split(),
    *["very ", "pitch", "1.5", "ms", "秒", "a word", "你好", "\u3000", "\ud800", "<speak>", "_*"],
    *["(happy)", "[sad]", "[/sad]", "[/]", "(reset)"],
]
HAPPY, SAD = SpeechStyle(emotion="happy"), SpeechStyle(emotion="sad")


@pytest.mark.parametrize(
    ("text", "style", "plain"),
    [
        # Step-Audio-TTS-3B's own
        ("(高兴1)a", SpeechStyle("happy", 1), "a"),
        ("（高兴2）a", SpeechStyle("happy", 2), "a"),
        ("(生气1)(慢速2)a", SpeechStyle("angry", 1, speed=0.75), "a"),
        ("(悲伤1)a", SpeechStyle("sad", 1), "a"),
        ("(撒娇1)a", SpeechStyle("playful", 1), "a"),
        ("(coquettish)a", SpeechStyle("playful"), "a"),
        ("(中文)a", SpeechStyle(dialect="cmn"), "a"),
        ("(英文)a", SpeechStyle(dialect="en"), "a"),
        ("(韩语)a", SpeechStyle(dialect="ko"), "a"),
        ("(日语)a", SpeechStyle(dialect="ja"), "a"),
        ("（四川话）你好", SpeechStyle(dialect="cmn-sichuan"), "你好"),
        ("(粤语)a", SpeechStyle(dialect="yue"), "a"),
        ("(广东话)a", SpeechStyle(dialect="yue"), "a"),
        ("（RAP）yo", SpeechStyle(mode="rap"), "yo"),
        ("(哼唱)", SpeechStyle(mode="hum"), ""),
        ("(慢速1)(高兴2)a", SpeechStyle("happy", 2, speed=0.9), "a"),
        ("(快速1)a", SpeechStyle(speed=1.1), "a"),
        ("(快速2)a", SpeechStyle(speed=1.25), "a"),
        # letters, widths, spaces, degrees, several at once
        ("(Happy 2) hello", SpeechStyle("happy", 2), "hello"),
        ("（ＲＡＰ）a", SpeechStyle(mode="rap"), "a"),
        ("（高兴２）a", SpeechStyle("happy", 2), "a"),
        ("(very sad) a", SpeechStyle("sad", 3), "a"),
        ("（有点生气）a", SpeechStyle("angry", 1), "a"),
        ("(slow, whisper)a", SpeechStyle(mode="whisper", speed=0.75), "a"),
        ("（高兴1，四川话）a", SpeechStyle("happy", 1, "cmn-sichuan"), "a"),
        # how much, and which
        ("(speed 1.3) a", SpeechStyle(speed=1.3), "a"),
        ("(speed: 150%) a", SpeechStyle(speed=1.5), "a"),
        ("（语速0.8倍）a", SpeechStyle(speed=0.8), "a"),
        ("(pitch +3)(volume -6dB)a", SpeechStyle(pitch=3.0, volume=-6.0), "a"),
        ("（音调-2）a", SpeechStyle(pitch=-2.0), "a"),
        ("(range 0.5)a", SpeechStyle(pitch_range=0.5), "a"),
        ("(voice af_heart)a", SpeechStyle(voice="af_heart"), "a"),
        ("（声音：zf_xiaobei）a", SpeechStyle(voice="zf_xiaobei"), "a"),
        ("(voice af_heart*0.6+am_adam*0.4)a", SpeechStyle(voice="af_heart*0.6+am_adam*0.4"), "a"),
        # until another of its kind
        ("(sad) (reset) a", NO_STYLE, "a"),
        ("(normal speed)a", SpeechStyle(speed=1.0), "a"),
    ],
)
def test_a_tag_before_a_text_holds_for_it(text, style, plain):
    assert parse(text) == Tagged(plain, style)


@pytest.mark.parametrize(
    "text",
    [
        "that (I think) is so",
        "(see above) that",
        "(3) third, [4] fourth",
        "a ) b ( c",
        "x < y > z",
        "He said it in two languages (English, and then Chinese), I think.",
        "in his own tongue (Chinese), slowly",
        "用他的母语（中文）。",
        "the speed (80 km/h), the (speed limit), (volume 2), the (voice actor)",
        "[link](http://a.b), [laugh](http://a.b)",
        "f(x) = [1, 2]",
        "( happy ) or (happy",
        "(angry at him) (happy to help) :( sad",
        "（高",
        "Samuel Clemens (Mark Twain)",
        "(strong) tea",
        "\\(x^2\\) and \\[y\\]",
        "(a" * 50,
    ],
)
def test_other_brackets_are_text(text):
    assert parse(text, strict=False) == Tagged(text, NO_STYLE)


@pytest.mark.parametrize(
    ("text", "plain", "spans"),
    [
        ("I am (happy) to see you", "I am to see you", (Span(5, 15, HAPPY),)),
        ("I [strong]never[/strong] said.", "I never said.", (Span(2, 7, SpeechStyle(emphasis=2)),)),
        ("我[强调]从来[/强调]没说。", "我从来没说。", (Span(1, 3, SpeechStyle(emphasis=1)),)),
        ("[sad]a[/], b", "a, b", (Span(0, 1, SAD),)),
        ("a [whisper]b [fast 1]c[/fast] d[/whisper] e", "a b c d e",
         (Span(2, 3, SpeechStyle(mode="whisper")), Span(4, 5, SpeechStyle(mode="whisper", speed=1.1)),
          Span(6, 7, SpeechStyle(mode="whisper")))),
        ("un[strong]believ[/strong]able", "unbelievable", (Span(2, 8, SpeechStyle(emphasis=2)),)),
        ("Well [laugh], no.", "Well , no.", (Span(5, 5, sound="laugh"),)),
        ("好（笑）的", "好的", (Span(1, 1, sound="laugh"),)),
        ("a (pause) b （停顿1.5秒） c [pause 20ms]", "a b c ",
         (Span(2, 2, pause_ms=500), Span(4, 4, pause_ms=1500), Span(6, 6, pause_ms=20))),
        ("a [mark Ch-2] b", "a b", (Span(2, 2, bookmark="Ch-2"),)),
        ("[sigh](reset) so", "so", (Span(0, 0, sound="sigh"),)),
        ("good(happy)morning", "good morning", (Span(5, 12, HAPPY),)),
        ("\\(happy) \\\\(sad) a", "(happy) \\ a", (Span(10, 11, SAD),)),
    ],
)  # fmt: skip
def test_within_a_text_tags_are_spans_and_points(text, plain, spans):
    assert parse(text) == Tagged(plain, NO_STYLE, spans)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(happy (sad)) a", "(happy at character 1 is a tag around a tag: write one after the other"),
        ("ah （高兴（悲伤））", "（高兴 at character 4 is a tag around a tag"),
        ("(happy", "(happy at character 1 is not closed: write ) after it, or \\( if it is text"),
        ("（高兴你好。", "（高兴 at character 1 is not closed: write ）"),
        (
            "[sad] a",
            "[sad] at character 1 is not closed: write [/sad] after the words that it is for, or (sad)",
        ),
        ("[strong]a", "[strong] at character 1 is not closed: write [/strong] after the words"),
        ("a[/sad]", "[/sad] at character 2 closes nothing that is open: leave it out"),
        (
            "[sad]a[fast]b[/sad]c[/fast]",
            "[/sad] at character 14 comes before [fast] is closed: write [/fast] first",
        ),
        (
            "(sad)(angry) no",
            "(angry) at character 6 contradicts the tag before it, which also says the",
        ),
        (
            "（四川话）（粤语）a",
            "（粤语） at character 6 contradicts the tag before it",
        ),
        (
            "(RAP)(whisper)a",
            "(whisper) at character 6 contradicts the tag before it",
        ),
        ("(slow, fast) a", "(slow, fast) at character 1 cannot be followed: it says two things of the speed"),
        (
            "(happy 4) a",
            "the strength of happy goes from 1 to 3",
        ),
        ("(speed 3) a", "(speed 3) at character 1 cannot be followed: speed goes from 0.5 to 2 times"),
        ("(pitch +20) a", "pitch goes from -7 to 7 semitones"),
        ("(volume +40dB) a", "volume goes from -24 to 12 dB"),
        ("(pause 60s) a", "pause goes from 0 to 10000 ms"),
        ("[sad]a" * (DEEPEST + 1), f"at most {DEEPEST} tags stand around words"),
    ],
)
def test_what_is_wrong_with_a_tag_is_told(text, problem):
    with pytest.raises(TagError) as caught:
        parse(text)
    assert problem in str(caught.value)
    parse(text, strict=False)  # never an error in a talk


def test_unknown_tags_are_spoken_left_out_or_reported():
    text = "(hapy) a (1) [grin] b"
    assert parse(text).text == text
    assert parse(text, unknown="drop").text == "a (1) b"
    with pytest.raises(TagError, match=r"^\(hapy\) at character 1 is no tag: did you mean happy"):
        parse(text, unknown="report")
    assert parse(escaped("(happy) a"), unknown="report").text == "(happy) a"
    assert parse("\\(hapy) a", unknown="report").text == "\\(hapy) a"


def test_only_voices_that_there_are_make_a_tag():
    assert parse("(voice bob) a", voices={"bob"}).style == SpeechStyle(voice="bob")
    assert parse("(voice of) a", voices={"bob"}).text == "(voice of) a"


def test_a_bracket_is_held_back_only_while_it_may_become_a_tag():
    reader = TagReader()
    assert reader.push("Yes (I") == ["Yes ", "(", "I"]
    assert reader.push(" think) (hap") == [" think) "]
    assert reader.push("less") == ["(", "hapless"]
    assert reader.push("(voice " + "x" * (LONGEST - 7)) == []
    assert "".join(map(str, reader.push("y"))) == "(voice " + "x" * (LONGEST - 7) + "y"


def calls(read: Callable[[str], object], text: str) -> int:
    """How many functions reading a text calls, built-in ones too: steps that are the same on any machine."""
    count = 0

    def tick(frame: object, event: str, of: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        read(text)
    finally:
        sys.setprofile(None)
    return count


def by_letters(text: str) -> str:
    """What is said of a text that comes letter by letter, without white space."""
    splitter = ClauseSplitter()
    clauses = [clause for char in text for clause in splitter.push(char)] + splitter.flush()
    return "".join(char for clause in clauses for char in clause.text if not char.isspace())


@pytest.mark.parametrize("text", ["(", "(happy ", "[sad]", "\\", "[laugh](", "（高兴（", "(sad)", "a. ", " "])
def test_reading_is_linear_and_loses_nothing(text):
    short, long = (text * (size // len(text)) for size in (600, 1200))
    for read in (lambda text: parse(text, strict=False), by_letters):
        assert calls(read, long) < 2.5 * calls(read, short)
    endless = text * (100_000 // len(text))  # patterns make no calls: one that goes back would not end here
    tags = {"(sad)": endless, "[sad]": text * DEEPEST}.get(text, "")
    assert parse(endless, strict=False).text == endless.removeprefix(tags)
    assert by_letters(long) == "".join(parse(long, strict=False).text.split())


def test_every_tag_says_something_and_every_name_is_said_once():
    names = [name for tag in TAGS for name in tag.names]
    assert len(names) == len(set(names))
    for tag in TAGS:
        assert tag.style != NO_STYLE or tag.is_point or tag.reset
        for name in tag.names:
            assert name == name.lower() and len(name) < LONGEST
            assert meaning(name, square=True) == tag
            assert (meaning(name) is None) == tag.around
    for kind, (_, example) in ARGUMENTS.items():
        assert isinstance(meaning(f"{kind} {example}", square=True), Tag)


def test_what_users_write_is_not_obeyed_when_a_model_repeats_it():
    assert plain("Say (happy 2) and [laugh] and（四川话）and [/sad], (I think).") == (
        "Say ( happy 2) and [ laugh] and（ 四川话）and [ /sad], (I think)."
    )
    assert plain("<tool_call>(RAP)") == "< tool_call>( RAP)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("whisper", Instructions(SpeechStyle(mode="whisper"), 0)),
        ("happy, slowly", Instructions(SpeechStyle("happy", speed=0.75), 0)),
        ("Speak in a very sad tone. Use a British accent!", Instructions(SpeechStyle("sad", 3, "en-GB"), 0)),
        ("用四川话，非常高兴", Instructions(SpeechStyle("happy", 3, "cmn-sichuan"), 0)),
        ("撒娇2", Instructions(SpeechStyle("playful", 2), 0)),
        ("Like a pirate, calm", Instructions(SpeechStyle("calm"), 2)),
        ("Do not whisper. Softly", Instructions(SpeechStyle(volume=-6.0), 3)),
        ("first slow, then fast", Instructions(NO_STYLE, 4)),
        ("", Instructions(NO_STYLE, 0)),
    ],
)
def test_instructions_in_plain_words(text, said):
    assert instructions(text) == said


def test_the_table_in_the_documentation_is_the_one_in_the_code():
    path = Path(__file__).resolve().parents[1] / "docs" / "TAGS.md"
    assert table() in path.read_text(encoding="utf-8")


def table() -> str:
    """All tags and their names, in Markdown."""
    rows = ["| names | asks for |", "|---|---|"]
    for tag in TAGS:
        rows.append(f"| {', '.join(tag.names)} | {_asks_for(tag)} |")
    for kind, (names, example) in ARGUMENTS.items():
        rows.append(f"| {names} | how much, or which: `{kind} {example}` |")
    return "\n".join(rows)


def _asks_for(tag: Tag) -> str:
    if tag.reset:
        return "back to how the text, or the tag around it, began"
    if tag.pause_ms is not None:
        return f"silence, {tag.pause_ms} ms"
    if tag.sound is not None:
        return f"the sound of a {tag.sound}"
    said = {name: getattr(tag.style, name) for name in SpeechStyle.__slots__}
    ((kind, value),) = [(name, value) for name, value in said.items() if value is not None]
    if kind == "emotion":
        return "emotion; 1 to 3 how strong"
    if tag.levels:
        return f"{kind} " + ", ".join(f"{getattr(style, kind):g}" for style in tag.levels) + " (1, 2, 3)"
    return f"{kind} {value:g}" if isinstance(value, float) else f"{kind} {value}"


texts = st.lists(st.sampled_from(PARTS), max_size=24).map("".join) | st.text(max_size=80)


@given(texts, st.sampled_from(["speak", "drop"]))
def test_no_text_breaks_a_talk(text, unknown):
    splitter = ClauseSplitter(unknown=unknown)
    clauses = splitter.push(text) + splitter.flush()
    assert [clause.index for clause in clauses] == list(range(len(clauses)))
    for clause in clauses:
        assert clause.text == clause.text.strip()
        for span in clause.spans:
            assert 0 <= span.begin <= span.end <= len(clause.text)
        assert [span.begin for span in clause.spans] == sorted(span.begin for span in clause.spans)


@given(texts, st.sampled_from(["speak", "drop", "report"]))
def test_what_is_wrong_with_a_text_has_one_name(text, unknown):
    try:
        clauses = split(text, unknown=unknown)
    except TagError as error:
        assert "at character" in str(error)
        return
    whole = parse(text, unknown=unknown)
    assert "".join("".join(c.text for c in clauses).split()) == "".join(whole.text.split())


def joined(tokens):
    """Tokens with the texts that follow each other in one."""
    out = []
    for token in tokens:
        if isinstance(token, str) and out and isinstance(out[-1], str):
            out[-1] += token
        else:
            out.append(token)
    return out


@given(texts, st.sampled_from(["speak", "drop"]), st.integers(1, 5))
def test_it_does_not_matter_how_a_text_arrives(text, unknown, size):
    reader = TagReader(unknown=unknown)
    tokens = [token for i in range(0, len(text), size) for token in reader.push(text[i : i + size])]
    assert joined(tokens + reader.flush()) == joined(TagReader(unknown=unknown).flush(text))


@given(st.text(st.characters(blacklist_characters="()（）[]［］"), max_size=200))
def test_text_without_brackets_is_left_as_it_is(text):
    assert parse(text, unknown="report").text == text
    assert parse(text, unknown="report").spans == ()
    assert "".join(map(str, TagReader().push(text))) == text.rstrip("\\")  # nothing is held back


@given(texts)
def test_escapes_bring_any_text_through(text):
    assert parse(escaped(text)) == Tagged(text, NO_STYLE)
    assert parse(escaped(text), strict=False).text == text


@given(texts, st.integers(1, 5))
def test_nothing_of_a_users_is_a_tag(text, size):
    text = plain(text)
    assert disarmed(text) == text
    for unknown in ("speak", "drop"):
        reader = TagReader(unknown=unknown)
        tokens = [t for i in range(0, len(text), size) for t in reader.push(text[i : i + size])]
        assert all(isinstance(token, str) for token in tokens + reader.flush())


def test_what_is_no_tag_and_what_may_become_one():
    assert meaning("happy, emphasis", square=True) is None  # around words, so not in a list
    assert isinstance(meaning("voice nobody", square=True, voices=("anna",)), Wrong)
    assert meaning("voice nobody", voices=("anna",)) is None
    assert may_become("hap") and may_become("very hap") and may_become("happy 2") and may_become("高兴1")
    assert not may_become("xyzzy") and not may_become(" happy") and not may_become("xyzzy, happy")
    assert meaning("/voice", square=True) == Tag(("voice",), closes=True)
    assert instructions("强调").passed_over == 1  # around words, so nothing by itself
