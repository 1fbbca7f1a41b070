"""The watermark: heard by its detector alone, found again after what audio goes through, never invented."""

from __future__ import annotations

import ast
import io
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from stepaudio import config
from stepaudio.core.audio import AudioChunk, float_to_g711, g711_to_float, join
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.engine import Engine
from stepaudio.tts import watermark
from stepaudio.tts.base import Speech, Voice
from stepaudio.tts.voices import OneEngine
from stepaudio.tts.watermark import FALSE_ALARM, LEVEL_DB, Watermark

RATE = 24_000
OURS = Watermark(bytes(range(32)))
THEIRS = Watermark(bytes(range(1, 33)))


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like speech: syllables of 0.2 s, gliding pitch, two formants each, noise between, pauses."""
    random = np.random.default_rng(seed)
    count = round(seconds * RATE)
    said = np.zeros(count)
    for begin in range(0, count, RATE // 5):
        size = min(RATE // 5, count - begin)
        t = np.arange(size) / RATE
        phase = np.cumsum(random.uniform(90, 220) + random.uniform(-150, 150) * t) / RATE
        hz = np.fft.rfftfreq(size, 1 / RATE)
        source = np.interp(phase % 1, [0, 0.05, 0.1, 1], [0, 1, 0, 0]) + random.normal(0, 0.02, size)
        tract = sum(
            1 / (1 + ((hz - f) / 120) ** 2) for f in (random.uniform(300, 800), random.uniform(1000, 2600))
        )
        said[begin : begin + size] = np.fft.irfft(np.fft.rfft(source) * tract, size) * np.hanning(size)
        if random.random() < 0.15:
            said[begin : begin + size] = 0
    return (0.4 * said / np.abs(said).max()).astype(np.float32)


def marked(samples: np.ndarray, mark: Watermark = OURS) -> np.ndarray:
    return mark.stream(RATE).push(samples)


SPEECH = talk(3.0)
MARKED = marked(SPEECH)


# The stream


@pytest.mark.parametrize("size", [1 << 20, 12_000, 7_777, 480])
def test_however_it_is_cut_up_the_same_comes_out(size: int) -> None:
    stream = OURS.stream(RATE)
    pieces = [stream.push(SPEECH[at : at + size]) for at in range(0, len(SPEECH), size)]
    assert [len(piece) for piece in pieces] == [
        len(SPEECH[at : at + size]) for at in range(0, len(SPEECH), size)
    ]
    np.testing.assert_allclose(np.concatenate(pieces), MARKED, rtol=0, atol=1e-7)


def test_nothing_is_late_and_the_echo_is_faint() -> None:
    click = np.zeros(RATE // 4, np.float32)
    click[0] = 1
    echo = marked(click) - click
    assert np.abs(echo[: round(0.005 * RATE)]).max() < 1e-3  # its low edge rings a little before 10 ms
    assert np.abs(echo[round(0.09 * RATE) :]).max() < 1e-12
    spectrum = np.abs(np.fft.rfft(echo))[80:820]  # 320 to 3280 Hz
    assert 10 * math.log10(np.mean(spectrum**2)) == pytest.approx(LEVEL_DB, abs=0.3)


def test_silence_stays_silence() -> None:
    assert not marked(np.zeros(RATE, np.float32)).any()
    assert len(OURS.stream(RATE).push(np.zeros(0, np.float32))) == 0


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_carries_the_same_mark(rate: int) -> None:
    audio = soxr.resample(SPEECH, RATE, rate).astype(np.float32)
    found = OURS.detect(AudioChunk(OURS.stream(rate).push(audio), rate))
    assert found.found and found.speed == 1


def test_pieces_of_speech_keep_all_but_their_samples() -> None:
    words = (Mark("one", 0, 400), Mark("two", 500, 900))
    pieces = [
        Speech(AudioChunk(SPEECH[:RATE], RATE), words[:1]),
        Speech(AudioChunk(SPEECH[RATE:], RATE, RATE), words[1:]),
    ]
    out = list(OURS.mark(iter(pieces)))
    assert [(piece.audio.start, piece.marks) for piece in out] == [(0, words[:1]), (RATE, words[1:])]
    np.testing.assert_allclose(np.concatenate([piece.audio.samples for piece in out]), MARKED, atol=1e-7)


# The detector


def mu_law(samples: np.ndarray) -> AudioChunk:
    telephone = soxr.resample(samples, RATE, 8_000)
    return AudioChunk(g711_to_float(float_to_g711(telephone, "mulaw"), "mulaw"), 8_000)


def there_and_back(samples: np.ndarray, rate: int) -> AudioChunk:
    return AudioChunk(soxr.resample(soxr.resample(samples, RATE, rate), rate, RATE), RATE)


def noisy(samples: np.ndarray) -> AudioChunk:
    hiss = np.random.default_rng(1).normal(0, math.sqrt(np.mean(samples**2) / 10), len(samples))
    return AudioChunk((samples + hiss).astype(np.float32), RATE)


def mp3(samples: np.ndarray) -> AudioChunk:
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", RATE, 1, format="MP3", bitrate_mode="CONSTANT", compression_level=0.75
    ) as out:
        out.write(samples)
    assert len(file.getvalue()) * 8 / (len(samples) / RATE) < 72_000  # bits a second
    file.seek(0)
    return AudioChunk(soundfile.read(file, dtype="float32")[0], RATE)


def opus(samples: np.ndarray) -> AudioChunk:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="OGG", subtype="OPUS", compression_level=0.95)
    file.seek(0)
    return AudioChunk(soundfile.read(file, dtype="float32")[0], RATE)


ATTACKS = {
    "none": lambda samples: AudioChunk(samples, RATE),
    "mu-law": mu_law,
    "mp3": mp3,
    "opus": opus,
    "16 kHz": lambda samples: there_and_back(samples, 16_000),
    "22.05 kHz": lambda samples: there_and_back(samples, 22_050),
    "44.1 kHz": lambda samples: there_and_back(samples, 44_100),
    "noise": noisy,
    "softer": lambda samples: AudioChunk(0.02 * samples, RATE),
    "clipped": lambda samples: AudioChunk(np.clip(4 * samples, -0.5, 0.5), RATE),
    "cut": lambda samples: AudioChunk(samples[7_919:], RATE),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_mark_is_found_again(attack: str) -> None:
    audio = ATTACKS[attack](MARKED)
    found = OURS.detect(audio)
    assert found.found, found.score
    assert found.speed == pytest.approx(1, abs=0.0011)
    assert not THEIRS.detect(audio).found
    assert not OURS.detect(ATTACKS[attack](SPEECH)).found


@pytest.mark.parametrize("speed", [0.992, 1.004])
def test_a_little_faster_or_slower(speed: float) -> None:
    played = soxr.resample(MARKED, RATE * speed, RATE).astype(np.float32)
    found = OURS.detect(AudioChunk(played, RATE))
    assert found.found
    assert found.speed == pytest.approx(speed, abs=0.0011)


def test_where_it_is() -> None:
    before, after = talk(6.0, seed=1), talk(6.0, seed=2)
    found = OURS.detect(AudioChunk(np.concatenate([before, marked(talk(9.0, seed=3)), after]), RATE))
    ((begin, end),) = found.ranges()
    assert begin == pytest.approx(6, abs=2.5)
    assert end == pytest.approx(15, abs=2.5)
    assert found.found
    assert [window.begin_s for window in found.windows] == sorted(window.begin_s for window in found.windows)


def test_a_short_piece_is_judged_and_a_tiny_one_refused() -> None:
    assert OURS.detect(AudioChunk(MARKED[: round(1.5 * RATE)], RATE)).windows[0].end_s == 1.5
    with pytest.raises(AudioError, match=r"0\.20 s of audio are too few"):
        OURS.detect(AudioChunk(MARKED[: RATE // 5], RATE))


def test_silence_is_nobodys() -> None:
    found = OURS.detect(AudioChunk(np.zeros(4 * RATE, np.float32), RATE))
    assert (found.found, found.ranges(), found.score, found.false_alarm) == (False, [], 0.0, 1.0)


def test_chance_is_no_more_than_the_bound_says() -> None:
    """Keys that have nothing to do with the audio: 400 of them, on audio that carries another's mark."""
    found = watermark.numbers(watermark.ripples(AudioChunk(MARKED, RATE)), 1.0)
    random = np.random.default_rng(0)
    (scores,) = found @ np.stack([Watermark(random.bytes(32)).signs for _ in range(400)], axis=1)
    assert abs(scores.mean()) < 0.2
    assert scores.std() == pytest.approx(1, abs=0.15)  # as of coin tosses
    for z in (1.0, 2.0, 3.0):
        assert np.mean(scores >= z) <= math.exp(-z * z / 2)
    assert (found @ OURS.signs)[0] > 6 > scores.max()


