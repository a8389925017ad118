"""Passes over the blocks of a token file: in which order each has them."""
