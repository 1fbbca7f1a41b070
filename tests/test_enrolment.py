"""Recordings that a voice can be made of, and those that it cannot: each refusal says what to record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.recognition.base import RATE
from stepaudio.recognition.enrolment import check_one_voice, halves, speech_of

FRAME = 512


class Scripted:
    """Hears speech where a script says so: "#" is a second of speech, "." a second of something else."""

    def __init__(self, script: str) -> None:
        self._script = script

    def stream(self) -> Scripted:
        return self

    def push(self, frame: AudioChunk) -> float:
        second = min(frame.start // RATE, len(self._script) - 1)
        return float(self._script[second] == "#")


def sound(levels: str) -> AudioChunk:
    """Noise; a digit is the level of a second in tenths, "." silence."""
    noise = np.random.default_rng(0)
    parts = [0.1 * (0 if c == "." else int(c)) * noise.uniform(-1, 1, RATE) for c in levels]
    return AudioChunk(np.concatenate([np.zeros(0), *parts]).astype(np.float32), RATE)


def test_speech_is_joined_without_what_is_between() -> None:
    found = speech_of(sound("55555.......55555555"), Scripted("#####.......########"))
    assert found.rate == RATE and 12.5 < found.seconds < 14


def test_of_long_speech_the_first_minute_is_taken() -> None:
    assert speech_of(sound("5" * 70), Scripted("#" * 70)).seconds == 60


@pytest.mark.parametrize(
    ("levels", "script", "says"),
    [
        ("", "#", "silent"),
        ("." * 20, "." * 20, "silent"),
        ("5", "#", "has 1.0 s; record 10 to 60 s"),
        ("5" * 5 + "." * 15, "#" * 5 + "." * 15, r"has 5\.\d s of speech; record 10 to 60 s"),
        ("5" * 20, "." * 20, "100 % of the sound in the recording is no speech"),  # music
        ("5" * 24, "#" * 12 + "." * 12, "no speech .music, noise"),  # speech, then music
    ],
)
def test_what_is_not_fit(levels: str, script: str, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        speech_of(sound(levels), Scripted(script))


def test_half_a_second_says_how_much() -> None:
    with pytest.raises(AudioError, match=r"has 0\.5 s; record 10 to 60 s of speech"):
        speech_of(AudioChunk(np.full(RATE // 2, 0.1, np.float32), RATE), Scripted("#"))


def windows(voices: str, likeness: float, spread: float = 0.2) -> np.ndarray:
    """Embeddings of windows: "aab" is two of one voice and one of another, so alike on average."""
    noise = np.random.default_rng(0)
    a, b, *odd = np.eye(64)[:40]
    means = {"a": a, "b": likeness * a + np.sqrt(1 - likeness**2) * b}
    found = [means[v] + spread * sum(noise.normal() * direction for direction in odd) / 6 for v in voices]
    return np.stack([one / np.linalg.norm(one) for one in found])


def test_one_voice_is_taken_and_two_are_refused() -> None:
    check_one_voice(windows("a" * 20, 0))
    check_one_voice(windows("a" * 15 + "b" * 5, 0.85))  # one voice in two moods
    check_one_voice(windows("a" * 19 + "b", 0.4))  # one odd window
    with pytest.raises(AudioError, match="record one person alone"):
        check_one_voice(windows("a" * 12 + "b" * 8, 0.55))


def test_short_turns_are_refused_although_no_window_is_of_one_voice() -> None:
    check_one_voice(windows("a" * 20, 0, spread=0.6))
    with pytest.raises(AudioError, match="record one person alone"):
        check_one_voice(windows("a" * 20, 0, spread=0.9))


@pytest.mark.parametrize("voices", ["aaabbb", "abababab", "aaaaaaab"])
def test_windows_fall_into_the_voices_they_are_of(voices: str) -> None:
    likeness, share = halves(windows(voices, 0.5))
    assert likeness == pytest.approx(0.5, abs=0.1) and share == voices.count("b") / len(voices)


def test_a_single_window_is_one_voice() -> None:
    assert halves(windows("a", 0)) == (1.0, 0.0)


# Real recordings


def real(folder, *paths: str) -> AudioChunk:
    from stepaudio.files import read_audio

    chunks = [read_audio(folder / "audio" / path) for path in paths]
    return AudioChunk(np.concatenate([chunk.samples for chunk in chunks]), RATE)


SPEAKER: Sequence[str] = [f"asr_en/2609-156975-000{n}.flac" for n in range(4)]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (SPEAKER, ""),
        ([f"asr_en/3080-5032-000{n}.flac" for n in range(4)], ""),
        (["conversation/twospk_en_LibriSpeech-2414_LibriSpeech-2609.flac"], "more than one voice"),
        (["conversation/diarization_test.flac"], "more than one voice"),
        (["music/Kevin_MacLeod_-_Vibe_Ace.ogg"], "no speech"),
        (["music_vocal/Karissa_Hobbs_-_Lets_Go_Fishin.ogg"], "no speech"),
        (["noise/kitchen.flac"], "no speech"),
        (["noise/silence_10s.flac"], "silent"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].partition("/")[2],
)
def test_real_recordings(paths, says, shared_data, store, model_dir) -> None:
    from stepaudio.recognition import speakers
    from stepaudio.recognition.vad import SileroVAD

    model_dir("resemblyzer")
    vad = SileroVAD(model_dir("silero-vad") / "silero_vad.onnx")
    encoder = speakers.SpeakerEncoder(
        store.derived("resemblyzer", speakers.RECIPE, speakers.expose), threads=1
    )

    def check() -> None:
        check_one_voice(encoder.windows(speech_of(real(shared_data, *paths), vad)))

    if not says:
        check()
        return
    with pytest.raises(AudioError, match=says):
        check()


@pytest.mark.parametrize("turn_s", [3, 8])
def test_real_voices_that_take_turns_are_refused(turn_s, shared_data, store, model_dir) -> None:
    from stepaudio.recognition import speakers

    model_dir("resemblyzer")
    encoder = speakers.SpeakerEncoder(
        store.derived("resemblyzer", speakers.RECIPE, speakers.expose), threads=1
    )
    voices = [
        real(shared_data, *(f"asr_en/{clips}-000{n}.flac" for n in range(4))).samples[: 24 * RATE]
        for clips in ("2609-156975", "1998-15444", "3080-5032")
    ]
    for voice in voices:
        check_one_voice(encoder.windows(AudioChunk(voice, RATE)))
    n = turn_s * RATE
    for first, second in zip(voices, voices[1:] + voices[:1], strict=True):
        turns = [(second if k % 2 else first)[k * n : (k + 1) * n] for k in range(24 // turn_s)]
        with pytest.raises(AudioError, match="more than one voice"):
            check_one_voice(encoder.windows(AudioChunk(np.concatenate(turns), RATE)))
