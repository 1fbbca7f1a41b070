"""Turn-taking: who speaks, whose turn ended, what is an interruption. Sans-IO: events in, effects out.

It knows speech, silence, scores and words; it does not know models, sockets, or the Realtime protocol.
The clock is audio time: ms of input received since the stream began. Wall time enters only as ``Tick``.

State is two enums, one for each party, and two tables of legal moves; anything else raises. What couples
them stands in ``TurnTaker._joint``. The agent's DRAFTING is Step-Audio's speculative response: it begins to answer at
a short pause, nothing is sent until the turn has truly ended (``Release``), and it is dropped when the
user goes on (``Cancel``).

**End of turn.** A pause of ``draft_after_ms`` starts a draft and asks the turn model (``ScoreTurn``) and
the recogniser (``Recognize``). How much silence then ends the turn depends on the score, on whether the
words are evidently finished or unfinished, and on the pauses this speaker has made before. A draft is
ready some 600 ms after its pause, so a decision that waits 400 ms costs the listener nothing.

**Interruption.** While the agent is heard, speech is first a CANDIDATE. It ducks the answer after
``duck_after_ms`` (``Duck``: hold the audio, keep the exact sample), so the listener has silence within
100 ms whatever the verdict is. The verdict needs words: a "right" and a "write it down" are the same for
300 ms, and by 250 ms a recogniser (60 to 100 ms for a short piece) has heard only the first 150 ms of speech.
So within 250 ms are decided: bursts (``Unduck``) and speech whose words are already known. What is still
unknown stays ducked, and is decided by its words as they grow, or by its length: nobody says "mm-hm" for
``sustain_ms``. A backchannel costs the listener a short gap, never the answer; a real interruption finds
silence at once, and its cancellation a little later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

FRAME_MS = 32
"""Of one voice activity frame."""

Mode = Literal["semantic_vad", "server_vad", "none"]
Eagerness = Literal["low", "medium", "high", "auto"]
Reason = Literal["turn_detected", "client_cancelled", "resumed"]


# Events


@dataclass(frozen=True, slots=True)
class Speech:
    """One voice activity frame of 32 ms.

    Attributes:
        prob: 0..1, that it holds speech.
        end_ms: audio time of its end.
        echo: 0..1, that what it holds is the agent's own voice coming back (``echo.EchoGuard``).
    """

    prob: float
    end_ms: int
    echo: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnScore:
    """The turn model's answer to ``ScoreTurn``: 0..1, that the turn is complete, as heard until ``at_ms``."""

    prob: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """Transcript of the speech that is going on (from its start) as far as ``end_ms``; "" is an answer, too.

    Wanted after every ``Recognize``; more often does no harm.
    """

    text: str
    end_ms: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The client says that its turn is over. It is not answered before ``CreateResponse``."""


@dataclass(frozen=True, slots=True)
class Clear:
    """The client throws away what it has said since the last turn."""


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """The client wants an answer now. Illegal while one is under way (``TurnTaker.answering``)."""

    response_id: str


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """The client cancels the answer under way; None: whichever it is. Drafts are none of its business."""

    response_id: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The listener begins to hear this answer. Until then, speech cancels it at once: nothing was lost."""

    response_id: str


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The listener has heard all of it (or it failed, or it was text alone)."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Wall time, in ms of any monotonic clock, a few times a second.

    Counts only when no audio comes at all: a client that stops sending after its question has ended its turn.
    """

    now_ms: int


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings, from now on."""

    config: TurnConfig


Event = (
    Speech
    | TurnScore
    | Heard
    | Commit
    | Clear
    | CreateResponse
    | CancelResponse
    | ResponseStarted
    | ResponseEnded
    | Tick
    | Configure
)


# Effects


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A turn of the user began; ``start_ms`` is the first audio of it, padding included."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The user's turn is over: commit its audio.

    Attributes:
        start_ms: of its audio, padding included.
        end_ms: audio time of the decision.
        speech_end_ms: where its last speech ended: the start of every latency figure.
    """

    start_ms: int
    end_ms: int
    speech_end_ms: int


@dataclass(frozen=True, slots=True)
class Draft:
    """Begin to answer the audio from ``start_ms`` to ``end_ms``; send nothing before ``Release``.

    Where ``Release`` follows in the same list, it answers turns that have ended already.
    """

    response_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """The turn has ended: send what the draft holds and will hold."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop this answer.

    Attributes:
        reason: "resumed": a draft, of which nobody knows, as the user went on or its turn was withdrawn;
            "turn_detected": the user interrupted; "client_cancelled": asked for.
    """

    response_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class ScoreTurn:
    """Ask the turn model about the audio from ``start_ms`` to ``at_ms``; answer with ``TurnScore``."""

    start_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Recognize:
    """Recognise the audio from ``start_ms`` to ``at_ms`` now; answer with ``Heard(text, at_ms)``."""

    start_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Duck:
    """Hold the audio of this answer: somebody may be interrupting. Ends in ``Unduck`` or ``Cancel``, or
    with the answer (when its end or the client's cancel comes first)."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Unduck:
    """It was none: go on from the exact sample."""

    response_id: str


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Nobody spoke from ``start_ms`` (when the last answer had been heard) to ``end_ms``.

    Commit that audio; a ``Draft`` and its ``Release`` follow where answers are automatic.
    """

    start_ms: int
    end_ms: int


Effect = (
    SpeechStarted | TurnEnded | Draft | Release | Cancel | ScoreTurn | Recognize | Duck | Unduck | IdleTimeout
)


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """Settings of turn-taking; the first block is the Realtime API's ``turn_detection``, by its names.

    Attributes:
        mode: "semantic_vad" (silence, turn model and words), "server_vad" (silence alone), or "none" (the
            client commits; speech is not looked at).
        eagerness: of semantic_vad: how soon to answer when unsure. "auto" is "medium".
        threshold: 0..1, a frame of at least this probability is speech (server_vad and semantic_vad).
        prefix_padding_ms: audio kept before the first speech.
        silence_duration_ms: of server_vad: silence that ends a turn.
        create_response: answer turns by oneself.
        interrupt_response: speech of the user stops the answer.
        idle_timeout_ms: silence after an answer that counts as a turn; None: never.
    """

    mode: Mode = "semantic_vad"
    eagerness: Eagerness = "auto"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
