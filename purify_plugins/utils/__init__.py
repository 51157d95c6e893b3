"""Helpers without a subject of their own: files, messages, optional packages."""
