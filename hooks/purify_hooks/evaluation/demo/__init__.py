"""`purify demo`: attack the test bed's LLM, alone and purified, and show the answers."""
