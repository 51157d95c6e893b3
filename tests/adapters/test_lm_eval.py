"""lm-evaluation-harness: what it scores is the law that draws answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from purify_hooks.local.source import LocalSource
from purify_hooks.policies.mixtures import Linear
from purify_plugins import Chat, Purifier, RefusedError, Sampling, hookimpl
from purify_plugins.decode.likelihood import loglikelihoods
from purify_plugins.decode.replay import replay
from purify_plugins.errors import ConfigError, PromptError, PurifyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, attacks
from tests.toys import pair, real, toys


@pytest.fixture(autouse=True)
def _harness() -> None:
    pytest.importorskip("lm_eval")


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


pytestmark = [
    pytest.mark.slow,  # importing the harness takes as long as a test may
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the harness's own imports
]


def test_the_harness_s_numbers_are_the_purifier_s() -> None:
    from purify_adapters.lm_eval import PurifyLM, sampling

    purifier = toys("windowed")
    model = PurifyLM(purifier=purifier)
    [(nats, greedy)] = model.loglikelihood([asked("once", " upon")])
    assert nats == pytest.approx(purifier.loglikelihood("once", " upon").nats)
    assert greedy is purifier.loglikelihood("once", " upon").greedy
    options = {"until": ["x"], "max_gen_toks": 6}
    texts = model.generate_until([asked("a", options), asked("b", options)])
    assert texts == [each.text for each in purifier.generate(["a", "b"], sampling(options))]
    with pytest.raises(ConfigError, match="llm=DIR,slm=DIR"):
        PurifyLM()


def test_how_many_are_decoded_together_changes_no_answer() -> None:
    """`batch_size` was heeded for likelihoods only."""
    from purify_adapters.lm_eval import PurifyLM

    requests = [asked(text, {"do_sample": True, "max_gen_toks": 6}) for text in "abcde"]
    found = [PurifyLM(purifier=toys(), batch_size=size).generate_until(requests) for size in (1, 2, "auto")]
    assert found[0] == found[1] == found[2]
    assert PurifyLM(purifier=toys(), batch_size="auto:4", max_batch_size=3).batch == 3
    with pytest.raises(ConfigError, match="batch_size must be a number or 'auto', not 'big'"):
        PurifyLM(purifier=toys(), batch_size="big")


def test_the_device_and_the_policy_are_heeded_or_refused() -> None:
    """`device` was dropped; the policy that nobody names is the product's."""
    from purify_adapters.lm_eval import PurifyLM

    policy = PurifyLM(llm=str(LLM), slm=str(SLM), device="cpu").purifier.policy
    assert policy == Purifier.load(LLM, SLM).policy == load_plugins().policy("balanced")
    with pytest.raises(ConfigError, match="there is no device 'abacus' here"):
        PurifyLM(llm=str(LLM), slm=str(SLM), device="abacus")
    with pytest.raises(ConfigError, match="a purifier is given"):
        PurifyLM(purifier=toys(), device="cpu")
    with pytest.raises(PurifyError, match="trust_remote_code"):
        PurifyLM(llm=str(LLM), slm=str(SLM), trust_remote_code=True)


def test_a_task_with_pictures_is_refused() -> None:
    from purify_adapters.lm_eval import PurifyLM

    with pytest.raises(ConfigError, match="this task gives visual"):
        PurifyLM(purifier=toys()).generate_until([asked("a", {}, {"visual": []})])


def test_a_rolling_likelihood_is_the_whole_text_s() -> None:
    from purify_adapters.lm_eval import PurifyLM

    purifier = real("windowed")
    text = "Once upon a time there was a king."
    [nats] = PurifyLM(purifier=purifier).loglikelihood_rolling([asked(text)])
    assert nats == pytest.approx(purifier.loglikelihood("", text).nats)
    assert -100 < nats < -10


LINES = """{% for m in messages %}[{{ m.role }}] {{ m.content }}
{% endfor %}{% if add_generation_prompt %}[bot]
{% endif %}"""
DASHES = """{% for m in messages %}- {{ m.content }}
{% endfor %}{% if add_generation_prompt %}= {% endif %}"""
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + LINES
TURNS = [("user", "The king"), ("assistant", "A"), ("user", "Once")]
TALK = [{"role": role, "content": content} for role, content in TURNS]


