"""Turn-taking: who speaks, whose turn ended, what is an interruption. Sans-IO: events in, effects out.

It knows speech, silence, scores and words; it does not know models, sockets, or the Realtime protocol.
The clock is audio time: ms of input received since the stream began. Wall time enters only as ``Tick``.

State is two enums, one for each party, and two tables of legal moves; anything else raises. What couples
them stands in ``TurnTaker._joint`` and ``_speaks``. The agent's DRAFTING is Step-Audio's speculative
response: it begins to answer at a short pause, nothing is sent until the turn has truly ended
(``Release``), and it is dropped when the user goes on (``Cancel``).

**End of turn.** A pause of ``draft_after_ms`` starts a draft and asks the turn model (``ScoreTurn``) and
the recogniser (``Recognize``; a draft recognises the same audio, once is enough). How much silence then
ends the turn depends on the score, on whether the words evidently go on, and on the pauses this speaker
has made before. A draft is heard some 600 ms after its pause, so a decision that waits 400 ms is free.

**Interruption.** While the agent is heard, speech is first a CANDIDATE. It ducks the answer after
``duck_after_ms`` (``Duck``: hold the audio, keep the exact sample), so the listener has silence within
100 ms whatever the verdict is. The verdict needs words: a "right" and a "write it down" are the same for
300 ms, and by 250 ms a recogniser (60 to 100 ms for a short piece) has heard only the first 150 ms of speech.
So within some 250 ms are decided: bursts (``Unduck``) and an early "stop" (``Cancel``). What is still
unknown stays ducked, and is decided by its words as they grow, or by its length: nobody says "mm-hm" for
``sustain_ms``. A backchannel costs the listener a gap of its own length, never the answer; a real
interruption finds silence at once, and its cancellation 0.4 to 1 s after the onset (``bench.overlap``).
"""

from __future__ import annotations

import itertools
import re
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

    # Listening: onset and pauses.
    hysteresis: float = 0.15
    """Within speech, frames count as speech down to this much under the threshold (Silero's own practice)."""
    min_speech_ms: int = 96
    """Of speech in a row begin a turn; shorter is a click."""
    resume_ms: int = 64
    """Of speech in a row end a pause; a single frame is a click or the release of a consonant."""
    draft_after_ms: int = 128
    """A pause of this length starts a draft: the closures of stops last up to 120 ms."""

    # Listening: the end of a semantic_vad turn.
    score_every_ms: int = 192
    """The turn model is asked again as the silence grows: it hears it."""
    end_after_ms: int = 320
    """Silence that ends a turn which the turn model calls complete."""
    words_wait_ms: int = 800
    """Silence for which the end waits for words that are not known yet: where recognition is slow, an answer
    could not begin any sooner, and "So my question is" would be taken for a whole turn."""
    doubt_after_ms: int = 1100
    """Silence that ends a turn which it calls incomplete, when the words say nothing."""
    unfinished_after_ms: int = 2400
    """Silence that ends a turn whose words are evidently unfinished."""
    sure: float = 0.9
    """Score from which on the turn model is sure that a turn is complete."""

    # While the agent is heard.
    overlap_threshold: float = 0.6
    """As ``threshold``, for the onset of an interruption."""
    echo_threshold: float = 0.5
    """Frames of at least this likelihood of echo are not speech."""
    duck_after_ms: int = 64
    """Of speech in a row duck the answer."""
    first_words_ms: int = 160
    """After the onset the recogniser is asked for the first time; its answer comes within 250 ms."""
    words_every_ms: int = 128
    """And again."""
    burst_ms: int = 200
    """Speech that lasted no longer and is followed by ``burst_quiet_ms`` of quiet was a burst."""
    burst_quiet_ms: int = 96
    words_ms: int = 320
    """Words other than stop words count once the recogniser has heard this much of the speech."""
    sustain_ms: int = 704
    """Speech of this length whose words are unclear is an interruption: backchannels are shorter."""
    backchannel_ms: int = 1600
    """Speech of this length is an interruption even if its words are all backchannels, or none."""
    verdict_quiet_ms: int = 320
    """Quiet after which a candidate without a verdict is none."""

    stall_ms: int = 1000
    """Wall time without any audio that counts as the end of what was being said."""


