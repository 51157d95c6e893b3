"""A pair that copies names from its prompt writes the right one about as often behind surrogates."""

from __future__ import annotations

from typing import Any

from purify_hooks.private.gatekeeper import Gatekeeper
from purify_plugins import Sampling
from tests.real.pair import Loaded

NAMES = (
    *("Ada Quill", "Brenda Okafor", "Cedric Lindqvist", "Delia Marlow", "Edwin Petrov"),
    *("Farah Haddad", "Gareth Byrne", "Heidi Castell", "Imran Duarte", "Joan Engel"),
    *("Kofi Fontaine", "Lena Grieve", "Miles Holt", "Noor Iyer", "Otto Jarvis"),
    *("Petra Kumar", "Quentin Lowell", "Rosa Mbeki", "Stan Nash", "Tara Oduya"),
)
ASKED = (
    "The manager of the shop is {n}. {n} opens it at nine.\nQuestion: Who is the manager of the shop?\n"
    "Answer: The manager of the shop is",
    "Dear {n},\n\nthank you for the report. We will answer soon.\n\nKind regards\n\n"
    "To: {n}\nCopy to: {n}\nTo:",
)


def test_the_right_name_is_written_about_as_often_as_unguarded(loaded: Loaded, monkeypatch: Any) -> None:
    """Greedy, under the default policy; `pytest -m slow -s` prints both figures.

    30 to 33 of 40 by the key, against 34 (docs/private.md): one key's names may be under nine in ten.
    """
    monkeypatch.setenv("PURIFY_VEIL_KEY", "the figures of the docs are public")
    keeper = Gatekeeper(kinds=("email",), words=NAMES, key_env="PURIFY_VEIL_KEY")
    prompts = [(name, text.format(n=name)) for text in ASKED for name in NAMES]
    right = {}
    for guarded in (False, True):
        sampling = Sampling(max_tokens=9, temperature=0)
        purifier = loaded.purifier("balanced", stages=[keeper] if guarded else [], sampling=sampling)
        answers = purifier.generate([prompt for _, prompt in prompts], errors="raise")
        right[guarded] = sum(name in each.text for (name, _), each in zip(prompts, answers, strict=True))
    print(f"the right name: {right[True]} of {len(prompts)} guarded, {right[False]} unguarded")
    assert right[False] >= len(prompts) / 2
    assert right[True] >= 0.75 * right[False]
