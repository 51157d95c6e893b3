"""vLLM's endpoint plugin: `GET /v1/purify/certificates/{id}`, an answer's certificate by its response's id.

vLLM loads it only where it is named: `VLLM_PLUGINS=purify vllm serve …`, with the worker's extension
(`worker`) and the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from starlette.requests import Request

PATH = "/v1/purify/certificates/{id:path}"
"""Under /v1, which vLLM's --api-key guards; a path outside it would be open to all."""
EXTENSION = "purify_adapters.vllm_engine.worker.CertificateWorker"


class CertificateEndpoint:
    """An `EndpointPlugin` of vLLM's. Raises ConfigError, when vLLM starts, where it could not answer."""

    name = "purify"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Register the route on vLLM's FastAPI application."""
        app.add_route(PATH, certificate, methods=["GET"])

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Ask the workers to record what they draw."""
        if engine_client is None:
            raise ConfigError("a server without an engine has no certificates; leave VLLM_PLUGINS=purify out")
        _require(args)
        if not any(await engine_client.collective_rpc("purify_certify")):
            raise ConfigError("no worker of this vLLM draws tokens, so there is nothing to certify")
        state.purify_engine = engine_client


def _require(args: Any) -> None:
    """Raise ConfigError for a server whose workers cannot be asked."""
    if getattr(args, "worker_extension_cls", None) != EXTENSION:
        raise ConfigError(f"certificates are recorded by the worker; add --worker-extension-cls {EXTENSION}")
    alone = getattr(args, "data_parallel_external_lb", False) or getattr(args, "data_parallel_rank", None)
    if (getattr(args, "data_parallel_size", None) or 1) > 1 and alone in (None, False):
        raise ConfigError(
            "with --data-parallel-size vLLM returns the first engine's word alone, and the other engines' "
            "certificates could not be read; run one server a replica, or leave VLLM_PLUGINS=purify out"
        )


async def certificate(request: Request) -> Response:
    """The certificate's text as it must be kept; 404, 409 or 400 with an `error` in words."""
    choice = request.query_params.get("choice")
    if choice is not None and not (choice.isascii() and choice.isdecimal() and len(choice) < 7):
        return _refused(400, f"choice must be a whole number, not {choice!r}")
    asked = request.path_params["id"], None if choice is None else int(choice)
    engine = request.app.state.purify_engine
    told: dict[str, Any] = next(
        filter(None, await engine.collective_rpc("purify_certificate", args=asked)), {}
    )
    if "text" in told:
        return Response(told["text"], media_type="application/json")
    return _refused(409 if told.get("choices") else 404, told.get("error", "nothing is recorded"))


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": {"message": why, "type": "purify", "code": status}}, status)