MAX_WAIT_MS = {"low": 8000, "medium": 4000, "high": 2000, "auto": 4000}
"""Silence that ends a semantic_vad turn whatever else is known (the Realtime API's figures)."""
_HASTE = {"low": 1.6, "medium": 1.0, "high": 0.7, "auto": 1.0}
"""Eagerness as a factor on the silence waited for."""


class User(Enum):
    """What the user is doing."""

    SILENT = auto()
    CANDIDATE = auto()
    """Makes sounds while the agent is heard; not known yet to be a turn."""
    SPEAKING = auto()
    PAUSING = auto()
    """Quiet, but the turn may go on."""


class Agent(Enum):
    """What the agent is doing."""

    IDLE = auto()
    DRAFTING = auto()
    """Answering a turn that may go on; nothing is sent yet."""
    RESPONDING = auto()
    """The answer is released, and not heard yet."""
    AUDIBLE = auto()


USER_MOVES: dict[tuple[User, str], User] = {
    (User.SILENT, "sound"): User.CANDIDATE,
    (User.SILENT, "onset"): User.SPEAKING,
    (User.CANDIDATE, "confirmed"): User.SPEAKING,
    (User.CANDIDATE, "dismissed"): User.SILENT,
    (User.SPEAKING, "pause"): User.PAUSING,
    (User.SPEAKING, "end"): User.SILENT,  # by commit, clear or stall alone
    (User.PAUSING, "resume"): User.SPEAKING,
    (User.PAUSING, "end"): User.SILENT,
}

AGENT_MOVES: dict[tuple[Agent, str], Agent] = {
    (Agent.IDLE, "draft"): Agent.DRAFTING,
    (Agent.IDLE, "create"): Agent.RESPONDING,
    (Agent.DRAFTING, "release"): Agent.RESPONDING,
    (Agent.DRAFTING, "cancel"): Agent.IDLE,
    (Agent.RESPONDING, "heard"): Agent.AUDIBLE,
    (Agent.RESPONDING, "cancel"): Agent.IDLE,
    (Agent.RESPONDING, "ended"): Agent.IDLE,
    (Agent.AUDIBLE, "cancel"): Agent.IDLE,
    (Agent.AUDIBLE, "ended"): Agent.IDLE,
}


class IllegalMove(Exception):
    """The caller asked for what the state does not allow: a bug of the caller, or of this file."""


# What words say


class Words(Enum):
    """What a transcript says about an interruption."""

    NONE = auto()
    """Nothing, or what recognisers write for noise."""
    BACKCHANNEL = auto()
    """"Go on, I am listening.\""""
    UNCLEAR = auto()
    """Something short that is none of these; it may be misheard."""
    OTHER = auto()
    STOP = auto()


# Compared with the text in lower case, without signs and white space.
_BACKCHANNELS = (
    "m+-?h+m+|h+m+|m+|u+h+-?h+u+h+|u+h+|u+m+|a+h+a*|o+h+|huh|ye+ah*|yep|yup|yes|ok|okay|right|sure|true|exactly"
    "|isee|gotit|gotcha|great|good|nice|cool|wow|really|indeed|alright|allright|ofcourse|absolutely|definitely"
    "|aha|ooh|well|so|fine|makessense|thatsright|interesting"
    "|嗯+|恩+|唔+|噢+|哦+|喔+|啊+|呃+|哎+|诶+|欸+|对+啊?|对的|好+|好的|好吧|好啊|是+|是的|是啊|是吗|行+|行吧|没错|当然|可以|明白|明白了|知道了|"
    "了解|这样啊|原来如此|真的|真的吗|有道理|系|系啊|係|啱|mhm"
)
_BACKCHANNEL = re.compile(f"(?:{_BACKCHANNELS})+")
_STOP = re.compile(
    r"\b(?:stop|wait|hold on|hang on|hold up|shut up|be quiet|quiet|pause|enough|never ?mind|excuse me"
    r"|cancel that|no no|not that|let me|sorry but)\b"
    "|等一下|等下|等等|等一等|等会|稍等|停|别说|别讲|不要说|不要讲|不用说|闭嘴|打住|够了|安静|先别|算了"
    "|唔好讲|收声|^(?:等|别|不对|不是)"
    r"|^(?:no|but|actually)\b"
)
_NOISE_TEXT = re.compile(  # what Whisper writes where nobody speaks (seen on music, kitchen noise, coughs)
    "(?:you|(?:thankyou)+|thanks|bye+|byebye|谢谢|loveyou|seeyounexttime|illseeyounexttime|thanksforwatching|thankyouforwatching|music|applause|laughter|cough|coughing|sigh|silence"
    "|blankaudio|theend|字幕.*|谢谢观看|谢谢大家|谢谢收看|请不吝点赞.*)?"
)
_SIGNS = re.compile(r"[\W_]+")
_ENOUGH = re.compile(
    r"[\u4e00-\u9fff]{4}|(?:[^\W\u4e00-\u9fff]+\W+){2}[^\W\u4e00-\u9fff]"
)  # 4 characters, 3 words


