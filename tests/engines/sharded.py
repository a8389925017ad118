"""Corpora in several files, and engines in this process: what tests of divided verbs share."""

import json
from pathlib import Path

from hypothesis import strategies as st

from prune_cli import storage
from prune_cli.engines.local import Serial
from prune_cli.stream import index

# Few values, so that ties, zeros of both signs and whole files without a score occur often.
SCORES = st.sampled_from([None, 0.0, -0.0, 1, 1.0000000001, -2.5, 3e300, 5e-324, 7])
RECORDS = st.fixed_dictionaries(
    {
        "perplexity": SCORES,
        "n_scored": st.sampled_from([0, 1, 7, 100_000]),
        "source": st.sampled_from(["a", "b", None]),
        "kind": st.sampled_from(["x", "y", 3]),
        "text": st.sampled_from(["", "ab", "c" * 300]),
    }
)
CORPORA = st.lists(st.lists(RECORDS, max_size=25), min_size=1, max_size=5)


class Several(Serial):
    """An engine that says that it has several workers, and does their jobs one after another."""

    workers = 3


def files(folder: Path, corpus) -> list[str]:
    """A file for each list of records, whose ids say where they were."""
    paths = []
    for number, records in enumerate(corpus):
        path = folder / f"{number}.jsonl"
        lines = [json.dumps({"id": f"{number}-{row}", **record}) for row, record in enumerate(records)]
        path.write_text("".join(line + "\n" for line in lines))
        paths.append(str(path))
    return paths


def contents(path: Path):
    """All that an output says: its records, its head and its totals."""
    table = index.read_table(storage.input_at(str(path)))
    with table.file.open():
        text = b"".join(table.text(frame) for frame in range(len(table.frames)))
    return text, table.head.json, table.totals
