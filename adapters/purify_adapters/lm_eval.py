"""lm-evaluation-harness: a purified model that any installed task can be asked of.

    python -m purify_adapters.lm_eval --model purify --model_args llm=DIR,slm=DIR --tasks hellaswag

is `lm_eval` with one more model. Likelihoods are those of the law that draws answers, teacher-forced
through the policy's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from purify_plugins.errors import ConfigError
from purify_plugins.eval.likelihood import loglikelihoods
from purify_plugins.purifier import Purifier
from purify_plugins.types import Sampling

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise ConfigError("the harness is not installed; run pip install 'purify-plugins[harness]'") from None

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Likelihoods = list[tuple[float, bool]]


@register_model("purify")
class PurifyLM(LM):  # type: ignore[misc]  # the harness ships no types
    """A purifier as the harness knows models.

    `llm` and `slm` are directories, `policy` a name; other arguments are the policy's fields. Or
    `purifier` is one that Python has built. Raises ModelError, ConfigError.
    """

    def __init__(
        self,
        llm: str = "",
        slm: str = "",
        policy: str = "balanced",
        purifier: Purifier | None = None,
        batch_size: int | str | None = None,
        device: str | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__()
        if purifier is None and not (llm and slm):
            raise ConfigError("--model purify needs --model_args llm=DIR,slm=DIR")
        parameters.pop("max_batch_size", None)  # what the harness hands every model
        self.purifier = purifier or Purifier.load(llm, slm, policy, **parameters)
        size = str(batch_size or "")
        self.batch = int(size) if size.isdigit() else self.purifier.batch_size

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> Likelihoods:
        """Of each (context, continuation): the log-likelihood in nats, and whether it is greedy's own."""
        pairs = [cast("tuple[str, str]", request.args) for request in requests]
        scores = loglikelihoods(self.purifier, pairs, self.batch)
        return [(score.nats, score.greedy) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text; PromptError for one that a model cannot read at once."""
        texts = [str(request.args[0]) for request in requests]
        return [
            score.nats for score in loglikelihoods(self.purifier, [("", text) for text in texts], self.batch)
        ]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Each context's answer, up to its stop strings."""
        answers: list[str] = []
        for options, group in groupby(
            requests, key=lambda request: cast("Mapping[str, Any]", request.args[1])
        ):
            prompts = [str(request.args[0]) for request in group]
            found = self.purifier.generate(prompts, sampling(options))
            answers += [answer.text for answer in found]
        return answers


def sampling(options: Mapping[str, Any]) -> Sampling:
    """The harness's generation arguments as ours; greedy unless it asks for draws."""
    until = options.get("until") or ()
    draws = bool(options.get("do_sample")) or float(options.get("temperature") or 0) > 0
    return Sampling(
        max_tokens=int(options.get("max_gen_toks") or 256),
        temperature=float(options.get("temperature") or 1.0) if draws else 0.0,
        top_p=float(options.get("top_p") or 1.0),
        top_k=int(options.get("top_k") or 0),
        stop=(until,) if isinstance(until, str) else tuple(until),
        seed=int(options.get("seed") or 0),
    )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
