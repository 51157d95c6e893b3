"""Provenance of steps: the decoder marks each step it draws, and the reader accepts no others.

A plugin runs in this process, so this is no defence against a malicious one. It keeps a certificate true when
a plugin replaces, filters or rewrites what the decoder drew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from purify_plugins.canonical_json import options
from purify_plugins.decode.constraint_mask import public
from purify_plugins.decode.draw_record import DROPPED, RETUNED, Drawn, Limit
from purify_plugins.errors import PluginError
from purify_plugins.types import Step

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.errors import PurifyError
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Token

Column = tuple["Token | None", ...]


@dataclass(eq=False)
class Provenance:
    """One batch of a decoder: what it draws with, and the steps that have not been read yet.

    `walk` is the decoding strategy, `seeds` are what each row draws from. `finished` are the rows that need
    no more tokens, checked before each step; `errors` are those of rows that failed alone.
    """

    walk: str
    decoder: Decoder
    sampling: Sampling
    seeds: Sequence[int | None]
    prompts: tuple[tuple[int, ...], ...]
    limits: list[Limit]
    finished: set[int]
    errors: dict[int, PurifyError]
    read: bool = False
    _unread: deque[tuple[Step, Column]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        decoder = self.decoder
        self.policy, self.llm, self.slm = decoder.policy, decoder.llm, decoder.slm
        self.alone, self.constraints = decoder.alone, decoder.constraints
        self.watermark = decoder.watermark
        self.llm_asked = decoder.llm_asked or not decoder.alone
        self.parameters = options(decoder.policy, decoder.name_of)

    def mark(self, tokens: Column) -> Step:
        """The step of these tokens, which a reader accepts once, and in this order."""
        step = Step(tokens, self.prompts, self)
        self._unread.append((step, tokens))
        return step

    def take(self, step: Step) -> list[Column] | None:
        """The columns before this step that were never read; None: the step is not one as it was drawn."""
        missing: list[Column] = []
        while self._unread:
            drawn, tokens = self._unread.popleft()
            if drawn is step:
                return missing if step.tokens is tokens else None
            missing.append(tokens)
        return None


class StepReader:
    """Checks the steps of one batch, from whatever `purify_decode` returned.

    Raises PluginError for steps that this decoder did not draw, that were altered, repeated or reordered:
    their text is not released. Steps that a plugin dropped are recorded. `plugins` are the names of
    those that implement `purify_decode`, for errors.
    """

    def __init__(self, decoder: Decoder, rows: int, plugins: Sequence[str] = ()) -> None:
        self.decoder, self._plugins = decoder, plugins
        self._origin: Provenance | None = None
        self._dropped: set[int] = set()
        self._rows = rows
        self.finished: set[int] = set()  # these three are the decoder's own objects after the first step
        self.errors: dict[int, PurifyError] = {}
        self.limits: Sequence[Limit] = ()

    @property
    def begun(self) -> bool:
        """Whether anything has been drawn."""
        return self._origin is not None

    def take(self, step: object) -> Step:
        """The step, if it is the next one that was drawn for this batch, or a later one."""
        if not isinstance(step, Step) or not isinstance(step.origin, Provenance):
            raise self._refused("were not drawn by this purifier's decoder")
        if self._origin is None:
            self._origin = self._claimed(step.origin)
        missing = step.origin.take(step) if step.origin is self._origin else None
        if missing is None:
            raise self._refused("are not the ones that were drawn: altered, repeated or out of order")
        for lost in missing:
            self._dropped |= {row for row, token in enumerate(lost) if token is not None}
        return step

    def _claimed(self, origin: Provenance) -> Provenance:
        own = self.decoder
        models = origin.llm is own.llm and origin.slm is own.slm and origin.alone == own.alone
        if origin.policy is not own.policy or not models or origin.constraints != own.constraints:
            raise self._refused("were drawn by another purifier")
        if origin.read or len(origin.prompts) != self._rows:
            raise self._refused("were drawn for another request")
        origin.read = True
        self.finished, self.errors, self.limits = origin.finished, origin.errors, origin.limits
        return origin

    def drawn(self, row: int, tokens: int, ended: bool, stop: tuple[str, ...]) -> Drawn:
        """How row `row` was drawn, of which `tokens` arrived; `ended`: by an end token or a stop string.

        Raises PluginError when no step has arrived.
        """
        origin = self._origin
        if origin is None:
            raise self._refused("are none at all")
        limit = origin.limits[row]
        if not ended and tokens != limit.tokens:
            limit = Limit(tokens, "plugin")
        edits: tuple[str, ...] = (DROPPED,) if row in self._dropped else ()
        # A policy is frozen, but object.__setattr__ is not: nothing is claimed of options that changed.
        if options(origin.policy, self.decoder.name_of) != origin.parameters:
            edits += (RETUNED,)
        sampling, seed = origin.sampling, origin.seeds[row]
        if seed != sampling.seed:
            sampling = replace(sampling, seed=seed)
        if stop != sampling.stop:
            sampling = replace(sampling, stop=stop)
        named = origin.policy, self.decoder.name_of(origin.policy), origin.parameters
        models = origin.llm, origin.slm
        asked = origin.llm_asked, public(origin.constraints) if origin.constraints else ()
        drawn = Drawn(origin.walk, *named, sampling, *models, origin.prompts[row], limit, edits, *asked)
        return replace(drawn, watermark=origin.watermark) if origin.watermark else drawn

    def _refused(self, why: str) -> PluginError:
        names = map(repr, self._plugins)
        return PluginError(
            f"the steps that purify_decode returned {why} ({', '.join(names) or 'no plugin'} answers it); "
            "a plugin may pass on the steps it was given, or return those of a decoder of "
            "`purify_plugins.decode` for the purifier it was given, and nothing else"
        )
