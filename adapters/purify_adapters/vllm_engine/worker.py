"""vLLM's worker extension: it tells the processor its requests' ids, and reads certificates.

vllm serve … --worker-extension-cls purify_adapters.vllm_engine.worker.CertificateWorker
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from purify_adapters.vllm_engine.ledger import Ledger
from purify_plugins.errors import ConfigError, PurifyError


class CertificateWorker:
    """Methods that vLLM's `collective_rpc` finds on each of its workers, whose class gets this one as a base.

    vLLM refuses an extension with a name that its worker has, so all of these begin alike.
    """

    model_runner: Any

    def purify_certify(self) -> bool:
        """Record every request from now on; False on a worker that draws no tokens. Harmless if repeated.

        Raises ConfigError for a worker without the processor.
        """
        ledger = _ledger(self.model_runner)
        if ledger is None:
            return False
        ledger.id_of = _ids(self.model_runner)
        return True

    def purify_certificate(self, response: str, choice: int | None = None) -> dict[str, Any]:
        """The certificate of a response's answer: `text`, or `error` and the number of its `choices`.

        {} on a worker that draws no tokens. `choice` may be left out where there is one.
        """
        ledger = _ledger(self.model_runner)
        if ledger is None:
            return {}
        try:
            found = ledger.answers(response)
        except PurifyError as error:
            return {"error": str(error), "choices": 0}
        if choice is None and len(found) == 1:
            choice = 0
        if choice is None or not 0 <= choice < len(found):
            return {"error": f"it has {len(found)} answers; add ?choice=0 and so on", "choices": len(found)}
        return _told(ledger, found[choice], _running(self.model_runner))


def _told(ledger: Ledger, found: tuple[str, Any], running: Iterable[str]) -> dict[str, Any]:
    name, record = found
    try:
        if name in running and not ledger.ended(record):
            return {"error": "the answer is still being written", "choices": 1}
        return {"text": ledger.issued(record)}
    except PurifyError as error:
        return {"error": str(error), "choices": 1}


def _ledger(runner: Any) -> Ledger | None:
    """The ledger of the runner's processor; None where this worker samples nothing. Raises ConfigError."""
    sampler = getattr(runner, "sampler", None)  # V2 has none on a pipeline's earlier ranks
    batch = getattr(runner, "input_batch", None)  # V1's
    processors = batch.logitsprocs.all if batch is not None else getattr(sampler, "logits_processors", ())
    found = [each.ledger for each in processors if isinstance(getattr(each, "ledger", None), Ledger)]
    if not found and (batch is not None or sampler is not None):
        raise ConfigError(
            "this vLLM runs without purify's processor; add "
            "--logits-processors purify_adapters.vllm_engine:PurifyLogitsProcessor"
        )
    return found[0] if found else None


def _ids(runner: Any) -> Any:
    """A function from a slot (V2) or a row (V1) to the id of the request in it."""
    if getattr(runner, "input_batch", None) is None:
        return lambda slot: runner.req_states.index_to_req_id.get(slot)
    return lambda row: runner.input_batch.req_ids[row]


def _running(runner: Any) -> Iterable[str]:
    """The ids of the requests that are in the batch."""
    if getattr(runner, "input_batch", None) is None:
        return set(runner.req_states.req_id_to_index)
    return set(runner.requests)
