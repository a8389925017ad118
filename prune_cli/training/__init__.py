"""Training of causal language models: see loop.py."""
