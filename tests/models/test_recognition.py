"""The real ears on real speech: voice activity, end of turn, recognition."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stepaudio.bench.samples import clips
from stepaudio.bench.scores import Errors, errors
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError
from stepaudio.files import read_audio
from stepaudio.recognition.base import RATE
from stepaudio.recognition.endpointing import SmartTurn
from stepaudio.recognition.vad import FRAME, SileroVAD, probabilities, speech_spans
from stepaudio.recognition.whisper import WhisperRecognizer
from stepaudio.recognition.whisper_graph import write_graphs


@pytest.fixture(scope="module")
def vad(model_dir: Callable[[str], Path]) -> SileroVAD:
    return SileroVAD(model_dir("silero-vad") / "silero_vad.onnx")


@pytest.fixture(scope="module")
def turn(model_dir: Callable[[str], Path]) -> SmartTurn:
    return SmartTurn(model_dir("smart-turn-v3.2") / "smart-turn-v3.2-cpu.onnx")


@pytest.fixture(scope="module")
def graphs(model_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    write_graphs(model_dir("whisper-base"), folder)
    return folder


@pytest.fixture(scope="module")
def whisper(model_dir: Callable[[str], Path], graphs: Path, vad: SileroVAD) -> WhisperRecognizer:
    return WhisperRecognizer(model_dir("whisper-base"), graphs, vad=vad)


def read(data: Path, name: str) -> AudioChunk:
    return read_audio(data / "audio" / name, RATE)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def joined(*parts: np.ndarray) -> AudioChunk:
    return AudioChunk(np.concatenate(parts), RATE)


def noises() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    click = silence(2)
    click[9_000] = 1
    return {
        "nothing": silence(0),
        "silence": silence(3),
        "hiss": rng.normal(0, 0.01, 3 * RATE).astype(np.float32),
        "faint hiss": rng.normal(0, 0.0005, 2 * RATE).astype(np.float32),
        "tone": (0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32),
        "click": click,
        "long hiss": rng.normal(0, 0.01, 40 * RATE).astype(np.float32),
    }


# Voice activity


def test_vad_finds_the_speech_between_the_pauses(vad: SileroVAD, shared_data: Path) -> None:
    speech = read(shared_data, "asr_en/367-130732-0000.flac").samples
    spans = speech_spans(probabilities(vad, joined(silence(2), speech, silence(2), speech)))
    assert len(spans) == 2
    starts = [2 * RATE, 4 * RATE + len(speech)]
    for span, start in zip(spans, starts, strict=True):
        assert start - FRAME <= span.start < span.end <= start + len(speech) + 8 * FRAME


def test_vad_streams_are_apart(vad: SileroVAD, shared_data: Path) -> None:
    audio = read(shared_data, "asr_zh/BAC009S0150W0001.wav")
    alone = probabilities(vad, audio)
    vad.stream().push(AudioChunk(audio.samples[:FRAME], RATE))
    assert probabilities(vad, audio) == alone


def test_vad_hears_speech_after_a_minute_of_music(vad: SileroVAD, shared_data: Path) -> None:
    music = read(shared_data, "music/Kevin_MacLeod_-_Vibe_Ace.ogg").samples[: 1875 * FRAME]
    speech = read(shared_data, "asr_en/367-130732-0000.flac").samples
    fresh = np.array(probabilities(vad, joined(speech))) > 0.5
    after = np.array(probabilities(vad, joined(music, speech)))[1875:] > 0.5
    assert after.sum() > 0.8 * fresh.sum()


@pytest.mark.parametrize("name", noises())
def test_vad_takes_no_noise_for_speech(vad: SileroVAD, name: str) -> None:
    assert speech_spans(probabilities(vad, AudioChunk(noises()[name], RATE))) == []


def test_vad_takes_frames_of_512_samples(vad: SileroVAD) -> None:
    with pytest.raises(ValueError, match="512"):
        vad.stream().push(AudioChunk(silence(1), RATE))
    with pytest.raises(ValueError, match="16000"):
        vad.stream().push(AudioChunk(silence(1)[:FRAME], 8_000))


# End of turn


def test_a_question_is_complete_and_its_first_half_is_not(turn: SmartTurn, shared_data: Path) -> None:
    """Spoken questions, whole and cut inside a word, each with a pause of 0.2 s behind."""
    whole, half = [], []
    for clip in clips(shared_data, "question_fact"):
        samples = clip.audio.samples
        whole.append(turn.score(joined(samples, silence(0.2))))
        half.append(turn.score(joined(samples[: len(samples) // 2], silence(0.2))))
    assert np.mean(whole) > 0.8
    assert np.mean(half) < np.mean(whole) - 0.3


def test_a_recorded_half_sentence_is_incomplete(turn: SmartTurn, shared_data: Path) -> None:
    assert turn.score(read(shared_data, "turn/incomplete_real_1.wav")) < 0.5


# Recognition


@pytest.mark.parametrize(("kind", "language", "most"), [("asr_en", "en", 0.15), ("asr_zh", "zh", 0.2)])
@pytest.mark.parametrize("mode", ["fast", "accurate"])
def test_recorded_speech(
    whisper: WhisperRecognizer, shared_data: Path, kind: str, language: str, most: float, mode
) -> None:
    """Every fourth clip; the whole set is ``stepaudio bench asr``. Whisper's own error is 10 % and 15 %."""
    total = Errors()
    for clip in clips(shared_data, kind, verified=True)[::4]:
        transcript = whisper.transcribe(clip.audio, mode=mode)
        assert transcript.language == language
        total += errors(clip.text, transcript.text, language)
    assert total.rate < most


