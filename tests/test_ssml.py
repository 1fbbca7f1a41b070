"""SSML: what of it is understood, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core import ssml
from stepaudio.core.errors import TagError
from stepaudio.core.style import NO_STYLE, Span, SpeechStyle
from stepaudio.tts.text import ipa


def read(inside: str, **options):
    return ssml.split(f"<speak>{inside}</speak>", phonemes=ipa.read, **options)


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        ("<speak>a</speak>", True),
        (
            '\ufeff <?xml version="1.0"?>\n<!DOCTYPE speak PUBLIC "x" "y">\n<speak version="1.1">a</speak>',
            True,
        ),
        ("<speak/>", True),
        ("<speaker>a", False),
        ("a <speak>", False),
        ("a < b", False),
        ("", False),
    ],
)
def test_ssml_begins_with_its_root(text, is_it):
    assert ssml.is_ssml(text) == is_it


@pytest.mark.parametrize(
    ("attributes", "style"),
    [
        ('rate="80%"', SpeechStyle(speed=0.8)),
        ('rate="+10%"', SpeechStyle(speed=1.1)),
        ('rate="1.5"', SpeechStyle(speed=1.5)),
        ('rate="x-slow"', SpeechStyle(speed=0.5)),
        ('pitch="+2st" range="high"', SpeechStyle(pitch=2.0, pitch_range=1.4)),
        ('pitch="-50%" range="+20%"', None),
        ('pitch="+10%"', SpeechStyle(pitch=1.65)),
        ('pitch="low" volume="-6dB"', SpeechStyle(pitch=-2.0, volume=-6.0)),
        ('volume="-50%"', SpeechStyle(volume=-6.0206)),
        ('volume="loud"', SpeechStyle(volume=6.0)),
    ],
)
def test_prosody(attributes, style):
    if style is None:  # an octave
        with pytest.raises(TagError, match="pitch would be -12: it goes from -7 to 7 semitones"):
            read(f"<prosody {attributes}>a</prosody>")
    else:
        assert read(f"<prosody {attributes}>a</prosody>")[0].style == style


def test_shares_and_steps_are_of_what_is_around():
    (clause,) = read(
        '<prosody rate="80%" pitch="+1st">a <prosody rate="50%" pitch="+1st">b</prosody></prosody>',
        style=SpeechStyle(speed=1.5),
    )
    assert clause.style == SpeechStyle(speed=1.2, pitch=1.0)
    assert clause.spans == (Span(2, 3, SpeechStyle(speed=0.6, pitch=2.0)),)


def test_elements_are_spans_points_and_clauses():
    first, second, third = read(
        '<p><s>One <emphasis level="strong">big</emphasis> <break time="0.5s"/> step</s><s>Two</s></p>'
        '<mark name="Here"/>three <sub alias="World Wide Web">W3</sub>'
    )
    assert (first.text, first.style) == ("One big step", NO_STYLE)
    assert first.spans == (Span(4, 7, SpeechStyle(emphasis=2)), Span(8, 8, pause_ms=500))
    assert second.text == "Two"
    assert (third.text, third.spans) == ("three World Wide Web", (Span(0, 0, bookmark="Here"),))


def test_languages_voices_and_emotions():
    one, two, three, four = read(
        '<lang xml:lang="en-GB">a.</lang> <voice name="af_heart" xml:lang="zh-CN">b</voice> '
        '<mstts:express-as style="cheerful" styledegree="2">c.</mstts:express-as> '
        '<amazon:effect name="whispered">(四川话)d</amazon:effect>',
        voices={"af_heart"},
    )
    assert one.style == SpeechStyle(dialect="en-GB")
    assert two.style == SpeechStyle(dialect="cmn", voice="af_heart")
    assert three.style == SpeechStyle("happy", 3)
    assert four.style == SpeechStyle(mode="whisper", dialect="cmn-sichuan")


@pytest.mark.parametrize(
    ("language", "attributes", "text", "written"),
    [
        ("en", 'interpret-as="characters"', "ab-1", "A B 1"),
        ("en", 'interpret-as="digits"', "2024", "2 0 2 4"),
        ("en", 'interpret-as="cardinal"', "2024", "2,024"),
        ("en", 'interpret-as="ordinal"', "22", "22nd"),
        ("zh", 'interpret-as="ordinal"', "22", "第22"),
        ("en", 'interpret-as="telephone"', "+44 20-7946", "plus 4 4, 2 0, 7 9 4 6"),
        ("zh", 'interpret-as="telephone"', "138 0013", "1 3 8, 0 0 1 3"),
        ("en", 'interpret-as="date" format="mdy"', "5/11/2024", "May 11th, 2024"),
        ("zh", 'interpret-as="date" format="dm"', "1.5.", "5月1日"),
        ("en", 'interpret-as="date"', "2024-05-01", "May 1st, 2024"),
        ("en", 'interpret-as="time"', "9:45pm", "9:45pm"),
        ("en", 'interpret-as="currency"', "$3.50", "$3.50"),
    ],
)
def test_say_as_writes_what_the_rules_for_text_read(language, attributes, text, written):
    (clause,) = read(f'<lang xml:lang="{language}"><say-as {attributes}>{text}</say-as></lang>')
    assert clause.text == written


@pytest.mark.parametrize(
    ("alphabet", "symbols", "said"),
    [
        ("ipa", "təˈmɑːtəʊ", "təmˈɑːtQ"),
        ("ipa", "/təˈmeɪɾoʊ/", "təmˈAɾO"),
        ("ipa", "ˈtʃɜːtʃ", "ʧˈɜːʧ"),
        ("ipa", "kæts t͡su", "kæts ʦu"),
        ("ipa", "ʈʂʊŋ˥", "ꭧʊŋ→"),
        ("ipa", "ɡəˈrɑʒ", "ɡəɹˈɑʒ"),
        ("x-sampa", 't@"mA:t@U', "təmˈɑːtQ"),
        ("pinyin", "zhong4 guo2", "ꭧʊ↘ŋkwo↗"),
        ("misaki", "kˈOkəɹO", "kˈOkəɹO"),
    ],
)
def test_phonemes_are_brought_into_the_voices_alphabet(alphabet, symbols, said):
    assert ipa.read(alphabet, symbols) == said


def test_a_phoneme_is_said_for_its_word_and_no_clause_ends_in_it():
    (clause,) = read('Meet <phoneme ph="dɒk">Dr. No. Who.</phoneme> there')
    assert (clause.text, clause.spans) == ("Meet Dr. No. Who. there", (Span(5, 17, phonemes="dɒk"),))


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ("a < b", "not well-formed XML in line 1, column 11: "),
        ("<emphasis>a", "not well-formed"),
        ("&nbsp;", "Write &lt; and &amp; for < and &, and close every element"),
        ("<audio src='x'>a</audio>", "SSML, line 1, column 8: <audio> cannot be followed: leave it out"),
        ('<p align="left">a</p>', "align of <p> cannot be followed"),
        ("<speak>a</speak>", "SSML is one <speak> around all the rest"),
        (
            '<prosody rate="quick">a</prosody>',
            "rate='quick' is not understood: write it as 80%, +10% or slow",
        ),
        ('<prosody rate="300%">a</prosody>', "rate would be 3: it goes from 0.5 to 2 times"),
        ('<prosody pitch="50%">a</prosody>', "pitch='50%' is not understood: write it as +2st, -10% or high"),
        ('<prosody pitch="120Hz">a</prosody>', "pitch in Hz depends on the voice"),
        ('<prosody volume="80">a</prosody>', "write it as +6dB, -10% or loud"),
        ('<prosody contour="(0%,+2st)">a</prosody>', "contour of <prosody> cannot be followed"),
        ('<break time="soon"/>', "time='soon' is not understood: write it as 500ms or 1.5s"),
        ('<break time="11s"/>', "a break lasts at most 10 s"),
        ('<break strength="huge"/>', "there are none, x-weak, weak, medium, strong, x-strong"),
        ('<emphasis level="much">a</emphasis>', "level='much' is not understood"),
        ('<voice gender="female">a</voice>', "gender of <voice> cannot be followed"),
        ("<voice>a</voice>", '<voice> needs a name: <voice name="af_heart">'),
        ('<voice name="bob">a</voice>', "no voice named 'bob'"),
        ("<lang>a</lang>", "<lang> needs a language"),
        ('<lang xml:lang="fr-FR">a</lang>', "no voice here speaks 'fr-fr'"),
        ("<mark/>", "a mark needs a name"),
        ('<phoneme ph="ʘ">a</phoneme>', "the voices have no sound for 'ʘ' in 'ʘ'"),
        ('<phoneme ph="AI">a</phoneme>', "'A' is no letter of IPA"),
        ('<phoneme alphabet="arpa" ph="AH">a</phoneme>', "there are ipa, x-sampa, pinyin, misaki"),
        ('<phoneme alphabet="pinyin" ph="xyz">a</phoneme>', "'xyz' is no syllable of pinyin"),
        ('<phoneme ph="a"></phoneme>', "<phoneme> needs the word that it is for"),
        ("<phoneme>a</phoneme>", "<phoneme> needs ph"),
        ('<say-as interpret-as="mood">a</say-as>', "say-as 'mood' cannot be had"),
        ('<say-as interpret-as="cardinal">a</say-as>', "say-as cardinal needs a number, not 'a'"),
        ('<say-as interpret-as="date" format="mdy">40/40/2024</say-as>', "there is no such day"),
        ('<say-as interpret-as="date">1/2/3</say-as>', "give its format, one of mdy"),
        ('<say-as interpret-as="characters"><p>a</p></say-as>', "<p> cannot stand there: only text can"),
        ('<mstts:express-as style="bored">a</mstts:express-as>', "the style 'bored' cannot be had"),
        ("<emphasis>[sad]a</emphasis>b[/sad]", "is not closed before </emphasis>: write [/sad] there"),
        ("[sad]<p>a[/sad]</p>", "[/sad] at character 8 closes nothing that is open"),
        ("(sad)(happy)a", "contradicts the tag before it"),
        ("<p>" * 40 + "</p>" * 40, "<p> is in too many others: at most 32"),
    ],
)
def test_what_cannot_be_followed_is_told(inside, problem):
    with pytest.raises(TagError) as caught:
        read(inside, voices={"af_heart"})
    assert problem in str(caught.value)


def test_entities_are_not_expanded():
    with pytest.raises(TagError, match="a <!DOCTYPE> that defines something is not read"):
        ssml.read('<?xml version="1.0"?><!DOCTYPE speak [<!ENTITY a "aaaa">]><speak>&a;</speak>')


def test_strangers_are_passed_over_where_that_is_asked_for():
    (clause,) = read("<audio src='x'>a</audio> <p align='left'><meta name='x'>b</meta>c</p>", strangers=True)[
        1:
    ]
    assert clause.text == "c"


PARTS = [
    *"<speak> </speak> <p> </p> <s> </s> <break/> <emphasis> </emphasis> </prosody> <mark/> </voice>".split(),
    *"&lt; &amp; & < > ] [ ( ) (happy) [sad] [/sad] [/] 你好 a. <phoneme </phoneme> </say-as>".split(),
    *["<!--", "-->", "<![CDATA[", "]]>", "<?x ?>", "\0", "\ud800", " ", "\n"],
    *['<prosody rate="50%">', '<prosody pitch="+9st">', '<say-as interpret-as="date">', '<phoneme ph="a">'],
    *['<mark name="x"/>', '<break time="1s"/>', '<voice name="b">'],
]
pieces = st.lists(st.sampled_from(PARTS), max_size=20).map("".join)


@given(pieces | st.text(max_size=60), st.booleans())
def test_no_text_breaks_it(text, strangers):
    try:
        clauses = ssml.split(text, strangers=strangers, phonemes=ipa.read)
    except TagError:
        return
    for clause in clauses:
        assert all(0 <= span.begin <= span.end <= len(clause.text) for span in clause.spans)
