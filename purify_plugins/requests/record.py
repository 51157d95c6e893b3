"""The record of an answer that stages made, which its certificate is issued from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.staged import AnswerRecord, DraftRecord, StageRecord
from purify_plugins.configuration.pair import tightened
from purify_plugins.stages.checks import failing_closed
from purify_plugins.stages.ledger import checks, segments

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.requests.exits import Exit
    from purify_plugins.requests.pipeline import Pipeline
    from purify_plugins.stages.calls import Leaf, Run
    from purify_plugins.stages.stage import Stage
    from purify_plugins.types import Completion, FinishReason


def record(
    pipeline: Pipeline, chain: Sequence[Stage], run: Run, way_out: Exit, reason: FinishReason
) -> AnswerRecord:
    """What was asked for this row, what of it was released, and what judged it."""
    answered = [(leaf, leaf.completion) for leaf in run.asked if leaf.completion]
    failed = sum(not leaf.completion and not leaf.request.slm_only for leaf in run.asked)
    released = next((at for at, (leaf, _) in enumerate(answered) if leaf is way_out.leaf), None)
    return AnswerRecord(
        tuple(_stage(pipeline.plugins, stage) for stage in chain),
        tuple(_draft(pipeline.purifier.policy, leaf, completion) for leaf, completion in answered),
        released,
        segments(way_out.release, way_out.said),
        reason,
        run.options.calls,
        failed,
        checks(way_out.release),
        _scores(way_out, reason),
    )


def _scores(way_out: Exit, reason: FinishReason) -> dict[str, Any]:
    """What the checks measured of a whole answer; nothing of one that an operator's text ends."""
    found: dict[str, Any] = {}
    if way_out.leaf is not None and reason != "refused":
        for check in way_out.release.checks:
            with failing_closed(f"check {check.name!r}"):
                found |= check.scores(way_out.leaf.answer)
    return found


def _stage(plugins: Plugins, stage: Stage) -> StageRecord:
    name, actor = plugins.offered("purify_stages", type(stage))
    distribution, version = (actor.distribution, actor.version) if actor else ("", "")
    return StageRecord(name or stage.name, stage.public(), distribution, version, stage.choices)


def _draft(policy: FusionPolicy, leaf: Leaf, completion: Completion) -> DraftRecord:
    request = leaf.request
    redo = max((check.redo for check in request.checks), default=0)
    return DraftRecord(
        completion,
        tightened(policy, request.strength),
        leaf.after,
        request.slm_only,
        request.shown,
        redo,
        leaf.redone,
    )
