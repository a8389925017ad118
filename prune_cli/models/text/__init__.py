"""Texts and their token ids: tokenizers, special tokens, and documents as a model reads them."""
