"""Text Generation Inference: a source that asks one."""
