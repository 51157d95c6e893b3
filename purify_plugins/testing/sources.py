"""`SourceConformance`: what every logit source must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from purify_plugins.protocols import LogitSource
from purify_plugins.types import Prompt


class SourceConformance:
    """What every logit source must do; subclass it and return yours from `source`."""

    prompts: Sequence[Prompt] = ("a", "abc")

    def source(self) -> LogitSource:
        """The source under test."""
        raise NotImplementedError("return your source from `source`")

    def _answer(self, rows: int, length: int) -> Tensor:
        size = len(self.source().vocabulary)
        return torch.randint(0, size, (rows, length), generator=torch.Generator().manual_seed(0))

    def _close(self, one: Tensor, other: Tensor) -> None:
        one, other = torch.log_softmax(one.float(), -1), torch.log_softmax(other.float(), -1)
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)

    def test_rows_are_as_wide_as_the_vocabulary(self) -> None:
        source = self.source()
        session, first = source.open(self.prompts)
        with session:
            assert first.shape == (len(self.prompts), len(source.vocabulary))
            assert session.extend(self._answer(len(self.prompts), 2)).shape[1:] == (2, first.shape[1])

    def test_a_batch_is_its_rows(self) -> None:
        tokens = self._answer(len(self.prompts), 3)
        together = self._read(self.prompts, tokens)
        for row, prompt in enumerate(self.prompts):
            self._close(together[row : row + 1], self._read([prompt], tokens[row : row + 1]))

    def _read(self, prompts: Sequence[Prompt], tokens: Tensor) -> Tensor:
        session, first = self.source().open(prompts)
        with session:
            return torch.cat([first[:, None], session.extend(tokens)], dim=1)

    def test_many_tokens_at_once_are_as_one_by_one(self) -> None:
        tokens = self._answer(1, 4)
        session, first = self.source().open(self.prompts[:1])
        with session:
            steps = [first[:, None], *(session.extend(tokens[:, at : at + 1]) for at in range(4))]
        self._close(torch.cat(steps, dim=1), self._read(self.prompts[:1], tokens))

    def test_rewinding_forgets(self) -> None:
        rows = len(self.prompts)
        good, bad = self._answer(rows, 4), self._answer(rows, 6)
        expected = self._read(self.prompts, good)
        session, _ = self.source().open(self.prompts)
        with session:
            kept = torch.tensor([row % 3 for row in range(rows)])
            session.extend(torch.cat([good[:, :2], bad[:, 2:]], dim=1))
            session.rewind(kept)
            rest = torch.stack([row[n : n + 2] for row, n in zip(good, kept.tolist(), strict=True)])
            after = session.extend(rest)
        for row, n in enumerate(kept.tolist()):
            self._close(after[row], expected[row, n + 1 : n + 3])

    def test_rows_that_are_let_go_are_not_missed(self) -> None:
        """Where sessions offer `keep`: the others go on in their places, whatever was read before."""
        rows = len(self.prompts)
        tokens = self._answer(rows, 4)
        expected = self._read(self.prompts, tokens)
        session: Any
        session, _ = self.source().open(self.prompts)
        with session:
            if rows > 1 and session.keeps:
                session.extend(tokens[:, :3])
                session.keep([*range(1, rows)])
                session.rewind(torch.full((rows - 1,), 2))
                self._close(session.extend(tokens[1:, 2:]), expected[1:, 3:])

    def test_scored_prompts_are_what_reading_them_says(self) -> None:
        session, _ = self.source().open(self.prompts, 2)
        with session:
            prompts = [prompt.last(2) if prompt.spelled else prompt for prompt in session.prompts]
        for prompt in prompts:
            scored = len(prompt.logprobs)
            assert scored == min(2, len(prompt.tokens) - 1)
            if scored:
                start = len(prompt.tokens) - scored
                read = self._read([prompt.tokens[:start]], torch.tensor([prompt.tokens[start:]]))
                rows = torch.log_softmax(read[0].float(), -1)
                expected = [float(rows[at, token]) for at, token in enumerate(prompt.tokens[start:])]
                torch.testing.assert_close(
                    torch.tensor(prompt.logprobs), torch.tensor(expected), atol=1e-3, rtol=1e-3
                )

    def test_closing_twice_is_harmless(self) -> None:
        session, _ = self.source().open(self.prompts[:1])
        session.close()
        session.close()

    def test_it_says_who_it_is(self) -> None:
        assert "name" in self.source().identity()
