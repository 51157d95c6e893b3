"""What a check blocked, a program discarded or a vault put away is on no surface, and all say the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.gateways import serving
from tests.stages.surfaces import STREAMED, WHOLE, House, Surface
from tests.stages.surfaces_wire import TOKENS, WIRE_STREAMED, WIRE_WHOLE
from tests.stages.theatre import cases, plain, told, word

WIDE = ("blocked in the middle", "ended in the operator's words", "restored")
"""Cases that are tried on all surfaces; the others on a few, and on all in the slow suite."""
FEW = (
    *("generate", "stream", "transformers", "/generate details streamed", "/v1/responses streamed"),
    *("LangChain ChatPurified astream_events", "LlamaIndex astream_chat"),
)
SURFACES: dict[str, tuple[Surface, bool]] = {
    **{name: (surface, False) for name, surface in (WHOLE | WIRE_WHOLE).items()},
    **{name: (surface, True) for name, surface in (STREAMED | WIRE_STREAMED).items()},
}


def _slow(case: str, surface: str) -> bool:
    return case not in WIDE and surface not in FEW


ROWS = [
    pytest.param(case, surface, id=f"{case}, {surface}", marks=[pytest.mark.slow] * _slow(case, surface))
    for case in cases()
    for surface in SURFACES
]


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    case = cases()[request.param]
    with serving(told(case), certificates=1000) as served:
        yield House(case, told(case), served, Path(tmp_path_factory.mktemp("house")))


@pytest.mark.parametrize(("house", "name"), ROWS, indirect=["house"], scope="module")
def test_a_case_is_the_same_on_every_surface(
    house: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    surface, streamed = SURFACES[name]
    seen, case = surface(house), house.case
    assert seen.error == ("RefusedError" if case.error else None)
    shown = case.tokens if name in TOKENS else case.before
    assert seen.text == ((shown if streamed else "") if case.error else case.due)
    logged = "\n".join(record.getMessage() for record in caplog.records)
    for secret in case.secrets:
        assert secret not in seen.written
        assert secret not in logged


def test_the_oracle_would_see_a_leak() -> None:
    assert word() in plain()
    assert len({case.due for case in cases().values() if not case.error}) == 5