@pytest.mark.parametrize("name", noises())
def test_noise_is_no_speech(whisper: WhisperRecognizer, name: str) -> None:
    transcript = whisper.transcribe(AudioChunk(noises()[name], RATE))
    assert (transcript.text, transcript.segments) == ("", ())


# A click alone is "You" to Whisper, a word that it knows from the ends of videos. A VAD knows better.
@pytest.mark.parametrize("name", ["silence", "hiss", "tone"])
def test_noise_is_no_speech_without_a_vad(model_dir: Callable[[str], Path], graphs: Path, name: str) -> None:
    whisper = WhisperRecognizer(model_dir("whisper-base"), graphs)
    assert whisper.transcribe(AudioChunk(noises()[name], RATE)).text == ""


def test_recorded_noise_is_no_speech(whisper: WhisperRecognizer, shared_data: Path) -> None:
    for clip in clips(shared_data, "noise"):
        assert whisper.transcribe(AudioChunk(clip.audio.samples[: 6 * RATE], RATE)).text == "", clip.path


def test_what_was_heard_before_changes_little(whisper: WhisperRecognizer, shared_data: Path) -> None:
    """Whole clips, after their first 4 s were heard: as many errors as without."""
    alone, after = Errors(), Errors()
    for clip in clips(shared_data, "asr_en", verified=True)[:16]:
        start = whisper.transcribe(AudioChunk(clip.audio.samples[: 4 * RATE], RATE))
        alone += errors(clip.text, whisper.transcribe(clip.audio).text, "en")
        after += errors(clip.text, whisper.transcribe(clip.audio, before=start).text, "en")
    assert after.edits <= alone.edits + 5


def test_what_was_heard_of_something_else_is_not_kept(whisper: WhisperRecognizer, shared_data: Path) -> None:
    first, second = (clip.audio for clip in clips(shared_data, "asr_en", verified=True)[:2])
    misleading = whisper.transcribe(first)
    assert "crayfish" in whisper.transcribe(second, before=misleading).text.lower()


def test_words_lie_in_order_within_their_segments(whisper: WhisperRecognizer, shared_data: Path) -> None:
    for kind in ("asr_en", "asr_zh"):
        for clip in clips(shared_data, kind, verified=True)[:6]:
            transcript = whisper.transcribe(clip.audio, words=True)
            words = [word for segment in transcript.segments for word in segment.words]
            assert words
            assert all(0 <= w.start_ms <= w.end_ms <= 1000 * clip.seconds + 20 for w in words)
            assert all(a.end_ms <= b.start_ms for a, b in pairwise(words))
            space = "" if kind == "asr_zh" else " "
            assert space.join(w.text for w in words).replace(" ", "") == transcript.text.replace(" ", "")


