"""The harness's generation arguments as `Sampling`; unsupported ones are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.sampling import Sampling

DEFAULT_LENGTH = 256
"""The default number of tokens, as with the harness's other models."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The harness's names for the most tokens; the first given one counts, as in the harness."""
OWN = ("max_tokens", "temperature", "stop", "ignore_eos", "grammar")
DRAWN = tuple(field.name for field in fields(Sampling) if field.name not in OWN)
"""Options with the same name in `Sampling`."""
TAKEN = frozenset((*LENGTHS, *DRAWN, "until", "do_sample", "temperature", "ignore_eos"))
OFF: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences", "n", "best_of"), (1,)),
    **dict.fromkeys(("length_penalty", "encoder_repetition_penalty", "guidance_scale"), (1,)),
    **dict.fromkeys(("presence_penalty", "no_repeat_ngram_size", "min_length", "min_new_tokens"), (0,)),
    **dict.fromkeys(("min_tokens", "epsilon_cutoff", "eta_cutoff", "diversity_penalty"), (0,)),
    **dict.fromkeys(("early_stopping", "penalty_alpha", "logit_bias", "bad_words_ids"), (False, [], {})),
    "use_cache": (True, False),
}
"""Other backends' options, and their values that change nothing."""


def sampling(options: Mapping[str, Any]) -> Sampling:
    """Convert the harness's generation arguments; greedy unless they ask for sampling.

    Raises ConfigError for an unsupported option, UnknownNameError for an unknown one.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    _refuse(asked)
    drawn = {name: asked[name] for name in DRAWN if name in asked}
    if drawn.get("top_k") == -1:  # vLLM's value for all tokens
        drawn["top_k"] = 0
    said = {
        "max_tokens": _length(asked),
        "temperature": _temperature(asked),
        "stop": _until(asked.get("until", ())),
        "seed": 0,
        "ignore_eos": asked.get("ignore_eos", False),
    }
    return Sampling(**{**said, **drawn})


def _refuse(asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if name in TAKEN or value in OFF.get(name, ()):
            continue
        if name == "max_length":
            raise ConfigError(
                "a purified model does not do max_length, the prompt's tokens included; "
                "give max_gen_toks, the answer's"
            )
        if name not in OFF:
            raise UnknownNameError("generation argument", name, TAKEN)
        raise ConfigError(
            f"a purified model does not do {name}={value!r}, for only the fused row may choose tokens; "
            f"leave it out. It does {', '.join(sorted(TAKEN))}"
        )


def _length(asked: Mapping[str, Any]) -> int:
    name = next((name for name in LENGTHS if name in asked), LENGTHS[0])
    return _whole(name, asked.get(name, DEFAULT_LENGTH))


def _whole(name: str, value: Any) -> int:
    """A number of tokens, given as an int, a float or a string. Raises ConfigError."""
    try:
        if float(value) == int(value):
            return int(value)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{name} must be a whole number, not {value!r}")


def _temperature(asked: Mapping[str, Any]) -> float:
    """0 for greedy: `do_sample` decides, or without it a temperature above 0."""
    draws = asked.get("do_sample")
    if draws not in (None, True, False):
        raise ConfigError(f"do_sample must be true or false, not {draws!r}")
    try:
        heat = float(asked.get("temperature", 1.0 if draws else 0.0))
    except (TypeError, ValueError):
        raise ConfigError(f"temperature must be a number, not {asked['temperature']!r}") from None
    return 0.0 if draws is False else heat


def _until(until: Any) -> list[str]:
    found = [until] if isinstance(until, str) else until
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f"until must be texts that end the answer, not {until!r}")
    return [each for each in found if each]
