"""`python -m purify_plugins` is `purify`."""

from purify_plugins.cli import main

main()
