"""The gatekeeper on every surface: the reader gets the value, and nothing the models read holds it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from purify_hooks.private.gatekeeper import Gatekeeper
from purify_plugins import Sampling
from tests.adapters.gateways import serving
from tests.private.echo import Echo
from tests.stages.surfaces import House
from tests.stages.test_surfaces import SURFACES
from tests.stages.theatre import DRAWN, PROMPT, VOCABULARY, Case
from tests.toys import pair

SECRET = "sea"
FEW = ("stream", "/v1/chat/completions streamed", "LangChain ChatPurified invoke", "LlamaIndex stream_chat")
"""Surfaces that are tried by default; the others are slow."""
ROWS = [
    name if name in FEW else pytest.param(name, marks=pytest.mark.slow)
    for name in SURFACES
    if not name.startswith("transformers")  # which gives token ids: refused, below
]


@pytest.fixture(scope="module")
def llm() -> Echo:
    return Echo(VOCABULARY, skip=PROMPT.index(SECRET))


@pytest.fixture(scope="module")
def house(llm: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    slm, stage = Echo(VOCABULARY, skip=llm.skip), Gatekeeper(kinds=("email",), words=(SECRET,))
    purifier = pair(llm, slm, "geometric", sampling=Sampling(**DRAWN), stages=[stage])
    with serving(purifier, certificates=1000) as served:
        yield House(Case("gatekeeper", "restores"), purifier, served, Path(tmp_path_factory.mktemp("house")))


@pytest.mark.parametrize("name", ROWS)
def test_a_value_is_restored_on_every_surface_and_read_by_no_model(
    name: str, house: House, llm: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    llm.asked.clear()
    seen = SURFACES[name][0](house)
    assert (seen.error, seen.text.removesuffix("<end>")) == (None, SECRET)  # TGI's streams show the end token
    assert llm.asked
    assert not [each for each in llm.asked if SECRET in str(each)]
    assert not [each for each in caplog.records if SECRET in each.getMessage().split("Tell me")[0]]


@pytest.mark.slow
def test_transformers_gives_token_ids_and_is_refused(house: House, llm: Echo) -> None:
    llm.asked.clear()
    seen = SURFACES["transformers"][0](house)
    assert seen.error == "PromptError"
    assert not llm.asked
