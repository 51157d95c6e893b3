"""The duties that a report serves, what in it serves each of them, and what does not. No legal advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]

DISCLAIMER = (
    "This report says what was measured and what is bounded, of one pair of models and one policy. It is "
    "no legal advice, it certifies compliance with nothing, and its words for a duty do not replace the "
    "law's."
)


@dataclass(frozen=True)
class Duty:
    """A duty in plain words, and what a report's body has for it and lacks."""

    id: str
    name: str
    asks: str
    serves: Callable[[Body], list[str]]
    lacks: Callable[[Body], list[str]]

    def json(self, body: Body) -> dict[str, Any]:
        return {
            "id": self.id,
            "duty": self.name,
            "asks": self.asks,
            "serves": self.serves(body),
            "does_not_serve": self.lacks(body),
        }


def _safeguards(body: Body) -> list[str]:
    works, evaluation = body["works"], body["evaluation"]
    bounded = body["guarantee"]["guarantee"] != "none"
    return [
        f"The technical safeguard: {body['guarantee']['policy']}, a fusion policy. "
        + (
            "What it bounds in advance is said above, in words and as a formula."
            if bounded
            else "In this configuration it bounds nothing in advance."
        ),
        "Attacks were measured on both models and on the policy: the tables below."
        if evaluation
        else "Attacks: not measured.",
        f"Named works: {len(works['measured'])} measured, passage by passage, below."
        if works["measured"]
        else "Named works: none measured.",
    ]


def _no_safeguards(body: Body) -> list[str]:
    return [
        "What the SLM itself knows by heart may come out, and so may text that stands in the prompt.",
        "Which uses the terms of service forbid is not said here; they are yours to write.",
        "Whether an output infringes is for a court, not for a probability.",
    ]


def _complaints(body: Body) -> list[str]:
    if body["takedown"] is None:
        return [
            "No takedown list is configured, so a work that somebody complains about is treated as every "
            "other. `purify takedown build` makes a list; then this section shows each work before and "
            "after."
        ]
    return [
        f"Works taken out on complaint: {len(body['takedown']['works'])}, each with what the LLM recited "
        "before and what the purified model does, below. `purify takedown add` adds one, from the next "
        "start on."
    ]


def _no_complaints(body: Body) -> list[str]:
    return [
        "It names no point of contact and takes no complaints: set both up, and publish them.",
        "A list covers the works on it, in the spelling of the files that were given.",
    ]


def _records(body: Body) -> list[str]:
    told = body["records"]
    keys = ", ".join(f"{each[:16]}…" for each in told["keys"])
    unsigned = "not signed: name a `key` under [certificate]"
    signed = f"signed by {keys}, in a hash chain" if keys else unsigned
    dated = "its days dated by a time-stamp authority" if told["timestamp"] else "not dated by anybody else"
    return [
        "Each answer comes with a certificate of every token's figures, the models' digests, the policy "
        f"and its claim. Certificates of this configuration are {signed}, and {dated}.",
        _stored(told["store"]),
        "Whoever has the SLM recomputes a certificate's figures: `purify verify CERT --slm DIR`.",
    ]


def _stored(store: Mapping[str, Any] | None) -> str:
    """What is recorded of certificates, and for how long."""
    if store is None:
        return "Certificates are recorded nowhere: name a `store` under [certificate]."
    what = "whole" if store["keep"] == "certificates" else "by digests, which identify no text"
    long = f"for {store['retention']}" if store["retention"] else "for ever"
    failed = "refused" if store["on_error"] == "refuse" else "given all the same, with a line in the log"
    return f"Each is recorded, {what}, and kept {long}; an answer that cannot be recorded is {failed}."


def _no_records(body: Body) -> list[str]:
    nowhere = "That certificates are stored, and for how long, is the operator's to arrange."
    return [
        *([] if body["records"]["store"] else [nowhere]),
        "A certificate holds token ids of prompt and answer, which spell both: it is as private as the "
        "conversation.",
        "It records one answer. Incidents, drift and use over time are not in it.",
    ]


def _deploying(body: Body) -> list[str]:
    return [
        "What a deployer must know to use it as meant: the guarantee and its limits, the threat model, "
        "and which models these are, by digest.",
        _vouched(body),
        "What is kept for each answer: as under article 12.",
    ]


def _vouched(body: Body) -> str:
    card = body["models"]["slm"]["card"]
    if card is None:
        return "Who vouches for the SLM: not said, since no provenance card of it is configured."
    return f"Who vouches for the SLM: {card['vouched_by']['name']}, in a provenance card, below."


def _not_deploying(body: Body) -> list[str]:
    return [
        "Human oversight, the quality of inputs, and telling workers and persons concerned are the "
        "deployer's.",
        "Logs have to be kept for six months at least; how long the store keeps its records stands under "
        "article 12.",
    ]


def _marking(body: Body) -> list[str]:
    mark = body["marking"]
    if mark is None:
        return [
            "No watermark is configured. An answer is told as generated by its certificate alone, which "
            "is signed metadata where a key is configured; add [watermark] to mark the text itself."
        ]
    return [
        f"Sampled answers are marked by a watermark (key {mark['key']}, the last {mark['context']} "
        "tokens), at no cost in distribution; `purify detect` finds it with the key. Certificates are "
        "the metadata beside it."
    ]


def _not_marking(body: Body) -> list[str]:
    return [
        "A watermark of the LLM's own does not survive: every token is drawn here again.",
        "Greedy answers and very short ones carry no watermark.",
        "Telling people that they deal with a machine, and labelling what is published, is done elsewhere.",
    ]


DUTIES = (
    Duty(
        "measure-1-4",
        "GPAI Code of Practice, copyright chapter, measure 1.4: mitigate the risk of "
        "copyright-infringing outputs",
        "Technical safeguards that keep a model from reproducing protected training content, and terms "
        "that forbid infringing uses.",
        _safeguards,
        _no_safeguards,
    ),
    Duty(
        "measure-1-5",
        "GPAI Code of Practice, copyright chapter, measure 1.5: a point of contact and complaints",
        "Somebody whom rightsholders can reach, and complaints that are acted upon.",
        _complaints,
        _no_complaints,
    ),
    Duty(
        "article-12",
        "AI Act, article 12: record-keeping",
        "A high-risk system records events by itself, so that what it did can be traced.",
        _records,
        _no_records,
    ),
    Duty(
        "article-26",
        "AI Act, article 26: obligations of deployers of high-risk systems",
        "To use the system as its instructions say, to watch over it, and to keep its logs.",
        _deploying,
        _not_deploying,
    ),
    Duty(
        "article-50",
        "AI Act, article 50: transparency",
        "Generated text is marked so that a machine can tell, and people are told that they deal with one.",
        _marking,
        _not_marking,
    ),
)
