"""Turn-taking as scripts: one sign a frame of 32 ms, effects as short lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio.core.turns import (
    AGENT_MOVES,
    FRAME_MS,
    MAX_WAIT_MS,
    USER_MOVES,
    Agent,
    Cancel,
    CancelResponse,
    Clear,
    Commit,
    Configure,
    CreateResponse,
    Draft,
    Duck,
    Effect,
    Event,
    Heard,
    IdleTimeout,
    IllegalMove,
    Recognize,
    Release,
    ResponseEnded,
    ResponseStarted,
    ScoreTurn,
    Speech,
    SpeechStarted,
    Tick,
    TurnConfig,
    TurnEnded,
    TurnScore,
    TurnTaker,
    Unduck,
    User,
    Words,
    silence_needed,
    unfinished,
    words,
)

SERVER = TurnConfig(mode="server_vad", prefix_padding_ms=64, silence_duration_ms=320, draft_after_ms=160)
"""Silence alone: ten frames."""


class Talk:
    """A TurnTaker that is fed frame by frame; remembers what came out, and when (in frames).

    ``#`` speech, ``.`` silence, ``~`` between the thresholds, ``e`` the agent's own voice.
    """

    def __init__(self, config: TurnConfig = SERVER) -> None:
        self.turns = TurnTaker(config)
        self.now = 0
        self.log: list[tuple[int, Effect]] = []
        self.score: float | None = None
        self.text: str | None = None

    def say(self, script: str) -> Talk:
        for sign in script:
            self.now += FRAME_MS
            prob = {"#": 0.9, ".": 0.02, "~": 0.4, "e": 0.9}[sign]
            self.give(Speech(prob, self.now, echo=0.9 if sign == "e" else 0.0))
        return self

    def give(self, *events: Event) -> list[Effect]:
        out: list[Effect] = []
        for event in events:
            for effect in self.turns.receive(event):
                self.log.append((self.now // FRAME_MS, effect))
                out.append(effect)
                if isinstance(effect, ScoreTurn) and self.score is not None:
                    out += self.give(TurnScore(self.score, effect.at_ms))
                if isinstance(effect, Recognize) and self.text is not None:
                    out += self.give(Heard(self.text, effect.at_ms))
        return out

    def answer(self) -> Talk:
        """The agent begins to be heard, on its own account."""
        self.give(CreateResponse("a"), ResponseStarted("a"))
        return self

    def lines(self, *kinds: type) -> list[str]:
        """What came out, as "frame name": questions to models left out unless asked for."""
        return [
            f"{frame} {type(effect).__name__}"
            for frame, effect in self.log
            if (isinstance(effect, kinds) if kinds else not isinstance(effect, ScoreTurn | Recognize))
        ]


# Silence alone


def test_a_turn_is_drafted_at_a_pause_and_released_at_its_end() -> None:
    talk = Talk().say("..######" + "." * 12)
    assert talk.log == [
        (5, SpeechStarted(0)),
        (13, Draft("resp_1", 0, 13 * 32)),
        (18, TurnEnded(0, 18 * 32, 8 * 32)),
        (18, Release("resp_1")),
    ]
    assert (talk.turns.user, talk.turns.agent) == (User.SILENT, Agent.RESPONDING)


def test_padding_reaches_back_but_not_into_the_turn_before() -> None:
    talk = Talk().say("." * 10 + "#" * 5 + "." * 10)
    talk.give(ResponseEnded("resp_1"))
    talk.say("." + "#" * 5 + "." * 10)
    ends = [effect for _, effect in talk.log if isinstance(effect, TurnEnded)]
    assert [(e.start_ms, e.end_ms) for e in ends] == [(8 * 32, 25 * 32), (25 * 32, 41 * 32)]


def test_a_pause_that_ends_drops_the_draft() -> None:
    talk = Talk().say("#####" + "." * 6 + "###" + "." * 10)
    assert talk.lines() == [
        "3 SpeechStarted",
        "10 Draft",
        "13 Cancel",
        "19 Draft",
        "24 TurnEnded",
        "24 Release",
    ]
    assert (13, Cancel("resp_1", "resumed")) in talk.log


def test_clicks_begin_no_turn_and_end_no_pause() -> None:
    assert Talk().say(".#.##..#").lines() == []
    assert Talk().say("####" + "." * 6 + "#" + "." * 3).lines() == [
        "3 SpeechStarted",
        "9 Draft",
        "14 TurnEnded",
        "14 Release",
    ]


def test_no_turn_ends_in_the_middle_of_a_sound() -> None:
    talk = Talk().say("####" + "." * 9 + "#")
    assert talk.lines(TurnEnded) == []
    assert talk.say(".").lines(TurnEnded) == ["15 TurnEnded"]


def test_within_speech_half_loud_frames_are_speech() -> None:
    assert Talk().say("~~~~~").lines() == []
    assert Talk().say("###" + "~" * 20).lines() == ["3 SpeechStarted"]


def test_a_silence_shorter_than_the_pause_for_a_draft_is_obeyed() -> None:
    talk = Talk(replace(SERVER, silence_duration_ms=64)).say("####..")
    assert talk.lines() == ["3 SpeechStarted", "6 TurnEnded", "6 Draft", "6 Release"]


def test_silence_alone_asks_no_model() -> None:
    assert Talk().say("####" + "." * 12).lines(ScoreTurn, Recognize) == []


def test_without_automatic_answers_a_turn_just_ends() -> None:
    talk = Talk(replace(SERVER, create_response=False)).say("####" + "." * 12)
    assert talk.lines() == ["3 SpeechStarted", "14 TurnEnded"]


def test_speech_before_the_answer_is_heard_takes_it_back_at_once() -> None:
    talk = Talk().say("####" + "." * 10 + "###")
    assert talk.log[-2:] == [(17, SpeechStarted(14 * 32)), (17, Cancel("resp_1", "turn_detected"))]
    talk.say("." * 10)
    assert talk.lines()[-3:] == ["22 Draft", "27 TurnEnded", "27 Release"]


# Silence, turn model and words


def semantic(score: float | None, text: str | None = None, config: TurnConfig | None = None) -> int | None:
    """Frames of silence until a turn of ten frames of speech is over."""
    talk = Talk(config or TurnConfig())
    talk.score, talk.text = score, text
    talk.say("#" * 10 + "." * 300)
    return next((frame - 10 for frame, effect in talk.log if isinstance(effect, TurnEnded)), None)


def test_the_surer_the_turn_model_the_sooner_the_end() -> None:
    waits = [semantic(score, "What is the time?") or 0 for score in (1.0, 0.7, 0.3, 0.0)]
    config = TurnConfig()
    assert waits == sorted(waits)
    assert waits[0] == -(-config.end_after_ms // FRAME_MS)
    assert waits[-1] == -(-config.doubt_after_ms // FRAME_MS)


def test_words_that_go_on_are_waited_for() -> None:
    config = TurnConfig()
    assert semantic(1.0, "What is the") == -(-config.unfinished_after_ms // FRAME_MS)
    assert semantic(1.0, "What is the time?") == -(-config.end_after_ms // FRAME_MS)
    assert semantic(0.5, "我想要红色的") == -(-config.unfinished_after_ms // FRAME_MS)
    assert semantic(1.0, "我想要红色的") == -(-config.doubt_after_ms // FRAME_MS)  # 的 may end a turn, too
    assert semantic(1.0, "我想要红色的那个") == -(-config.unfinished_after_ms // FRAME_MS)
    assert semantic(1.0) == -(-config.words_wait_ms // FRAME_MS)  # words that are not known yet, a while


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
def test_without_a_turn_model_the_longest_wait_holds(
    eagerness: Literal["low", "medium", "high", "auto"],
) -> None:
    assert semantic(None, config=TurnConfig(eagerness=eagerness)) == -(-MAX_WAIT_MS[eagerness] // FRAME_MS)


def test_eagerness_scales_the_wait() -> None:
    low, medium, high = (
        silence_needed(TurnConfig(eagerness=e), 0.5, "", 0) for e in ("low", "medium", "high")
    )
    assert low > medium > high


def test_the_turn_model_is_asked_again_as_the_silence_grows() -> None:
    talk = Talk(TurnConfig())
    talk.score = 0.0
    talk.say("#" * 5 + "." * 20)
    assert talk.lines(ScoreTurn, Recognize)[:4] == [
        "9 ScoreTurn",
        "9 Recognize",
        "15 ScoreTurn",
        "21 ScoreTurn",
    ]


def test_answers_of_models_that_come_late_end_the_turn_or_nothing() -> None:
    talk = Talk(TurnConfig()).say("#" * 5 + "." * 40)
    assert talk.lines(TurnEnded) == []
    assert isinstance(talk.give(TurnScore(1.0, 10 * 32))[0], TurnEnded)
    assert talk.give(TurnScore(1.0, 10 * 32)) == []  # over
    talk.give(ResponseEnded("resp_1"))
    talk.say("#" * 5 + "." * 5)
    assert talk.give(TurnScore(1.0, 10 * 32)) == []  # of the pause before


def test_words_end_a_turn_only_when_they_reach_its_end() -> None:
    talk = Talk(TurnConfig())
    talk.score = 1.0
    talk.say("#" * 10)
    talk.give(Heard("what is the", 5 * 32))
    talk.say("." * 30)
    assert talk.lines(TurnEnded) == [f"{10 + (semantic(1.0) or 0)} TurnEnded"]


def test_words_overtaken_by_later_ones_and_words_of_nobody_are_dropped() -> None:
    talk = Talk(TurnConfig())
    assert talk.give(Heard("what", 10)) == []
    talk.score = 1.0
    talk.say("#" * 10 + "." * 5)
    talk.give(Heard("what is the", 15 * 32), Heard("what is it", 8 * 32))
    talk.say("." * 40)
    assert talk.lines(TurnEnded) == []
    assert isinstance(talk.give(Heard("what is the time", 16 * 32))[0], TurnEnded)


def test_a_speaker_who_pauses_long_is_waited_for_longer() -> None:
    talk = Talk(TurnConfig(doubt_after_ms=1600))
    talk.score = 0.0
    talk.say("".join("#" * 8 + "." * 40 for _ in range(6)) + "#" * 8)
    talk.score = 1.0
    before = talk.now // FRAME_MS
    talk.say("." * 60)
    [line] = talk.lines(TurnEnded)
    assert int(line.split()[0]) - before > (semantic(1.0) or 0) + 10


def test_a_turn_declared_over_too_early_teaches_patience() -> None:
    talk = Talk(TurnConfig())
    talk.score, talk.text = 1.0, "What is the time?"
    for _ in range(8):
        talk.say("#" * 8 + "." * 18)
    assert 1 <= len(talk.lines(TurnEnded)) < 8  # the later pauses are waited out


# Interruptions


def test_speech_over_the_answer_ducks_it_and_sustained_speech_stops_it() -> None:
    config = TurnConfig()
    talk = Talk(config).answer().say("." * 10 + "#" * 60)
    sustained = 10 + -(-config.sustain_ms // FRAME_MS)
    assert talk.lines() == ["12 Duck", f"{sustained} SpeechStarted", f"{sustained} Cancel"]
    assert talk.log[-1][1] == Cancel("a", "turn_detected")


def test_a_burst_only_ducks() -> None:
    talk = Talk(TurnConfig()).answer().say("..####........")
    assert talk.lines() == ["4 Duck", "9 Unduck"]
    assert talk.turns.agent is Agent.AUDIBLE


@pytest.mark.parametrize("text", ["Mm-hmm.", "Yeah, right.", "嗯嗯", "好的。"])
def test_a_backchannel_is_no_turn(text: str) -> None:
    talk = Talk(TurnConfig()).answer()
    talk.text = text
    talk.say(".." + "#" * 25 + "." * 20)
    assert [line.split()[1] for line in talk.lines()] == ["Duck", "Unduck"]


def test_one_who_never_ends_his_backchannels_interrupts() -> None:
    config = TurnConfig()
    talk = Talk(config).answer()
    talk.text = "yeah yeah yeah"
    talk.say("#" * 70)
    assert talk.lines()[-1] == f"{config.backchannel_ms // FRAME_MS} Cancel"


@pytest.mark.parametrize("text", ["Stop.", "Wait", "等一下"])
def test_a_word_that_says_stop_stops_at_once(text: str) -> None:
    talk = Talk(TurnConfig()).answer()
    talk.text = text
    talk.say(".." + "#" * 10)
    assert [line.split()[1] for line in talk.lines()] == ["Duck", "SpeechStarted", "Cancel"]
    assert (int(talk.lines()[-1].split()[0]) - 2) * FRAME_MS <= 250


def test_other_words_stop_when_enough_was_heard() -> None:
    config = TurnConfig()
    talk = Talk(config).answer()
    talk.text = "what about Paris"
    talk.say("#" * 40)
    frame = int(talk.lines(Cancel)[0].split()[0])
    assert config.words_ms <= frame * FRAME_MS < config.words_ms + config.words_every_ms + FRAME_MS


def test_a_backchannel_that_is_misheard_as_it_grows_stays_one() -> None:
    talk = Talk(TurnConfig()).answer()
    for text in ("I see.", "I C", "", "I see"):
        talk.text = text
        talk.say("#" * 6)
    assert talk.say("." * 12).lines(Cancel) == []


@pytest.mark.parametrize("text", ["", "Thank you."])
def test_long_sounds_without_words_are_not_believed_for_long(text: str) -> None:
    talk = Talk(TurnConfig()).answer()
    talk.text = text
    assert talk.say("#" * 40 + "." * 12).lines() == ["2 Duck", "50 Unduck"]


def test_quiet_without_a_verdict_is_no_interruption() -> None:
    talk = Talk(TurnConfig()).answer().say("#" * 12 + "." * 12)
    assert talk.lines() == ["2 Duck", f"{12 + 10} Unduck"]


def test_a_stop_that_is_understood_late_still_stops() -> None:
    talk = Talk(TurnConfig()).answer().say("..####......")
    assert talk.turns.user is User.SILENT
    assert talk.give(Heard("right", 6 * 32)) == []
    assert talk.give(Heard("stop", 7 * 32))[1:] == [Cancel("a", "turn_detected")]
    assert talk.turns.user is User.SPEAKING
    talk.score = 1.0
    assert talk.say("." * 40).lines(TurnEnded) != []


def test_own_voice_never_interrupts() -> None:
    assert Talk(TurnConfig()).answer().say("e" * 100).lines() == []


def test_a_candidate_that_turns_out_to_be_our_own_voice_is_none() -> None:
    talk = Talk(TurnConfig()).answer()
    talk.text = "and that is why the moon"
    assert talk.say("#" * 6 + "eee").lines() == ["2 Duck", "8 Unduck"]


def test_while_the_agent_is_heard_an_onset_must_be_clearer() -> None:
    talk = Talk(TurnConfig(threshold=0.3, overlap_threshold=0.95)).answer()
    assert talk.say("#" * 30).lines() == []


def test_interruptions_may_be_forbidden_and_are_answered_then() -> None:
    talk = Talk(TurnConfig(interrupt_response=False)).answer()
    talk.score = 1.0
    talk.say("#" * 40 + "." * 40)
    assert [line.split()[1] for line in talk.lines()] == ["SpeechStarted", "TurnEnded"]
    ended = talk.log[-1][1]
    assert isinstance(ended, TurnEnded)
    assert talk.give(ResponseEnded("a")) == [
        Draft("resp_1", ended.start_ms, ended.end_ms),
        Release("resp_1"),
    ]


def test_a_burst_during_an_answer_that_cannot_be_interrupted_is_nothing() -> None:
    talk = Talk(TurnConfig(interrupt_response=False)).answer().say("####......")
    assert talk.lines() == []
    assert talk.turns.user is User.SILENT


def test_speech_as_the_answer_ends_is_a_turn() -> None:
    talk = Talk(TurnConfig()).answer().say("#" * 5)
    assert talk.give(ResponseEnded("a")) == [SpeechStarted(0)]
    assert talk.turns.user is User.SPEAKING


def test_a_pause_as_the_answer_ends_is_used() -> None:
    talk = Talk(replace(SERVER, interrupt_response=False)).answer().say("#" * 25 + "." * 6)
    assert talk.turns.user is User.PAUSING
    assert talk.give(ResponseEnded("a")) == [Draft("resp_1", 0, talk.now)]


# The client


def test_push_to_talk() -> None:
    talk = Talk(TurnConfig(mode="none")).say("#" * 10 + "." * 10)
    assert talk.lines() == []
    assert talk.give(Commit()) == [TurnEnded(0, 640, 640)]
    assert talk.say("##").give(Commit()) == [TurnEnded(640, 704, 704)]
    assert talk.give(CreateResponse("a")) == []
    assert talk.turns.agent is Agent.RESPONDING


def test_a_commit_ends_the_turn_that_goes_on_and_answers_nothing() -> None:
    talk = Talk().say("#" * 5)
    assert talk.give(Commit()) == [TurnEnded(0, 160, 160)]
    talk.say("#" * 5 + "." * 5)
    assert [type(e) for e in talk.give(Commit())] == [TurnEnded, Cancel]


def test_clear_forgets_the_turn() -> None:
    talk = Talk().say("#" * 5 + "." * 5)
    assert talk.give(Clear()) == [Cancel("resp_1", "resumed")]
    assert talk.turns.user is User.SILENT
    assert talk.give(Clear()) == []
    assert talk.say("." * 20).lines(TurnEnded) == []


def test_clear_and_commit_dismiss_a_candidate() -> None:
    for event in (Clear(), Commit()):
        talk = Talk(TurnConfig()).answer().say("###")
        assert talk.give(event)[0] == Unduck("a")


def test_the_clients_answer_takes_the_place_of_the_draft() -> None:
    talk = Talk().say("#" * 5 + "." * 5)
    assert talk.give(CreateResponse("a")) == [Cancel("resp_1", "resumed")]
    with pytest.raises(IllegalMove, match="a is under way"):
        talk.give(CreateResponse("b"))


def test_cancelling() -> None:
    talk = Talk().say("#" * 5 + "." * 5)
    assert talk.give(CancelResponse()) == []  # a draft is not the client's
    talk.say("." * 5)
    assert talk.give(CancelResponse("other")) == []
    assert talk.give(CancelResponse("resp_1")) == [Cancel("resp_1", "client_cancelled")]
    assert talk.give(CancelResponse(), CancelResponse("resp_1")) == []
    assert talk.turns.response_id == ""


def test_what_is_said_of_other_answers_is_dropped() -> None:
    talk = Talk().answer()
    assert talk.give(ResponseStarted("b"), ResponseStarted("a"), ResponseEnded("b")) == []
    assert talk.turns.agent is Agent.AUDIBLE
    assert talk.give(ResponseEnded("a"), ResponseEnded("a")) == []
    assert talk.turns.agent is Agent.IDLE


def test_ids_may_come_from_elsewhere() -> None:
    turns = TurnTaker(SERVER, new_id=lambda: "mine")
    effects = [e for i in range(1, 20) for e in turns.receive(Speech(0.9 if i < 5 else 0.0, 32 * i))]
    assert Release("mine") in effects


# Settings that change


def test_turning_detection_off_leaves_the_audio_to_the_client() -> None:
    talk = Talk().say("#" * 5 + "." * 5)
    assert talk.give(Configure(TurnConfig(mode="none"))) == [Cancel("resp_1", "resumed")]
    assert talk.give(Commit()) == [TurnEnded(0, 320, 320)]
    talk = Talk(TurnConfig()).answer().say("###")
    assert talk.give(Configure(TurnConfig(mode="none"))) == [Unduck("a")]


def test_turning_automatic_answers_off_drops_the_draft() -> None:
    talk = Talk().say("#" * 5 + "." * 5)
    assert talk.give(Configure(replace(SERVER, create_response=False))) == [Cancel("resp_1", "resumed")]
    assert talk.say("." * 10).lines(Draft) == ["10 Draft"]


def test_forbidding_interruptions_lets_a_held_answer_go_on() -> None:
    talk = Talk(TurnConfig()).answer().say("###")
    assert talk.give(Configure(TurnConfig(interrupt_response=False))) == [Unduck("a")]
    assert talk.give(Configure(TurnConfig(interrupt_response=False, threshold=0.4))) == []


# Clocks


def test_silence_after_an_answer_counts_as_a_turn() -> None:
    talk = Talk(replace(SERVER, idle_timeout_ms=640)).answer().say("." * 5)
    talk.give(ResponseEnded("a"))
    talk.say("." * 30)
    assert talk.log == [
        (25, IdleTimeout(160, 800)),
        (25, Draft("resp_1", 160, 800)),
        (25, Release("resp_1")),
    ]


def test_an_idle_timeout_without_automatic_answers_is_told_once() -> None:
    config = replace(SERVER, idle_timeout_ms=640, create_response=False)
    talk = Talk(config).answer()
    talk.give(ResponseEnded("a"))
    assert talk.say("." * 60).lines() == ["20 IdleTimeout"]


def test_who_speaks_is_not_idle() -> None:
    talk = Talk(replace(SERVER, idle_timeout_ms=640, create_response=False)).answer()
    talk.give(ResponseEnded("a"))
    assert talk.say("." * 10 + "#" * 5 + "." * 60).lines(IdleTimeout) == []


def test_a_client_that_stops_sending_has_ended_its_turn() -> None:
    talk = Talk().say("#" * 10)
    assert talk.give(Tick(5000), Tick(5900)) == []
    assert [type(e) for e in talk.give(Tick(6000))] == [TurnEnded, Draft, Release]
    assert talk.give(Tick(9000)) == []


def test_ticks_say_nothing_while_audio_comes() -> None:
    talk = Talk()
    for second in range(20):
        talk.say("#" * 3)
        assert talk.give(Tick(1000 * second), Tick(1000 * second + 900)) == []


def test_a_candidate_that_stalls_is_none() -> None:
    talk = Talk(TurnConfig()).answer().say("###")
    assert talk.give(Tick(0), Tick(1000)) == [Unduck("a")]
    talk = Talk(TurnConfig(interrupt_response=False)).answer().say("###")
    assert talk.give(Tick(0), Tick(1000)) == []
    assert talk.turns.user is User.SILENT


def test_idle_without_any_audio() -> None:
    talk = Talk(replace(SERVER, idle_timeout_ms=5000)).answer()
    talk.give(ResponseEnded("a"))
    assert talk.give(Tick(100), Tick(5000)) == []
    assert [type(e) for e in talk.give(Tick(5100))] == [IdleTimeout, Draft, Release]


def test_frames_out_of_order_are_a_bug() -> None:
    with pytest.raises(IllegalMove, match="ends at 320 ms after one at 320 ms"):
        Talk().say("." * 10).give(Speech(0, 320))


def test_moves_that_the_tables_lack_raise() -> None:
    turns = TurnTaker()
    with pytest.raises(IllegalMove, match="user SILENT: resume"):
        turns._move_user("resume")
    with pytest.raises(IllegalMove, match="agent IDLE: release"):
        turns._move_agent("release")


def test_every_state_can_be_reached_and_left() -> None:
    for moves, states in ((USER_MOVES, User), (AGENT_MOVES, Agent)):
        assert {state for state, _ in moves} == set(moves.values()) == set(states)


# Words


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Words.NONE),
        ("Thank you.", Words.NONE),
        (" .", Words.NONE),
        ("you", Words.NONE),
        ("(Cough)", Words.NONE),
        ("谢谢观看", Words.NONE),
        ("Mm-hmm.", Words.BACKCHANNEL),
        ("uh huh", Words.BACKCHANNEL),
        ("Oh, okay. I see!", Words.BACKCHANNEL),
        ("That’s right", Words.BACKCHANNEL),
        ("对对对。", Words.BACKCHANNEL),
        ("哦，是吗？", Words.BACKCHANNEL),
        ("Stop!", Words.STOP),
        ("okay, wait a second", Words.STOP),
        ("Nevermind.", Words.STOP),
        ("等一下，", Words.STOP),
        ("别说了", Words.STOP),
        ("no, Paris", Words.STOP),
        ("stopwatch", Words.UNCLEAR),
        ("right turn", Words.UNCLEAR),
        ("好像", Words.UNCLEAR),
        ("what about Paris", Words.OTHER),
        ("好像是这个", Words.OTHER),
    ],
)
def test_words(text: str, kind: Words) -> None:
    assert words(text) is kind


@pytest.mark.parametrize(
    "text",
    [
        "What is the",
        "What is the name of the?",
        "I was wondering.",
        "Could you tell me?",
        "So my question is",
        "I'd like to know how many.",
        "Tell me about.",
        "on Monday, and",
        "Let me think...",
        "first,",
        "我想问一下",
        "因为",
        "就是说",
        "其中，",
        "他是一个聪明的",
        "我想要红色的",
        "我住在",
    ],
)
def test_unfinished(text: str) -> None:
    assert unfinished(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...?",
        "What time is it?",
        "Where are you from?",
        "Tell me about coffee.",
        "好的",
        "是的。",
        "今天天气怎么样？",
        "这样做是安全的",
        "想听歌曲爱不可及",
        "这个很重要。",
    ],
)
def test_not_evidently_unfinished(text: str) -> None:
    assert not unfinished(text) or text == "...?"


# Fuzzes


EVENTS = st.one_of(
    st.sampled_from(["#", "##", "####", "#" * 12, "#" * 30, ".", "...", "." * 8, "." * 20, "~~", "eee"]),
    st.tuples(st.just("score"), st.sampled_from([0.0, 0.5, 1.0])),
    st.tuples(st.just("heard"), st.sampled_from(["", "mm-hmm", "stop", "what is the", "what is it?"])),
    st.sampled_from(
        [
            "commit",
            "clear",
            "create",
            "cancel",
            "cancel none",
            "started",
            "ended",
            "tick",
            "long tick",
            "stale ended",
        ]
    ).map(lambda name: (name, None)),
    st.tuples(
        st.just("configure"),
        st.builds(
            TurnConfig,
            mode=st.sampled_from(["semantic_vad", "server_vad", "none"]),
            create_response=st.booleans(),
            interrupt_response=st.booleans(),
            idle_timeout_ms=st.sampled_from([None, 1000]),
        ),
    ),
)


class Watched(Talk):
    """A Talk that keeps books on the answers and turns, and checks them at every step."""

    def __init__(self, config: TurnConfig) -> None:
        super().__init__(config)
        self.drafts: set[str] = set()
        self.answers: set[str] = set()
        self.finished: set[str] = set()
        self.held: str | None = None
        self.turn_open = False
        self.last_end = 0
        self.owed = False  # a turn ended that wants an answer
        self.wall = 0
        self.count = 0

    def give(self, *events: Event) -> list[Effect]:
        out: list[Effect] = []
        for event in events:
            effects = self.turns.receive(event)
            for effect in effects:
                self.book(event, effect)
            if isinstance(event, ResponseEnded) and event.response_id in self.answers:
                self.finish(event.response_id)
            if isinstance(event, Clear | Configure) or (isinstance(event, Commit) and self.turn_open):
                self.turn_open = self.turns.user in (User.SPEAKING, User.PAUSING)
            self.check()
            out += effects
        return out

    def finish(self, response_id: str) -> None:
        self.answers.discard(response_id)
        self.finished.add(response_id)
        if self.held == response_id:
            self.held = None

    def book(self, event: Event, effect: Effect) -> None:
        match effect:
            case Draft(response_id, start, end):
                assert response_id not in self.drafts | self.answers | self.finished
                assert 0 <= start < end <= self.now
                self.drafts.add(response_id)
            case Release(response_id):
                self.drafts.remove(response_id)
                self.answers.add(response_id)
                self.owed = False
            case Cancel(response_id, reason):
                if reason == "resumed":
                    self.drafts.remove(response_id)
                    self.finished.add(response_id)
                else:
                    assert response_id in self.answers
                    self.finish(response_id)
            case Duck(response_id):
                assert self.held is None and response_id in self.answers
                self.held = response_id
            case Unduck(response_id):
                assert self.held == response_id
                self.held = None
            case SpeechStarted(start):
                assert not self.turn_open and start >= self.last_end
                self.turn_open = True
            case TurnEnded(start, end, speech_end):
                assert self.last_end <= start <= end <= self.now and speech_end <= end
                self.last_end, self.turn_open = end, False
                self.owed |= not isinstance(event, Commit) and self.turns.config.create_response
            case IdleTimeout(start, end):
                assert self.last_end <= start <= end
                self.last_end = end
                self.owed |= self.turns.config.create_response
            case ScoreTurn(start, at) | Recognize(start, at):
                assert start < at <= self.now

    def check(self) -> None:
        turns = self.turns
        assert len(self.drafts) + len(self.answers) <= 1
        assert self.drafts | self.answers == ({turns.response_id} if turns.response_id else set())
        assert (turns.agent is Agent.DRAFTING) == bool(self.drafts)
        assert turns.answering == bool(self.answers)
        assert turns.ducked == (self.held is not None)
        assert self.turn_open == (turns.user in (User.SPEAKING, User.PAUSING))

    def step(self, event: str | tuple[str, object]) -> None:
        turns = self.turns
        if isinstance(event, str):
            self.say(event)
            return
        match event:
            case "score", float(prob):
                self.give(TurnScore(prob, self.now))
            case "heard", str(text):
                self.give(Heard(text, self.now))
            case "commit", _:
                self.give(Commit())
            case "clear", _:
                self.give(Clear())
            case "create", _ if not turns.answering:
                self.count += 1
                response_id = f"client_{self.count}"
                for effect in turns.receive(CreateResponse(response_id)):
                    self.book(CreateResponse(response_id), effect)
                self.answers.add(response_id)
                self.owed = False
                self.check()
            case "cancel", _:
                self.give(CancelResponse(turns.response_id))
            case "cancel none", _:
                self.give(CancelResponse())
            case "started", _:
                self.give(ResponseStarted(turns.response_id))
            case "ended", _ if turns.answering:
                self.give(ResponseEnded(turns.response_id))
            case "stale ended", _:
                self.give(ResponseEnded("long_gone"), ResponseStarted("long_gone"))
            case ("tick" | "long tick") as name, _:
                self.wall += 100 if name == "tick" else 3000
                self.give(Tick(self.wall))
            case "configure", TurnConfig() as config:
                self.give(Configure(config))
                if config.mode == "none" or not config.create_response:
                    self.owed = False
            case _:
                pass


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_safety(events: list[str | tuple[str, object]]) -> None:
    """No illegal move; every draft ends once; at most one answer; ducks and turns are paired."""
    talk = Watched(TurnConfig())
    for event in events:
        talk.step(event)


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.booleans())
def test_liveness(events: list[str | tuple[str, object]], by_ticks: bool) -> None:
    """Given silence, and answers that end, both parties rest, and every turn that ended was answered."""
    talk = Watched(TurnConfig())
    for event in events:
        talk.step(event)
    talk.step(("configure", replace(talk.turns.config, idle_timeout_ms=None)))
    for _ in range(4):
        if by_ticks:
            talk.step(("tick", None))
            talk.step(("long tick", None))
        else:
            talk.say("." * (MAX_WAIT_MS["low"] // FRAME_MS + 1))
        talk.step(("ended", None))
    assert (talk.turns.user, talk.turns.agent) == (User.SILENT, Agent.IDLE)
    assert not talk.owed and not talk.drafts and not talk.answers and talk.held is None
