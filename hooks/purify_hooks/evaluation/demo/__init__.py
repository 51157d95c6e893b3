"""The demonstration: attack the test bed's LLM, alone and purified, and show what comes out."""
