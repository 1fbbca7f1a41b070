"""The agent's own voice coming back through the user's microphone, told from the user's voice.

A server knows what it sent. ``EchoGuard`` looks for it in what the microphone hears: first for the delay
(generalised cross-correlation with phase transform, Knapp and Carter 1976), then, in each frequency bin of
a short-time spectrum, for the linear filter of loudspeaker, room and microphone (recursive least squares
over a few frames, each bin for itself). What the filter predicts is echo; the share of the microphone's
energy that it explains, always predicted before it is learned from, is the likelihood. A user who speaks
over the echo adds energy that nothing predicts, so double talk scores low.

It does not remove the echo, and a loudspeaker that distorts, or a player that changes speed, is beyond it.
"""

from __future__ import annotations

import numpy as np
import soxr

from stepaudio.core.audio import AudioChunk

MAX_DELAY_MS = 1000
"""From the sending of a sound to its return: the server's lead, network, player, air, recorder."""

_HOP_MS = 16
_TAPS = 6  # hops of the filter: 96 ms from the direct sound on hold most of a room's energy
_LOOK_MS = 384  # of the microphone, in which the sent sound is looked for
_LOOK_EVERY_MS = 96
_PEAK = 11.0  # a delay is believed from this height on, in standard deviations; other speech reaches 8
_FORGET = 0.985  # of what the filter knows, a hop: a second or so
_SILENT = 1e-9  # mean square (-90 dB) under which there is nothing to judge
_MARGIN_MS = (
    4  # the filter begins this long before the delay found: the strongest path is not always the first
)
_SMOOTH = 0.6  # of the energies, a hop: 40 ms
_TAIL = 0.5  # of what was predicted for a hop is echo in the next one, too: the room beyond the filter
_FLOOR = 1e-4  # power of what was sent, per bin, under which the filter stays near zero
_KNOWN = 0.7  # explained share, over a second, of a filter that is good …
_STRANGE = 0.4  # … and share of a hop that it does not learn from: somebody else speaks


