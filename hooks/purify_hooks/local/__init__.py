"""Logits from transformers models in this process."""
