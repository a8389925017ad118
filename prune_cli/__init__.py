"""prune-cli: Unix-style commands that prune pretraining corpora for language models."""

__version__ = "0.1.0"
