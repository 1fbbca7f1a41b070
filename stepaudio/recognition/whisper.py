"""Whisper, with an encoder that works only on the audio there is.

Whisper was trained on windows of 30 s, and its reference code fills every clip up to that. The encoder takes
less: a clip of 3 s costs a quarter in a context of 5 s. What is lost that way are a few clips on which the
decoder loops or writes on behind the end. Timestamp tokens keep it to the clip; what still goes wrong shows
(``_Attempt.is_bad``), and is heard again in a longer context, at last in the 30 s of the training.
"""

from __future__ import annotations

import logging
import math
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import opencc

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import unknown
from stepaudio.recognition.base import RATE, Mode, Segment, Transcript, VoiceActivity, Word
from stepaudio.recognition.features import HOP, log_mel
from stepaudio.recognition.vad import Span, probabilities, speech_spans
from stepaudio.recognition.whisper_network import MOST_TOKENS, Encoding, Network, Vocabulary, search

log = logging.getLogger(__name__)

_MOST_FRAMES = 3000  # feature frames that the encoder takes at most: 30 s

# (seconds of silence behind the audio, least seconds in all), tried in this order until a result is good.
_CONTEXTS = ((2.0, 5.0), (3.0, 10.0), (30.0, 30.0))

# Hypotheses kept. Two instead of one cost 7 % of the time and win back what a short context loses: English
# word errors 10.0 instead of 10.6 %, Chinese character errors 12.4 instead of 14.1 (stock: 9.8 and 13.4).
_BEAMS: dict[Mode, int] = {"fast": 2, "accurate": 5}

_LONGEST = 28 * RATE  # samples of a window: 2 s of silence still fit behind it
_EARLIEST_CUT = 20 * RATE  # a stretch of speech without a pause is cut after this, where it is most quiet
_LONGEST_GAP = 2 * RATE  # encoding a shorter pause is cheaper than the silence behind one more window
_LEAST_REST = RATE  # samples behind the last phrase that are worth a look,
_LEAST_REST_SPEECH_MS = 500  # and of speech in them;
_LEAST_REST_JOINED = RATE  # samples of speech without a pause before it: less is the tail of the last word
_LEAST_PAUSE = 3 * RATE // 10  # samples

_MOST_COMPRESSED = 2.2  # zlib ratio of the text; loops compress better than speech
_LEAST_SCORE = -1.0  # mean log-probability of the tokens
_DOUBTFUL_SCORE = -0.7  # 15 stretches of noise and music scored -1.88 to -0.81, speech mostly over -0.65
_DOUBTFUL_NO_SPEECH = 0.3  # and these had 0.29 to 0.95
_NO_SPEECH = 0.6  # Whisper's own threshold, for those who have no voice activity model
_OVERRUN = 1.0  # seconds; a phrase said to end later than this behind the audio is in doubt
_SILENT = 1e-4  # peak of a recording that holds nothing but rounding
_POSITION = 0.02  # seconds: one position of the encoder's output, two feature frames
_SMOOTHED = 7  # positions over which a median is taken of where a token looks


Token = tuple[int, str]
"""A token's id and its written form: "<|0.40|>" is a timestamp, other text is GPT-2's byte alphabet."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """What stands between two timestamps, in seconds from the start of the window."""

    tokens: tuple[Token, ...]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What the decoder made of a window in one context.

    Attributes:
        language: code.
        tokens: what it wrote,
        phrases: and of it what lies within the audio.
        score: mean log-probability of the tokens.
        no_speech: probability that the window holds no speech.
        is_broken: it loops, does not end, or does not end where the audio does.
        encoding: the encoder's output, to align words on.
    """

    language: str
    tokens: tuple[int, ...]
    phrases: list[Phrase]
    score: float
    no_speech: float
    is_broken: bool
    encoding: Encoding

    @property
    def is_bad(self) -> bool:
        """A longer context may do better."""
        return self.is_broken or self.score < _LEAST_SCORE

    @property
    def is_doubtful(self) -> bool:
        """It may be noise that was taken for speech: worth the 4 ms a second that voice activity costs."""
        return self.no_speech > _DOUBTFUL_NO_SPEECH or self.score < _DOUBTFUL_SCORE


