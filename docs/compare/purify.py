"""Ours: a pair whose LLM writes what the host tells it, one byte a token, behind the stages.

The policy gives the LLM everything (`geometric`, alpha 1): what is stopped here, the stages stop.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from talk import Heard, serve, settings

from purify_hooks.private.gatekeeper import Gatekeeper
from purify_hooks.protected.copycheck import Copycheck
from purify_hooks.stages.guardian import Guardian
from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.stages.stage import Stage
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.testing.toys import ToySession
from purify_plugins.types import Chat, Prompt, Vocabulary

GIVEN = settings()
BYTES = byte_vocabulary()


def posted(path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{GIVEN.host}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


@dataclass(frozen=True)
class Told(LogitSource):
    """A model that is sent the prompt, and writes what the host answers."""

    engine = "in-process"
    vocabulary: Vocabulary = BYTES
    context_length: int | None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, torch.Tensor]:
        session = Writing([self.text(prompt) for prompt in prompts])
        return session, torch.stack([session.logits(row) for row in range(len(prompts))])

    def text(self, prompt: Prompt) -> str:
        assert isinstance(prompt, Chat)
        found = posted("chat/completions", {"messages": prompt.messages, "tools": prompt.tools})
        message = found["choices"][0]["message"]
        calls = message.get("tool_calls")
        return str(calls[0]["function"]["arguments"] if calls else message["content"])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "told", "name": "told"}


class Silent(Told):
    """A model that knows nothing and is sent nothing."""

    def text(self, prompt: Prompt) -> str:
        return "?"


class Writing(ToySession):
    """The rows of answers that are given token by token."""

    def __init__(self, told: Sequence[str]) -> None:
        toy = ToySource(BYTES)
        super().__init__(toy, [toy.encode(each) for each in told])

    def logits(self, row: int) -> torch.Tensor:
        told = self.prompts[row].tokens
        at = len(self.rows[row]) - len(told)
        if at == len(told):
            posted("ended", {})
        following = told[at] if at < len(told) else 256
        return torch.full((len(BYTES),), -12.0).index_fill(0, torch.tensor(following), 0.0)

    def extend(self, tokens: torch.Tensor) -> torch.Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)


@dataclass(frozen=True)
class Failing:
    """A classifier that raises or hangs."""

    fault: str

    def scores(self, texts: Sequence[str]) -> list[float]:
        if self.fault.endswith("raises"):
            raise OSError("the classifier is down")
        time.sleep(60)
        return [0.0 for _ in texts]


def stages(fault: str) -> list[Stage]:
    keeper = Gatekeeper(kinds=("email", "card", "ip"), patterns={"customer": GIVEN.own}, words=())
    words = Guardian(classifier="words", words=GIVEN.forbidden[:1], on=("out",))
    copies = Copycheck(index=str(INDEX))
    failing = [Guardian(classifier=Failing(fault), on=(fault.split()[0],))] if fault else []
    return [keeper, words, copies, *failing]


INDEX = Path(tempfile.mkdtemp()) / "works.prints"
(INDEX.parent / "work.txt").write_text(GIVEN.forbidden[1])
BUILD = [sys.executable, "-m", "purify_plugins", "protect", "build", str(INDEX.parent / "work.txt")]
subprocess.run([*BUILD, "--out", str(INDEX)], check=True)
PLUGINS = load_plugins()
POLICY = PLUGINS.policy("geometric", {"alpha": 1.0})
SAMPLING = Sampling(temperature=0, max_tokens=8000)


def answer(asked: dict[str, Any], heard: Heard) -> None:
    purifier = Purifier(
        Told(), Silent(), POLICY, plugins=PLUGINS, sampling=SAMPLING, stages=stages(asked["fault"])
    )
    prompt = Chat(tuple(asked["messages"]), tuple(asked["tools"]))
    if asked["stream"]:
        for chunk in purifier.stream(prompt):
            heard.add(chunk.text)
            heard.arguments += chunk.text
    else:
        [found] = purifier.generate(prompt)
        heard.add(found.text)
        heard.arguments = found.text


serve(["purify-plugins"], answer)
