"""What a service tells of itself: Prometheus text at ``/metrics``, OpenTelemetry spans for those who trace.

Names follow vLLM's custom (``namespace:what_unit``). Numbers, ids and kinds only: never what was said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from stepaudio.llm.base import Finished
    from stepaudio.server.limits import Admission, Paces
    from stepaudio.server.scheduler import Gate

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.8,
    1.0,
    1.2,
    1.6,
    2.0,
    3.0,
    5.0,
    10.0,
    30.0,
)
"""Bounds of the histograms: fine where talk is decided (0.1 to 1.2 s)."""

STAGES = ("vad", "asr", "llm_ttft", "tts_ttfa", "queue")
"""Where the time from the end of the speech to the first audio goes."""


class Metrics:
    """The metrics of one service, each an attribute of the name it is scraped under.

    One registry for each: two services in one process do not disturb one another.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"stepaudio:{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"stepaudio:{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(f"stepaudio:{name}", what, labels, buckets=SECONDS, registry=registry)

        # A turn of a talk. The talk's driver feeds these.
        self.voice_to_voice_latency_seconds = histogram(
            "voice_to_voice_latency_seconds", "End of the user's speech to the first audio of the answer."
        )
        self.time_to_first_audio_seconds = histogram(
            "time_to_first_audio_seconds",
            "Decision that the turn has ended to the first audio of the answer.",
        )
        self.turn_stage_seconds = histogram("turn_stage_seconds", "Time in one stage of a turn.", "stage")
        self.barge_in_stop_latency_seconds = histogram(
            "barge_in_stop_latency_seconds", "Onset of an interruption to the last audio that was sent."
        )
        self.interruptions_total = counter(
            "interruptions", "Sounds while the answer was spoken: true, backchannel or noise.", "kind"
        )
        self.audio_underruns_total = counter(
            "audio_underruns", "Times at which a listener had nothing left to hear in mid-answer."
        )
        self.events_total = counter("events", "Realtime events by type; those nobody knows are one.", "type")
        self.errors_total = counter("errors", "Errors told to clients, by code.", "code")

        # Talks and requests.
        self.sessions_active = gauge("sessions_active", "Talks now.")
        self.sessions_capacity = gauge("sessions_capacity", "Talks that this machine can hold.")
        self.sessions_rejected_total = counter(
            "sessions_rejected", "Talks and requests that were refused, by reason.", "reason"
        )
        self.num_requests_running = gauge("num_requests_running", "HTTP requests that are worked on.")
        self.num_requests_waiting = gauge("num_requests_waiting", "Pieces of work that wait for a model.")
        self.request_success_total = counter(
            "request_success", "Answers by how they ended.", "finished_reason"
        )
        self.request_queue_time_seconds = histogram(
            "request_queue_time_seconds", "Wait of a piece of work for its model."
        )
        self.e2e_request_latency_seconds = histogram(
            "e2e_request_latency_seconds", "Whole HTTP request, by route.", "route"
        )
        self.time_to_first_token_seconds = histogram(
            "time_to_first_token_seconds", "Request to the first token of the language model."
        )
        self.prompt_tokens_total = counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens_total = counter("generation_tokens", "Tokens that the language model wrote.")

        # Speed of the parts: seconds of work for a second of sound.
        self.asr_rtf = gauge("asr_rtf", "Work for a second of sound that is recognised.")
        self.tts_rtf = gauge("tts_rtf", "Work for a second of sound that is spoken.")

    def turn(self, receipt_ms: Mapping[str, float]) -> None:
        """Count one turn by its latency receipt, in ms: ``STAGES``, ``voice_to_voice``, ``first_audio``.

        What the receipt does not have is not counted.
        """
        for stage in STAGES:
            if stage in receipt_ms:
                self.turn_stage_seconds.labels(stage).observe(receipt_ms[stage] / 1000)
        for name, histogram in (
            ("voice_to_voice", self.voice_to_voice_latency_seconds),
            ("first_audio", self.time_to_first_audio_seconds),
        ):
            if name in receipt_ms:
                histogram.observe(receipt_ms[name] / 1000)

    def answered(self, finished: Finished | None, reason: str) -> None:
        """Count an answer of the language model and its tokens."""
        self.request_success_total.labels(reason).inc()
        if finished is not None:
            self.prompt_tokens_total.inc(finished.prompt_tokens)
            self.generation_tokens_total.inc(finished.completion_tokens)

    def measured(self, paces: Paces, talks: int) -> None:
        """Publish what was measured at start."""
        self.asr_rtf.set(paces.hearing)
        self.tts_rtf.set(paces.speaking)
        self.sessions_capacity.set(talks)

    def follow(self, admission: Admission, *gates: Gate) -> None:
        """Read the numbers of now from where they are decided, whenever they are asked for."""
        self.sessions_active.set_function(lambda: admission.open_talks)
        self.num_requests_running.set_function(lambda: admission.running)
        self.num_requests_waiting.set_function(lambda: sum(gate.waiting for gate in gates))

    def text(self) -> bytes:
        """All of them, in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)


def span(
    model: str,
    began_s: float,
    status: str,
    finished: Finished | None,
    receipt_ms: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Tell OpenTelemetry of an answer that is over, if it is installed and set up; else nothing happens.

    Names and attributes are those of GenAI's semantic conventions: counts and ids, never contents.

    Args:
        model: as the client calls it.
        began_s: when the work began, ``time.time()``; it ends now.
        status: of the answer, where the language model did not get to give its reason for ending.
        finished: what the language model read and wrote.
        receipt_ms: where the time of a spoken answer went; as ``stepaudio.<stage>_ms``.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "stepaudio",
        "gen_ai.request.model": model,
        "gen_ai.response.finish_reasons": [finished.reason if finished else status],
    }
    if finished is not None:
        attributes["gen_ai.usage.input_tokens"] = finished.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = finished.completion_tokens
    attributes |= {f"stepaudio.{stage}_ms": ms for stage, ms in receipt_ms.items()}
    tracer = trace.get_tracer("stepaudio")
    started = tracer.start_span(f"chat {model}", start_time=int(began_s * 1e9), attributes=attributes)
    started.end(int(time.time() * 1e9))