def templated(ours: str | None, theirs: str | None) -> Purifier:
    """The test bed's pair with chat templates."""
    slm, llm = (LocalSource.load(folder, dtype="float32", device="cpu") for folder in (SLM, LLM))
    slm.tokenizer.chat_template, llm.tokenizer.chat_template = ours, theirs
    return pair(llm, slm, "windowed")


@pytest.mark.parametrize("theirs", [LINES, DASHES, None])
def test_each_model_reads_a_chat_through_its_own_template(theirs: str | None) -> None:
    """`apply_chat_template` was not implemented; as one text, the LLM would read the SLM's template."""
    from purify_adapters.lm_eval import PurifyLM

    purifier = templated(LINES, theirs)
    model, options = PurifyLM(purifier=purifier), {"max_gen_toks": 8}
    text = model.apply_chat_template(TALK)
    assert text == "[user] The king\n[assistant] A\n[user] Once\n[bot]\n"
    [answer] = model.generate_until([asked(text, options)])
    [own] = purifier.generate([Chat(tuple(TALK))], Sampling(max_tokens=8, temperature=0, seed=0))
    assert answer == own.text
    [(nats, _)] = model.loglikelihood([asked(text, "upon a time")])
    tokens = purifier.slm.encode(text + "upon a time")[len(purifier.slm.encode(text)) :]
    judge = replay(purifier, [Chat(tuple(TALK))], [tokens], Sampling())[0]
    assert nats == pytest.approx(sum(step.fused for step in judge), abs=1e-3)
    [(merged, _)] = model.loglikelihood([asked(text, "\nupon")])  # "\n\n" is one token, half of it the chat's
    assert -100 < merged < 0


def test_a_begun_answer_is_continued_where_both_templates_are_one() -> None:
    from purify_adapters.lm_eval import PurifyLM

    begun = [*TALK, {"role": "assistant", "content": "Answer:"}]
    model = PurifyLM(purifier=templated(LINES, LINES))
    text = model.apply_chat_template(begun, add_generation_prompt=False)
    assert text.endswith("[user] Once\n[assistant] Answer:")
    assert model.generate_until([asked(text, {"max_gen_toks": 4})])
    with pytest.raises(ConfigError, match="gen_prefix"):
        PurifyLM(purifier=templated(LINES, DASHES)).apply_chat_template(begun, add_generation_prompt=False)


def test_a_template_that_refuses_a_chat_is_named_and_one_by_name_is_not_taken() -> None:
    from purify_adapters.lm_eval import PurifyLM

    model = PurifyLM(purifier=templated(STRICT, LINES))
    with pytest.raises(PromptError, match="run without system_instruction"):
        model.apply_chat_template([{"role": "system", "content": "Be brief"}, *TALK])
    assert model.chat_template(True) == STRICT
    assert model.chat_template() == ""
    with pytest.raises(ConfigError, match="give no name"):
        model.chat_template("tool_use")


def test_the_request_cache_tells_pairs_apart_by_how_they_read() -> None:
    from purify_adapters.lm_eval import PurifyLM

    pairs = [(LINES, LINES), (LINES, DASHES), (DASHES, LINES), (None, None)]
    names = [PurifyLM(purifier=templated(*each)).tokenizer_name for each in pairs]
    assert len({*names}) == len(pairs)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


TASK = """
task: who_speaks
dataset_path: json
dataset_kwargs: {data_files: {test: TEST}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
"""


def test_the_command_scores_a_local_task(tmp_path: Path) -> None:
    """Which continuation is a passage's own: the command counts as the likelihoods say."""
    passages = attacks().passages[:4]
    others = [each.continuation for each in passages]
    rows = [
        {"prompt": each.prefix, "choices": [each.continuation, others[at - 1]], "answer": 0}
        for at, each in enumerate(passages)
    ]
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "who_speaks.yaml").write_text(TASK.replace("TEST", str(test)), "utf-8")
    command = [sys.executable, "-m", "purify_adapters.lm_eval", "--model", "purify"]
    arguments = ["--model_args", f"llm={LLM},slm={SLM},policy=windowed", "--tasks", "who_speaks"]
    places = ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    line = [*command, *arguments, *places]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = (tmp_path / "out").rglob("results_*.json")
    accuracy = json.loads(found.read_text("utf-8"))["results"]["who_speaks"]["acc,none"]
    pairs = [(row["prompt"], choice) for row in rows for choice in row["choices"]]
    nats = [score.nats for score in loglikelihoods(real("windowed"), pairs)]
    right = [first > second for first, second in zip(nats[::2], nats[1::2], strict=True)]
    assert accuracy == pytest.approx(sum(right) / len(right))


