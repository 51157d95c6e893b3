"""lm-evaluation-harness: a purified model for any of its tasks.

    python -m purify_adapters.lm_eval --model purify --model_args llm=DIR,slm=DIR --tasks hellaswag

is `lm_eval` with one more model. Likelihoods are those of the distribution that answers are drawn from,
teacher-forced through the policy's state.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from purify_adapters.lm_eval_documents import Documents, Room, answered
from purify_adapters.lm_eval_options import sampling
from purify_adapters.tool_calls import template_of
from purify_plugins.decode.likelihood import judged, opened, parted, read, split
from purify_plugins.errors import ConfigError, PromptError, TooLongError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.tokenizers.prompt_encoder import transcript
from purify_plugins.types import Chat, Outcome, Prompt, Unanswered

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise ConfigError("the harness is not installed; run pip install 'lm-eval>=0.4.9'") from None

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from purify_plugins.decode.likelihood import Likelihood

Likelihoods = list[tuple[float, bool]]
log = logging.getLogger("purify.lm_eval")


@register_model("purify")
class PurifyLM(LM):  # type: ignore[misc]  # the harness ships no types
    """A purifier as a model of the harness.

    `llm` and `slm` are directories, `policy` a name; other arguments are the policy's fields. Or
    `purifier` is one that Python has built. `device` is where both models are loaded. A chat that the
    harness renders is read by each model through its own template. Raises ModelError, ConfigError.
    """

    def __init__(
        self,
        llm: str = "",
        slm: str = "",
        policy: str = "balanced",
        purifier: Purifier | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__()
        if purifier is None and not (llm and slm):
            raise ConfigError("--model purify needs --model_args llm=DIR,slm=DIR")
        if purifier is not None and (device or parameters or llm or slm):
            raise ConfigError("a purifier is given, whose models and policy are its own; leave the rest out")
        placed = _placed(device)
        self.purifier = purifier or Purifier.load(
            {"model": llm, **placed}, {"model": slm, **placed}, policy, **parameters
        )
        self.batch = _batch(batch_size, max_batch_size, self.purifier.batch_size)
        self.room = Room(self.purifier)
        self._chats: dict[str, Chat] = {}

    # Requests

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> Likelihoods:
        """Each continuation's log-likelihood (nats), and whether greedy decoding gives it.

        A context that is too long is cut on the left. A document that fails has (-inf, False).
        """
        pairs = [cast("tuple[str, str]", _text_only(request)) for request in requests]

        def ask(places: range) -> Likelihoods:
            scores = self._judged([self._parted(*pairs[at]) for at in places])
            return [(score.nats, score.greedy) for score in scores]

        return answered(len(pairs), self.batch, ask, (-math.inf, False))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood (nats) of each whole text; one longer than a context in the harness's windows.

        A document that fails has -inf.
        """
        texts = [str(_text_only(each)[0]) for each in requests]

        def ask(places: range) -> list[float]:
            windows = [self._windows(texts[at]) for at in places]
            scores = iter(self._judged([each for window in windows for each in window]))
            return [math.fsum(next(scores).nats for _ in window) for window in windows]

        return answered(len(texts), self.batch, ask, -math.inf)

    def _judged(self, parted: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Likelihood]:
        """The likelihood of each continuation after its context."""
        return [
            score
            for at in range(0, len(parted), self.batch)
            for score in judged(self.purifier, *zip(*parted[at : at + self.batch], strict=True))
        ]

    def _windows(self, text: str) -> list[tuple[Prompt, Sequence[int]]]:
        """The whole text after the token that opens it; in the harness's disjoint windows if it is long."""
        try:
            opening, tokens = split(self.purifier.slm, "", text)
        except TooLongError:
            opening, tokens = opened(self.purifier.vocabulary, self.room.tokens(text))
        most = self.room.length
        if most is None or len(tokens) < most:
            return [(opening, tokens)]
        windows = get_rolling_token_windows(list(tokens), opening[-1], most - 1, 1)
        return [(tuple(one), tuple(other)) for one, other in map(make_disjoint_window, windows)]

    def _parted(self, context: str, continuation: str) -> tuple[Prompt, Sequence[int]]:
        """The prompt, or the chat that was rendered as it, and the continuation's token ids."""
        slm = self.purifier.slm
        try:
            tokens, answer = self.room.cut(*split(slm, context, continuation))
        except TooLongError:
            alone, whole = self.room.tokens(context), self.room.tokens(context + continuation)
            tokens, answer = self.room.cut(*parted(alone, whole))
        if context not in self._chats:
            return tokens, answer
        if len(tokens) < len(self.room.tokens(context)):
            # The template's last token merges with the answer's first; models continue after it.
            alone = read(slm, continuation)
            answer = alone[1:] if alone[0] in slm.vocabulary.control else alone
        return self.room.fitted(self._chats[context], len(answer)), answer

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Each context's answer, up to its stop strings.

        A context that leaves no room for the answer is cut on the left, as the harness does. A document that
        fails has an empty answer.
        """
        answers: list[str] = []
        documents = Documents("")
        for options, group in groupby(
            requests, key=lambda each: cast("Mapping[str, Any]", _text_only(each)[1])
        ):
            contexts = [str(request.args[0]) for request in group]
            answers += self._generated(documents, contexts, sampling(options))
        documents.require_one()
        return answers

    def _generated(self, documents: Documents[str], contexts: Sequence[str], asked: Sampling) -> list[str]:
        """The answers; the n-th is drawn with seed + n, whatever the batch size."""

        def ask(places: range) -> list[str]:
            prompts = [self.room.fitted(self._prompt(contexts[at]), asked.max_tokens) for at in places]
            seeded = replace(asked, seed=(asked.seed or 0) + places.start)
            return [_text_of(outcome) for outcome in self.purifier.generate(prompts, seeded)]

        return documents.answered(len(contexts), self.batch, ask)

    # Chats

    def _prompt(self, context: str) -> str | Chat:
        return self._chats.get(context, context)

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat in the SLM's template; a request with this text uses each model's own template.

        Without `add_generation_prompt` the last message is the beginning of the answer: both models read
        the text, so they must have one template. Raises ConfigError, PromptError.
        """
        chat = Chat(tuple(map(dict, chat_history)))
        if not add_generation_prompt and not self._alike:
            raise ConfigError(
                "the answer is begun for the models (gen_prefix), whose chat templates differ; leave "
                "gen_prefix out, or choose an SLM with the LLM's template"
            )
        text = self._rendered(chat, add_generation_prompt)
        if add_generation_prompt:
            self._chats[text] = chat
        return text

    @property
    def _alike(self) -> bool:
        """Whether both models have the same chat template."""
        return template_of(self.purifier.llm) == template_of(self.purifier.slm)

    def _rendered(self, chat: Chat, opened: bool) -> str:
        tokenizer = self.purifier.slm.inner.tokenizer
        if not template_of(self.purifier.slm):
            text = transcript(chat)
            return text if opened else text.removesuffix("\n\nAssistant:")
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(map(dict, chat.messages)),
                    tokenize=False,
                    add_generation_prompt=opened,
                    continue_final_message=not opened,
                )
            )
        except Exception as error:  # a template is untrusted code and can raise anything
            raise PromptError(
                f"the SLM's chat template refused these messages ({type(error).__name__}); run without "
                "system_instruction, or without --apply_chat_template"
            ) from error

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The SLM's template, for the harness's records. Raises ConfigError for a template's name."""
        if isinstance(chat_template, str) and chat_template:
            raise ConfigError(
                f"--apply_chat_template {chat_template}: each model has its own template; give no name"
            )
        return template_of(self.purifier.slm) if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        """The key of the harness's request cache: the vocabulary and both chat templates."""
        parts = (
            self.purifier.vocabulary.fingerprint,
            template_of(self.purifier.llm),
            template_of(self.purifier.slm),
        )
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"purify__{digest[:16]}"


