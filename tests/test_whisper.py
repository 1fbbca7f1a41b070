"""What the recogniser decides about features, windows and tokens; the model itself is in tests/models."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepaudio.core.errors import ModelMissing
from stepaudio.recognition.features import BANDS, HOP, log_mel
from stepaudio.recognition.vad import Span
from stepaudio.recognition.whisper import (
    Phrase,
    Token,
    cut_at_pauses,
    first_end,
    is_looping,
    phrases,
    token_positions,
    words_of,
    written,
)
from stepaudio.recognition.whisper_graph import write_graphs
from stepaudio.recognition.whisper_network import Cache, best, log_probabilities, search

RATE = 16_000


def tokens(*forms: str) -> list[Token]:
    """Tokens, one id for each form."""
    return [(sum(form.encode()) * 31 + len(form), form) for form in forms]


def test_features_have_the_shape_asked_for() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    assert log_mel(samples).shape == (BANDS, 500)
    assert log_mel(samples, 700).shape == (BANDS, 700)
    assert log_mel(samples, 300).shape == (BANDS, 300)
    assert log_mel(samples[:3], 100).shape == (BANDS, 100)
    assert log_mel(samples[:0], 100).shape == (BANDS, 100)
    assert log_mel(samples).dtype == np.float32


def test_features_of_a_tone_peak_at_its_band() -> None:
    time = np.arange(RATE) / RATE
    low, high = (log_mel(np.sin(2 * np.pi * hz * time)).mean(axis=1).argmax() for hz in (440, 4000))
    # 440 Hz is 6.6 mel of 45.2 on Slaney's scale, 4 kHz 35.2: the bands' centres are 0.559 mel apart.
    assert (low, high) == (11, 62)


def test_features_follow_the_definition() -> None:
    """Silence that is filled in equals silence that is computed."""
    rng = np.random.default_rng(1)
    samples = np.concatenate([rng.normal(0, 0.1, 1000), np.zeros(4 * 400 + 1400)])
    short = log_mel(samples[:1000], len(samples) // HOP)
    whole = log_mel(samples)
    assert np.abs(short - whole).max() < 1e-6


def test_features_do_not_depend_on_loudness_but_for_a_constant() -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, RATE)
    assert np.allclose(log_mel(samples) - log_mel(samples / 10), 0.5, atol=1e-5)


def test_near_spans_share_a_window() -> None:
    samples = np.zeros(60 * RATE, np.float32)
    spans = [Span(0, 5 * RATE), Span(6 * RATE, 12 * RATE), Span(20 * RATE, 25 * RATE)]
    assert cut_at_pauses(samples, spans) == [Span(0, 12 * RATE), Span(20 * RATE, 25 * RATE)]


def test_a_window_never_passes_28_seconds() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 200 * RATE).astype(np.float32)
    spans = [Span(i * RATE, i * RATE + RATE - 1600) for i in range(100)] + [Span(100 * RATE, 200 * RATE)]
    windows = cut_at_pauses(samples, spans)
    assert max(w.end - w.start for w in windows) <= 28 * RATE
    assert (windows[0].start, windows[-1].end) == (0, 200 * RATE)
    assert all(a.end <= b.start for a, b in pairwise(windows))


def test_long_speech_is_cut_where_it_is_quiet() -> None:
    samples = np.full(40 * RATE, 0.1, np.float32)
    samples[23 * RATE : 23 * RATE + 3200] = 0
    first, second = cut_at_pauses(samples, [Span(0, 40 * RATE)])
    assert first.end == second.start
    assert 23 * RATE <= first.end <= 23 * RATE + 3200


def test_phrases_stand_between_timestamps() -> None:
    said = tokens("<|0.00|>", "ĠHello", ",", "<|1.00|>", "<|1.40|>", "Ġworld", "<|2.00|>")
    assert phrases(said, 3.0) == [
        Phrase(tuple(tokens("ĠHello", ",")), 0.0, 1.0),
        Phrase(tuple(tokens("Ġworld")), 1.4, 2.0),
    ]


def test_what_is_written_after_the_end_is_left_out() -> None:
    said = tokens("<|0.00|>", "Ġyes", "<|2.00|>", "<|2.00|>", "Ġyes", "<|4.00|>")
    assert phrases(said, 1.9) == [Phrase(tuple(tokens("Ġyes")), 0.0, 1.9)]
    assert first_end(said, 1.9) == 2.0
    assert first_end(said, 2.5) == 4.0
    assert first_end(said, 4.5) is None


def test_a_phrase_without_an_end_lasts_to_the_end() -> None:
    assert phrases(tokens("<|0.50|>", "Ġyes"), 1.5) == [Phrase(tuple(tokens("Ġyes")), 0.5, 1.5)]
    assert phrases([], 1.5) == []


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("a b c d e f", False),
        ("very very very good", False),
        ("no no no no", True),
        ("bye bye bye bye now", True),
        ("come on come on now", False),
        ("come on come on come on", True),
        ("at that high level at that high level", True),
        ("it was here that we met it was there that we stayed", False),
        (" ".join("abcdefghijklmnopqrst" * 2), True),
        (" ".join("abcdefghij" + "x" + "abcdefghij"), False),
        ("", False),
    ],
)
def test_loops_are_seen(text: str, loops: bool) -> None:
    assert is_looping(tokens(*text.split())) is loops


def test_loops_with_small_changes_compress_too_well() -> None:
    words = [f"I do not know what to say about it {n}".replace(" ", "Ġ") for n in range(20)]
    assert is_looping(tokens(*words))


def test_bytes_of_tokens_make_text() -> None:
    # "é" is one token; "我" is bytes E6 88 91, here spread over two tokens.
    assert written(tokens("ĠcafÃ©", "Ġ", "æĪ", "ĳ")) == " café 我"
    assert written(tokens("Ġyes", "æĪ")) == " yes"  # a part is missing
    assert written(tokens("<|0.00|>", "a", "<|endoftext|>")) == "a"


def test_words_have_the_times_of_their_tokens() -> None:
    said = tokens("ĠHe", "llo", ",", "Ġworld", ".")
    times = [0.2, 0.4, 0.6, 1.0, 1.4, 1.6]
    assert words_of(" Hello, world.", said, times) == [("Hello,", 0.2, 0.6), ("world.", 1.0, 1.4)]


def test_chinese_is_timed_by_the_character() -> None:
    said = tokens("æĪĳä»¬", "ï¼Į", "OK")  # 我们 in one token, ，, OK
    timed = words_of("我们，OK", said, [0.0, 1.0, 1.5, 2.0])
    assert [word for word, _, _ in timed] == ["我", "们，", "OK"]
    assert np.allclose([times for _, *times in timed], [(0, 0.5), (0.5, 1.0), (1.5, 2.0)])


def test_tokens_begin_where_they_look() -> None:
    """Three tokens that look at positions 0 to 9, 10 to 29 and 30 to 39, in one head of two."""
    looks = np.zeros((2, 3, 40))
    for token, (begin, end) in enumerate([(0, 10), (10, 30), (30, 40)]):
        looks[0, token, begin:end] = 4
    assert token_positions(looks).tolist() == [0, 10, 30]


def test_a_folder_without_the_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="stepaudio models pull whisper-base"):
        write_graphs(tmp_path, tmp_path)
    (tmp_path / "model.bin").write_bytes(b"not a model, but long enough to be read as the head of one")
    with pytest.raises(ModelMissing, match="stepaudio models pull whisper-base"):
        write_graphs(tmp_path, tmp_path)


# Beam search, over a decoder of a few tokens


class _Words:
    """A vocabulary of text 0 to 5, the end 6, one instruction 7, and times of 0 to 2 s."""

    end, first_time, never = 6, 8, np.array([7])


Words: Any = _Words


def decoder(*expected: int):
    """A decoder that writes ``expected`` and the end, after a prompt of one token. How many tokens it was
    asked to read at a time is noted in ``.steps``."""
    script = [*expected, Words.end]

    def read(cache: Cache, tokens, parents) -> tuple[np.ndarray, Cache]:
        new = len(tokens[0])
        read.steps.append(new)
        logits = np.full((len(tokens), new, Words.first_time + 101), -10.0, np.float32)
        for i in range(new):
            logits[:, i, script[min(cache.length + i, len(script) - 1)]] = 5
        return logits, Cache({}, cache.length + new)

    read.steps = []
    return read


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_the_most_probable_tokens_are_found(beams: int) -> None:
    said = (8, 3, 1, 4, 18)
    assert search(decoder(*said), Cache({}, 0), [7], Words, beams, 20).tokens == said


def test_what_is_heard_again_is_read_in_one_step() -> None:
    said = (8, 3, 1, 4, 5, 18)
    read = decoder(*said)
    assert search(read, Cache({}, 0), [7], Words, 1, 20, before=said[:4]).tokens == said
    assert read.steps == [5, 1, 1]


def test_what_is_heard_otherwise_is_written_anew() -> None:
    said = (8, 3, 1, 4, 18)
    read = decoder(*said)
    assert search(read, Cache({}, 0), [7], Words, 1, 20, before=(8, 3, 2, 2, 2)).tokens == said
    assert read.steps == [6, 1, 1, 1]


def test_no_more_tokens_are_written_than_wanted() -> None:
    said = (8, *[1, 2] * 20)
    assert len(search(decoder(*said), Cache({}, 0), [7], Words, 2, 10).tokens) == 10
    assert len(search(decoder(*said), Cache({}, 0), [7], Words, 2, 10, before=said[:30]).tokens) == 10


def test_text_stands_between_times() -> None:
    even = np.zeros(Words.first_time + 101, np.float32)

    def allowed(*written: int) -> set[int]:
        return set(np.flatnonzero(log_probabilities(even, written, Words) > -np.inf).tolist())

    text, first = {0, 1, 2, 3, 4, 5, 6}, Words.first_time
    assert allowed() == set(range(first, first + 51))  # the first phrase begins within a second
    assert allowed(first) == text
    even[:first] = 9  # else all the times together are the most probable
    assert allowed(first, 3) == text | set(range(first + 1, first + 101))  # a phrase takes time
    assert allowed(first, 3, first + 20) == {Words.end} | set(range(first + 20, first + 101))
    assert allowed(first, 3, first + 20, first + 20) == text


def test_many_times_outweigh_one_text() -> None:
    logits = np.zeros(Words.first_time + 101, np.float32)
    logits[3] = 2
    assert log_probabilities(logits, (8, 1), Words).argmax() >= Words.first_time
    logits[3] = 6
    assert log_probabilities(logits, (8, 1), Words).argmax() == 3


def test_probabilities_sum_to_one() -> None:
    logits = np.random.default_rng(0).normal(0, 2, Words.first_time + 101).astype(np.float32)
    for said in ((), (8,), (8, 1), (8, 1, 20)):
        assert abs(np.exp(log_probabilities(logits, said, Words)).sum() - 1) < 1e-4


def test_best_are_in_order() -> None:
    assert best(np.array([0.0, -np.inf, 3, 1], np.float32), 3) == [2, 3, 0]
    assert best(np.array([0.0, -np.inf], np.float32), 3) == [0]
