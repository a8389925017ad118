"""Numbers about scores: cuts, correlations, intervals, shapes."""