CHATTED = """
task: go_on
dataset_path: json
dataset_kwargs: {data_files: {test: TEST}}
test_split: test
fewshot_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, temperature: 0.0, max_gen_toks: 9}
metric_list: [{metric: exact_match}]
num_fewshot: 1
"""


@pytest.mark.parametrize("multiturn", [True, False])
def test_the_harness_runs_a_chat_with_examples(tmp_path: Path, multiturn: bool) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from purify_adapters.lm_eval import PurifyLM

    test = tmp_path / "test.jsonl"
    rows = [{"prompt": f"The king {word}", "answer": "rode"} for word in ("said", "went", "and")]
    test.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "go_on.yaml").write_text(CHATTED.replace("TEST", str(test)), "utf-8")
    purifier = templated(LINES, DASHES)
    options: dict[str, Any] = {"apply_chat_template": True, "fewshot_as_multiturn": multiturn}
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = simple_evaluate(
        PurifyLM(purifier=purifier),
        tasks=["go_on"],
        task_manager=tasks,
        log_samples=True,
        bootstrap_iters=0,
        gen_kwargs="repetition_penalty=1.3",
        system_instruction="Go on.",
        **options,
    )
    sample = found["samples"]["go_on"][0]
    context, given = sample["arguments"][0]
    assert context.startswith("[system] Go on.")
    assert ("[assistant]" in context) is multiturn
    assert given["repetition_penalty"] == 1.3
    unlike = asked(context, {**given, "repetition_penalty": 1.0})
    assert sample["resps"][0] != PurifyLM(purifier=purifier).generate_until([unlike])


@pytest.mark.parametrize("option", ["num_beams=4", "temprature=1"])
def test_the_harness_hears_what_is_not_done(tmp_path: Path, option: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from purify_adapters.lm_eval import PurifyLM

    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "a", "answer": "b"}), "utf-8")
    text = CHATTED.replace("TEST", str(test)).replace("num_fewshot: 1", "")
    (tmp_path / "go_on.yaml").write_text(text, "utf-8")
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    with pytest.raises(PurifyError, match=option.partition("=")[0]):
        simple_evaluate(PurifyLM(purifier=real()), tasks=["go_on"], task_manager=tasks, gen_kwargs=option)


def test_a_refused_prompt_is_an_empty_answer_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One refusal ended a task of thousands."""

    class NoSecrets:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            if any("secret" in str(prompt) for prompt in prompts):
                raise RefusedError("no secrets")

    from purify_adapters.lm_eval import PurifyLM

    plugins = load_plugins([])
    plugins.register(NoSecrets())
    model = PurifyLM(purifier=toys(plugins=plugins), batch_size=3)
    requests = [asked(prompt, {"max_gen_toks": 4}) for prompt in ("one", "a secret", "two")]
    first, refused, last = model.generate_until(requests)
    assert first
    assert last
    assert refused == ""
    assert "counts as an empty one: no secrets" in caplog.text


# Documents that are too long, or bad

LONG = " ".join(f"{each.prefix} {each.continuation}" for each in attacks().passages[:20])


def alone() -> Purifier:
    """The LLM by itself, so that the harness's own model of it must say the same."""
    return real(Linear(weight=1.0))


def harness_s_own() -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(LLM), dtype="float32", device="cpu", batch_size=1)


def test_a_context_that_is_too_long_is_cut_on_the_left_as_the_harness_cuts_it() -> None:
    """A few-shot prompt longer than the context ended a run."""
    from purify_adapters.lm_eval import PurifyLM

    request = asked(LONG, " the king said")
    [(nats, greedy)] = PurifyLM(purifier=alone()).loglikelihood([request])
    [(theirs, theirs_greedy)] = harness_s_own().loglikelihood([request], disable_tqdm=True)
    assert nats == pytest.approx(theirs, abs=0.2)  # the harness reads one token more
    assert greedy is theirs_greedy


def test_a_text_longer_than_a_context_is_scored_in_the_harness_s_windows() -> None:
    from purify_adapters.lm_eval import PurifyLM

    [nats] = PurifyLM(purifier=alone()).loglikelihood_rolling([asked(LONG)])
    [theirs] = harness_s_own().loglikelihood_rolling([asked(LONG)], disable_tqdm=True)
    assert nats == pytest.approx(theirs, rel=0.01)  # windows of one token fewer


