"""Programs under purification: `purify run`, activation, and the Python processes they start."""
