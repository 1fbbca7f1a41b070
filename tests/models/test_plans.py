"""Plans of real voices: spoken again, they are the same to the bit; changed, they are another."""

from __future__ import annotations

import os

import numpy as np
import pytest

from stepaudio import config
from stepaudio.core.audio import join
from stepaudio.core.style import SpeechStyle
from stepaudio.engine import Engine
from stepaudio.tts import plans

TEXT = "She counted the boats twice. Then the rain began, and all ran."


@pytest.fixture(params=["hibari", "af_heart"])
def engine(request: pytest.FixtureRequest, model_dir) -> Engine:
    for model in ("hibari", "kokoro-82m", "kokoro-voices"):
        model_dir(model)
    flags = {"tts.voice": request.param, "tts.watermark": False}
    return Engine(config.load(None, os.environ, flags).config)


def test_a_kept_plan_is_spoken_as_the_text_was(engine: Engine):
    style = SpeechStyle(emotion="sad", speed=1.1)
    said = list(engine.say(TEXT, style=style))
    planned = plans.from_json(plans.to_json(engine.plan(TEXT, style=style)).encode())
    again = list(engine.perform(planned))
    np.testing.assert_array_equal(
        join(piece.audio for piece in said).samples, join(piece.audio for piece in again).samples
    )
    assert [mark for piece in said for mark in piece.marks] == [m for piece in again for m in piece.marks]


def test_any_voice_speaks_the_plan_of_another(engine: Engine):
    planned = engine.plan(TEXT)
    lengths = {
        voice: len(join(piece.audio for piece in engine.perform(planned, voice=voice)).samples)
        for voice in ("hibari", "am_michael")
    }
    assert lengths["hibari"] == lengths["am_michael"]
