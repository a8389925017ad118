"""Causal language models: loading, encoding, running them, and what machine they run on."""
