"""Tokenizers: token bytes, prompt encoding, chat templates, and mapping one vocabulary to another."""
