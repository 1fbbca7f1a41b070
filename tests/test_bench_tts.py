"""bench tts: its sentences and its table; what it measures needs weights."""

from __future__ import annotations

import pytest
from rich.console import Console

from stepaudio.bench import tts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_sentences_are_fifty_and_each_is_its_own(language: str) -> None:
    found = tts.sentences(language)
    assert len(found) == len(set(found)) == 50
    assert sum(any(sign.isdigit() for sign in sentence) for sentence in found) >= 20
    assert all(sentence[-1] in ".?。？" for sentence in found)


def test_table_shows_figures_bounds_and_failures() -> None:
    failure = {"said": "It costs $3.", "heard": "It cost [3].", "language": "en", "edits": 1}
    heard = {"sentences": 50, "realtime": 0.2, "failures": []}
    result = {
        "threads": 2,
        "targets": tts.TARGETS,
        "hibari": {"sentences": 10, "realtime": 0.0213, "first_audio_ms": 87.5, "mean_length_s": 4.2},
        "kokoro": {
            "voice": "af_heart",
            "sentences": 10,
            "realtime": 0.2,
            "to_stock": 0.777,
            "to_stock_all": 0.78,
            "long_sentence_s": 9.3,
            "first_audio_ms": 254,
            "stock_whole_ms": 2458,
            "first_to_stock": 0.103,
            "long_to_stock": 0.846,
        },
        "heard": {
            "en": heard | {"voice": "af_heart", "error_percent": 2.44, "failures": [failure]},
            "zh": heard | {"voice": "zf_xiaobei", "error_percent": 8.62},
        },
    }
    console = Console(width=140, record=True)
    console.print(tts.render(result))
    text = console.export_text()
    for shown in ("0.0213", "0.03", "0.777", "0.103", "254 of 2458 ms", "2.44 %", "8.62 %", "12.0 %"):
        assert shown in text
    assert "It costs $3." in text
    assert "It cost [3]." in text  # not taken for markup
