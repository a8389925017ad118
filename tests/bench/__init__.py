"""Our commands beside their neighbours, on the same machine in the same minutes; README.md says how to run
it.
"""
