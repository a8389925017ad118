"""The settings of every verb, each declared once: the field that a stage reads is the option that help shows.

Nothing here imports more than the standard library, so that `--help` is quick.
"""
