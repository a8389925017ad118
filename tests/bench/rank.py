"""rank against the limit and its neighbours: python -m tests.bench.rank SHARED_BENCH CORPUS.jsonl.zst SCRATCH
[RUNS]
"""

import sys
from pathlib import Path

from .timing import OURS, compare, show


def main(neighbours: Path, corpus: Path, scratch: Path, runs: int) -> None:
    out = scratch / "ranked.jsonl.zst"
    show(
        compare(
            {
                "limit.sh": (neighbours / "limit.sh", corpus),
                "rank": (*OURS, "rank", corpus),  # to nowhere, as limit.sh
                "rank -S 128M": (*OURS, "rank", "-S", "128M", "-T", scratch, corpus),
                "rank to a file, synced": (*OURS, "rank", "-f", "-o", out, corpus),
                "polars": (
                    sys.executable,
                    neighbours / "sort_polars.py",
                    corpus,
                    scratch / "polars.jsonl.zst",
                ),
                "DuckDB": (
                    sys.executable,
                    neighbours / "sort_duckdb.py",
                    corpus,
                    scratch / "duckdb.jsonl.zst",
                ),
                "jq and GNU sort": (neighbours / "sort_gnu.sh", corpus, scratch / "gnu.jsonl.zst"),
            },
            runs,
        ),
        "limit.sh",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int((sys.argv[4:] or ["3"])[0]))
