"""Passes over the blocks: their orders, and what each of them trains on with --adapt."""