# The key


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "of" / "user" / "watermark.key"
    assert watermark.read_key(file) is None
    key = watermark.installation_key(file)
    assert len(key) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert watermark.installation_key(file) == watermark.read_key(file) == key
    assert [path.name for path in file.parent.iterdir()] == ["watermark.key"]
    assert watermark.installation_key(tmp_path / "other.key") != key


def test_who_comes_second_takes_the_key_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, first = tmp_path / "watermark.key", bytes(32)

    def slow() -> bytes:
        file.write_bytes(first)
        return b"\1" * 32

    monkeypatch.setattr(watermark, "new_key", slow)
    assert watermark.installation_key(file) == first


def test_what_is_no_key_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "watermark.key"
    file.write_bytes(b"short")
    for read in (watermark.read_key, watermark.installation_key):
        with pytest.raises(ConfigError, match=r"watermark\.key: not a watermark's key"):
            read(file)
    assert file.read_bytes() == b"short"


def test_the_usual_place() -> None:
    assert watermark.default_file({"XDG_DATA_HOME": "/data"}) == Path("/data/stepaudio/watermark.key")
    assert watermark.default_file({"HOME": "/home/ann"}) == Path(
        "/home/ann/.local/share/stepaudio/watermark.key"
    )


# In the service


def engine(**settings: object) -> Engine:
    return Engine(config.load(None, {}, {f"tts.{name}": value for name, value in settings.items()}).config)


