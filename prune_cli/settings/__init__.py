"""The settings of every verb, each declared once: a field of a dataclass that a stage takes, and an option that a command shows.

Nothing here imports more than the standard library, so that `--help` is quick.
"""
