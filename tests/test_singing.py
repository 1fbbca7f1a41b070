"""Singing: lines, syllables, times and pitch of small songs; a voice that gives every symbol 50 ms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from stepaudio.core.clauses import Clause
from stepaudio.core.errors import ScoreError
from stepaudio.core.style import SpeechStyle
from stepaudio.tts import accompaniment, holding, modes, songs, tunes
from stepaudio.tts.accompaniment import Backing, Strike
from stepaudio.tts.base import Voice
from stepaudio.tts.prosody import ProsodyPlan, layout
from stepaudio.tts.scores import Lyric, Note, Part, Score, parse
from stepaudio.tts.scores.score import make
from stepaudio.tts.singing import (
    LEADS_S,
    SECOND,
    Line,
    Phrase,
    Tone,
    curve,
    fitting,
    hummed,
    joined,
    language_of,
    lines,
    phrase,
    place,
    sung,
    verse_of,
)
from stepaudio.tts.syllables import shared_out, syllables
from stepaudio.tts.text import Pronouncer, SpokenWord
from stepaudio.tts.text.pronouncer import ALPHABET
from stepaudio.tts.voices import HIBARI, find

VOCABULARY = dict.fromkeys(sorted(ALPHABET), 1)


class FakeDraft:
    def __init__(self, symbols: str) -> None:
        self.lengths = np.full(len(symbols) + 2, 2.0)

    def contours(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = 2 * int(lengths.sum())
        return np.full(steps, 196.0, np.float32), np.full(steps, 5.0, np.float32)


class FakeVoice:
    """Speaks at 196 Hz (G3); every symbol wants 50 ms; a sample is 0.1 where it is heard."""

    vocabulary, limit = VOCABULARY, 500

    def draft(self, symbols: str, voice: Voice) -> FakeDraft:
        return FakeDraft(symbols)

    def render(self, plan: ProsodyPlan, voice: Voice, *, soon: bool = True) -> Iterator[np.ndarray]:
        yield np.full(600 * (plan.heard[1] - plan.heard[0]), 0.1, np.float32)


class FakePronouncer:
    def __init__(self, **sounds: str) -> None:
        self._sounds = sounds

    def pronounce(
        self, text: str, language: str | None = None, accent: str = "en-US"
    ) -> tuple[SpokenWord, ...]:
        words = [written.strip(".,!?") for written in text.split()]
        return tuple(
            SpokenWord(w, w, self._sounds[w.lower()] + " " * (n < len(words) - 1), "en")
            for n, w in enumerate(words)
        )


TWINKLE = FakePronouncer(twinkle="twˈɪŋkᵊl", little="lˈɪTᵊl", star="stˈɑɹ")
SCORE = parse(b"tempo 60\nC4 1 Twin-\nC4 1 kle\nG4 1 lit-\nG4 1 tle\nA4 2 star\nG4 2 -\n")


def lyrics(*written: str) -> list[Lyric | None]:
    return [Lyric(w.rstrip("-"), w.endswith("-")) if w else None for w in written]


def song(score: Score = SCORE) -> Phrase:
    (line,) = lines(score, verse_of(score.part(), 1))
    return phrase(line, TWINKLE, "en", "en-US", FakeVoice())  # type: ignore[arg-type]


# --- syllables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phonemes", "language", "found"),
    [
        ("twˈɪŋkᵊl", "en", "tw.ˈɪ.ŋ k.ᵊ.l"),
        ("bənˈænə", "en", "b.ə. n.ˈæ. n.ə."),
        ("ˈɛkstɹə", "en", ".ˈɛ.k stɹ.ə."),
        ("hmm", "en", "hm.m."),
        ("mˈɑnjəmᵊnt", "en", "m.ˈɑ. nj.ə. m.ᵊ.nt"),
        ("kʰwai↘", "zh", "kʰw.ai↘."),
        ("lja↓ŋ", "zh", "lj.a↓.ŋ"),
        ("ɚ↗", "zh", ".ɚ↗."),
    ],
)
def test_syllables_have_onset_vowel_and_coda(phonemes: str, language: str, found: str) -> None:
    symbols, spans = layout([phonemes], VOCABULARY)
    cut = [
        ".".join((symbols[s.begin : s.peak], symbols[s.peak : s.rest], symbols[s.rest : s.end]))
        for s in syllables(symbols, spans, [language])
    ]
    assert " ".join(cut) == found


@pytest.mark.parametrize(
    ("count", "pieces", "owners"),
    [
        (2, ["Twin", "kle"], [0, 1]),
        (3, ["Is", "rael"], [0, 1, 1]),
        (1, ["lov", "edst"], [0]),
        (4, ["be", "au", "tiful"], [0, 1, 2, 2]),
        (3, ["heaven"], [0, 0, 0]),
    ],
)
def test_spoken_syllables_find_their_written_pieces(count: int, pieces: list[str], owners: list[int]) -> None:
    assert shared_out(count, pieces) == owners


# --- lines --------------------------------------------------------------------------------------------------


def test_lines_end_at_rests_and_leave_time_to_breathe() -> None:
    score = parse(b"tempo 60\nC4 2 one.\nC4 1 two\nr 1\nC4 1 three\n")
    first, second, third = lines(score, verse_of(score.part(), 1))
    assert [lyric.text for line in (first, second, third) for lyric in line.lyrics if lyric] == [
        "one.",
        "two",
        "three",
    ]
    assert first.tones[0].end == pytest.approx(1.78)  # the sentence's end: a breath is taken from it
    assert second.tones[0].end == 3.0  # the rest is long enough
    assert third.tones[0].begin == 4.0


def test_a_word_is_not_cut_and_interludes_are_not_sung() -> None:
    score = parse(b"tempo 60\nC4 9 -\nC4 3 long-\nC4 3 -\nC4 3 er\n")
    (line,) = lines(score, verse_of(score.part(), 1))
    assert [lyric and lyric.text for lyric in line.lyrics] == ["long", None, "er"]


def test_refrain_is_sung_in_every_verse() -> None:
    notes = [Note(i, 1, 60, (Lyric(f"a{i}"), Lyric(f"b{i}") if i < 2 else None)) for i in range(6)]
    sung_words = [lyric.text for _, lyric in verse_of(Part("", tuple(notes)), 2) if lyric]
    assert sung_words == ["b0", "b1", "a2", "a3", "a4", "a5"]
    with pytest.raises(ScoreError, match="no verse 3; it has 2"):
        verse_of(Part("", tuple(notes)), 3)


@pytest.mark.parametrize(
    ("words", "language"),
    [(("Twin-", "kle", "star"), "en"), (("两", "只", "老", "虎"), "zh"), (("la", "la"), "en")],
)
def test_language_of_words(words: tuple[str, ...], language: str) -> None:
    assert language_of(lyrics(*words)) == language


@pytest.mark.parametrize(
    "words", [("Ich", "weiß", "nicht", "was", "soll", "es", "und", "die"), ("さ", "く", "ら"), ("не", "пой")]
)
def test_languages_that_no_voice_sings_are_told(words: tuple[str, ...]) -> None:
    with pytest.raises(ScoreError, match="sing English and Mandarin"):
        language_of(lyrics(*words))


# --- sounds and times ---------------------------------------------------------------------------------------


def test_melisma_and_words() -> None:
    found = song()
    assert found.symbols == "twˈɪŋkᵊl lˈɪTᵊl stˈɑɹ."
    assert [[tone.pitch for tone in tones] for tones in found.tones] == [[60], [60], [67], [67], [69, 67]]
    assert [word.written for word in found.words] == ["Twinkle", "little", "star"]


def test_more_spoken_syllables_than_notes_share_one() -> None:
    score = parse(b"tempo 60\nC4 1 Twinkle\nG4 1 star\n")
    tones = song(score).tones
    assert [len(own) for own in tones] == [1, 1, 1]
    assert tones[1][0].begin == pytest.approx(0.82) and tones[1][0].end == 1.0


def test_vowels_begin_on_beats_and_consonants_before() -> None:
    found = song()
    lengths, zero = place(found, np.full(len(found.symbols) + 2, 2.0), 0.0)
    bounds = zero + np.cumsum(lengths)[:-1] / SECOND
    assert [round(float(bounds[s.peak]), 3) for s in found.syllables] == [0, 1, 2, 3, 4]
    assert bounds[0] == pytest.approx(-0.1)  # t, w: two frames each
    assert bounds[found.syllables[-1].rest] == pytest.approx(8 - 2 / SECOND)  # the coda ends the last note
    assert lengths.min() >= 1


def test_a_voice_that_leads_is_given_later_frames() -> None:
    found = song()
    _, zero = place(found, np.full(len(found.symbols) + 2, 2.0), 0.03)
    _, plain = place(found, np.full(len(found.symbols) + 2, 2.0), 0.0)
    assert zero - plain == pytest.approx(0.03)


def test_too_many_consonants_for_a_note_keep_the_beat() -> None:
    score = parse(b"tempo 240\nC4 .5 star\nC4 .5 star\nC4 4 star\n")
    found = song(score)
    lengths, zero = place(found, np.full(len(found.symbols) + 2, 4.0), 0.0)
    bounds = zero + np.cumsum(lengths)[:-1] / SECOND
    off = [bounds[s.peak] - tones[0].begin for s, tones in zip(found.syllables, found.tones, strict=True)]
    assert np.abs(off).max() <= 0.0501


def test_pitch_glides_and_trembles_late() -> None:
    tones = [Tone(0, 1, 60), Tone(1, 3, 64)]
    at = curve(tones, np.array([0.5, 0.99, 1.0, 1.01, 1.2]))
    assert at[0] == pytest.approx(60, abs=0.31)
    assert 60 < at[1] < at[2] < at[3] < 64
    assert at[2] == pytest.approx(62, abs=0.3)
    assert at[4] == 64
    late = curve(tones, np.arange(2.0, 2.9, 0.01))
    assert late.max() - late.min() == pytest.approx(0.6, abs=0.02)


def test_plan_of_a_line() -> None:
    planned = sung(FakeVoice(), song(), HIBARI, -5)
    plan, begin = planned.plan, planned.begin_s
    times = begin + (np.arange(2 * plan.frames) - 2 * plan.heard[0] + 0.5) / (2 * SECOND)
    middle = plan.pitch[np.argmin(np.abs(times - 0.4))]
    assert 12 * np.log2(middle / 440) + 69 == pytest.approx(55, abs=0.35)
    assert plan.gain[-1] == -80
    assert [word.written for word in plan.words] == ["Twinkle", "little", "star"]
    assert plan.marks()[0].start_ms == 50
    vowel = plan.bounds[song().syllables[1].peak] - plan.heard[0]
    assert begin + vowel / SECOND == pytest.approx(1 + LEADS_S["hibari"], abs=0.0126)


def test_voiceless_sounds_are_muted_where_a_voice_does_not_leave_the_voice_out() -> None:
    for voice, silent in ((HIBARI, False), (find("af_heart"), True)):
        plan = sung(FakeVoice(), song(), voice, -5).plan  # which draws a pitch of 196 Hz everywhere
        begin, end = 2 * plan.bounds[0], 2 * plan.bounds[1]
        assert plan.symbols[0] == "t"
        assert bool((plan.pitch[begin + 1 : end - 1] < 40).all()) == silent
        vowel = slice(2 * plan.bounds[3], 2 * plan.bounds[4])
        assert (plan.pitch[vowel] > 90).all()


def test_hum_has_an_m_for_every_note() -> None:
    found = hummed(Line((Tone(0, 1, 60), Tone(1, 2, 62)), (None, None)))
    assert found.symbols == "mm"
    assert [tones[0].pitch for tones in found.tones] == [60, 62]


def test_lines_are_joined_in_time() -> None:
    score = parse(b"tempo 60\nC4 1 star\nr 1\nC4 1 star\n")
    voice = FakeVoice()
    found = [
        sung(voice, phrase(line, TWINKLE, "en", "en-US", voice), HIBARI)  # type: ignore[arg-type]
        for line in lines(score, verse_of(score.part(), 1))
    ]
    first, second = joined(found)
    assert first.seconds == pytest.approx(2.0)
    assert second is found[1].plan


@pytest.mark.parametrize(("pitches", "shift"), [((60, 72), -10), ((67, 67), -11), ((55, 55), 1)])
def test_key_is_moved_to_where_the_voice_is_at_ease(pitches: tuple[int, int], shift: int) -> None:
    tones = [Tone(i, i + 1, pitch) for i, pitch in enumerate(pitches)]
    assert fitting(tones, 55.0, 1.0) == shift


def test_a_song_that_spans_too_much_is_told() -> None:
    with pytest.raises(ScoreError, match="spans 40 semitones"):
        fitting([Tone(0, 1, 40), Tone(1, 2, 80)], 55.0, 0.0)


# --- held vowels --------------------------------------------------------------------------------------------


def test_long_vowels_are_drawn_as_in_speech() -> None:
    lengths, natural = np.array([8, 2, 1, 20, 2, 8]), np.array([8, 2.0, 2.0, 2.0, 2, 8])
    short = holding.drawn("bˈæd", lengths, natural)
    assert short.tolist() == [8, 2, 3, 3, 2, 8]
    at = holding.places("bˈæd", lengths, short)
    assert len(at) == 2 * lengths.sum()
    assert np.all(np.diff(at) > 0)
    assert at[0] == 0 and at[-1] == pytest.approx(2 * short.sum() - 1)
    assert np.sum(np.diff(at) < 0.5) >= 2 * (21 - 6) - 2  # one place is held for the rest of the time


def test_speech_is_left_alone() -> None:
    lengths = np.array([8, 2, 1, 5, 2, 8])
    assert holding.drawn("bˈæd", lengths, np.array([8, 2.0, 2.0, 2.0, 2, 8])) is lengths


# --- songs --------------------------------------------------------------------------------------------------


def audio(song: songs.Song) -> tuple[np.ndarray, list[tuple[str, int]]]:
    pieces = list(songs.sing(song, FakeVoice(), TWINKLE, HIBARI))  # type: ignore[arg-type]
    at = 0
    for piece in pieces:
        assert piece.audio.start == at
        at += len(piece.audio.samples)
    marks = [(mark.text, mark.start_ms) for piece in pieces for mark in piece.marks]
    return np.concatenate([piece.audio.samples for piece in pieces]), marks


def test_song_with_verses_and_tempo() -> None:
    score = parse(b"tempo 60\nC4 1 star twinkle\nG4 1 - -\nr 2\n")
    both = songs.arrange(score, songs.Wish(tempo=120))
    assert both.verses == (0.0, 2.0)
    samples, marks = audio(both)
    assert [word for word, _ in marks] == ["star", "twinkle"]
    assert marks[1][1] - marks[0][1] == pytest.approx(2000, abs=60)
    assert len(samples) / 24000 == pytest.approx(0.3 + 2 + 1, abs=0.3)


def test_clicks_and_chords_sound_beside_the_voice() -> None:
    quiet, _ = audio(songs.arrange(SCORE, songs.Wish()))
    for kind in ("click", "chords", "beat"):
        loud, _ = audio(songs.arrange(SCORE, songs.Wish(accompany=kind)))  # type: ignore[arg-type]
        assert np.abs(loud[: 24000 * 7]).max() > np.abs(quiet).max() + 0.02
        assert np.abs(loud).max() < 1


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (songs.Wish(verses=(2,)), "no verse 2"),
        (songs.Wish(part="9"), "no part '9'"),
        (songs.Wish(tempo=0), "tempo of 0"),
        (songs.Wish(tempo=-5), "tempo of -5"),
        (songs.Wish(tempo=float("nan")), "tempo of nan"),
        (songs.Wish(language="de"), "no voice sings 'de'"),
        (songs.Wish(key="X"), "no key is called"),
        (songs.Wish(transpose=30), "Take --transpose"),
    ],
)
def test_wishes_that_cannot_be_met_are_told(wish: songs.Wish, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        audio(songs.arrange(SCORE, wish))


def test_a_tune_without_words_can_be_hummed_only() -> None:
    score = parse(b"tempo 60\nC4 1\nD4 1\n")
    with pytest.raises(ScoreError, match="--hum"):
        songs.arrange(score, songs.Wish())
    assert len(audio(songs.arrange(score, songs.Wish(hum=True)))[0]) > 40_000


@pytest.mark.parametrize(
    ("key", "pitch"), [("C", 0), ("Bb", 10), ("f# minor", 6), ("Am", 9), ("H", 11), ("Eb", 3)]
)
def test_names_of_keys(key: str, pitch: int) -> None:
    assert songs.tonic_of(key) == pitch


# --- accompaniment ------------------------------------------------------------------------------------------


def test_key_and_chords_of_a_tune() -> None:
    twinkle = [
        (60, 1),
        (60, 1),
        (67, 1),
        (67, 1),
        (69, 1),
        (69, 1),
        (67, 2),
        (65, 2),
        (64, 2),
        (62, 2),
        (60, 2),
    ]
    assert accompaniment.key_of(twinkle) == (0, False)
    assert accompaniment.key_of(twinkle, fifths=0) == (0, False)
    assert accompaniment.key_of([(69, 2), (71, 1), (72, 2), (76, 2), (69, 3)]) == (9, True)
    bars = [[(60, 2.0), (67, 2.0)], [(69, 2.0), (65, 2.0)], [(67, 2.0), (62, 2.0)], [(60, 4.0)]]
    assert accompaniment.harmony(bars, 0, False) == [(0, False), (5, False), (7, False), (0, False)]


def test_backing_in_pieces_is_the_same() -> None:
    strikes = [Strike(0.0, "accent"), Strike(0.5, "tone", 60.0, 0.3), *accompaniment.beat(0.0, 1, 120)]
    whole = Backing(strikes, "beat", 0.0).add_to(np.zeros(24000, np.float32))
    parts = Backing(strikes, "beat", 0.0)
    pieces = [parts.add_to(np.zeros(size, np.float32)) for size in (1, 999, 12000, 11000)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.abs(whole[:2000]).max() > 0.05
    assert len(parts.rest()) > 0


# --- talk ---------------------------------------------------------------------------------------------------


def test_known_songs_are_found_in_pieces() -> None:
    whole = tunes.known(
        "Happy birthday to you, happy birthday to you! Happy birthday, dear Anna Lee, happy birthday to you."
    )
    assert whole is not None and [phrase.words for _, phrase in whole][2] == "happy birthday dear *"
    assert whole[2][0] == "happy birthday dear anna lee"
    end = tunes.known("happy birthday dear Tom")
    assert end is not None and len(end) == 1
    assert tunes.known("两只老虎，两只老虎，跑得快，跑得快。") is not None
    assert tunes.known("Happy birthdays are the best") is None
    assert tunes.known("") is None


def test_names_of_any_length_fit() -> None:
    dear = tunes.SONGS["happy birthday"][2]
    for count in (6, 7, 8, 9, 10):
        notes = tunes.for_name(dear, count)
        assert sum(not note.held for note in notes) == count
        assert sum(note.beats for note in notes) == pytest.approx(sum(note.beats for note in dear.notes))


def test_tunes_by_rule_come_home_and_stress_beats() -> None:
    phrases = [[0, 2, 0, 0, 2, 0, 2], [2, 0, 2, 0, 0, 2]]
    tune = tunes.composed(phrases, "the rain is falling")
    assert tune == tunes.composed(phrases, "the rain is falling")
    assert tune[1][-1].pitch % 12 == 0  # the tonic
    assert tune[0][-1].pitch % 12 in (2, 7)  # a half close
    for stresses, notes in zip(phrases, tune, strict=True):
        assert all(note.begin % 1 == 0 for stress, note in zip(stresses, notes, strict=True) if stress == 2)
        assert all(48 <= note.pitch <= 79 for note in notes)


@pytest.mark.parametrize("mode", ["sing", "hum", "rap"])
def test_clauses_in_a_mode(mode: str) -> None:
    words = TWINKLE.pronounce("twinkle little star")
    clause = Clause(0, "twinkle little star", SpeechStyle(mode=mode, volume=-3.0))  # type: ignore[arg-type]
    plans = list(modes.plan(FakeVoice(), words, clause, HIBARI))
    assert [word.written for plan in plans for word in plan.words] == ["twinkle", "little", "star"]
    assert all(plan.gain.max() <= 0 for plan in plans)
    assert list(modes.plan(FakeVoice(), (), clause, HIBARI)) == []


def test_real_words_are_sung(model_dir) -> None:
    """With the real dictionaries: verse's contractions, elisions, melismas; every note is sung."""
    pronouncer = Pronouncer()
    score = make(
        "",
        [(0, 90.0)],
        [
            Part(
                "",
                tuple(
                    Note(i, 1, 60 + i, (lyric,))
                    for i, lyric in enumerate(
                        lyrics("Would'st", "thou", "rath-", "er", "", "o-", "ver", "the sea,")
                    )
                ),
            )
        ],
    )
    (line,) = lines(score, verse_of(score.part(), 1))
    found = phrase(line, pronouncer, "en", "en-US", FakeVoice())
    assert found.symbols.startswith("wˌʊdst ðˈW ɹˈæðəɹ ˈOvəɹ ðə sˈi")
    assert sum(len(tones) for tones in found.tones) >= len(line.tones)
    covered = {tone.pitch for tones in found.tones for tone in tones}
    assert covered == {tone.pitch for tone in line.tones}


def test_voices_that_sing_are_known() -> None:
    assert {find(name).engine for name in ("hibari", "zf_xiaobei")} == set(LEADS_S)
