"""What a policy must be is said before anything runs, in one sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from purify_plugins import FusionPolicy, Purifier, Sampling, hookimpl
from purify_plugins.certificates import MEANING
from purify_plugins.cli import app
from purify_plugins.errors import ConfigError, NumericError, UncheckableError
from purify_plugins.foreign import FIELDS
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource, byte_vocabulary
from tests.strangers import HALF, Install, install

__all__ = ["install"]
SHORT = Sampling(max_tokens=3, seed=0)


class Smaller(FusionPolicy):
    """The smaller of two probabilities."""

    def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
        return llm.minimum(slm)


@dataclass
class Open(Smaller):
    times: float = 2.0


@dataclass(frozen=True)
class Renyi(Smaller):
    guarantee: ClassVar[Any] = "renyi"


@dataclass(frozen=True)
class Totalless(Smaller):
    guarantee: ClassVar[Any] = "path"

    def holds(self, steps: Sequence[Any]) -> bool:
        return True


@dataclass(frozen=True)
class Vague(Totalless):
    total: str = "plenty"


@dataclass(frozen=True)
class Total(Totalless):
    total: float = 3.0


@dataclass(frozen=True)
class Around(Totalless):
    """Its claim is that of the policy inside, as consistency's is."""

    policy: Any = Total()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Smaller(), r"'Smaller' is not a dataclass: put @dataclass\(frozen=True\) above it"),
        (Open(), r"'Open' is a dataclass whose options can be changed .* put @dataclass\(frozen=True\)"),
        (Renyi(), "'renyi', and a certificate may claim 'none', 'mean', 'window', 'passage', 'path'"),
        (Totalless(), "claims the guarantee 'path', whose certificate names its `total`"),
        (Vague(), "its `total`; give it a field of that name, a number, or claim 'none'"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_policy_that_no_certificate_can_hold_is_refused_when_it_is_given(policy: Any, words: str) -> None:
    """'renyi' was a KeyError in the middle of an answer, and "at most `total` nats" had no such number."""
    llm, slm = (ToySource(byte_vocabulary(), seed) for seed in (1, 2))
    for give in (lambda: load_plugins([]).policy(policy), lambda: Purifier(llm, slm, policy)):
        with pytest.raises(ConfigError, match=words):
            give()


@pytest.mark.parametrize("policy", [Total(), Around()])
def test_a_claim_whose_number_is_there_is_accepted(policy: Any) -> None:
    assert load_plugins([]).policy(policy).guarantee == "path"


def test_every_guarantee_names_in_its_sentence_the_fields_that_it_takes() -> None:
    assert set(FIELDS) == set(MEANING)
    for guarantee, names in FIELDS.items():
        assert all(name in MEANING[guarantee] for name in names)


@pytest.mark.parametrize("state", [torch.zeros(1), torch.tensor(0.0), "a list"])
def test_a_state_that_is_not_a_row_each_is_refused_with_its_shape(state: Any) -> None:
    @dataclass(frozen=True)
    class Forgetful(Smaller):
        def start(self, context: Any) -> Any:
            return (state,) if isinstance(state, Tensor) else [state]

    llm, slm = (ToySource(byte_vocabulary(), seed) for seed in (1, 2))
    with pytest.raises(NumericError, match=r"Forgetful starts 2 rows with a state of .*\(rows, …\)"):
        Purifier(llm, slm, Forgetful()).generate(["a", "b"], SHORT)


def test_a_policy_that_multiplies_minus_infinity_is_told_so() -> None:
    """The advice was to check "weights and dtype", of which a policy has none."""

    @dataclass(frozen=True)
    class Multiplies(Smaller):
        def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
            return 0 * torch.where(llm > llm.median(), llm, -torch.inf) + slm

    llm, slm = (ToySource(byte_vocabulary(), seed) for seed in (1, 2))
    with pytest.raises(NumericError, match=r"the policy Multiplies .*0 \* -inf is NaN.*PolicyConformance"):
        Purifier(llm, slm, Multiplies()).generate("a", SHORT)


def test_a_certificate_of_an_unnamed_plugin_s_policy_is_not_called_forged(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with the code of a forgery, and named neither the plugin nor what to do."""
    install("half-plugin", HALF)
    plugins = load_plugins(["half-plugin"])
    llm, slm = (ToySource(byte_vocabulary(), seed) for seed in (1, 2))
    [given] = Purifier(llm, slm, plugins.policy("half"), plugins=plugins).generate("a", SHORT)
    file = tmp_path / "certificate.json"
    file.write_text(given.certificate.text, "utf-8")
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["verify", str(file)])
    assert found.exit_code == UncheckableError.exit_code == 2
    assert "cannot be checked here: no plugin in use offers its policy 'half'" in found.stderr
    assert "name 'half_plugin' (half-plugin 1.2) in purify.toml's `plugins`" in found.stderr
    monkeypatch.setenv("PURIFY_PLUGINS", "half-plugin")
    found = CliRunner().invoke(app, ["verify", str(file), "--json"])
    assert json.loads(found.stdout)["valid"], "named, it is checked"


def test_an_option_of_the_wrong_type_is_said_in_our_words() -> None:
    @dataclass(frozen=True)
    class Top(Smaller):
        top: int = 3

        def __post_init__(self) -> None:
            if self.top <= 0:
                raise ConfigError("top must be above 0")

    plugins = load_plugins([])
    plugins.register(Offering(Top), name="offering")
    with pytest.raises(ConfigError, match=r"^policy 'top': top must be a whole number, not 'abc'$"):
        plugins.policy("top", {"top": "abc"})


class Offering:
    """A plugin that offers one class."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    @hookimpl
    def purify_policies(self) -> dict[str, type]:
        return {"top": self.kind}
