"""Every fault on the list, produced for real; README.md says how to run the long ones."""
