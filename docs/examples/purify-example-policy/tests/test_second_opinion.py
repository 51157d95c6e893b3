"""What the policy promises, and what it must do as any policy must."""

import logging
import math

import pytest
from purify_example_policy import SecondOpinion

from purify_plugins import ConfigError, Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import PolicyConformance, ToySource, byte_vocabulary, random_rows


class TestSecondOpinion(PolicyConformance):
    def policy(self):
        return SecondOpinion()


@pytest.mark.parametrize("times", [1, 4, 100])
def test_no_token_gets_more_than_times_plus_one_of_the_slm(times):
    llm, slm = random_rows(seed=1), random_rows(seed=2)
    fused = SecondOpinion(times).fuse(llm, slm, ())
    assert (fused - slm).max() <= math.log(times + 1) + 1e-5


def test_an_llm_that_agrees_is_left_alone():
    row = random_rows()
    assert (SecondOpinion().fuse(row, row, ()) - row).abs().max() < 1e-5


@pytest.mark.parametrize("times", [0.5, -1, math.inf, math.nan])
def test_times_is_one_or_more(times):
    with pytest.raises(ConfigError, match="times must be 1 or more"):
        SecondOpinion(times)


def test_the_plugin_is_off_until_named():
    assert "second_opinion" not in load_plugins([]).offers("purify_policies")
    assert "second_opinion" in load_plugins(["purify-example-policy"]).offers("purify_policies")


def test_every_answer_is_logged(caplog):
    plugins = load_plugins(["second-opinion"])
    toys = [ToySource(byte_vocabulary(), seed) for seed in (1, 2)]
    purifier = Purifier(*toys, plugins.policy("second_opinion", {"times": 2}), plugins=plugins)
    with caplog.at_level(logging.INFO, "purify.audit"):
        answers = purifier.generate(["one", "two"], Sampling(max_tokens=5, seed=0))
    assert len(caplog.records) == len(answers) == 2
    assert answers[0].certificate.digest[:12] in caplog.text
