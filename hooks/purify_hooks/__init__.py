"""Plugins that come in the box, registered through the same door as everyone else's."""
