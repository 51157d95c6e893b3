"""Checks of the record of one decode, without a model: everything that follows from its own content."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import canonical, jsonable, options
from purify_plugins.certificates.claims import LIMITS, MEANING, claimed, mode_of
from purify_plugins.certificates.figures import COLUMNS, tokens_of, totals
from purify_plugins.certificates.possible import check_steps
from purify_plugins.decode.draw_record import CUT, DROPPED, RETUNED
from purify_plugins.errors import (
    BudgetError,
    ConfigError,
    ForgedError,
    UncheckableError,
)
from purify_plugins.sampling import Sampling
from purify_plugins.threat import IN_ENGINE, draws
from purify_plugins.utils.sequences import new_contexts

if TYPE_CHECKING:
    from purify_plugins.certificates.offered import Policies
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.threat import Claim
    from purify_plugins.types import Token

NO_TEXT = hashlib.sha256(b"").hexdigest()


def check_answer(body: Mapping[str, Any], plugins: Policies) -> None:
    """Check all that follows from the record of one decode. Raises ForgedError, BudgetError, …"""
    _check_totals(body)
    _check_words(body)
    _check_method(body, plugins)
    _check_end(body)
    check_steps(body["steps"], settings_of(body))


def require(fine: bool, what: str) -> None:
    """Raise ForgedError."""
    if not fine:
        raise ForgedError(what)


def _check_totals(body: Mapping[str, Any]) -> None:
    require(body["columns"] == list(COLUMNS), f"the columns of the steps must be {', '.join(COLUMNS)}")
    require(totals(body["steps"]) == body["totals"], "the totals are not the sums of the steps")


def _check_words(body: Mapping[str, Any]) -> None:
    """The fixed texts, and what may occur only once."""
    require(body["limits"] == list(LIMITS), "the limits are not those of every certificate")
    models = [body["models"][side] for side in ("llm", "slm")]
    trusted = [each["trusted"] for each in models]
    require(trusted == [False, True], "of its models the SLM is trusted and the LLM is not")
    ways = [each.get("alphabet", {}) for each in models]
    shared = [(way.get("kind"), way.get("per_token")) for way in ways if way]
    require(len(set(shared)) < 2, "the two models are said to be read in two alphabets")
    texts = [(each["id"], each["sha256"]) for each in body["context"]]
    require(len(set(texts)) == len(texts), "a text of the prompt is named twice")
    unknown_ids = [token for token in body["prompt"] if token < (0 if not any(ways) else -(2**31))]
    require(not unknown_ids and bool(body["prompt"]), "the prompt is no run of token ids")


def claim_of(
    method: Mapping[str, Any], policy: FusionPolicy, models: Mapping[str, Any], steps: Sequence[Token]
) -> Claim:
    """The claim of steps that were drawn by this method, with this policy."""
    sampling = settings_of({"method": method})
    engines = models["llm"]["engine"], models["slm"]["engine"]
    asked = method.get("llm_asked", True), marked_of(method) > 0
    return claimed(policy, sampling, method["walk"], engines, steps, method["edits"], *asked)


def marked_of(method: Mapping[str, Any]) -> int:
    """How many tokens a watermark drew."""
    found: int = method.get("watermark", {}).get("tokens", 0)
    return found


def sampling_of(body: Mapping[str, Any]) -> Sampling:
    """The sampling settings of a certificate. Raises ForgedError for invalid ones."""
    try:
        return Sampling(**parameters(body["method"]["sampling"]))
    except (ConfigError, TypeError) as error:
        raise ForgedError(f"the certificate describes nothing that can run: {error}") from error


def settings_of(body: Mapping[str, Any]) -> Sampling:
    """The same without a grammar, which follows from no figure: what reads it need not be installed here."""
    method = body["method"]
    told = {key: value for key, value in method["sampling"].items() if key != "grammar"}
    return sampling_of({"method": {**method, "sampling": told}})


def policy_of(body: Mapping[str, Any], plugins: Policies) -> FusionPolicy:
    """The policy of a certificate, with its options. Raises ConfigError, UncheckableError."""
    method = body["method"]
    if method["policy"] not in plugins.offers("purify_policies"):
        raise UncheckableError(_missing(method["policy"], method["plugins"]))
    policy: FusionPolicy = plugins.policy(method["policy"], parameters(method["parameters"]))
    return policy


def _missing(policy: str, actors: Sequence[Mapping[str, str]]) -> str:
    """The error for a policy that no plugin in use offers; names the plugins that took part in the answer."""
    named = [
        f"{each['name']!r}" + (f" ({each['distribution']} {each['version']})" if each["distribution"] else "")
        for each in actors
    ]
    advice = (
        f"name {' or '.join(named)} in purify.toml's `plugins` or in PURIFY_PLUGINS"
        if named
        else "it was no plugin's; check it where its class is registered"
    )
    return f"the certificate cannot be checked here: no plugin in use offers its policy {policy!r}; {advice}"


def _check_method(body: Mapping[str, Any], plugins: Policies) -> None:
    method, steps = body["method"], tokens_of(body["steps"])
    policy, sampling = policy_of(body, plugins), settings_of(body)
    require(
        options(policy, plugins.name_of) == method["parameters"], "the policy's options are not all there"
    )
    _check_settings(method["sampling"], jsonable(sampling))
    _check_edits(method)
    _check_mark(method, [step.id for step in steps], sampling)
    alone = not method.get("llm_asked", True)
    require(not alone or all(step.slm_only for step in steps), "the LLM was not asked, and has a part in it")
    claim = claim_of(method, policy, body["models"], steps)
    if method["guarantee"] != claim.guarantee and policy.holds(steps) is False:
        raise BudgetError(
            f"the steps exceed the budget of {method['policy']!r} at token {_first_over(policy, steps)}, "
            f"with {canonical(method['parameters'])}, though {method['guarantee']!r} is claimed"
        )
    mode = mode_of(sampling, steps)
    follows = (
        mode,
        draws(sampling, marked_of(method) > 0),
        policy.guarantee,
        *claim,
        MEANING[claim.guarantee],
    )
    said = ("mode", "draws", "claimed", "guarantee", "adversary", "reason", "meaning")
    require(
        follows == tuple(method[key] for key in said),
        f"a {mode} answer under {method['policy']!r} has no such guarantee as is claimed: "
        f"{method['guarantee']!r} against {method['adversary']!r}, where {claim.guarantee!r} against "
        f"{claim.adversary!r} follows from its steps",
    )


def _check_mark(method: Mapping[str, Any], tokens: Sequence[int], sampling: Sampling) -> None:
    """Check that a watermark can have drawn so many tokens: one for each context, and none that is greedy."""
    if marked := marked_of(method):
        most = 0 if sampling.greedy else len(new_contexts(tokens, method["watermark"]["context"]))
        require(marked <= most, f"a watermark can have drawn {most} of these tokens, and not {marked}")


def _check_settings(told: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """All settings are there; of a grammar, that it is one."""
    grammar = told.get("grammar", "")
    require({**settings, "grammar": grammar} == told, "the sampling settings are not all there")
    kinds = ("json_schema", "regex", "lark")
    fine = grammar is None or (
        isinstance(grammar, Mapping)
        and grammar.keys() == {"kind", "text"}
        and grammar["kind"] in kinds
        and isinstance(grammar["text"], str)
    )
    require(fine, "its grammar is none")


def _first_over(policy: FusionPolicy, steps: Sequence[Token]) -> int:
    """The index of the first token with which the steps exceed the budget."""
    return bisect_left(range(1, len(steps)), True, key=lambda count: policy.holds(steps[:count]) is False)


def _check_edits(method: Mapping[str, Any]) -> None:
    known = [DROPPED, RETUNED]
    fine = method["edits"] == [edit for edit in known if edit in method["edits"]]
    require(fine, f"the edits are none of {', '.join(known)}")
    names = [(each["name"], each["distribution"]) for each in method["plugins"]]
    require(names == sorted(set(names)), "the plugins are not each named once, in order")
    require(bool(method["version"][:1].isdigit()), "the version is none of purify-plugins")


def _check_end(body: Mapping[str, Any]) -> None:
    """Check that the answer can have ended there, for the recorded reason."""
    answer, sampling, count = body["answer"], settings_of(body), len(body["steps"])
    reason, limit, by = answer["finish_reason"], answer["limit"], answer["limited_by"]
    most = round(sampling.max_tokens * body["models"]["slm"].get("alphabet", {}).get("per_token", 1.0))
    require((answer["bytes"] == 0) == (answer["sha256"] == NO_TEXT), "its digest is not of so many bytes")
    require(answer["bytes"] >= 0, "its text has fewer than no bytes")
    require(
        limit == most if by == "max_tokens" else limit <= most, f"{by} does not limit it to {limit} tokens"
    )
    require(by == "max_tokens" or limit < most, f"{by} limits it no more than max_tokens")
    require(1 <= count <= limit, f"it has {count} steps, and its limit is {limit}")
    require(by not in CUT or (reason == "length" and count == limit), f"the {by} did not end it there")
    require(by != "engine" or body["method"]["walk"] == IN_ENGINE, "no engine decoded it")
    require(reason != "length" or count == limit, f"it ended at {count} tokens, short of its limit {limit}")
    require(reason != "stop" or bool(sampling.stop), "no stop string can have ended it")
    require(reason != "eos" or not sampling.ignore_eos, "no end token can have ended it")


def parameters(value: Any) -> Any:
    """The inverse of `jsonable`: JSON has neither tuples nor infinity."""
    if isinstance(value, dict):
        return {key: parameters(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(parameters, value))
    return float(value) if value in ("inf", "-inf") else value