class EchoGuard:
    """How likely is a frame of the microphone the agent's own voice? One object a session.

    Args:
        rate: of the microphone's frames in Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._hop = rate * _HOP_MS // 1000
        self._size = 2 * self._hop
        self._window = np.hanning(self._size + 1)[:-1]
        # Hum lies below, and little speech above.
        self._bins = slice(200 * self._size // rate, min(rate // 2, 6000) * self._size // rate)
        self._look = rate * _LOOK_MS // 1000
        self._past = self._look + rate * MAX_DELAY_MS // 1000 + (_TAPS + 3) * self._hop
        # By sample index of the session: what was sent (from ``_sent_from``), and heard (up to ``_now``).
        self._sent = np.zeros(0, np.float32)
        self._sent_from = 0
        self._stream: tuple[int, soxr.ResampleStream] | None = None
        self._heard = np.zeros(self._look + self._size, np.float32)
        self._fft = _fft_size(self._look + rate * MAX_DELAY_MS // 1000)
        frequency = np.fft.rfftfreq(self._fft, 1 / rate)
        self._band = (frequency >= 200) & (frequency <= 6000)
        self._now = 0
        self._judged = 0
        self._looked = 0
        self._guess = -rate
        self._lock(None)

    @property
    def delay_ms(self) -> float | None:
        """From a sound's place in what was sent to its return; None: it has not come back yet."""
        return None if self._delay is None else 1000 * self._delay / self._rate

    def sent(self, chunk: AudioChunk, at_ms: float) -> None:
        """Take what was handed to the client at ``at_ms`` (audio time of the session; any rate).

        A chunk that is sent before the one ahead of it has been played stands behind it.
        """
        start, end = round(at_ms * self._rate / 1000), self._sent_from + len(self._sent)
        if self._stream is None or self._stream[0] != chunk.rate or start > end + self._rate // 50:
            self._stream = chunk.rate, soxr.ResampleStream(chunk.rate, self._rate, 1, "float32", "LQ")
            gap = max(0, start - end)
            self._sent = np.concatenate([self._sent, np.zeros(min(gap, self._past), np.float32)])
            self._sent_from = max(start, end) - len(self._sent)
        samples = self._stream[1].resample_chunk(np.asarray(chunk.samples, np.float32))
        self._sent = np.concatenate([self._sent, samples])

    def likelihood(self, frame: AudioChunk) -> float:
        """0..1, the share of the frame's energy that is the agent's own voice; frames come in order."""
        self._heard = np.concatenate([self._heard, np.asarray(frame.samples, np.float32)])[
            len(frame.samples) :
        ]
        self._now += len(frame.samples)
        old = min(max(0, self._now - self._past - self._sent_from), len(self._sent))
        if old > self._rate:  # not at every frame
            self._sent = self._sent[old:]
            self._sent_from += old
        if self._now - self._looked >= self._rate * _LOOK_EVERY_MS // 1000:
            self._looked = self._now
            self._find_delay()
        while self._judged + self._hop <= self._now:
            self._judged += self._hop
            if self._delay is not None:
                self._judge(self._judged)
        if self._delay is None or self._energy[0] <= _SILENT:
            return 0.0
        return float(np.clip(1 - self._energy[1] / self._energy[0], 0, 1))

    def skip(self, count: int) -> None:
        """``count`` samples of the microphone need no judgement: nothing was sent that could come back."""
        self._now += count
        self._judged = self._now - self._now % self._hop
        self._looked = self._now
        self._heard[:] = 0

    def _reference(self, start: int, end: int) -> np.ndarray:
        """What was sent from sample ``start`` to ``end``; zeros where nothing was."""
        first, last = max(start, self._sent_from), min(end, self._sent_from + len(self._sent))
        out = np.zeros(end - start, np.float32)
        if last > first:
            out[first - start : last - start] = self._sent[first - self._sent_from : last - self._sent_from]
        return out

    def _find_delay(self) -> None:
        longest = self._rate * MAX_DELAY_MS // 1000
        reference = self._reference(self._now - self._look - longest, self._now)
        if np.mean(reference**2) < _SILENT or np.mean(self._heard[-self._look :] ** 2) < _SILENT:
            return
        cross = np.fft.rfft(self._heard[-self._look :], self._fft) * np.fft.rfft(reference, self._fft).conj()
        cross *= self._band / (np.abs(cross) + 1e-20)
        # Without delay, the window would lie ``longest`` samples after the start of the reference.
        correlation = np.abs(np.fft.irfft(cross, self._fft))
        by_delay = correlation[np.arange(-longest, 1)]
        delay = int(np.argmax(by_delay))
        if by_delay[delay] < _PEAK * np.sqrt(np.mean(by_delay**2)):
            return
        twice = abs(delay - self._guess) <= self._hop // 2  # chance does not hit one place twice
        self._guess = delay
        if twice and (self._delay is None or abs(delay - self._delay) > self._hop // 2):
            self._lock(delay)

    def _lock(self, delay: int | None) -> None:
        """Begin a new filter, for another delay."""
        self._delay = delay
        bins = self._bins.stop - self._bins.start
        self._filter = np.zeros((bins, _TAPS), np.complex128)
        self._inverse = np.tile(np.eye(_TAPS, dtype=np.complex128) / _FLOOR, (bins, 1, 1))
        self._taps = np.zeros((bins, _TAPS), np.complex128)  # what was sent, newest hop first
        self._room = np.zeros(bins)
        self._energy = np.zeros(2)  # heard, and not explained; smoothed
        self._quality = 0.0  # explained share over a second

    def _spectrum(self, samples: np.ndarray) -> np.ndarray:
        return np.fft.rfft(samples * self._window)[self._bins]

    def _judge(self, end: int) -> None:
        """Predict the hop of the microphone that ends at sample ``end``, and learn from it."""
        assert self._delay is not None
        last = end - max(0, self._delay - self._rate * _MARGIN_MS // 1000)
        self._taps = np.roll(self._taps, 1, axis=1)
        self._taps[:, 0] = self._spectrum(self._reference(last - self._size, last))
        place = len(self._heard) - (self._now - end)
        heard = self._spectrum(self._heard[place - self._size : place])

        error = heard - np.einsum("bk,bk->b", self._filter.conj(), self._taps)
        power = np.abs(heard) ** 2
        predicted = np.abs(heard - error) ** 2
        unexplained = np.minimum(power, np.maximum(0, np.abs(error) ** 2 - self._room))
        self._room = _TAIL * (self._room + predicted)
        energy = np.array([power.sum(), unexplained.sum()])
        self._energy = _SMOOTH * self._energy + (1 - _SMOOTH) * energy
        share = 1 - energy[1] / (energy[0] + 1e-20)

        if np.mean(np.abs(self._taps) ** 2) < _SILENT * self._size:
            return  # nothing to learn
        if self._quality > _KNOWN and share < _STRANGE:
            self._quality *= 0.99  # a changed room is believed after half a second
            return
        self._quality += 0.03 * (share - self._quality)
        gain = np.einsum("bij,bj->bi", self._inverse, self._taps)
        scale = _FORGET + np.einsum("bi,bi->b", self._taps.conj(), gain).real
        gain /= scale[:, None]
        self._filter += gain * error.conj()[:, None]
        back = np.einsum("bi,bij->bj", self._taps.conj(), self._inverse)
        self._inverse = (self._inverse - gain[:, :, None] * back[:, None, :]) / _FORGET


def _fft_size(n: int) -> int:
    """The smallest power of two of at least ``n``."""
    return 1 << (n - 1).bit_length()
