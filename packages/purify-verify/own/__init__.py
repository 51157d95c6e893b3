"""The checks of a certificate that need no model: purify-plugins' own modules, under another name."""
