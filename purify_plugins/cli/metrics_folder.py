"""The folder in which the workers of `purify serve` keep their metrics, as prometheus_client has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import make_folder

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
KINDS = ("counter", "gauge", "histogram", "summary")


@contextmanager
def metrics_folder() -> Iterator[None]:
    """A folder for the metrics of processes started in this block: the operator's, or a temporary one.

    What an earlier run has left in the operator's is removed: it would be added to this one's. Raises
    ConfigError where nothing can be written.
    """
    if named := os.environ.get(VARIABLE):
        make_folder(Path(named))
        for file in (file for kind in KINDS for file in Path(named).glob(f"{kind}_*.db")):
            file.unlink(missing_ok=True)
        yield
        return
    with _temporary() as made:
        os.environ[VARIABLE] = made
        try:
            yield
        finally:
            del os.environ[VARIABLE]


def _temporary() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="purify-serve-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigError(
            f"there is no temporary directory for the workers' metrics ({error.strerror}); "
            f"name a writable one in {VARIABLE} or TMPDIR"
        ) from error
