"""Arrays in, numbers out: cuts, correlations, intervals, agreement, and the grid of quantiles that pictures
are drawn from.
"""
