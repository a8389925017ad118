"""`python -m prune_cli` is `prune-cli`."""

from .cli import main

main()
