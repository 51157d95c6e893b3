"""The version of purify-plugins."""

__version__ = "0.1.0"
