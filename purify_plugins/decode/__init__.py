"""Decoding: three strategies with one distribution of answers; see `strategies.py`, and `loop.py` first."""
