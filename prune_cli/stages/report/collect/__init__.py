"""What is read for a report: records, slices, runs and results."""