def test_a_prompt_without_room_for_its_answer_is_cut_on_the_left() -> None:
    from purify_adapters.lm_eval import PurifyLM

    request = asked(LONG, {"max_gen_toks": 12, "until": []})
    [ours] = PurifyLM(purifier=alone()).generate_until([request])
    [theirs] = harness_s_own().generate_until([request], disable_tqdm=True)
    assert ours
    assert ours.split()[:2] == theirs.split()[:2]
    [chat] = PurifyLM(purifier=templated(LINES, DASHES)).generate_until([asked("x", {"max_gen_toks": 600})])
    assert chat


def test_a_chat_that_is_too_long_loses_its_first_turns() -> None:
    from purify_adapters.lm_eval import PurifyLM

    model = PurifyLM(purifier=templated(LINES, DASHES))
    turns = [{"role": "system", "content": "Go on."}]
    turns += [{"role": role, "content": LONG[:600]} for _ in range(4) for role in ("user", "assistant")]
    text = model.apply_chat_template([*turns, {"role": "user", "content": "Once"}])
    [answer] = model.generate_until([asked(text, {"max_gen_toks": 8})])
    assert answer
    fitted = model.room.fitted(model._chats[text], 8)
    assert fitted.messages[0]["role"] == "system"
    assert fitted.messages[-1]["content"] == "Once"
    assert len(fitted.messages) < len(turns) + 1
    [(nats, _)] = model.loglikelihood([asked(text, " upon a time")])
    assert -100 < nats < 0


BAD = "\ud800"


def test_one_bad_document_never_ends_a_run(caplog: pytest.LogCaptureFixture) -> None:
    from purify_adapters.lm_eval import PurifyLM

    model = PurifyLM(purifier=real("windowed"), batch_size=4)
    fine, bad = model.loglikelihood([asked("The king", " said"), asked(BAD, " said")])
    assert -100 < fine[0] < 0
    assert bad == (float("-inf"), False)
    answers = model.generate_until(
        [asked(each, {"max_gen_toks": 4}) for each in ("The king", BAD, "The old")]
    )
    assert [bool(each) for each in answers] == [True, False, True]
    alone = model.generate_until(
        [asked("The king", {"max_gen_toks": 4}), asked(BAD, {"max_gen_toks": 3})]  # a task of one document
    )
    assert [bool(each) for each in alone] == [True, False]
    rolled = model.loglikelihood_rolling([asked("The king said"), asked(BAD)])
    assert rolled[0] > rolled[1] == float("-inf")
    assert caplog.text.count("a document has no result") >= 2
    with pytest.raises(PromptError):
        model.loglikelihood([asked(BAD, " said")])
    with pytest.raises(PromptError):
        model.generate_until([asked(BAD, {"max_gen_toks": each}) for each in (3, 4)])


def test_the_harness_draws_as_its_options_say(tmp_path: Path) -> None:
    """`do_sample`, `temperature`, `max_gen_toks` and `until`, through the harness itself."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from purify_adapters.lm_eval import PurifyLM

    test = tmp_path / "test.jsonl"
    rows = [{"prompt": f"The king {word}", "answer": "rode"} for word in ("said", "went")]
    rows.append({"prompt": LONG, "answer": "rode"})
    test.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    text = (
        CHATTED.replace("TEST", str(test))
        .replace("num_fewshot: 1", "")
        .replace('until: ["\\n"]', 'until: ["zz"]')
    )
    (tmp_path / "go_on.yaml").write_text(text, "utf-8")
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    purifier = real("windowed")
    model = PurifyLM(purifier=purifier, batch_size=2)

    def said(options: str) -> list[str]:
        found = simple_evaluate(
            model,
            tasks=["go_on"],
            task_manager=tasks,
            log_samples=True,
            bootstrap_iters=0,
            gen_kwargs=options,
        )
        return [each["resps"][0][0] for each in found["samples"]["go_on"]]

    drawn = said("do_sample=true,temperature=0.7,max_gen_toks=7")
    how = Sampling(max_tokens=7, temperature=0.7, stop=("zz",), seed=0)
    own = purifier.generate([row["prompt"] for row in rows[:2]], how)
    assert drawn[:2] == [each.text for each in own]
    greedy = said("do_sample=false,temperature=0.7,max_gen_toks=7")
    assert (
        greedy[0]
        == purifier.generate(rows[0]["prompt"], Sampling(max_tokens=7, temperature=0, stop=("zz",)))[0].text
    )
    assert all(drawn)
