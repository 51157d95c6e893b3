"""A model beside a copyist: one language model, which certificates and auditors meet as any other SLM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from purify_hooks.copying.copyist import Copyist
from purify_hooks.copying.source import CopyingSource
from purify_hooks.policies.balanced import Balanced
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.certificates.explain import summary
from purify_plugins.cli import app
from purify_plugins.configuration.preflight import require_two
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.errors import ConfigError, OtherModelError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.testing import SourceConformance, ToySource, letters
from tests.adversary.game import Game, Remembering, adversary, play
from tests.adversary.search import Search
from tests.toys import pair

A = ToySource(letters("abcdef"), seed=1)


class TestConformance(SourceConformance):
    def source(self) -> CopyingSource:
        return CopyingSource(ToySource(letters("abc"), seed=1))


def mixed(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """The mixture's log-probabilities (V,), by definition."""
    copyist = Copyist(tokens)
    said, row = copyist.prediction(), logits.double().softmax(-1)
    copied = torch.zeros_like(row)
    for token in copyist.distinct:
        copied[token] = said.even + said.more.get(token, 0.0)
    return ((1 - said.weight) * row + said.weight * copied).log()


@dataclass(frozen=True)
class Copying(Remembering):
    """The same mixture as a toy: a function of the tokens, which an adversary can be searched against."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return mixed(super().logits(tokens), tokens).float()


TEXT = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 4]


def test_each_row_is_the_mixture_of_the_model_and_the_copyist() -> None:
    session, first = CopyingSource(A).open([tuple(TEXT[:2])])
    with session:
        rows = torch.cat([first, session.extend(torch.tensor([TEXT[2:]]))[0]])
    for at, row in enumerate(rows, start=2):
        torch.testing.assert_close(row.double(), mixed(A.logits(TEXT[:at]), TEXT[:at]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(rows)))


def test_a_prompt_is_scored_as_it_would_be_written() -> None:
    session, _ = CopyingSource(A).open([tuple(TEXT)], scored=6)
    with session:
        [prompt] = session.prompts
    assert len(prompt.logprobs) == 6
    for back, logprob in enumerate(reversed(prompt.logprobs), start=1):
        before = TEXT[:-back]
        assert logprob == pytest.approx(float(mixed(A.logits(before), before)[TEXT[-back]]), abs=1e-5)


def test_rows_that_are_rewound_and_kept_are_read_anew() -> None:
    source = CopyingSource(A)
    session, _ = source.open([(0, 1), (2, 3)])
    with session:
        session.extend(torch.tensor([[0, 1, 5], [2, 3, 5]]))
        session.rewind(torch.tensor([2, 1]))
        session.keep([1])
        [[row]] = session.extend(torch.tensor([[4]]))
    torch.testing.assert_close(
        row.double(), mixed(A.logits([2, 3, 2, 4]), [2, 3, 2, 4]), atol=1e-6, rtol=1e-5
    )


def test_drafts_of_it_change_nothing() -> None:
    slm = CopyingSource(ToySource(letters("abc"), seed=2))
    purifier = pair(ToySource(letters("abc"), seed=9), slm, "balanced")
    prompts, sampling = ["ab", "c", "abc", "aac"], Sampling(max_tokens=40, temperature=0, ignore_eos=True)
    drafted, plain = (
        [
            [step.tokens[row].id for step in walk(purifier, prompts, sampling) if step.tokens[row]]
            for row in range(4)
        ]
        for walk in (speculative, lockstep)
    )
    assert drafted == plain


def test_an_answer_is_certified_against_the_mixture() -> None:
    slm = CopyingSource(A)
    purifier = pair(replace(A, seed=9), slm, "balanced")
    (answer,) = purifier.generate("abcabcab", Sampling(max_tokens=12, seed=1))
    certificate = read(answer.certificate.text.encode())
    verify(certificate, purifier.plugins)
    assert recompute(certificate, slm) < 1e-4
    with pytest.raises(OtherModelError):
        recompute(certificate, A)  # the model alone is another
    assert "mixed with a copyist of the prompt" in " ".join(summary(certificate, None))


def test_its_digest_is_not_the_model_s() -> None:
    """Whoever pins an SLM by its digest must not be given a looser one."""
    alone, copying = (load_plugins([]).source(model) for model in (SLM, {"source": "copying", "model": SLM}))
    added = copying.identity()["files"].items() - alone.identity()["files"].items()
    assert [name for name, _ in added] == ["copyist"]


@pytest.mark.parametrize(
    "policy", [Balanced(2.0), Balanced(2.0, gap=0.3, gap_limit=0.5, memory=4.0, hedge=0.1)]
)
def test_the_best_adversary_keeps_to_the_bound_against_the_mixture(policy: Balanced) -> None:
    """The prompt ends with "cab", and "cab" is wanted: the copyist makes it likelier, and the bound too."""
    game = Game(policy, slm=Copying(letters("abc"), 9), passage="cab")
    search = Search(game, [game.target])
    [bound] = {play(game, adversary(game, lambda _: search.mind, "lockstep", engine=False), 1).bound}
    assert search.probability <= bound * (1 + 1e-5)
    alone = Game(policy, slm=Remembering(letters("abc"), 9), passage="cab")
    assert game.q > alone.q


def test_what_stands_in_the_prompt_is_said_and_what_does_not_is_not() -> None:
    """A weak SLM knows no order of letters; the LLM is sure of one, which stands in the prompt or not."""
    known = ToySource(letters("abcdef"), seed=5, sharpness=30.0)
    weak = ToySource(letters("abcdef"), seed=1, sharpness=0.0)
    answer = known_text(known, 12)
    rule = Balanced(4.0)
    for slm, shown, least, most in (
        (weak, answer * 2, 0.0, 1e-2),
        (CopyingSource(weak), answer * 2, 0.05, 1.0),
        (CopyingSource(weak), "", 0.0, 1e-2),
    ):
        chance = math.exp(Purifier(known, slm, rule).loglikelihood(shown + "f" * 3, answer).nats)
        assert least <= chance <= most


def known_text(source: ToySource, length: int) -> str:
    """What the source writes greedily after "fff"."""
    tokens = list(source.encode("fff"))
    for _ in range(length):
        row = source.logits(tokens)
        row[-1] = -math.inf  # no end
        tokens.append(int(row.argmax()))
    return source.vocabulary.spell(tokens[3:]).decode()


def test_sessions_read_in_one_pass_are_as_if_read_one_after_another() -> None:
    source = load_plugins([]).source({"source": "copying", "model": SLM})
    texts = ["The king and the king", "Once, and once"]
    tokens = [torch.tensor([source.encode(" and the")]), torch.tensor([source.encode(" once")])]
    assert source.joins
    both, one = ([source.open([text])[0] for text in texts] for _ in range(2))
    joined = source.extend_all(both, tokens)
    for session, asked, rows in zip(one, tokens, joined, strict=True):
        torch.testing.assert_close(session.extend(asked), rows, atol=1e-4, rtol=1e-4)


def test_with_another_tokenizer_it_copies_in_its_own_tokens() -> None:
    text = "Rumplebuckle met Rumplebuckle, and said to Rumple"
    nats = [
        Purifier.load(LLM, slm, policy="balanced").loglikelihood(text, "buckle").nats
        for slm in (SLM_1024, {"source": "copying", "model": SLM_1024})
    ]
    assert nats[1] > nats[0] + 1.0


@dataclass(frozen=True)
class Shown(ToySource):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, 5, None, False, False)


def test_a_model_behind_a_server_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="parts of rows, and those cannot be mixed; run it here"):
        CopyingSource(Shown(letters("abc")))


def test_the_llm_cannot_copy_for_itself() -> None:
    with pytest.raises(ConfigError, match="whom you do not trust cannot vouch for itself"):
        require_two(load_plugins([]), LLM, {"source": "copying", "model": LLM})


def test_an_auditor_with_the_model_s_directory_computes_the_mixture(tmp_path: Path) -> None:
    purifier = Purifier.load(LLM, {"source": "copying", "model": SLM}, policy="balanced")
    (answer,) = purifier.generate("The king and the queen and the king", Sampling(max_tokens=8, seed=1))
    file = tmp_path / "certificate.json"
    file.write_text(answer.certificate.text, "utf-8")
    found = CliRunner().invoke(app, ["verify", str(file), "--slm", str(SLM)])
    assert found.exit_code == 0, found.output
    assert "mixed with a copyist of the prompt" in " ".join(found.output.split())