def _text_only(request: Instance) -> Sequence[Any]:
    """A request's arguments. Raises ConfigError for pictures or sound."""
    arguments: Sequence[Any] = request.args
    if more := [
        name
        for each in arguments
        if isinstance(each, Mapping)
        for name in ("visual", "audio")
        if name in each
    ]:
        raise ConfigError(f"a purified model reads text, and this task gives {more[0]}; choose another task")
    return arguments


def _placed(device: str | None) -> dict[str, str]:
    """The models' `device`; the harness's default "cuda:0" is dropped if there is no GPU."""
    import torch

    absent = device == "cuda:0" and not torch.cuda.is_available()
    return {"device": device} if device and not absent else {}


def _batch(size: int | str | None, most: int | None, default: int) -> int:
    """How many rows are decoded together: `auto` is the purifier's own number, at most `most`."""
    text = str(size or "auto")
    if not text.isdigit() and text.partition(":")[0] != "auto":
        raise ConfigError(f"batch_size must be a number or 'auto', not {size!r}")
    return int(text) if text.isdigit() else min(default, int(most or default))


def _text_of(outcome: Outcome) -> str:
    """An answer's text; for a prompt without one "" and a warning, so that a task goes on."""
    if isinstance(outcome, Unanswered):
        log.warning("a prompt has no answer, and counts as an empty one: %s", outcome.error)
        return ""
    return outcome.text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
