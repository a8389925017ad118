"""The version of the package, for `--version` and for the provenance in every stream."""

__version__ = "0.1.0"
