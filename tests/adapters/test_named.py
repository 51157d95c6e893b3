"""LangChain's and LlamaIndex's models are made alike: by the same options, refused by the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from purify_plugins import ConfigError, ModelError, PurifyError, UnknownNameError
from purify_plugins.testbed import LLM, SLM

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from purify_adapters.langchain import ChatPurified
from purify_adapters.langchain import PurifiedLLM as LangChainLLM
from purify_adapters.llama_index import PurifiedLLM

KINDS: tuple[Callable[..., Any], ...] = (ChatPurified, LangChainLLM, PurifiedLLM)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"policy": "balancd"}, UnknownNameError, "did you mean 'balanced'?"),
        ({"policy_options": {"buget": 4.0}}, UnknownNameError, "did you mean 'budget'?"),
        ({"policy": {"name": "balanced", "buget": 4.0}}, UnknownNameError, "did you mean 'budget'?"),
        ({"llm": "/no/where"}, ModelError, "there is no model directory '/no/where'"),
        ({"slm": "../nowhere/small"}, ModelError, "there is no model directory"),
        ({"slm": {"model": "/no/where"}}, ModelError, "there is no model directory '/no/where'"),
        ({"llm": {"source": "loca", "model": "x"}}, UnknownNameError, "did you mean 'local'?"),
        ({"temprature": 1.0}, UnknownNameError, "did you mean 'temperature'?"),
    ],
)
def test_a_wrong_name_is_refused_where_it_is_given_and_not_by_the_first_call(
    kind: Callable[..., Any], options: dict[str, Any], error: type[PurifyError], words: str
) -> None:
    with pytest.raises(error) as raised:
        kind(**{"llm": LLM, "slm": SLM, **options})
    assert words in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_models_given_without_their_names_are_refused_with_the_way_to_write_it(
    kind: Callable[..., Any],
) -> None:
    with pytest.raises(ConfigError, match=r"name the models: \w+\(llm=…, slm=…\)"):
        kind(str(LLM), str(SLM))


@pytest.mark.parametrize("kind", KINDS)
def test_the_option_that_other_chat_models_call_model_is_llm(kind: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"'model'; did you mean 'llm'\?"):
        kind(model=str(LLM), slm=SLM)


def test_both_frameworks_say_the_same_of_an_answer_s_purification() -> None:
    options = {"llm": LLM, "slm": SLM, "policy_options": {"budget": 3.0}, "max_tokens": 4}
    theirs = ChatPurified(**options).invoke("The king had").response_metadata["purification"]  # type: ignore[arg-type]  # the fields' own types
    ours = PurifiedLLM(**options).complete("The king had").raw["purification"]  # type: ignore[arg-type]  # likewise
    assert set(theirs) == set(ours) == {"digest", "policy", "guarantee", "log_ratio"}
    assert theirs["policy"] == ours["policy"] == "balanced"
