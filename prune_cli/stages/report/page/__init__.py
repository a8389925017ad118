"""The page of a report: charts by Vega, text by a template, all of it in one file."""