def words(text: str) -> Words:
    """What ``text``, heard while the agent speaks, says: "stop", "go on", something else, or nothing.

    Short pieces of speech are misheard: of "mm-hm" a recogniser makes "Mom", of 嗯 "then". So something else
    is OTHER from three words or four Chinese characters on, and UNCLEAR before.
    """
    text = text.lower().replace("'", "").replace("’", "").strip()
    bare = _SIGNS.sub("", text)
    if _NOISE_TEXT.fullmatch(bare):
        return Words.NONE
    if _STOP.search(text):
        return Words.STOP
    if _BACKCHANNEL.fullmatch(bare):
        return Words.BACKCHANNEL
    return Words.OTHER if _ENOUGH.search(text) else Words.UNCLEAR


_NEEDS_NOUN = frozenset("a an the my your our their its and or nor because than every".split())
_NEEDS_MORE = _NEEDS_NOUN | frozenset(
    "but so since if when while that which who whose whom what where why how as of to in on at by for with"
    " from into onto about between through during without within under over is are was were am be been being"
    " do does did has have had can could will would shall should may might must i you we they he she his this"
    " these those some any each no not very more most um uh er erm like let's i'm it's what's who's where's"
    " how's i'd i'll we're they're you're many much".split()
)
_NEEDS_MORE_ZH = re.compile(
    "(?:因为|所以|但是|可是|不过|而且|并且|或者|还是|如果|要是|虽然|然后|那么|就是|就是说|比如|比如说|例如|关于"
    "|对于|由于|为了|除了|以及|那个|这个|一个|其中|包括|还有|呃|嗯|额)$"
)
_MAY_NEED_MORE_ZH = re.compile(  # characters that other words end with, too
    "[和跟与或及在把被给从向对比让使但而则并且若虽的地很最更是想要能请]$"
)
_NOT_OPEN_ZH = re.compile(
    "(?:是的|好的|真的|对的|似的|目的|不是|还是的|不对|反对|不要|需要|不能|可能|不想|现在|存在|可及|不及|来得及"
    "|普及|涉及|提及|顾及|危及|遍及|埃及|理想|思想|重要|主要|功能|可能|智能|性能|申请|邀请|比对|绝对|相对|方向|土地"
    "|是(?![一这那哪几]|个)[^，。]{1,8}的)$"  # 是 … 的 stresses what is between, and is whole: 那是安全的
)
_REQUEST = re.compile(  # the beginning of one; what is asked for must follow
    r"(?:(?:so|well|okay|ok|hi|hello|hey|um|uh|please)\b[ ,.]*)*"
    r"(?:i was wondering(?: if)?|i wonder|i(?: want| wanted|'d like| would like) to (?:ask|know)(?: you)?"
    r"|(?:my|the|one) question is|(?:could|can|would|will) you (?:please )?(?:tell|explain|help|give|show)"
    r"(?: to)?(?: me| us)?(?: please)?|(?:please )?(?:tell|explain|give|show)(?: to)? (?:me|us)(?: about)?"
    r"|do you know|let me ask(?: you)?|i have a question|i need|you know|i mean|for example|the thing is)"
    "|(?:请问一下|请问|我想问|我想问一下|我想知道|你能不能|能不能|可以告诉我|你能告诉我|请告诉我|告诉我|我的问题是|帮我)"
)


