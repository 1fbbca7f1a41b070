"""How much at once: capacity from paces, rates, places; measured on a machine made of fakes."""

from __future__ import annotations

import asyncio

import pytest

from stepaudio.server import limits
from stepaudio.server.auth import Caller
from stepaudio.server.errors import ApiError
from stepaudio.server.limits import Admission, Bucket, Paces, talks_of

ANN, BOB = Caller("ann"), Caller("bob")
LAPTOP = Paces(activity=0.01, hearing=0.1, speaking=0.25, first_token_s=0.2, tokens_per_s=40)


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(call, *arguments) -> ApiError:
    with pytest.raises(ApiError) as error:
        call(*arguments)
    return error.value


# What a machine can hold


def test_talks_are_what_fits_into_seven_tenths_of_the_time():
    # A turn of 9 s: 0.09 s of voice activity, 0.8 s heard twice, 0.2 + 0.5 s written, 1 s spoken = 2.59 s.
    assert talks_of(LAPTOP) == int(0.7 * 9 / 2.59) == 2


def test_a_faster_machine_holds_more_and_a_slow_one_still_one():
    fast = Paces(0.001, 0.01, 0.025, 0.02, 400)
    assert talks_of(fast) > 8 * talks_of(LAPTOP)
    assert talks_of(Paces(1, 5, 5, 30, 0.5)) == 1


def test_measuring_speaks_hears_and_writes(fake_engine):
    engine = fake_engine()
    paces = asyncio.run(limits.measure(engine))
    assert all(value >= 0 for value in limits.as_dict(paces).values()) and paces.tokens_per_s > 0
    sentence = engine.speaker.clauses[-1].text
    assert engine.recognizer.calls[-1][0].seconds == pytest.approx(0.1 * len(sentence.split()))
    assert engine.llm.asked[-1][-1].role == "user"


# Rates


def test_bucket_fills_up_slowly_and_not_beyond_its_size():
    bucket = Bucket(60, now=0)
    assert [bucket.take(0) for _ in range(60)] == [0.0] * 60
    assert bucket.take(0) == pytest.approx(1.0)
    assert bucket.take(0.5) == pytest.approx(0.5)
    assert bucket.take(1.0) == 0.0
    assert [bucket.take(1000) for _ in range(61)].count(0.0) == 60


def test_one_callers_rate_is_not_anothers():
    clock = Clock()
    admission = Admission(4, requests_per_minute=2, clock=clock)
    assert admission.request(ANN)["x-ratelimit-remaining-requests"] == "1"
    admission.request(ANN)
    error = refused(admission.request, ANN)
    assert (error.status, error.code, error.headers["retry-after"]) == (429, "rate_limit_exceeded", "30")
    admission.request(BOB)
    clock.now = 30
    admission.request(ANN)


def test_a_keys_own_rate_goes_before():
    admission = Admission(4, requests_per_minute=1)
    eager = Caller("eager", requests_per_minute=3)
    for _ in range(3):
        admission.request(eager)
    assert refused(admission.request, eager).status == 429


def test_rates_of_many_callers_are_forgotten(monkeypatch):
    monkeypatch.setattr(limits, "BUCKETS", 10)
    admission = Admission(4, requests_per_minute=1)
    for n in range(100):
        admission.request(Caller(f"c{n}"))
    assert len(admission._buckets) == 10


# Places


def test_talks_up_to_capacity():
    reasons = []

    async def play() -> None:
        admission = Admission(2, on_refusal=reasons.append)
        async with admission.talk(ANN), admission.talk(BOB):
            assert admission.as_dict() == {"talks": 2, "open": 2, "free": 0}
            error = refused(admission.check_talk, ANN)
            assert (error.status, error.code) == (503, "session_limit_reached")
            assert int(error.headers["retry-after"]) > 0
        assert admission.open_talks == 0
        async with admission.talk(ANN):
            pass

    asyncio.run(play())
    assert reasons == ["capacity"]


def test_a_talk_that_fails_gives_its_place_back():
    async def play() -> None:
        admission = Admission(1)
        with pytest.raises(ValueError):
            async with admission.talk(ANN):
                raise ValueError
        admission.check_talk(ANN)

    asyncio.run(play())


def test_talks_of_one_key():
    async def play() -> None:
        admission = Admission(10, per_key=1)
        async with admission.talk(ANN):
            assert refused(admission.check_talk, ANN).status == 429
            admission.check_talk(BOB)
        greedy = Caller("greedy", sessions=2)
        async with admission.talk(greedy):
            admission.check_talk(greedy)

    asyncio.run(play())


def test_nobody_talks_before_the_machine_is_measured_or_after_it_closes():
    admission = Admission()
    assert refused(admission.check_talk, ANN).status == 503
    admission.talks = 1
    admission.check_talk(ANN)
    admission.closing = True
    assert refused(admission.check_talk, ANN).status == 503
    with pytest.raises(ApiError), admission.job():
        pass
    assert admission.as_dict()["free"] == 0


def test_jobs_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "JOBS", 2)
    admission = Admission(1)
    with admission.job(), admission.job():
        assert admission.running == 2
        with pytest.raises(ApiError) as error, admission.job():
            pass
        assert error.value.status == 503
    assert admission.running == 0
