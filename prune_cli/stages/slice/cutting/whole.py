"""Of how many records is a slice a part? Its stream says so, and `--of-all` counts its fraction of them."""

import os
from dataclasses import dataclass, replace
from decimal import Decimal

from ....errors import DataError
from ....records.reader import Source
from ....settings.streams import Unit
from ....sizes import parse_fraction
from ....statistics.cuts import Cut, fraction
from ....stream import dataset, index
from ....stream.dataset import DatasetManifest
from ....stream.schema import Head, Totals
from ..selection import Request


@dataclass(frozen=True)
class ScoredAmount:
    """Scored records, and their tokens if they are counted."""

    records: int
    tokens: int | None


def before_slicing(source: Source, scored: ScoredAmount) -> ScoredAmount | None:
    """What a stream held before it was sliced; `scored` is what it holds, and all if it was never sliced.

    None if it was, and does not say. The source is a file, or is read to its end: trailers have the numbers.
    """
    return _whole(source) if _is_part(_first_head(source)) else scored


def _whole(source: Source) -> ScoredAmount | None:
    """What the stream says that there was, of which it is a part; None if it does not say."""
    if (manifest := _manifest(source)) and "unsliced" in manifest.facts:
        # Parts do not say it, since no worker knows it of the whole.
        records, tokens = manifest.facts["unsliced"]
        return ScoredAmount(records, tokens)
    pieces = _pieces(source)
    if not pieces or not all(_is_part(each) for each, _ in pieces):
        return None
    first = pieces[0][0]
    if first.rank:
        # Parts of one ranking have the same section, and each says what the whole has.
        is_one = all(each.rank == first.rank for each, _ in pieces)
        return ScoredAmount(first.rank.n, first.rank.tokens) if is_one else None
    amounts = [totals.unsliced for _, totals in pieces if totals.unsliced]
    if len(amounts) < len(pieces):
        return None
    return ScoredAmount(sum(records for records, _ in amounts), sum(tokens for _, tokens in amounts))


def _manifest(source: Source) -> DatasetManifest | None:
    """The manifest of the dataset whose parts are the inputs, all of them."""
    head = _first_head(source)
    # Only a part has a manifest beside it that is ours.
    if head is None or head.part is None or not source.inputs or source.inputs[0].identity is None:
        return None
    directory = os.path.dirname(source.inputs[0].path)
    manifest = dataset.read_manifest(directory) if directory else None
    paths = [os.path.join(directory, part.name) for part in manifest.parts] if manifest else []
    return manifest if paths == [file.path for file in source.inputs] else None


def _first_head(source: Source) -> Head | None:
    return source.heads[0] if source.heads else source.peek()[0]


def _is_part(head: Head | None) -> bool:
    """Whether a head is that of a slice, or of a ranking, which says what it ranked."""
    return head is not None and (head.rank is not None or "slice" in head.json)


def _pieces(source: Source) -> list[tuple[Head, Totals]]:
    """The heads and totals of the streams that a source holds; empty if one does not have both."""
    if all(file.identity is not None for file in source.inputs):
        tables = [index.read_table(file) for file in source.inputs]
        pieces = [(table.head, table.totals) for table in tables if table]
        return pieces if len(pieces) == len(tables) else []
    if len(source.heads) != len(source.trailers):
        return []
    pairs = zip(source.heads, source.trailers, strict=True)
    return [(head, trailer.totals) for head, trailer in pairs if head]


def of_all(request: Request, source: Source, scored: ScoredAmount) -> Request:
    """The request with a cut that keeps the fraction of what there was before slicing, if --of-all asks so.

    `scored` is what the source holds. If there is less of it than the fraction, the cut keeps all. Raises
    DataError if the stream does not say how much there was.
    """
    if not request.selection.of_all:
        return request
    whole = _whole(source)
    size = parse_fraction(request.selection.frac or "")
    by_tokens = request.slicing.by == Unit.tokens
    if whole is None or (by_tokens and not whole.tokens):
        fault = "does not say of how much it is a part"
        remedy = "give the stream as slice wrote it, by the same unit, or leave out --of-all"
        raise DataError(fault, place=source.name, remedy=remedy)
    share = _share(size, whole.tokens or 0, scored.tokens or 0)
    if not by_tokens:
        # The whole number of records first: it is that of a cut of the whole.
        kept = Cut("bottom", high=size).ranks(whole.records)[1]
        share = _share(Decimal(1), kept, scored.records)
    return replace(request, cut=fraction(request.cut.keep, share))


def _share(size: Decimal, whole: int, part: int) -> Decimal:
    return min(Decimal(1), size * whole / part) if part else Decimal(1)