def unfinished(text: str) -> bool:
    """Whether ``text`` evidently goes on: it ends in a comma, dash or dots, or in a word that needs another
    ("and", "the", 因为, 的), or it is but the beginning of a request ("could you tell me").

    A recogniser puts a full stop or a question mark behind everything, so these prove little.
    """
    text = text.strip().lower().replace("’", "'")
    if text.endswith((",", "，", "、", "-", "—", "…", "..", ":", "：")):
        return True
    bare = text.rstrip(" .。!！?？")
    if not bare:
        return False
    if _REQUEST.fullmatch(bare):
        return True
    last = bare.split()[-1]
    if bare != text and text.endswith(("?", "？")):  # "where are you from?" is a whole question
        return last in _NEEDS_NOUN
    if _NOT_OPEN_ZH.search(bare):
        return False
    return last in _NEEDS_MORE or bool(_NEEDS_MORE_ZH.search(bare)) or _may_be_unfinished(bare)


def _may_be_unfinished(text: str) -> bool:
    """Whether ``unfinished`` goes by one Chinese character alone, which more than one word ends with."""
    bare = text.rstrip(" .。!！?？")
    return bool(_MAY_NEED_MORE_ZH.search(bare)) and not _NEEDS_MORE_ZH.search(bare)


class TurnTaker:
    """Decides turns: one object a session.

    Attributes:
        config: the settings; change them by ``Configure``.
        user, agent: the state; to be read, not written.
        response_id: of the answer under way (a draft, too); "" when there is none.

    Args:
        new_id: gives the ids of drafts; "resp_1", "resp_2" … when left out.
    """

    def __init__(self, config: TurnConfig | None = None, new_id: Callable[[], str] | None = None) -> None:
        self.config = config or TurnConfig()
        self.user, self.agent = User.SILENT, Agent.IDLE
        self.response_id = ""
        count = itertools.count(1)
        self._new_id = new_id or (lambda: f"resp_{next(count)}")
        # Audio times in ms.
        self._now = 0
        self._free = 0  # where the next turn may begin: the end of the last one
        self._onset = 0  # of the turn's (or candidate's) first speech
        self._speech_end = 0  # of its last speech
        self._loud_since: int | None = None  # start of the run of speech frames that lasts
        self._echo_frames = 0  # in a row
        self._asked = 0  # when the turn model or, of a candidate, the recogniser was last asked
        self._idle_since: int | None = None  # end of the last answer, while nobody has spoken since
        # What is known of the turn.
        self._score: float | None = None  # in this pause
        self._heard: Heard | None = None
        self._said = Words.NONE  # by a candidate
        self._waiting: tuple[int, int] | None = None  # turns that ended and have no answer yet
        self._habit = 0.0  # pauses of this speaker within turns, ms
        # Wall time.
        self._last_audio: int | None = None  # the first tick since the last audio

    @property
    def answering(self) -> bool:
        """Whether an answer is under way that the client may know of (no draft)."""
        return self.agent in (Agent.RESPONDING, Agent.AUDIBLE)

    @property
    def ducked(self) -> bool:
        """Whether the answer is held."""
        return self.user is User.CANDIDATE and self.config.interrupt_response

    def receive(self, event: Event) -> list[Effect]:
        """Take an event; return what is to be done, in order.

        Raises:
            IllegalMove: ``CreateResponse`` while an answer is under way, or frames out of order.
        """
        match event:
            case Speech():
                out = self._speech(event)
            case TurnScore(prob, at_ms):
                out = self._turn_score(prob, at_ms)
            case Heard():
                out = self._words(event)
            case Commit():
                out = self._commit()
            case Clear():
                out = self._clear()
            case CreateResponse(response_id):
                if self.answering:
                    raise IllegalMove(f"create {response_id}: {self.response_id} is under way")
                out = self._drop_draft()
                self._waiting = None  # the answer is to everything said so far
                self._begin(response_id, "create")
            case CancelResponse(response_id):
                out = []
                if self.answering and response_id in (None, self.response_id):
                    out = [self._cancel("client_cancelled")]
            case ResponseStarted(response_id):
                out = []
                if self.agent is Agent.RESPONDING and response_id == self.response_id:
                    self._move_agent("heard")
            case ResponseEnded(response_id):
                out = []
                if self.answering and response_id == self.response_id:
                    self._move_agent("ended")
                    self._idle_since = self._now
            case Tick(now_ms):
                out = self._tick(now_ms)
            case _:
                out = self._configure(event.config)
        return out + self._joint()

    def _joint(self) -> list[Effect]:
        """What the state of one party means for the other, whatever led to it."""
        out: list[Effect] = []
        # Nobody is interrupted any more: what may have been an interruption is a turn.
        if self.user is User.CANDIDATE and self.agent is not Agent.AUDIBLE:
            out += self._speaks("confirmed")
        if self.agent is Agent.IDLE and self.config.create_response:
            # A pause is used to begin an answer.
            if self.user is User.PAUSING:
                out.append(self._draft(self._turn_start, self._now))
            # Every turn that ended gets its answer, even if the agent could not be interrupted by it.
            elif self.user is User.SILENT and self._waiting is not None:
                out += [self._draft(*self._waiting), self._release()]
        return out

    # Moves

    def _move_user(self, move: str) -> None:
        if (self.user, move) not in USER_MOVES:
            raise IllegalMove(f"user {self.user.name}: {move}")
        self.user = USER_MOVES[self.user, move]

    def _move_agent(self, move: str) -> None:
        if (self.agent, move) not in AGENT_MOVES:
            raise IllegalMove(f"agent {self.agent.name}: {move}")
        self.agent = AGENT_MOVES[self.agent, move]
        if self.agent is Agent.IDLE:
            self.response_id = ""

    def _begin(self, response_id: str, move: Literal["draft", "create"]) -> None:
        self._move_agent(move)
        self.response_id = response_id
        self._idle_since = None

    def _draft(self, start_ms: int, end_ms: int) -> Draft:
        self._begin(self._new_id(), "draft")
        return Draft(self.response_id, start_ms, end_ms)

    def _release(self) -> Release:
        self._move_agent("release")
        self._waiting = None
        return Release(self.response_id)

    def _cancel(self, reason: Reason) -> Cancel:
        response_id = self.response_id
        self._move_agent("cancel")
        return Cancel(response_id, reason)

    def _drop_draft(self) -> list[Effect]:
        return [self._cancel("resumed")] if self.agent is Agent.DRAFTING else []

    # The user

    @property
    def _turn_start(self) -> int:
        return max(self._free, self._onset - self.config.prefix_padding_ms)

    def _speech(self, event: Speech) -> list[Effect]:
        if event.end_ms <= self._now:
            raise IllegalMove(f"a frame that ends at {event.end_ms} ms after one at {self._now} ms")
        self._now = event.end_ms
        self._last_audio = None
        if self.config.mode == "none":
            return []
        self._echo_frames = self._echo_frames + 1 if event.echo >= self.config.echo_threshold else 0
        loud = self._is_loud(event)
        if not loud:
            self._loud_since = None
        elif self._loud_since is None:
            self._loud_since = event.end_ms - FRAME_MS
        run = 0 if self._loud_since is None else self._now - self._loud_since
        match self.user:
            case User.SILENT:
                return self._silent(run)
            case User.CANDIDATE:
                if loud:
                    self._speech_end = self._now
                if self._echo_frames >= 2:  # the guard needs some 200 ms to know our own voice
                    return self._dismiss()
                return self._candidate()
            case User.SPEAKING:
                if loud:
                    self._speech_end = self._now
                elif self._quiet >= self._pause_after:
                    return self._pause()
                return []
            case _:  # PAUSING
                if run >= self.config.resume_ms:
                    return self._speaks("resume")
                return [] if loud else self._ask_again() + self._end_if_over()

    def _is_loud(self, event: Speech) -> bool:
        if self._echo_frames:
            return False
        if self.user in (User.SPEAKING, User.CANDIDATE):
            return event.prob >= self.config.threshold - self.config.hysteresis
        if self.agent is Agent.AUDIBLE:
            return event.prob >= max(self.config.threshold, self.config.overlap_threshold)
        return event.prob >= self.config.threshold

    @property
    def _quiet(self) -> int:
        """Silence since the last speech, ms."""
        return self._now - self._speech_end

    @property
    def _pause_after(self) -> int:
        if self.config.mode == "server_vad":
            return min(self.config.draft_after_ms, self.config.silence_duration_ms)
        return self.config.draft_after_ms

    def _silent(self, run: int) -> list[Effect]:
        overlap = self.agent is Agent.AUDIBLE
        if run >= (self.config.duck_after_ms if overlap else self.config.min_speech_ms):
            since, previous_end = self._now - run, self._speech_end
            self._onset, self._speech_end = since, self._now
            self._heard, self._said = None, Words.NONE
            self._asked = since
            if overlap:
                self._move_user("sound")
                return [Duck(self.response_id)] if self.config.interrupt_response else []
            if self.agent is Agent.RESPONDING:  # the turn was declared over too early
                self._learn(since - previous_end)
            return self._speaks("onset")
        idle = self.config.idle_timeout_ms
        if (
            idle is not None
            and self._idle_since is not None
            and not run
            and self._now - self._idle_since >= idle
        ):
            return self._idle_timeout()
        return []

    def _speaks(self, move: Literal["onset", "confirmed", "resume"]) -> list[Effect]:
        """The user speaks: what the agent drafts is out of date, what it says is interrupted."""
        out: list[Effect] = []
        if move == "resume":
            assert self._loud_since is not None
            self._learn(self._loud_since - self._speech_end)
            self._speech_end = self._now
        else:
            out.append(SpeechStarted(self._turn_start))
        self._move_user(move)
        self._score = None
        self._idle_since = None
        out += self._drop_draft()
        if self.answering and self.config.interrupt_response:
            out.append(self._cancel("turn_detected"))
        return out

    def _learn(self, pause_ms: int) -> None:
        """A pause within a turn was this long: soon expect longer ones, slowly shorter ones."""
        step = 0.4 if pause_ms > self._habit else 0.1
        self._habit += step * (min(pause_ms, self.config.doubt_after_ms) - self._habit)

    def _pause(self) -> list[Effect]:
        self._move_user("pause")
        if self.config.mode == "server_vad":
            return self._end_if_over()
        self._asked = self._now
        return [ScoreTurn(self._turn_start, self._now), Recognize(self._turn_start, self._now)]

    def _ask_again(self) -> list[Effect]:
        if self.config.mode == "server_vad" or self._now - self._asked < self.config.score_every_ms:
            return []
        self._asked = self._now
        return [ScoreTurn(self._turn_start, self._now)]

    def _end_if_over(self) -> list[Effect]:
        if self._loud_since is None and self._quiet >= self._silence_needed():
            return self._end_turn()
        return []

    def _silence_needed(self) -> int:
        if self.config.mode == "server_vad":
            return self.config.silence_duration_ms
        known = self._heard is not None and self._heard.end_ms >= self._speech_end
        text = self._heard.text if self._heard is not None and known else ""
        needed = silence_needed(self.config, self._score, text, self._habit)
        return needed if known else max(needed, self.config.words_wait_ms)

    def _end_turn(self, *, by_client: bool = False) -> list[Effect]:
        out: list[Effect] = [TurnEnded(self._turn_start, self._now, self._speech_end)]
        start = self._turn_start
        self._move_user("end")
        self._free = self._now
        self._loud_since = None
        self._heard = None
        if by_client or not self.config.create_response:
            return out + self._drop_draft()
        self._waiting = (start if self._waiting is None else self._waiting[0], self._now)
        if self.agent is Agent.DRAFTING:
            out.append(self._release())
        return out

    # Models

    def _turn_score(self, prob: float, at_ms: int) -> list[Effect]:
        if self.user is not User.PAUSING or at_ms <= self._speech_end:
            return []  # of a pause that is over
        self._score = prob
        return self._end_if_over()

    def _words(self, heard: Heard) -> list[Effect]:
        if heard.end_ms <= self._onset or (self._heard is not None and heard.end_ms < self._heard.end_ms):
            return []  # of something else, or overtaken
        late = self.user is User.SILENT and self.agent is Agent.AUDIBLE and heard.end_ms > self._free
        if self.user is User.SILENT and not late:
            return []
        self._heard = heard
        match self.user:
            case User.CANDIDATE:
                # A backchannel stays one while longer hearings are no clearer: "I see", "I c".
                said = words(heard.text)
                unsure = said in (Words.NONE, Words.UNCLEAR)
                self._said = Words.BACKCHANNEL if unsure and self._said is Words.BACKCHANNEL else said
                return self._candidate()
            case User.PAUSING:
                return self._end_if_over()
            case User.SILENT if (
                words(heard.text) is Words.STOP
            ):  # a short "stop", dismissed before it was known
                return self._speaks("onset")
        return []

    # Interruptions

    def _candidate(self) -> list[Effect]:
        match self._verdict():
            case "confirmed":
                return self._speaks("confirmed")
            case "dismissed":
                return self._dismiss()
        wait = self.config.first_words_ms if self._asked == self._onset else self.config.words_every_ms
        if self._now - self._asked < wait:
            return []
        self._asked = self._now
        return [Recognize(self._turn_start, self._now)]

    def _verdict(self) -> Literal["confirmed", "dismissed"] | None:
        config, said = self.config, self._said
        length = self._speech_end - self._onset
        if said is Words.STOP:
            return "confirmed"
        heard_ms = 0 if self._heard is None else min(self._heard.end_ms, self._speech_end) - self._onset
        if said is Words.OTHER and heard_ms >= config.words_ms:
            return "confirmed"
        # Without a recogniser length decides; long sounds in which it finds no words are music.
        unclear = self._heard is None or said in (Words.UNCLEAR, Words.OTHER)
        if length >= (config.sustain_ms if unclear else config.backchannel_ms):
            return "confirmed"
        burst = length <= config.burst_ms and said is not Words.OTHER
        if self._quiet >= (config.burst_quiet_ms if burst else config.verdict_quiet_ms):
            return "dismissed"
        return None

    # The client, the clock

    def _commit(self) -> list[Effect]:
        if self.user in (User.SPEAKING, User.PAUSING):
            return self._end_turn(by_client=True)
        out = self._dismiss()
        out.append(TurnEnded(self._free, self._now, self._now))
        self._free = self._now
        return out

    def _clear(self) -> list[Effect]:
        out = self._dismiss()
        if self.user is not User.SILENT:
            self._move_user("end")
            out += self._drop_draft()
        self._free = self._now
        self._loud_since = None
        return out

    def _dismiss(self) -> list[Effect]:
        if self.user is not User.CANDIDATE:
            return []
        ducked = self.ducked
        self._move_user("dismissed")
        self._loud_since = None
        return [Unduck(self.response_id)] if ducked else []

    def _tick(self, now_ms: int) -> list[Effect]:
        if self._last_audio is None:
            self._last_audio = now_ms
        stalled = now_ms - self._last_audio
        if stalled >= self.config.stall_ms:
            if self.user in (User.SPEAKING, User.PAUSING):
                return self._end_turn()
            out = self._dismiss()
            if out or self.user is not User.SILENT:
                return out
        idle = self.config.idle_timeout_ms
        if idle is not None and self._idle_since is not None and self.user is User.SILENT and stalled >= idle:
            return self._idle_timeout()
        return []

    def _idle_timeout(self) -> list[Effect]:
        assert self._idle_since is not None
        start = max(self._free, self._idle_since)
        self._idle_since = None
        self._free = self._now
        if self.config.create_response:
            self._waiting = (start, self._now)
        return [IdleTimeout(start, self._now)]

    def _configure(self, config: TurnConfig) -> list[Effect]:
        out: list[Effect] = []
        if config.mode == "none" or config.interrupt_response != self.config.interrupt_response:
            out += self._dismiss()
        if config.mode == "none" and self.user is not User.SILENT:
            self._move_user("end")  # its audio waits for the client's commit
        self.config = config
        if config.mode == "none" or not config.create_response:
            out += self._drop_draft()
            self._waiting = None
        return out


def silence_needed(config: TurnConfig, score: float | None, text: str, habit_ms: float) -> int:
    """Silence in ms after which a semantic_vad turn has ended.

    Args:
        score: 0..1, the turn model's; None: not known yet.
        text: what was said in the turn; "" when it is not known.
        habit_ms: the pauses that this speaker makes within turns.
    """
    limit = MAX_WAIT_MS[config.eagerness]
    if unfinished(text):
        # What hangs on one character counts no more than the turn model, where that is sure of the contrary.
        doubted = _may_be_unfinished(text) and score is not None and score >= config.sure
        needed = config.doubt_after_ms if doubted else config.unfinished_after_ms
    elif score is None:
        return limit
    else:
        doubt = 1 - score
        needed = config.end_after_ms + doubt * (config.doubt_after_ms - config.end_after_ms)
    return round(min(limit, max(needed * _HASTE[config.eagerness], 1.15 * habit_ms)))
