"""The settings of every verb, each declared once: the field that a stage reads is the option that help shows.

Nothing heavy is imported here, so that `--help` is quick.
"""
