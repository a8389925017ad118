"""What cannot be checked without a GPU, in one command: see __main__.py."""
