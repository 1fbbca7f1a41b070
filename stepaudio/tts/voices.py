"""The voices there are, and which of them speaks when.

``Speaker`` is what the rest of the service knows of voices: it finds them, loads their engines when they are
first needed, and decides clause by clause who speaks. The decision itself is pure (``choose``): the best
voice whose audio will be there before the listener has nothing left to hear, else the one that is soonest.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from stepaudio.core.clauses import Clause
from stepaudio.core.errors import ConfigError, unknown
from stepaudio.core.style import SpeechStyle
from stepaudio.models import ModelStore
from stepaudio.tts.base import Grade, ProsodyModel, Speech, Synthesizer, Voice
from stepaudio.tts.dialects import objection

if TYPE_CHECKING:
    from stepaudio.tts.hibari import Hibari
    from stepaudio.tts.kokoro import Kokoro
    from stepaudio.tts.prosody import ProsodyPlan
    from stepaudio.tts.text import Pronouncer
    from stepaudio.tts.voicebank import VoiceBank
    from stepaudio.tts.watermark import Watermark

log = logging.getLogger(__name__)

_KOKORO_LANGUAGES = {  # first letter of a Kokoro voice
    "a": "en-US",
    "b": "en-GB",
    "z": "cmn",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-BR",
}
_KOKORO_NAMES = (
    "af_heart af_alloy af_aoede af_bella af_jessica af_kore af_nicole af_nova af_river af_sarah "
    "af_sky am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa bf_alice "
    "bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis zf_xiaobei zf_xiaoni "
    "zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang ef_dora em_alex em_santa "
    "ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola jf_alpha jf_gongitsune jf_nezumi "
    "jf_tebukuro jm_kumo pf_dora pm_alex pm_santa "
)

KOKORO = tuple(
    Voice(
        name,
        "kokoro",
        _KOKORO_LANGUAGES[name[0]],
        {"f": "female", "m": "male"}[name[1]],
        licence="Apache-2.0",
    )
    for name in _KOKORO_NAMES.split()
)
"""The 54 official voices. They speak the text of ``Kokoro.capabilities``; a voice of another language does it
with an accent."""

HIBARI = Voice("hibari", "hibari", "en-US", "female", licence="Apache-2.0")

CATALOGUE = (*KOKORO, HIBARI)

OPENAI = {
    "alloy": "af_alloy",
    "ash": "am_adam",
    "ballad": "bm_george",
    "cedar": "am_michael",
    "coral": "af_bella",
    "echo": "am_echo",
    "fable": "bm_fable",
    "marin": "af_heart",
    "nova": "af_nova",
    "onyx": "am_onyx",
    "sage": "af_sarah",
    "shimmer": "af_sky",
    "verse": "am_puck",
}
"""The voice names that OpenAI's clients send, and who speaks here: the voice of the same name where there is
one, else another of the same gender."""

SAME_SPEAKER = {"af_heart": "hibari"}
"""Voices that an answer may change between: Hibari was distilled from af_heart."""

LANGUAGES = {"kokoro": frozenset({"en", "zh"}), "hibari": frozenset({"en"})}
"""What engines can read, known before they are loaded."""

DIALECTS: Mapping[str, Mapping[str, Grade]] = {
    "kokoro": {
        "en": "native",
        "en-US": "native",
        "en-GB": "native",
        "cmn": "native",
        "cmn-sichuan": "accent",
        "yue": "experimental",
    },
    "hibari": {"en": "native", "en-US": "native"},
}
"""The dialects that engines speak, and how well (``Capabilities.dialects``)."""

BEST_FOR = {"en-US": "af_heart", "en-GB": "bf_emma", "yue": "am_michael"}
"""Who speaks when no voice is asked for, but a dialect that the voice for the language has not learned. Of
Cantonese, a third less is misheard from the English voices, who were taught -m, -p, -t and -k."""


MIXED_AT_MOST = 8
"""Voices in either half of a mix."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A voice made of stock voices of Kokoro, whose style has two halves that need not be of one voice.

    Attributes:
        timbre: how it sounds: voices and their shares, which add up to 1.
        prosody: how it speaks (melody, lengths of sounds), likewise.
    """

    timbre: tuple[tuple[str, float], ...]
    prosody: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        timbre, prosody = (
            "+".join(f"{voice}*{share:.3g}" if len(half) > 1 else voice for voice, share in half)
            for half in (self.timbre, self.prosody)
        )
        return timbre if timbre == prosody else f"{timbre}/{prosody}"

    @property
    def voice(self) -> Voice:
        """As what it is listed: it sounds like the largest share, and speaks like it."""
        sound, speech = (find(max(half, key=lambda part: part[1])[0]) for half in (self.timbre, self.prosody))
        return Voice(str(self), "kokoro", speech.language, sound.gender, sound.licence, "mixed")


def is_mix(text: str) -> bool:
    """Whether this is no name but asks for a mix."""
    return any(sign in text for sign in "*+/")


def parse_mix(expression: str) -> Mix:
    """Read "af_heart*0.6+am_adam*0.4", or with timbre and prosody apart "af_heart/am_michael".

    Shares are relative; a voice without one has the share 1.

    Raises:
        ConfigError: it is written in another way, or names a voice that cannot be mixed.
    """
    halves = expression.split("/")
    if len(halves) > 2:
        raise ConfigError(f"the mix {expression!r} has more than one /: write TIMBRE/PROSODY")
    parsed = [_parse_half(half, expression) for half in halves]
    return Mix(parsed[0], parsed[-1])


def _parse_half(text: str, expression: str) -> tuple[tuple[str, float], ...]:
    shares: dict[str, float] = {}
    for term in text.split("+"):
        name, star, number = (part.strip() for part in term.partition("*"))
        try:
            share = float(number) if star else 1.0
        except ValueError:
            share = math.nan
        if not name or not 0 < share < math.inf:
            raise ConfigError(
                f"the mix {expression!r} cannot be read at {term.strip()!r}: write voices and shares above "
                "0, like af_heart*0.6+am_adam*0.4"
            )
        voice = next((v for v in CATALOGUE if v.id == OPENAI.get(name, name)), None)
        if voice is None:
            raise unknown("stock voice to mix", name, [v.id for v in KOKORO])
        if voice.engine != "kokoro":
            raise ConfigError(f"{name} cannot be mixed, only Kokoro's voices can: af_heart, am_michael, ...")
        shares[voice.id] = shares.get(voice.id, 0.0) + share
    if len(shares) > MIXED_AT_MOST:
        raise ConfigError(f"the mix {expression!r} is of {len(shares)} voices: take {MIXED_AT_MOST} at most")
    whole = sum(shares.values())
    return tuple((name, share / whole) for name, share in shares.items())


def find(id: str) -> Voice:
    """The stock voice of that name, or the mix of that expression.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    for voice in CATALOGUE:
        if voice.id == id:
            return voice
    if is_mix(id):
        return parse_mix(id).voice
    raise unknown("voice", id, [voice.id for voice in CATALOGUE])


