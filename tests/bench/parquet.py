"""Parquet as lines of JSON, against DuckDB: python -m tests.bench.parquet FILE.parquet [RUNS]

The lines go nowhere. `read` is what every verb does before its own work: it also finds the line ends.
"""

import sys
from pathlib import Path

from .timing import compare, show

COPY = "import duckdb; duckdb.sql(\"COPY (FROM '{}') TO '/dev/stdout' (FORMAT json)\")"
READ = """
import sys
from prune_cli import storage
from prune_cli.records.reader import Source
for _ in Source([storage.input_at(sys.argv[1])])._read():
    pass
"""


def main(file: Path, runs: int) -> None:
    show(
        compare(
            {
                "DuckDB's COPY": (sys.executable, "-c", COPY.format(file)),
                # The command sets this variable for itself.
                "read": ("env", "OPENBLAS_THREAD_TIMEOUT=20", sys.executable, "-c", READ, file),
            },
            runs,
        ),
        "DuckDB's COPY",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:] or ["3"])[0]))