def test_speech_goes_on_where_the_key_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    ephemeral = engine(watermark_key=tmp_path / "file" / "watermark.key").watermark
    assert ephemeral is not None
    assert "will not be recognised later" in caplog.text
    assert ephemeral.detect(AudioChunk(marked(SPEECH, ephemeral), RATE)).found


def test_verify_knows_what_was_made_here(tmp_path: Path) -> None:
    here = engine(watermark_key=tmp_path / "watermark.key")
    assert here.verify(AudioChunk(SPEECH, RATE)) is None  # nothing was ever spoken
    assert here.watermark is not None
    made = AudioChunk(marked(SPEECH, here.watermark), RATE)
    found = here.verify(made)
    assert found is not None and found.found and found.false_alarm <= FALSE_ALARM
    elsewhere = engine(watermark_key=tmp_path / "elsewhere.key")
    assert elsewhere.watermark is not None
    found = elsewhere.verify(made)
    assert found is not None and not found.found


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    assert engine(watermark=False, watermark_key=tmp_path / "watermark.key").watermark is None
    assert not any(tmp_path.iterdir())


ANN = Voice("ann", "reader", "en-US", "female", licence="Apache-2.0")


class Reader:
    """A voice that says the same to everything."""

    rate = RATE

    def voices(self) -> tuple[Voice, ...]:
        return (ANN,)

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        yield Speech(AudioChunk(SPEECH[: RATE // 2], RATE))
        yield Speech(AudioChunk(SPEECH[RATE // 2 :], RATE, RATE // 2))


def test_every_clause_is_marked() -> None:
    reader: Any = Reader()
    said = join(piece.audio for piece in OneEngine(reader, watermark=OURS).speak(Clause(0, "Hello.")))
    np.testing.assert_allclose(said.samples, MARKED, atol=1e-7)
    plain = join(piece.audio for piece in OneEngine(reader).speak(Clause(0, "Hello.")))
    np.testing.assert_array_equal(plain.samples, SPEECH)


ROOT = Path(watermark.__file__).parents[1]


def test_nothing_speaks_past_the_mark() -> None:
    """Outside the voices, and the benchmarks that measure them bare, a ``Speaker`` is asked for sound."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("tts/", "bench/")):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        asked = [
            node for node in calls if ast.unparse(node.func).endswith(("speaker.perform", "engine.perform"))
        ]
        marked_there = {inner for node in asked for inner in ast.walk(node)}
        for node in calls:
            called = ast.unparse(node.func).split(".")[-1]
            by_itself = called in ("synthesize", "perform") and node not in marked_there
            assert not by_itself, f"{name}:{node.lineno} speaks by itself"
