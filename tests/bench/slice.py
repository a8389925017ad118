"""slice against cp, DuckDB and the limit: python -m tests.bench.slice SHARED_BENCH RANKED.jsonl.zst
UNRANKED.jsonl.zst SCRATCH [RUNS]
"""

import sys
from pathlib import Path

from .timing import OURS, compare, show


def main(neighbours: Path, ranked: Path, unranked: Path, scratch: Path, runs: int) -> None:
    out, middle = scratch / "sliced.jsonl.zst", ("--keep", "middle", "--frac", "0.5")
    print(f"the middle half of {ranked.name}, which is ranked")
    show(
        compare(
            {
                "slice, frames copied": (*OURS, "slice", *middle, "-f", "-o", out, ranked),
                "cp and sync of the result": ("sh", "-c", f"cp '{out}' '{out}.copy' && sync '{out}.copy'"),
                "slice of a pipe": (
                    "sh",
                    "-c",
                    f"cat '{ranked}' | {' '.join(OURS)} slice {' '.join(middle)} -f -o '{out}.piped'",
                ),
                "DuckDB": (
                    sys.executable,
                    neighbours / "slice_duckdb.py",
                    ranked,
                    scratch / "duckdb.jsonl.zst",
                    "0.25",
                    "0.75",
                ),
            },
            runs,
        ),
        "cp and sync of the result",
    )
    print(f"the middle half of {unranked.name} by -k, its order kept")
    show(
        compare(
            {
                "limit.sh": (neighbours / "limit.sh", unranked),
                "slice -k": (*OURS, "slice", "-k", "perplexity", *middle, "-f", "-o", out, unranked),
                "slice --help": (*OURS, "slice", "--help"),
            },
            runs,
        ),
        "limit.sh",
    )


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]),
        int((sys.argv[5:] or ["3"])[0]),
    )
