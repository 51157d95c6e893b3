"""Adapters as a whole: nothing heavy is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys


def test_no_framework_is_imported_before_its_adapter_is_asked_for() -> None:
    script = (
        "import sys; from purify_plugins.plugin.manager import load_plugins\n"
        "offers = load_plugins(()).offers('purify_adapters')\n"
        "assert 'langchain' in offers\n"
        "heavy = {'torch', 'transformers', 'langchain', 'langchain_core', 'llama_index', 'llguidance'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
