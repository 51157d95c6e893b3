"""The activation of one process: configuration, monkeypatches, purifiers and counts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_adapters.activation import clients, langchain_cache
from purify_adapters.activation.gate import Gate
from purify_adapters.activation.hub_clients import HubClients
from purify_adapters.activation.local_models import LocalModels
from purify_adapters.activation.monkeypatch import AfterImport, Monkeypatch
from purify_adapters.activation.outgoing import Outgoing
from purify_adapters.activation.recorder import Counts, Recorder
from purify_adapters.activation.rules import Rules
from purify_adapters.activation.subprocess_env import SubprocessEnvironment
from purify_adapters.processes import is_running
from purify_plugins.configuration.build import keys_of, options_of, plugins_of, policy, source
from purify_plugins.configuration.config import check_config, placed, where
from purify_plugins.configuration.find import read_table
from purify_plugins.configuration.preflight import foreseen
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.preview import named
from purify_plugins.utils.locks import ForkedLock
from purify_plugins.vouching.options import VouchingOptions, refuse_unseen, without

if TYPE_CHECKING:
    from purify_adapters.activation.monkeypatch import Patch
    from purify_plugins.configuration.config import Config
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier


STARTED = datetime.now(UTC).isoformat(timespec="milliseconds")
"""When this process was activated."""


@dataclass(frozen=True)
class Status:
    """What is switched on in one process.

    `patched` are the attributes replaced, `waiting` the modules that will be patched when they are
    imported, `models` the calls of each model or server, by name. `refused` are the packages and classes
    that were refused, listed or not; `unseen` the imported libraries whose generations are not intercepted.
    `fingerprint` identifies the configuration.
    """

    active: bool = False
    config: str = ""
    policy: str = ""
    fingerprint: str = ""
    patched: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    models: Mapping[str, Counts] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def total(self) -> Counts:
        """The counts of all models together."""
        counts = [asdict(each) for each in self.models.values()]
        return Counts(**{each.name: sum(count[each.name] for count in counts) for each in fields(Counts)})


class Activation:
    """Purification, switched on by `start` and off by `stop`. Raises ConfigError, PluginError."""

    def __init__(self, file: Path) -> None:
        self.file = file.absolute()
        self.config = _read(self.file)
        rules = self.config.activation
        self.rules = Rules(rules.trusted, rules.untrusted, self.file.parent)
        self.plugins = plugins_of(self.config)
        self.policy = policy(self.plugins, self.config.policy)
        with placed(f"{self.file}:", f"{self.file}: "):
            _check_source(self.plugins, self.config.slm)
        self.lock = ForkedLock(reentrant=True)
        self.monkeypatch = Monkeypatch()
        self.recorder = Recorder(self.publish)
        self.gate = Gate(self.rules, self.recorder)
        self.models = LocalModels(self.gate, self.purifier, self.plugins, self.tokenizer)
        self.subprocess_env = SubprocessEnvironment(self.file)
        self.imports = AfterImport(self.monkeypatch, self._patches())

    def _patches(self) -> dict[str, Patch]:
        """Module -> what is replaced in it."""
        return {
            **self.models.patches,
            **HubClients(self.gate, self.purifier, self.plugins, self.config.llm).patches,
            **langchain_cache.patches(self.fingerprint),
            **clients.patches(self.gate),
            **Outgoing(self.gate).patches,
            **self.subprocess_env.patches,
        }

    def start(self) -> None:
        """Patch all modules. Raises PluginError, with nothing changed, for an unknown library version."""
        try:
            self.subprocess_env.cover()
            self.imports.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.imports.stop()
        self.monkeypatch.undo()
        self.subprocess_env.restore()
        self.models.forget()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and the version of this package."""
        from purify_plugins._version import __version__

        settings = {name: value for name, value in asdict(self.config).items() if name != "activation"}
        text = json.dumps([__version__, settings], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def slm(self) -> LogitSource:
        """The benign model, loaded for the first answer."""
        return source(self.plugins, self.config.slm)

    @property
    def tokenizer(self) -> str | None:
        """The configured tokenizer's directory, relative to the file."""
        named = self.config.activation.tokenizer
        return str(self.file.parent / Path(named).expanduser()) if named else None

    def purifier(self, llm: LogitSource) -> Purifier:
        """The file's SLM, policy and options around an LLM. Raises VocabularyError, ModelError."""
        from purify_plugins.purifier import Purifier

        with self.lock:
            return Purifier(
                llm, self.slm, self.policy, **options_of(self.config, self.plugins), plugins=self.plugins
            )

    def publish(self) -> None:
        """Write this process's status where `[activation] status` wants it."""
        from purify_plugins.utils.files import write_whole

        if not self.config.activation.status:
            return
        folder = self.file.parent / self.config.activation.status
        folder.mkdir(parents=True, exist_ok=True)
        from purify_plugins._version import __version__

        about = {"pid": os.getpid(), "started": STARTED, "version": __version__, "argv": sys.argv}
        place = folder / f"{STARTED.replace(':', '')}-{os.getpid()}.json"  # a later process may get this id
        write_whole(place, json.dumps({**about, **asdict(self.status())}))

    def published(self) -> list[dict[str, Any]]:
        """The published status of every process with this configuration, and whether it is running."""
        folder = self.file.parent / (self.config.activation.status or "")
        if not self.config.activation.status or not folder.is_dir():
            return []
        published = (json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("[0-9]*.json")))
        return [{**each, "running": is_running(each["pid"])} for each in published]

    def status(self) -> Status:
        return Status(
            True,
            str(self.file),
            self.plugins.name_of(self.policy),
            self.fingerprint,
            tuple(self.monkeypatch.names),
            tuple(self.imports.waiting),
            dict(self.recorder.counts),
            tuple(sorted(self.recorder.refused)),
            tuple(name for name in clients.UNSEEN if name in sys.modules),
        )


def _read(file: Path) -> Config:
    """The configuration, in which `[llm]` is optional: the LLM is the program's own."""
    found = check_config({"llm": {}, **read_table(file)}, file)
    with placed(where(found.llm)):
        refuse_unseen(found.llm, "the LLM is the program's own, and was not loaded from files here")
    return found


def _check_source(plugins: Any, table: dict[str, Any]) -> None:
    """Raise ConfigError or ModelError for an SLM that cannot be loaded, as far as its files and keys show."""
    with placed(where(table), f"source {table.get('source', 'local')!r}: "):
        keys = keys_of(plugins, table)
        vouching, keys = VouchingOptions.of(keys), without(keys)
        name = str(keys.pop("source", "local"))
        factory = plugins.check("purify_sources", name, keys)
        if vouching is not None:
            vouching.read(named(name, keys))  # its files are compared when the SLM is loaded
    try:
        signature(factory).bind(**keys)
    except TypeError as error:
        raise ConfigError(f"[slm]: {error}; name the benign model") from error
    if name == "local" and not _is_here(str(keys["model"])):
        foreseen(plugins, {"source": name, **keys})  # downloads it before the program starts


def _is_here(model: str) -> bool:
    """Whether there is such a directory, or the hub's cache holds the model."""
    # Without huggingface_hub, whose import takes longer than all else at a start.
    folder = Path(model).expanduser()
    if folder.exists():
        return (folder / "config.json").is_file()
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    return any(cache.glob(f"models--{model.replace('/', '--')}/snapshots/*"))
