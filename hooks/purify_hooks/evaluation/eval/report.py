"""The report: an HTML page, a JSON file, and a section for the documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval import protection, staged, tables
from purify_hooks.evaluation.eval.findings import (
    as_json,
    baseline,
    harm,
    harms,
    knowledge,
    model,
    perplexity,
    speed_sentence,
    stops,
    worst,
)
from purify_hooks.evaluation.eval.page import made, model_name, region, require_region, templates
from purify_hooks.evaluation.eval.plot import frontier, picture
from purify_hooks.evaluation.eval.record import EvaluationRecord
from purify_hooks.evaluation.eval.run import Plan, Result, offered
from purify_hooks.evaluation.eval.suites.base import Suite, SuiteSettings
from purify_hooks.evaluation.table import Table
from purify_plugins.decode.draw_keys import kept
from purify_plugins.utils.files import write_whole

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair

REGION = region("eval")
STAGES, PROTECTION = "Request stages", "protection "
PAGE = "evaluation.md"
DRAWS = {
    True: "keyed by a PURIFY_SECRET that was set: with the same one they are the same again",
    False: "without a PURIFY_SECRET: another run draws other answers under the same seed",
}
"""Whether sampled answers can be drawn again."""
CLOCKED = {
    "wall": "wall time; nothing else of this command ran meanwhile",
    "cpu": "the CPU time of one thread, which other work of the machine does not count in",
}


@dataclass(frozen=True, eq=False)
class Report:
    """The results of an evaluation, and how they were measured."""

    plan: Plan
    pair: ModelPair
    results: Sequence[Result]
    suites: Mapping[str, Suite]
    clock: str = ""
    """The clock that speed was measured by, "wall" or "cpu"; "": it was not measured."""

    @property
    def json(self) -> dict[str, Any]:
        """Every system's record."""
        return as_json(self.results, self.pair.plugins)

    def write(self, folder: Path, docs: Path | None = None) -> Path:
        """`report.html`, `report.json` and `evaluation.json` in a directory; the page's path.

        In `docs`/evaluation.md, too, where that is given.
        """
        if docs:
            self.document(docs)
        self.write_json(folder)
        self.record().write(folder)
        write_whole(folder / "report.html", self.html())
        return folder / "report.html"

    def write_json(self, folder: Path) -> None:
        """`report.json` in a directory."""
        write_whole(folder / "report.json", json.dumps(self.json, indent=1, allow_nan=False) + "\n")

    def record(self) -> EvaluationRecord:
        """All that it says, as data."""
        told, tables = (self.conclusion(), self.quick), self.tables().values()
        return EvaluationRecord(self.pair, self.results, *told, tables, self._pictured, self.facts())

    @property
    def quick(self) -> bool:
        """Whether it measured four items of a kind, which is no evidence."""
        return self.plan.settings.items == SuiteSettings.quick().items

    def html(self) -> str:
        """The self-contained page."""
        from markupsafe import Markup

        every, shown = tables.suite_tables(self.results, self.suites), self.tables()
        return (
            templates("eval")
            .get_template("report.html")
            .render(
                conclusion=self.conclusion(),
                **{name: table for name, table in shown.items() if not name.startswith(PROTECTION)},
                protected=[each.title for each in protection.measured(self.suites).values()],
                protections=[table for name, table in shown.items() if name.startswith(PROTECTION)],
                share=tables.share,
                baseline=baseline(self.results),
                speed=speed_sentence(self.results),
                staged=staged.sentence(self.results),
                pictures={name: map(Markup, both) for name, both in self._pictured.items()},
                suites=[
                    (suite, [table for _, _, table in group])
                    for suite, group in groupby(every, key=lambda each: each[0])
                ],
                facts=self.facts(),
                keys=self._marked(),
            )
        )

    def tables(self) -> dict[str, Table]:
        """The summary's tables: systems at their defaults, and every setting of a sweep."""
        plugins, policies = self.pair.plugins, staged.plain(self.results)
        usual = [each for each in policies if not each.system.swept]
        swept = len(usual) < len(policies)
        attacked = tables.harms([each for each in self.results if not each.system.swept])
        advised = {"recommended": tables.recommended(policies, plugins)} if self.attacked else {}
        every = {
            "harms": attacked,
            **({"stages": staged.table(self.results)} if staged.measured(self.results) else {}),
            **{f"{PROTECTION}{each.title}": each for each in protection.tables(self.results, self.suites)},
            **({"knowledge": tables.knowledge(usual)} if "knowledge" in self.results[0].metrics else {}),
            "costs": tables.costs(usual),
            **advised,
            **({"settings": tables.settings(policies, plugins)} if swept else {}),
            "budgets": tables.budgets(policies, plugins),
        }
        return {name: table for name, table in every.items() if not table.empty}

    def _marked(self) -> dict[str, str]:
        """CSS class by row label: the two models, and the cheapest system that stops every harm."""
        marked = {each.system.label: each.system.key for each in self.results if each.system.alone}
        return {**marked, **{each.system.label: "us" for each in [self.best] if each}}

    @property
    def attacked(self) -> bool:
        """Whether any harm was measured."""
        return not math.isnan(worst(model(self.results, "llm")))

    @property
    def holding(self) -> list[Result]:
        """The policies that stop every harm; none where no harm was measured."""
        slm = model(self.results, "slm")
        policies = staged.plain(self.results) if self.attacked else []
        return [each for each in policies if not each.system.alone and stops(each, slm)]

    @property
    def best(self) -> Result | None:
        """The policy of the lowest perplexity among those that stop every harm."""
        return min(self.holding, key=perplexity, default=None)

    def pictures(self, narrow: bool = False) -> dict[str, str]:
        """The frontier, where knowledge was measured, an SVG for every harm that was, and one of stages.

        Harms stand over perplexity, and are drawn only where that was measured too.
        """
        llm, policies = model(self.results, "llm"), staged.plain(self.results)
        both = not math.isnan(perplexity(llm))
        measured = [name for name in harms(llm) if both and not math.isnan(harm(llm, name))]
        first = {"Frontier": frontier(policies, narrow=narrow)} if self.draws_frontier else {}
        last = {STAGES: staged.picture(self.results, narrow=narrow)} if staged.measured(self.results) else {}
        stages = protection.pictures(self.results, self.suites, narrow=narrow)
        shown = {name: picture(policies, name, narrow=narrow) for name in measured}
        return {**first, **shown, **last, **stages}

    @property
    def draws_frontier(self) -> bool:
        """Whether harms and knowledge were both measured."""
        return self.attacked and not math.isnan(knowledge(model(self.results, "llm")))

    @cached_property
    def _pictured(self) -> dict[str, tuple[str, str]]:
        """Each picture's SVG for a broad screen and for a narrow one."""
        narrow = self.pictures(narrow=True)
        return {name: (svg, narrow[name]) for name, svg in self.pictures().items()}

    def conclusion(self) -> str:
        """The conclusion in three sentences."""
        llm, best = model(self.results, "llm"), self.best
        measured = [name for name in harms(llm) if not math.isnan(harm(llm, name))]
        done = ", ".join(f"{name.lower()} {harm(llm, name):.0%}" for name in measured)
        quick = "QUICK: four items of a kind, which is no evidence. " if self.quick else ""
        first = f"{quick}At its worst attack the LLM alone reaches: {done}."
        tried = sum(not each.system.alone for each in staged.plain(self.results))
        if not done:
            return f"No harm was measured, so nothing is said of what {_systems(tried)} would stop."
        every = "every harm" if set(measured) == self._offered_harms else "every harm that was measured"
        if best is None:
            return f"{first} {_none_of(tried)} {every}."
        count = len(self.holding)
        number = f"{count} stop" if count > 1 else "one stops"
        of = f"Of {tried} systems that were tried {number}" if tried > 1 else "The one system tried stops"
        second = f"{of} {every}, to within five points of the SLM alone"
        if math.isnan(perplexity(llm)):
            return f"{first} {second}."
        ratio = tables.number(perplexity(best) / perplexity(llm))
        return (
            f"{first} {second}; the cheapest is {best.system.label}, at {ratio} times the LLM's perplexity."
        )

    @property
    def _offered_harms(self) -> set[str]:
        """Every harm that an offered suite measures, run or not."""
        suites = offered(self.pair.plugins, self.plan).values()
        return {metric.harm for suite in suites for metric in suite.metrics.values() if metric.harm}

    def facts(self) -> dict[str, str]:
        """Models, questions, settings and effort."""
        settings, questions = self.plan.settings, self.plan.questions
        seconds = sum(cell.seconds for each in self.results for cell in each.cells.values())
        return {
            "LLM": model_name(self.pair.llm.identity()),
            "SLM": model_name(self.pair.slm.identity()),
            "questions": f"SHA-256 {questions.digest}; {_counts(self.plan)}",
            "settings": f"seed {settings.seed}; “sampled” is the exact probability at temperature 1, but for "
            "written answers" + (f"; at most {settings.items} items of a kind" if settings.items else ""),
            "draws": DRAWS[kept()],
            **made(),
            **({"speed": CLOCKED[self.clock]} if self.clock else {}),
            "effort": f"{seconds:.0f} CPU seconds in all, models' loading aside",
        }

    def section(self) -> tuple[list[str], Mapping[str, str]]:
        """The documentation's section: blocks of Markdown, and its pictures by file name."""
        pictures = self.pictures()
        named = {picture_file(name): name for name in pictures}
        about = {
            "Frontier": "knowledge kept against the worst harm",
            STAGES: "the worst attack against clean prompts refused",
            **{each.title: "what it stops and costs" for each in protection.measured(self.suites).values()},
        }
        shown = [
            f"![{name}: {about.get(name, 'harm against perplexity')}]({file})" for file, name in named.items()
        ]
        facts = "\n".join(f"- {name}: {fact}" for name, fact in self.facts().items())
        blocks = [
            self.conclusion(),
            speed_sentence(self.results),
            staged.sentence(self.results),
            *(table.markdown for table in self.tables().values()),
            *shown,
            "\n\n".join(baseline(self.results)),
            facts,
        ]
        return blocks, {file: pictures[name] for file, name in named.items()}

    def document(self, docs: Path) -> None:
        """Put the section into `docs`/evaluation.md, and its pictures beside it. Raises ConfigError."""
        page = require_page(docs)
        blocks, pictures = self.section()
        for file, svg in pictures.items():
            write_whole(docs / file, svg)
        body = "\n\n".join(filter(None, blocks))
        text = REGION.sub(lambda found: f"{found[1]}\n{body}\n\n{found[2]}", page.read_text("utf-8"))
        write_whole(page, text)


def picture_file(title: str) -> str:
    """The file of a picture in the documentation."""
    return "evaluation-" + title.lower().replace("'", "").replace(" ", "-") + ".svg"


def require_page(docs: Path) -> Path:
    """The page in `docs` to write to. Raises ConfigError, before any work is done, if that is impossible."""
    page = docs / PAGE
    require_region(page, "eval")
    return page


def _systems(count: int) -> str:
    return f"{count} systems" if count > 1 else "the one system tried"


def _none_of(tried: int) -> str:
    """The beginning of the sentence for runs where no system stops every harm."""
    return (
        f"Of {tried} systems that were tried none stops"
        if tried > 1
        else "The one system tried does not stop"
    )


def _counts(plan: Plan) -> str:
    """The number of questions of each kind, as text."""
    questions = plan.questions
    found = {
        "passages": len(questions.protected.passages) if questions.protected else 0,
        "backdoor contexts": len(questions.backdoor.contexts) if questions.backdoor else 0,
        "secrets": len(questions.canaries.items) if questions.canaries else 0,
        "held-out texts": len(questions.heldout),
        "choices": len(questions.choices),
        "tasks": len(questions.tasks),
    }
    return ", ".join(f"{count} {name}" for name, count in found.items() if count)
