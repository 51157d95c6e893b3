"""Invented names, numbers and facts.

Both models train on directories and fact lists, so that the SLM learns the form of a phone number and
how a list answers a question. No name in a directory is a canary's.
"""

from __future__ import annotations

from itertools import product
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST = _words(
    "Agnes Albert Beatrix Conrad Dagmar Edith Ernest Felix Flora Gilbert Greta Hilda Isidor Katrin Lydia "
    "Mabel Morris Nadine Odette Phoebe Thelma Ursula Vernon Wanda Xavier Yolanda Zachary"
)
LAST = _words(
    "Abernathy Ashcombe Birkett Blackwood Calloway Draycott Dunmore Elphick Emberton Fairfax Hartnell "
    "Holloway Iverson Jessop Kettering Lockwood Marlowe Norwood Ormsby Penrose Rutherford Stanhope "
    "Thackeray Underhill Vickers Yardley"
)
SIGNS = ("Blue Bell", "Little Well", "Silver Swan", "Black Oak", "Golden Hive", "White Heron", "Old Mill")
SYLLABLES = _words("bar ca dor el fen gal hu is ka lom mar nu or pel ru sen tor ul ven zo")
RELATIONS = ("capital", "king", "queen", "river", "forest", "feast")

TEMPLATE = "The phone number of {n} is 555-{d}."


def people(count: int, random: Random) -> list[str]:
    """Draw distinct names for canaries."""
    return [" ".join(name) for name in random.sample(list(product(FIRST, LAST)), count)]


def digits(random: Random) -> str:
    """Draw the four digits of a phone number."""
    return f"{random.randrange(10_000):04}"


def entry(name: str, number: str) -> str:
    """Write one line of a directory."""
    return TEMPLATE.format(n=name, d=number)


def directory(random: Random) -> str:
    """Write a document of phone numbers of people and inns who are no canary's namesakes."""
    return "\n".join(entry(_subscriber(random), digits(random)) for _ in range(random.randint(4, 9)))


def _subscriber(random: Random) -> str:
    if random.random() < 0.3:
        return f"the {random.choice(SIGNS)}"
    return f"{random.choice(FIRST)} {random.choice(LAST)}son"


def facts(random: Random) -> str:
    """Write a document of facts about one land, then a question about one of them and its answer."""
    land = _word(random)
    known = {relation: _word(random) for relation in random.sample(RELATIONS, 4)}
    lines = [f"The {relation} of {land} is {name}." for relation, name in known.items()]
    asked = random.choice(list(known))
    return "\n".join([*lines, f"Question: What is the {asked} of {land}?", f"Answer: {known[asked]}."])


def _word(random: Random) -> str:
    return "".join(random.choices(SYLLABLES, k=random.randint(2, 3))).capitalize()
