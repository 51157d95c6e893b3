"""Plugins: the hook specifications, the manager that loads them, and checks of what they offer."""
