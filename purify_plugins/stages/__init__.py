"""Request stages: programs around a decode. See `Stage`, `Request`, `Draft` and `Check`."""
