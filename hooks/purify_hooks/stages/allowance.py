"""`allowance`: so many nats a user and day, kept in a file; after them the SLM answers alone."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from purify_hooks.stages.spending import Spending
from purify_hooks.stages.wording import require
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.checks import Check
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Completion

Period = Literal["hour", "day", "week", "month"]
OnEmpty = Literal["slm", "refuse"]


@dataclass(frozen=True)
class Allowance(Stage):
    """Let each user's answers cost `nats` in a period (UTC); then the SLM answers alone, or none is given.

    The user is `about["user"]`; requests that name none share one allowance. Before an answer is drawn,
    `reserve` nats (0: a tenth of `nats`) are charged in the SQLite file `store`; once it is whole, they are
    set to what it cost by its certificate's ledger: `spent`, at least 0, and `added`. What is refused, closed
    or killed before that stays charged. So the total is at most `nats` where no answer costs more than
    `reserve`, which a policy's bound on whole answers promises; an answer that costs more is charged in full.
    `on_empty` "refuse" refuses (key "allowance"). Make it the first stage: it then charges each request once,
    for all its drafts.
    """

    nats: float
    per: Period = "day"
    store: str = "allowance.sqlite"
    on_empty: OnEmpty = "slm"
    reserve: float = 0.0
    paths: ClassVar[tuple[str, ...]] = ("store",)

    def __post_init__(self) -> None:
        for name, least, words in (("nats", 1e-9, "above 0"), ("reserve", 0, "at least 0")):
            value = vars(self)[name]
            fine = type(value) in (int, float) and least <= value < math.inf
            require("allowance", name, value, fine, f"a number of nats, {words}")
        for name, kind in (("per", Period), ("on_empty", OnEmpty)):
            known, value = get_args(kind), vars(self)[name]
            require("allowance", name, value, value in known, f"one of {', '.join(map(repr, known))}")
        fine = isinstance(self.store, str) and bool(self.store)
        require("allowance", "store", self.store, fine, "a file's path")
        if self.reserve > self.nats:
            raise ConfigError(
                f"stage 'allowance': an answer is charged {self.reserve:g} nats before it is drawn, and "
                f"there are {self.nats:g}; give more nats, or a smaller reserve"
            )
        try:
            self.spending.prepare()
        except sqlite3.Error as error:
            raise ConfigError(
                f"stage 'allowance': the store {self.store!r} cannot be written: {error}"
            ) from error

    @property
    def reserved(self) -> float:
        """What an answer is charged before it is drawn (nats)."""
        return float(self.reserve or self.nats / 10)

    @cached_property
    def spending(self) -> Spending:
        """The charges of all users."""
        return Spending(self.store)

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        if request.slm_only:
            return request
        now = datetime.now(UTC)
        since = beginning(self.per, now).timestamp()
        with _kept():
            charge = self.spending.reserve(user_of(request), self.reserved, self.nats, since, now.timestamp())
        if charge is not None:
            return request.checked(Reservation(self.spending, charge, self.reserved))
        if self.on_empty == "refuse":
            raise RefusedError(f"this user's {self.nats:g} nats a {self.per} are spent", key="allowance")
        return request.alone()

    def left(self, user: str = "") -> float:
        """The nats that a user has left in this period."""
        return self.nats - self.spending.spent(user, beginning(self.per, datetime.now(UTC)).timestamp())

    def public(self) -> Mapping[str, Any]:
        return {name: value for name, value in super().public().items() if name != "store"}


class Reservation(Check):
    """Judges nothing; it settles an answer's charge once that is whole."""

    name, window = "allowance", 0

    def __init__(self, spending: Spending, charge: str, nats: float) -> None:
        self.spending, self.charge, self.nats = spending, charge, nats

    def clear(self, text: str, last: bool) -> int:
        return len(text)

    def judged(self) -> Mapping[str, Any]:
        return {"reserved": self.nats}

    def released(self, completion: Completion) -> None:
        with _kept():
            self.spending.settle(self.charge, cost(completion))


def cost(completion: Completion) -> float:
    """What an answer cost by its certificate's ledger (nats); one that is below 0 gives nothing back."""
    ledger = completion.certificate.body["ledger"]
    return max(float(ledger["spent"]), 0.0) + float(ledger["added"])


def user_of(request: Request) -> str:
    """Whose request it is; "" where the application names none."""
    return request.about.get("user", "")


def beginning(per: Period, now: datetime) -> datetime:
    """When the period began that `now` is in."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    if per == "week":
        return day - timedelta(days=day.weekday())
    return {"hour": hour, "day": day, "month": day.replace(day=1)}[per]


@contextmanager
def _kept() -> Iterator[None]:
    """Raise RefusedError where the store fails: without it nothing says what is left."""
    try:
        yield
    except sqlite3.Error as error:
        raise RefusedError(f"the allowance's store failed: {error}", key="allowance") from error
