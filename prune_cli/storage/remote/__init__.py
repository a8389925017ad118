"""What objects and pages of the web have in common: requests in threads, retries, and reading by range."""
