"""Parquet files for the tests, and their text as our reader makes it."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from prune_cli import formats
from prune_cli.errors import DataError
from prune_cli.formats.base import BadRow
from prune_cli.stream.lookahead import Limits

RECORDS = [{"id": f"doc-{at}", "text": f'line "{at}"\n\\ ünï \x01', "score": at / 7} for at in range(3000)]
WEB = pa.table(
    {
        "text": ["a", None, 'b"\\\n'],
        "id": pa.array([1, 2, None], pa.uint64()),
        "meta": [{"url": "x", "tags": ["p", None]}, None, {"url": None, "tags": []}],
    }
)


def written(table, **options):
    """A Parquet file of a table, or of a dictionary of columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, file, **options)
    return file.getvalue()


def text(data, columns=(), **more):
    """Lines of JSON."""
    return joined(formats.read(io.BytesIO(data), Limits(columns=columns), **more))


def joined(events):
    """The text of all rows. Raises DataError at one that has no line."""
    return b"".join(map(_text, events))


def _text(event):
    if isinstance(event, BadRow):
        raise DataError(event.fault, remedy=event.remedy)
    return event.text
