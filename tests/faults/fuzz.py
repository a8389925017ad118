"""Run the fuzz targets under atheris (`pip install '.[fuzz]'`): python -m tests.faults.fuzz CORPUS
tests/faults/seeds

CORPUS is a folder of your own, to which libFuzzer adds what it finds. Its options come first, for example
`-max_total_time=600 -close_fd_mask=3`. README.md says what the last run found.
"""

import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["prune_cli"]):
        from . import targets

        atheris.Setup(sys.argv, targets.one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
