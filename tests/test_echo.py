"""Own voice told from another's: a room is simulated, the voices are noise shaped like speech."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk, resample
from stepaudio.core.echo import EchoGuard

RATE = 16_000
FRAME = 512


def voice(seconds: float, seed: int) -> np.ndarray:
    """Noise with the slope of speech, in syllables of 200 ms, at -20 dB."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum /= 1 + np.fft.rfftfreq(n, 1 / RATE) / 500
    syllables = np.repeat(rng.uniform(0.1, 1, n // 3200 + 1), 3200)[:n]
    sound = np.fft.irfft(spectrum, n) * syllables
    return (0.1 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def room(seed: int, delay_ms: int, gain_db: float) -> np.ndarray:
    """An impulse response: the direct sound and 200 ms of decay, 6 dB under it."""
    rng = np.random.default_rng(seed)
    tail = rng.normal(size=RATE // 5) * np.exp(-np.arange(RATE // 5) / (0.03 * RATE))
    tail *= 0.5 / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return np.concatenate([np.zeros(delay_ms * RATE // 1000), tail]) * 10 ** (gain_db / 20)


def listen(
    sent: np.ndarray,
    microphone: np.ndarray,
    *,
    guard: EchoGuard | None = None,
    sent_rate: int = RATE,
    piece: int = 3200,
) -> np.ndarray:
    """The likelihood of every frame; what is sent is handed over in pieces, in time."""
    guard = guard or EchoGuard(RATE)
    noise = np.random.default_rng(9).normal(0, 3e-4, len(microphone))
    microphone = (microphone + noise).astype(np.float32)
    handed, out = 0, []
    for start in range(0, len(microphone) - FRAME + 1, FRAME):
        while handed < len(sent) and handed * RATE <= start * sent_rate:
            guard.sent(AudioChunk(sent[handed : handed + piece], sent_rate), 1000 * handed / sent_rate)
            handed += piece
        out.append(guard.likelihood(AudioChunk(microphone[start : start + FRAME], RATE, start)))
    return np.array(out)


def echo_of(sent: np.ndarray, delay_ms: int = 120, gain_db: float = -12, seed: int = 5) -> np.ndarray:
    return np.convolve(sent, room(seed, delay_ms, gain_db))[: len(sent)]


@pytest.mark.parametrize("gain_db", [-6, -15, -25])
@pytest.mark.parametrize("delay_ms", [0, 40, 400, 900])
def test_own_voice_is_known_after_half_a_second(gain_db: float, delay_ms: int) -> None:
    sent = voice(4, seed=1)
    guard = EchoGuard(RATE)
    scores = listen(sent, echo_of(sent, delay_ms, gain_db), guard=guard)
    begin = (delay_ms + 600) * RATE // 1000 // FRAME
    assert guard.delay_ms == pytest.approx(delay_ms, abs=2)
    assert np.median(scores[begin:]) > 0.8
    assert np.mean(scores[begin:] > 0.5) > 0.9


def test_another_voice_is_not_ours() -> None:
    guard = EchoGuard(RATE)
    scores = listen(voice(4, seed=1), voice(4, seed=2), guard=guard)
    assert guard.delay_ms is None
    assert not scores.any()


def test_a_voice_over_the_echo_is_not_ours_and_the_echo_after_it_is() -> None:
    sent = voice(6, seed=1)
    echo = echo_of(sent)
    user = np.zeros_like(echo)
    user[2 * RATE : 3 * RATE] = voice(1, seed=2)
    scores = listen(sent, echo + user)
    frames = RATE / FRAME
    assert np.mean(scores[int(1.2 * frames) : int(2 * frames)]) > 0.8
    assert np.mean(scores[int(2.1 * frames) : int(2.9 * frames)] < 0.5) > 0.9
    assert np.mean(scores[int(4 * frames) :]) > 0.8


def test_a_delay_that_changes_is_followed() -> None:
    sent = voice(6, seed=1)
    early, late = echo_of(sent, 100), echo_of(sent, 300)
    guard = EchoGuard(RATE)
    scores = listen(sent, np.concatenate([early[: 3 * RATE], late[3 * RATE :]]), guard=guard)
    assert guard.delay_ms == pytest.approx(300, abs=2)
    assert np.mean(scores[-60:]) > 0.8


def test_silence_is_nobodys_voice() -> None:
    sent = voice(3, seed=1)
    assert not listen(sent, np.zeros(3 * RATE)).any()
    assert not listen(np.zeros(0), np.zeros(RATE)).any()
    guard = EchoGuard(RATE)
    assert guard.likelihood(AudioChunk(np.zeros(FRAME, np.float32), RATE)) == 0.0


def test_own_voice_may_come_at_another_rate_and_in_small_pieces() -> None:
    sent = voice(4, seed=1)
    sent24 = resample(AudioChunk(sent, RATE), 24_000).samples
    scores = listen(sent24, echo_of(sent), sent_rate=24_000, piece=480)
    assert np.mean(scores[30:]) > 0.8


def test_pieces_sent_ahead_of_time_stand_one_after_another() -> None:
    sent = voice(4, seed=1)
    guard = EchoGuard(RATE)
    for start in range(0, len(sent), 1600):
        guard.sent(AudioChunk(sent[start : start + 1600], RATE), 0)
    scores = listen(np.zeros(0, np.float32), echo_of(sent), guard=guard)
    assert np.mean(scores[30:]) > 0.8


def test_after_a_long_silence_what_is_sent_next_has_its_own_place() -> None:
    sent = np.concatenate([voice(1, seed=1), np.zeros(4 * RATE, np.float32), voice(3, seed=3)])
    guard = EchoGuard(RATE)
    heard = (echo_of(sent) + np.random.default_rng(0).normal(0, 3e-4, len(sent))).astype(np.float32)
    scores = []
    for start in range(0, len(heard) - FRAME + 1, FRAME):
        for at, end in ((0, RATE), (5 * RATE, 8 * RATE)):
            if start // FRAME == at // FRAME:
                guard.sent(AudioChunk(sent[at:end], RATE), 1000 * at / RATE)
        scores.append(guard.likelihood(AudioChunk(heard[start : start + FRAME], RATE, start)))
    assert np.mean(scores[-60:]) > 0.8


def test_memory_is_bounded() -> None:
    guard = EchoGuard(RATE)
    piece = voice(1, seed=1)
    for second in range(20):
        guard.sent(AudioChunk(piece, RATE), 1000.0 * second)
        for start in range(0, RATE - FRAME + 1, FRAME):
            guard.likelihood(AudioChunk(piece[start : start + FRAME], RATE))
    assert len(guard._sent) < 5 * RATE