def named(name: str) -> Voice:
    """The voice of one of our names, or of OpenAI's; raises as ``find``."""
    return find(OPENAI.get(name, name))


def language_of(clause: Clause) -> str:
    """ "en" or "zh": what its style says, else the script that most of it is written in."""
    dialect = (clause.style.dialect or "").partition("-")[0]
    if dialect:
        return "en" if dialect == "en" else "zh"
    han = len(re.findall(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]", clause.text))
    words = len(re.findall(r"[A-Za-z\u00c0-\u024f]+", clause.text))
    return "zh" if han > words else "en"


def estimate_s(text: str) -> float:
    """About how long a text is when spoken, in seconds (0.22 a Chinese character, 0.065 a letter)."""
    han = len(re.findall(r"[\u3400-\u9fff]", text))
    return 0.22 * han + 0.065 * (len(text) - han)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an engine works on this machine, now.

    Attributes:
        first_s: seconds until a clause's first audio.
        realtime: seconds of work for a second of audio.
    """

    first_s: float
    realtime: float

    def in_time(self, ahead_s: float, length_s: float) -> bool:
        """Will a clause of ``length_s`` follow ``ahead_s`` of audio without a gap, a quarter to spare?"""
        first_s = 1.25 * self.first_s
        return first_s <= ahead_s and first_s + 1.25 * self.realtime * length_s <= ahead_s + length_s

    def updated(self, first_s: float, realtime: float, weight: float = 0.3) -> Pace:
        """Moved towards what was measured (an exponential average: load comes and goes)."""
        return Pace(
            self.first_s + weight * (first_s - self.first_s),
            self.realtime + weight * (realtime - self.realtime),
        )


def choose(candidates: Sequence[tuple[Voice, Pace]], ahead_s: float, length_s: float) -> Voice:
    """Who speaks a clause: the first (best) that is in time, else whoever is heard soonest.

    Args:
        candidates: voices, best first, with the pace of their engines.
        ahead_s: seconds of audio that the listener still has to hear; 0 at the start of an answer,
            infinite where nobody is waiting.
        length_s: about how long the clause is.
    """
    for voice, pace in candidates:
        if pace.in_time(ahead_s, length_s):
            return voice
    return min(candidates, key=lambda candidate: candidate[1].first_s)[0]


class Settings(Protocol):
    """What ``Speaker`` wants to know (the section ``tts`` of the configuration)."""

    @property
    def voice(self) -> str: ...
    @property
    def voice_en(self) -> str: ...
    @property
    def voice_zh(self) -> str: ...
    @property
    def fast(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def experimental(self) -> bool: ...


class Speaker:
    """All voices behind one face. Threads may share it.

    Args:
        store: where the models are.
        settings: which voices to use, and CPU threads.
        pronouncer: written text -> words with phonemes, shared by the engines.
        bank: voices that were mixed or cloned and kept; None: there are only stock voices.
        watermark: in all that is spoken; None: there is none.

    Raises:
        ConfigError: the settings name a voice that does not exist.
    """

    def __init__(
        self,
        store: ModelStore,
        settings: Settings,
        pronouncer: Pronouncer,
        bank: VoiceBank | None = None,
        watermark: Watermark | None = None,
    ) -> None:
        self._store, self._pronouncer, self._threads = store, pronouncer, settings.threads
        self._bank, self._watermark = bank, watermark
        self._pinned = None if settings.voice == "auto" else self.find(settings.voice)
        self._of_language = {"en": self.find(settings.voice_en), "zh": self.find(settings.voice_zh)}
        self._fast = None if settings.fast == "none" else find(settings.fast)
        self._experimental = settings.experimental
        # Of an idle laptop; corrected by every clause.
        self._pace = {"kokoro": Pace(0.35, 0.25), "hibari": Pace(0.04, 0.02)}

    def voices(self) -> tuple[Voice, ...]:
        """All voices, the default first."""
        default = self._pinned or self._of_language["en"]
        kept = self._bank.voices() if self._bank else ()
        return (default, *(voice for voice in (*CATALOGUE, *kept) if voice != default))

    def find(self, id: str) -> Voice:
        """The voice of one of our names, of OpenAI's, of a mix, or of a voice that was kept; raises
        ``ConfigError``, which names the nearest."""
        return self._bank.find(id) if self._bank else named(id)

    def candidates(self, clause: Clause, voice: Voice | None = None) -> list[Voice]:
        """Voices that may speak a clause, best first; ``voice`` is asked for, if it can read the text."""
        language = language_of(clause)
        voice = _asked(self, clause) or voice
        best = voice or self._pinned
        if best is None or language not in LANGUAGES[best.engine]:
            best = self._of_language[language]
        accent = clause.style.dialect or ""
        if voice is None and best is not self._pinned and accent in BEST_FOR and best.language != accent:
            best = find(BEST_FOR[accent])
        found = [best]
        fast = self._fast
        if (
            fast
            and voice is None
            and accent in ("", "en", fast.language)
            and SAME_SPEAKER.get(best.id) == fast.id
            and language in LANGUAGES[fast.engine]
        ):
            found.append(fast)
        return found

    def speak(
        self, clause: Clause, *, voice: Voice | None = None, ahead_s: float = math.inf
    ) -> Iterator[Speech]:
        """Speak a clause, by ``voice`` or by who is best in time; see ``choose`` for ``ahead_s``.

        A dialect that cannot be had (``objection``) is left out, with a warning in the log.

        Raises:
            ModelMissing: the message is the command that gets the model.
        """
        if reason := self.objection([clause]):
            log.warning("spoken plainly: %s", reason)
            clause = replace(clause, style=replace(clause.style, dialect=None))
        among = [(v, self._pace[v.engine]) for v in self.candidates(clause, voice)]
        spoken = self._timed(clause, choose(among, ahead_s, estimate_s(clause.text)))
        yield from self._watermark.mark(spoken) if self._watermark else spoken

    def perform(self, voice: Voice, make: Callable[[ProsodyModel], Iterator[Speech]]) -> Iterator[Speech]:
        """What ``make`` makes with the engine of a voice: a song, a plan that was kept.

        Raises:
            ModelMissing: the message is the command that gets the model.
        """
        spoken = make(self.model(voice))
        yield from self._watermark.mark(spoken) if self._watermark else spoken

    def plan(self, clause: Clause, voice: Voice | None = None) -> tuple[Voice, list[ProsodyPlan]]:
        """Who speaks a clause where nobody is waiting, and how it is to sound."""
        best = self.candidates(clause, voice)[0]
        engine = self.kokoro if best.engine == "kokoro" else self._hibari
        return best, list(engine.plan(clause, best))

    def model(self, voice: Voice) -> ProsodyModel:
        """The engine of a voice, open in the middle."""
        return self.kokoro if voice.engine == "kokoro" else self._hibari

    def objection(self, clauses: Sequence[Clause]) -> str | None:
        """Why clauses cannot be spoken in the dialects that they ask for, and what to do; None: they can."""
        return _objection(clauses, DIALECTS["kokoro"], self._experimental)

    def warm(self) -> None:
        """Load the voices that answers use, and see how fast they are."""
        for language, text in (("en", "Here it is."), ("zh", "你好。")):
            clause = Clause(0, text, SpeechStyle(dialect={"en": "en", "zh": "cmn"}[language]))
            for voice in self.candidates(clause):
                for _ in self._engine(voice).synthesize(clause, voice):
                    pass  # the first time is slow, and not counted
                for _ in self._timed(clause, voice):
                    pass

    def _timed(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        engine = self._engine(voice)
        work_s, first_s, audio_s = 0.0, 0.0, 0.0
        pieces = engine.synthesize(clause, voice)
        while True:
            began = time.monotonic()
            piece = next(pieces, None)
            work_s += time.monotonic() - began  # not the time in which the listener lets us wait
            if piece is None:
                break
            first_s = first_s or work_s
            audio_s += piece.audio.seconds
            yield piece
        if audio_s:
            self._pace[voice.engine] = self._pace[voice.engine].updated(first_s, work_s / audio_s)

    def _engine(self, voice: Voice) -> Synthesizer:
        return self.kokoro if voice.engine == "kokoro" else self._hibari

    @cached_property
    def kokoro(self) -> Kokoro:
        """The engine of most voices."""
        from stepaudio.tts import kokoro

        return kokoro.Kokoro(
            self._store.path("kokoro-82m"),
            self._store.path("kokoro-voices"),
            self._store.derived("kokoro-82m", kokoro.RECIPE, kokoro.split),
            self._pronouncer,
            threads=self._threads,
            bank=self._bank,
        )

    @cached_property
    def _hibari(self) -> Hibari:
        from stepaudio.tts import hibari

        return hibari.Hibari(
            self._store.path("hibari"),
            self._store.derived("hibari", hibari.RECIPE, hibari.split),
            self._pronouncer,
        )


class OneEngine:
    """The voices of one engine, with the face of ``Speaker``. Threads may share it.

    Args:
        synthesizer: speaks.
        pinned: the voice to speak with; "auto": the engine's first.
        watermark: in all that is spoken; None: there is none.

    Raises:
        ConfigError: the engine has no such voice.
    """

    def __init__(
        self, synthesizer: Synthesizer, pinned: str = "auto", watermark: Watermark | None = None
    ) -> None:
        self._synthesizer, self._watermark = synthesizer, watermark
        self._voices = {voice.id: voice for voice in synthesizer.voices()}
        self._default = next(iter(self._voices.values())) if pinned == "auto" else self.find(pinned)

    def voices(self) -> tuple[Voice, ...]:
        """All voices, the default first."""
        return (self._default, *(voice for voice in self._voices.values() if voice != self._default))

    def find(self, id: str) -> Voice:
        """The voice of that name, or for one of OpenAI's names the default; raises ``ConfigError``, which
        names the nearest."""
        if id in OPENAI:
            return self._default
        if id not in self._voices:
            raise unknown("voice", id, list(self._voices))
        return self._voices[id]

    def candidates(self, clause: Clause, voice: Voice | None = None) -> list[Voice]:
        """Who may speak a clause: ``voice``, or the default."""
        return [voice or self._default]

    def speak(
        self, clause: Clause, *, voice: Voice | None = None, ahead_s: float = math.inf
    ) -> Iterator[Speech]:
        """Speak a clause; ``ahead_s`` changes nothing, as there is nobody faster."""
        spoken = self._synthesizer.synthesize(clause, _asked(self, clause) or voice or self._default)
        return self._watermark.mark(spoken) if self._watermark else spoken

    def objection(self, clauses: Sequence[Clause]) -> str | None:
        """As of ``Speaker``."""
        return _objection(clauses, self._synthesizer.capabilities.dialects, experimental=True)

    def warm(self) -> None:
        """Speak once: the first time is slow."""
        for _ in self.speak(Clause(0, "你好。")):
            pass


def _asked(speaker: Speaker | OneEngine, clause: Clause) -> Voice | None:
    """The voice that a tag asks for; None: it asks for none, or a model asks for one that there is not."""
    try:
        return speaker.find(clause.style.voice) if clause.style.voice else None
    except ConfigError:
        return None


def _objection(clauses: Sequence[Clause], grades: Mapping[str, Grade], experimental: bool) -> str | None:
    for dialect in {clause.style.dialect: None for clause in clauses}:
        texts = [clause.text for clause in clauses if clause.style.dialect == dialect]
        if reason := objection(dialect, texts, grades, experimental=experimental):
            return reason
    return None
