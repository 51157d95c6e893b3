"""An interpretable language model of one's own text: interpolated Kneser-Ney over the LLM's tokens."""
