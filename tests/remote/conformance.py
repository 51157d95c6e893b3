"""What every source behind a server must pass; a test file subclasses it and has a fixture `source`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from purify_plugins.testing import SourceConformance
from tests.toys import both

PROMPTS = ("Once upon", "The king said to")


class ServedConformance(SourceConformance):
    """A source that shows whole rows, and the mass of what was not shown as one column more."""

    prompts = PROMPTS

    @pytest.fixture(autouse=True)
    def _source(self, source: Any) -> None:
        self._made = source

    def source(self) -> Any:
        return self._made

    def test_rows_are_as_wide_as_the_vocabulary(self) -> None:
        """And one column wider: the mass of what was not shown."""
        session, first = self._made.open(self.prompts)
        with session:
            assert first.shape == (2, len(both()[0].vocabulary) + 1)


class TextConformance(ServedConformance):
    """A source whose server takes text, not ids."""

    def _answer(self, rows: int, length: int) -> torch.Tensor:
        """Tokens whose text is cut into the same tokens again."""
        words = self._made.reader.tokenised(" the old king went to the house and said")[1:]
        return torch.tensor([words[row : row + length] for row in range(rows)])
