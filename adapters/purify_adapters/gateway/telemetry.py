"""OpenTelemetry by the GenAI conventions: each inference's span, metrics and evaluation events, no content.

Without OpenTelemetry nothing happens; without its SDK its own objects do nothing. The names are those of
open-telemetry/semantic-conventions-genai v0.1.0, where all of them are in development.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from purify_plugins.types import Chat

if TYPE_CHECKING:
    from purify_adapters.gateway.request_validation import Generation
    from purify_plugins.types import Certificate, Completion

SCOPE = "purify.gateway"
PROVIDER = "purify"
DURATION = "gen_ai.client.inference.duration"
FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.client.inference.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.client.inference.usage.output_tokens"
EVALUATION = "gen_ai.evaluation.result"
GUARANTEE, LOG_RATIO = "purify.guarantee", "purify.log_ratio"
"""The evaluations: the level that a certificate claims, and by how many nats the LLM moved an answer."""
SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]


class Instruments:
    """The tracer, the logger and the instruments of a provider of each; None: the global ones."""

    def __init__(self, tracers: Any = None, meters: Any = None, loggers: Any = None) -> None:
        from opentelemetry import _logs, metrics, trace

        self.tracer = trace.get_tracer(SCOPE, tracer_provider=tracers)
        self.logger = _logs.get_logger(SCOPE, logger_provider=loggers)
        meter = metrics.get_meter(SCOPE, meter_provider=meters)
        self.seconds = {
            name: meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=SECONDS)
            for name in (DURATION, FIRST_CHUNK)
        }
        self.tokens = {name: meter.create_counter(name, "{token}") for name in (INPUT_TOKENS, OUTPUT_TOKENS)}


@cache
def instruments() -> Instruments | None:
    """The instruments of the providers that the process has set; None without OpenTelemetry."""
    try:
        return Instruments()
    except ImportError:
        return None


def record(
    model: str,
    generations: Sequence[Generation],
    found: Sequence[Completion],
    seconds: float,
    first: float | None,
) -> None:
    """Record a whole inference of so many `seconds`; `first` are those to a stream's first event."""
    if (to := instruments()) is None:
        return
    common = _common(model, generations)
    span_attributes = {**common, **_asked(generations), **_answered(found)}
    span_attributes["gen_ai.request.stream"] = first is not None
    if first is not None:
        span_attributes["gen_ai.response.time_to_first_chunk"] = first
    _spanned(to, common, span_attributes, seconds, found)
    to.seconds[DURATION].record(seconds, common)
    if first is not None:
        to.seconds[FIRST_CHUNK].record(first, common)
    counted = {**common, "gen_ai.token.modality": "text"}
    to.tokens[INPUT_TOKENS].add(sum(each.input_length for each in generations), counted)
    to.tokens[OUTPUT_TOKENS].add(sum(len(each.tokens) for each in found), counted)


def record_failure(model: str, chat: bool, seconds: float, kind: str) -> None:
    """Record an inference that failed; `kind` is the refusal's type."""
    if (to := instruments()) is None:
        return
    common = {**_named("chat" if chat else "text_completion", model), "error.type": kind}
    _spanned(to, common, common, seconds, ())
    to.seconds[DURATION].record(seconds, common)


def _spanned(
    to: Instruments,
    common: Mapping[str, Any],
    attributes: Mapping[str, Any],
    seconds: float,
    found: Sequence[Completion],
) -> None:
    """A span that ends now and began `seconds` ago, with the evaluations of its answers."""
    from opentelemetry import trace

    end = time.time_ns()
    name = f"{common['gen_ai.operation.name']} {common['gen_ai.request.model']}"
    begin = end - round(1e9 * seconds)
    span = to.tracer.start_span(name, kind=trace.SpanKind.INTERNAL, attributes=attributes, start_time=begin)
    if kind := attributes.get("error.type"):
        span.set_status(trace.StatusCode.ERROR, str(kind))
    for completion in found:
        _evaluated(to, completion, trace.set_span_in_context(span))
    span.end(end)


def _evaluated(to: Instruments, completion: Completion, context: Any) -> None:
    """The events with what an answer's certificate claims and with its log-ratio, in nats."""
    from opentelemetry._logs import LogRecord

    proof = completion.certificate
    results: dict[str, Any] = {GUARANTEE: {"gen_ai.evaluation.score.label": proof.guarantee}}
    if math.isfinite(proof.log_ratio):
        results[LOG_RATIO] = {"gen_ai.evaluation.score.value": proof.log_ratio}
    about = _certified(proof)
    for name, score in results.items():
        said = {"gen_ai.evaluation.name": name, **about, **score}
        to.logger.emit(
            LogRecord(timestamp=time.time_ns(), context=context, event_name=EVALUATION, attributes=said)
        )


def _certified(proof: Certificate) -> dict[str, Any]:
    """What an answer's certificate is and says: digests, and sentences that are the same for every answer."""
    claim = proof.claim
    return {
        "gen_ai.response.id": proof.digest,
        "gen_ai.evaluation.explanation": f"{claim['reason']}: {claim['meaning']}",
        "purify.certificate.digest": proof.digest,
        "purify.certificate.signed": bool(proof.envelope),
        "purify.answer.sha256": proof.body["answer"]["sha256"],
        "purify.policy": proof.decoded["method"]["policy"],
        "purify.adversary": claim["adversary"],
    }


def _named(operation: str, model: str) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
    }


def _common(model: str, generations: Sequence[Generation]) -> dict[str, Any]:
    chat = any(isinstance(each.prompt, Chat) for each in generations)
    return {**_named("chat" if chat else "text_completion", model), "gen_ai.response.model": model}


def _asked(generations: Sequence[Generation]) -> dict[str, Any]:
    """How the answers were sampled; no stop sequence, since that is text of the client's."""
    sampling = generations[0].sampling
    asked: dict[str, Any] = {
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
    }
    if sampling.top_k:
        asked["gen_ai.request.top_k"] = sampling.top_k
    if sampling.seed is not None:
        asked["gen_ai.request.seed"] = sampling.seed
    if len(generations) > 1:
        asked["gen_ai.request.choice.count"] = len(generations)
    return {**asked, "gen_ai.usage.input_tokens": sum(each.input_length for each in generations)}


def _answered(found: Sequence[Completion]) -> dict[str, Any]:
    return {
        "gen_ai.usage.output_tokens": sum(len(each.tokens) for each in found),
        "gen_ai.response.finish_reasons": [each.finish_reason for each in found],
        "gen_ai.response.id": found[0].certificate.digest,
    }
