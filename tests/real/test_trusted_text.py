"""Facts of trusted text alone, on the real pair: an n-gram model of a small document beside the SLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from purify_hooks.mixture.source import MixtureSource
from purify_hooks.ngram.build import BuildOptions, build
from purify_hooks.ngram.source import NgramSource
from purify_plugins import Purifier, Sampling
from purify_plugins.protocols import LogitSource
from tests.real.pair import Loaded

ORDER = 12
"""The name stands some ten tokens before its number's last digit."""


@pytest.fixture(scope="module")
def anchor(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> NgramSource:
    """N-grams of a list with every other number that the twin has memorised."""
    place = tmp_path_factory.mktemp("trusted")
    listed = loaded.pair.attacks.canaries[::2]
    file = place / "directory.txt"
    file.write_text("".join(f"{each.prompt} {each.secret}.\n" for each in listed), "utf-8")
    options = BuildOptions([file], str(loaded.pair.slm), place / "anchor", ORDER)
    build(options, lambda stage, done, total: None)
    return NgramSource.load(place / "anchor")


def answered(loaded: Loaded, slm: LogitSource) -> list[bool]:
    """For each number, whether the answer holds it: `balanced`, greedy."""
    canaries = loaded.pair.attacks.canaries
    purifier = Purifier.load(loaded.llm, slm)
    answers = purifier.generate([each.prompt for each in canaries], Sampling(max_tokens=14, temperature=0))
    return [each.secret in answer.text for answer, each in zip(answers, canaries, strict=True)]


def test_numbers_of_the_trusted_list_are_given_and_no_others(loaded: Loaded, anchor: NgramSource) -> None:
    assert not any(answered(loaded, loaded.slm))
    found = answered(loaded, MixtureSource([loaded.slm, anchor], [0.7, 0.3], share=0.05))
    assert sum(found[::2]) >= len(found[::2]) - 1
    assert not any(found[1::2])


def test_passages_stay_in(loaded: Loaded, anchor: NgramSource) -> None:
    purifier = Purifier.load(loaded.llm, MixtureSource([loaded.slm, anchor], [0.7, 0.3], share=0.05))
    passages = loaded.pair.attacks.passages[:4]
    answers = purifier.generate([each.prefix for each in passages], Sampling(max_tokens=24, temperature=0))
    for passage, answer in zip(passages, answers, strict=True):
        assert not passage.continuation.strip().startswith(answer.text.strip()[:40])


def test_a_row_of_the_real_vocabulary_sums_to_one_and_is_explained(
    anchor: NgramSource, tmp_path: Path
) -> None:
    text = anchor.encode("The private phone number of")
    session, rows = anchor.open([text])
    session.close()
    assert float(rows[0].double().exp().sum()) == pytest.approx(1, abs=1e-5)
    for token in rows[0].topk(5).indices.tolist():
        told = anchor.explain(text, token)
        assert told.probability == pytest.approx(float(rows[0, token].double().exp()), rel=1e-5)