def test_words_begin_where_they_are_said(whisper: WhisperRecognizer, shared_data: Path) -> None:
    speech = read(shared_data, "asr_en/367-130732-0000.flac").samples
    early, late = (
        whisper.transcribe(joined(silence(lead), speech), language="en", words=True).segments[0].words
        for lead in (1, 3)
    )
    for heard in (early, late):
        assert [word.text.strip(",.").lower() for word in heard] == ["lobsters", "and", "lobsters"]
    for before, after in zip(early[1:], late[1:], strict=True):
        assert abs(after.start_ms - before.start_ms - 2000) <= 200


def test_a_long_recording_keeps_its_times(whisper: WhisperRecognizer, shared_data: Path) -> None:
    """Clips with pauses of 1 s between them, over two minutes: every clip is found where it stands."""
    told = [clip for clip in clips(shared_data, "asr_en", verified=True) if 4 < clip.seconds < 10][:16]
    parts, places, at = [], [], 0
    for clip in told:
        places.append((at / RATE, at / RATE + clip.seconds))
        parts += [clip.audio.samples, silence(1)]
        at += len(clip.audio.samples) + RATE
    audio = joined(*parts)
    steps: list[tuple[float, float]] = []
    transcript = whisper.transcribe(
        audio, mode="accurate", words=True, on_progress=lambda done, total: steps.append((done, total))
    )
    starts = [segment.start_ms for segment in transcript.segments]
    assert starts == sorted(starts)
    words = [word for segment in transcript.segments for word in segment.words]
    total = Errors()
    for clip, (start, end) in zip(told, places, strict=True):
        within = (w.text for w in words if start - 0.5 <= (w.start_ms + w.end_ms) / 2000 <= end + 0.5)
        total += errors(clip.text, " ".join(within), "en")
    assert total.rate < 0.15
    assert len(steps) > 4
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (audio.seconds, audio.seconds)


def test_speech_in_much_silence_is_found(whisper: WhisperRecognizer, shared_data: Path) -> None:
    speech = read(shared_data, "asr_en/367-130732-0000.flac").samples
    transcript = whisper.transcribe(joined(silence(50), speech, silence(50)), mode="accurate")
    assert errors("lobsters and lobsters", transcript.text, "en").edits == 0
    assert 49_500 <= transcript.segments[0].start_ms < transcript.segments[-1].end_ms <= 53_500


def test_both_languages_in_one_long_recording(whisper: WhisperRecognizer, shared_data: Path) -> None:
    english = [c.audio.samples for c in clips(shared_data, "asr_en", verified=True)[2:4]]
    chinese = [c.audio.samples for c in clips(shared_data, "asr_zh", verified=True)[7:9]]
    transcript = whisper.transcribe(joined(*english, silence(3), *chinese), mode="accurate")
    assert transcript.language == "en"
    assert "crayfish" in transcript.text.lower()
    assert "未来十年" in transcript.text


def test_chinese_is_written_in_simplified_script(whisper: WhisperRecognizer, shared_data: Path) -> None:
    import opencc

    simplify = opencc.OpenCC("t2s").convert
    for clip in clips(shared_data, "asr_zh", verified=True)[:8]:
        transcript = whisper.transcribe(clip.audio, words=True)
        assert transcript.text == simplify(transcript.text)


def test_very_short_audio_is_no_trouble(whisper: WhisperRecognizer) -> None:
    for samples in (1, 10, 159, 161, 401):
        hiss = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
        assert isinstance(whisper.transcribe(AudioChunk(hiss, RATE), words=True).text, str)


def test_a_language_that_is_not_offered(whisper: WhisperRecognizer) -> None:
    with pytest.raises(ConfigError, match="en"):
        whisper.transcribe(AudioChunk(silence(1), RATE), language="eng")


def test_another_rate_is_refused(whisper: WhisperRecognizer) -> None:
    with pytest.raises(ValueError, match="16000"):
        whisper.transcribe(AudioChunk(silence(1), 44_100))