class WhisperRecognizer:
    """Whisper (multilingual) in int8, for English and Chinese. Stateless; may be shared.

    Args:
        model: folder of the model (``vocabulary.txt``, ``config.json``).
        derived: folder that ``whisper_graph.write_graphs`` filled.
        threads: of one recognition.
        vad: finds the speech in long recordings, and keeps silence and noise from being "heard" as words.
    """

    languages: tuple[str, ...] = ("en", "zh")

    def __init__(
        self, model: Path, derived: Path, *, threads: int = 1, vad: VoiceActivity | None = None
    ) -> None:
        self._vocabulary = Vocabulary(model)
        self._network = Network(derived, threads)
        self._converter = opencc.OpenCC("t2s")
        self._vad = vad

    def transcribe(
        self,
        audio: AudioChunk,
        *,
        language: str | None = None,
        mode: Mode = "fast",
        words: bool = False,
        before: Transcript | None = None,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Transcript:
        """Recognise ``audio`` (16 kHz, any length).

        Args:
            audio: mono, 16 kHz. Longer than 30 s, it is cut at pauses.
            language: "en" or "zh"; None detects it, for every window of a long recording anew.
            mode: "fast" for talk, "accurate" for files (a wider beam).
            words: also give the times of words.
            before: what was heard of the beginning of this audio: what is heard again is not searched for.
            on_progress: called after every window with the seconds done and the seconds in all.

        Raises:
            ConfigError: a language that is not offered.
            ValueError: the audio is not at 16 kHz.
        """
        if audio.rate != RATE:
            raise ValueError(f"Whisper hears {RATE} Hz, not {audio.rate}")
        if language is not None and language not in self.languages:
            raise unknown("language", language, self.languages)
        segments: list[Segment] = []
        spoken: Counter[str] = Counter()  # samples of each language
        tokens: tuple[int, ...] = ()
        windows = deque(self._windows(audio))
        while windows:
            window = windows.popleft()
            samples = audio.samples[window.start : window.end]
            attempt = self._hear(samples, language, mode, before if window.start == 0 else None)
            if attempt:
                tokens = tokens or attempt.tokens
                spoken[attempt.language] += len(samples)
                segments += self._segments(attempt, window, words)
                if rest := self._unheard(samples, attempt.phrases):
                    windows.appendleft(Span(window.start + rest, window.end))
            if on_progress:
                on_progress(window.end / RATE, audio.seconds)
        if on_progress:
            on_progress(audio.seconds, audio.seconds)
        main = max(spoken, key=spoken.__getitem__, default=language or self.languages[0])
        return Transcript(_joined(segment.text for segment in segments), main, tuple(segments), tokens)

    def _windows(self, audio: AudioChunk) -> list[Span]:
        """The stretches of ``audio`` to recognise, none longer than ``_LONGEST``."""
        if not len(audio.samples) or np.abs(audio.samples).max() < _SILENT:
            return []
        spans = [Span(0, len(audio.samples))]
        if self._vad and len(audio.samples) > _LONGEST:
            spans = speech_spans(probabilities(self._vad, audio))
        return cut_at_pauses(audio.samples, spans)

    def _hear(
        self, samples: np.ndarray, language: str | None, mode: Mode, before: Transcript | None
    ) -> _Attempt | None:
        """The first good attempt of the chain of contexts, or else the most probable one.

        None where there is no speech: Whisper writes words for noise, too, but without confidence.
        """
        seconds = len(samples) / RATE
        attempts: list[_Attempt] = []
        is_speech: bool | None = None  # not asked yet
        for frames in dict.fromkeys(_frames(seconds, *context) for context in _CONTEXTS):
            if mode == "fast" and frames == _MOST_FRAMES and not all(a.is_broken for a in attempts):
                break  # 0.5 s more, for a clip that is merely hard to understand
            if attempts:
                log.debug("%.1f s of audio: heard again in a context of %.1f s", seconds, frames * HOP / RATE)
            encoding = self._network.encode(log_mel(samples, frames))
            attempt = self._decode(encoding, language, seconds, frames, mode, None if attempts else before)
            if is_speech is None and (attempt.is_bad or attempt.is_doubtful):
                is_speech = self._is_speech(samples, attempt)
            if is_speech is False:
                return None
            if not attempt.is_bad:
                return attempt
            attempts.append(attempt)
        return max(attempts, key=lambda attempt: (not attempt.is_broken, attempt.score))

    def _is_speech(self, samples: np.ndarray, attempt: _Attempt) -> bool:
        if self._vad:
            return bool(speech_spans(probabilities(self._vad, AudioChunk(samples, RATE))))
        return attempt.no_speech < _NO_SPEECH or not attempt.is_bad

    def _unheard(self, samples: np.ndarray, said: list[Phrase]) -> int | None:
        """The sample at which to listen anew: now and then the decoder ends while the speaker goes on."""
        heard = round(said[-1].end * RATE) if said else 0
        if not self._vad or min(heard, len(samples) - heard) < _LEAST_REST:
            return None
        rest = probabilities(self._vad, AudioChunk(samples[heard:], RATE))
        spans = speech_spans(rest, min_speech_ms=_LEAST_REST_SPEECH_MS, padding_ms=0)
        missed = any(span.start >= _LEAST_PAUSE or span.end >= _LEAST_REST_JOINED for span in spans)
        return heard if missed else None

    def _decode(
        self,
        encoding: Encoding,
        language: str | None,
        seconds: float,
        frames: int,
        mode: Mode,
        before: Transcript | None,
    ) -> _Attempt:
        vocabulary = self._vocabulary
        logits, cache = self._network.read(
            encoding, self._network.empty, [[vocabulary.id("startoftranscript")]], [0]
        )
        start = logits[0, 0]
        no_speech = float(np.exp(start[vocabulary.id("nocaptions")] - np.logaddexp.reduce(start)))
        language = language or max(self.languages, key=lambda code: start[vocabulary.id(code)])
        # Fast speech is 7 tokens a second. The last attempt has room for faster, so that nobody is cut short.
        cap = min(math.ceil(8 + (7 if frames < _MOST_FRAMES else 14) * seconds), MOST_TOKENS)
        found = search(
            partial(self._network.read, encoding),
            cache,
            [vocabulary.id(language), vocabulary.id("transcribe")],
            vocabulary,
            _BEAMS[mode],
            cap,
            before.tokens if before is not None and before.language == language else (),
        )
        tokens = [(token, vocabulary.forms[token]) for token in found.tokens]
        said = phrases(tokens, seconds)
        end = first_end(tokens, seconds)
        is_broken = (
            (end is None and len(tokens) >= cap - 1)
            or (end is not None and end > seconds + _OVERRUN)
            or is_looping([token for phrase in said for token in phrase.tokens])
        )
        return _Attempt(language, found.tokens, said, found.score, no_speech, is_broken, encoding)

    def _segments(self, attempt: _Attempt, window: Span, words: bool) -> list[Segment]:
        """Phrases as segments of the recording, in simplified script."""
        offset = window.start / RATE
        said = [phrase for phrase in attempt.phrases if written(phrase.tokens).strip()]
        times = self._token_times(attempt, said, window) if words and said else []
        segments = []
        for phrase in said:
            text = self._simplified(written(phrase.tokens))
            own, times = times[: len(phrase.tokens) + 1], times[len(phrase.tokens) :]
            timed = words_of(text, phrase.tokens, own) if own else []
            segments.append(
                Segment(
                    text.strip(),
                    _ms(offset + phrase.start),
                    _ms(offset + phrase.end),
                    tuple(Word(word, _ms(offset + start), _ms(offset + end)) for word, start, end in timed),
                )
            )
        return segments

    def _token_times(self, attempt: _Attempt, said: list[Phrase], window: Span) -> list[float]:
        """Seconds from the start of the window at which each text token begins, and the last one ends."""
        vocabulary = self._vocabulary
        names = ("startoftranscript", attempt.language, "transcribe", "notimestamps")
        prompt = [vocabulary.id(name) for name in names]
        ids = [token for phrase in said for token, _ in phrase.tokens]
        looks = self._network.looks(attempt.encoding, [*prompt, *ids, vocabulary.end], vocabulary.heads)
        positions = math.ceil((window.end - window.start) / HOP / 2)
        begins = token_positions(looks[:, :, :positions])[len(prompt) :]
        return [position * _POSITION for position in begins]

    def _simplified(self, text: str) -> str:
        """Text in simplified script, character for character: words are found in it by their place."""
        simple = self._converter.convert(text)
        return simple if len(simple) == len(text) else "".join(map(self._converter.convert, text))


# What is decided about tokens and windows, apart from the model.


def cut_at_pauses(samples: np.ndarray, spans: Iterable[Span]) -> list[Span]:
    """Spans of speech as windows of at most 28 s: near ones together, long ones cut where it is quiet."""
    windows: list[Span] = []
    for span in spans:
        while span.end - span.start > _LONGEST:
            at = _quietest(samples, span.start + _EARLIEST_CUT, span.start + _LONGEST)
            windows.append(Span(span.start, at))
            span = Span(at, span.end)
        last = windows[-1] if windows else None
        if last and span.end - last.start <= _LONGEST and span.start - last.end <= _LONGEST_GAP:
            windows[-1] = Span(last.start, span.end)
        else:
            windows.append(span)
    return windows


def _quietest(samples: np.ndarray, start: int, end: int) -> int:
    """The middle of the most quiet 100 ms between two places."""
    length = RATE // 10
    blocks = samples[start:end][: (end - start) // length * length].reshape(-1, length)
    return start + int(np.square(blocks).sum(axis=1).argmin()) * length + length // 2


def _frames(seconds: float, silence: float, least: float) -> int:
    """Feature frames of a context: even, since the encoder halves them."""
    return min(_MOST_FRAMES, 2 * math.ceil(max(seconds + silence, least) * RATE / HOP / 2))


def _time(token: Token) -> float | None:
    """Seconds of a timestamp token; None for text."""
    form = token[1]
    return float(form[2:-2]) if form.startswith("<|") and form[2:3].isdigit() else None


def phrases(tokens: Iterable[Token], seconds: float) -> list[Phrase]:
    """Tokens with timestamps as phrases. What the model wrote after the end of the audio is left out."""
    found: list[Phrase] = []
    start, text = 0.0, list[Token]()
    for token in tokens:
        time = _time(token)
        if time is None:
            text.append(token)
            continue
        if text:
            found.append(Phrase(tuple(text), start, min(time, seconds)))
        start, text = time, []
        if time >= seconds:
            return found
    if text:
        found.append(Phrase(tuple(text), start, seconds))
    return found


def first_end(tokens: Iterable[Token], seconds: float) -> float | None:
    """The first timestamp that is not before the end of the audio: there the model has heard all of it."""
    times = (_time(token) for token in tokens)
    return next((time for time in times if time is not None and time >= seconds), None)


def is_looping(tokens: Sequence[Token]) -> bool:
    """Whether text is said over and over: one token 4 times, two 3 times, a longer run of them twice."""
    ids = [token[0] for token in tokens]
    for length in range(1, len(ids) // 2 + 1):
        times = {1: 4, 2: 3}.get(length, 2)
        run = 0  # tokens in a row that equal the one ``length`` before
        for a, b in zip(ids, ids[length:], strict=False):
            run = run + 1 if a == b else 0
            if run >= length * (times - 1):
                return True
    said = written(tokens).encode()
    return len(said) > _MOST_COMPRESSED * len(zlib.compress(said))


def token_positions(looks: np.ndarray) -> np.ndarray:
    """The position at which each token begins (n,), from how much each looks where.

    A path through tokens and positions that goes forward in both and sees most (dynamic time warping), as in
    openai/whisper's ``timing.py``.

    Args:
        looks: logits (heads, tokens, positions) of heads that look where the word is said.
    """
    seen = np.exp(looks - looks.max(axis=2, keepdims=True))
    seen /= seen.sum(axis=2, keepdims=True)
    seen = (seen - seen.mean(axis=1, keepdims=True)) / (seen.std(axis=1, keepdims=True) + 1e-9)
    reach = min(_SMOOTHED // 2, looks.shape[2] - 1)
    padded = np.pad(seen, ((0, 0), (0, 0), (reach, reach)), mode="reflect")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=2), axis=3)
    gain = smooth.mean(axis=0)
    tokens, positions = gain.shape
    # best[t] at a position: the most that a path to token t there has seen. A step goes on in one or in both.
    best = np.full((tokens + 1, positions + 1), -np.inf)
    best[0, 0] = 0
    steps = np.zeros((tokens + 1, positions + 1), np.int8)
    for diagonal in range(2, tokens + positions + 1):  # all places of a diagonal at once
        t = np.arange(max(1, diagonal - positions), min(tokens, diagonal - 1) + 1)
        p = diagonal - t
        ways = np.stack([best[t - 1, p - 1], best[t - 1, p], best[t, p - 1]])
        steps[t, p] = ways.argmax(axis=0)
        best[t, p] = gain[t - 1, p - 1] + ways.max(axis=0)
    begins = np.zeros(tokens, int)
    t, p = tokens, positions
    while t > 0 and p > 0:
        begins[t - 1] = p - 1
        step = steps[t, p]
        t, p = t - (step != 2), p - (step != 1)
    return begins


def _byte_alphabet() -> dict[str, int]:
    """GPT-2 letters for bytes (Radford et al. 2019, section 2.2): itself if it prints, else from U+0100."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in prints)
    return {chr(byte): byte for byte in prints} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _spelt(token: Token) -> bytes:
    return bytes(_BYTES[letter] for letter in token[1]) if not token[1].startswith("<|") else b""


def written(tokens: Iterable[Token]) -> str:
    """The text of tokens; a character of which a part is missing is left out."""
    return b"".join(map(_spelt, tokens)).decode("utf-8", "ignore")


_WORD = re.compile(r"([\u3400-\u9fff]|[^\s\u3400-\u9fff]*[^\W\u3400-\u9fff])[^\w\s]*")
"""A Chinese character, or what stands between spaces; with the punctuation after it, which takes no time."""


def words_of(text: str, tokens: Sequence[Token], times: Sequence[float]) -> list[tuple[str, float, float]]:
    """Words with start and end in seconds.

    Args:
        text: of the tokens, in the script to show, as many characters as they have.
        tokens: one phrase.
        times: when each token begins, and when the last one ends. Within a token time runs evenly.
    """
    begins: list[float] = []  # for each byte
    for token, (start, end) in zip(tokens, pairwise(times), strict=True):
        spelt = _spelt(token)
        letters = max(len(spelt.lstrip()), 1)
        spaces = len(spelt) - letters
        begins += [start + (end - start) * max(i - spaces, 0) / letters for i in range(len(spelt))]
    begins.append(times[-1])
    sizes = (len(character.encode()) for character in written(tokens))
    starts = [begins[place] for place in accumulate(sizes, initial=0)]  # for each character
    return [(m[0], starts[m.start()], starts[m.end(1)]) for m in _WORD.finditer(text)]


def _joined(texts: Iterable[str]) -> str:
    """Segments as one text; no space follows Chinese punctuation."""
    return re.sub(r"(?<=[\u3000-\u303f\uff00-\uffef]) ", "", " ".join(texts))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
