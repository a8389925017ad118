"""How is a cut found by workers, if no process holds the scores of all records?

Each worker writes the keys of its records, in order, into a file. The cut is a place in the order of all of
them: histograms of all files add up and show where it is, and only the records around it are looked at.
"""
