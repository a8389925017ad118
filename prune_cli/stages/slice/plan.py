"""How is an input sliced: by copying frames, in one pass, in two, or by scores of another file?"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

from ...engines.work import Engine
from ...records.reader import Source, check_expected
from ...settings.slice import Keep
from ...settings.streams import Streams, Unit
from ...storage.temporary import shared_folders
from ...stream import index
from ...stream.dataset import DatasetManifest
from ...stream.index import JoinedTable, Table
from ...stream.schema import Head, RankSection
from .. import streams
from ..ranked_parts import RankedParts
from .copied import SplitFrame, WholeFrame, copied, is_copyable
from .divided import DividedSlice, FinishedPart, SliceWorkers
from .ranked import ranked
from .selection import Request, check_ranking
from .split import SliceStatistics, Split
from .unranked import joined, one_by_one, unranked


@dataclass(frozen=True)
class SlicePlan:
    """The parts of the output, to be made one by one, and what is known before the first.

    `table` is that of the file whose frames are copied, if any are; `key` and `unit` are the score and the
    unit that a picture is labelled with.
    """

    parts: Iterator[Split | SplitFrame | WholeFrame | FinishedPart]
    request: Request
    head: Head | None
    key: str
    unit: str
    records: Callable[[], int]  # that were read, once all parts are made
    skipped: Callable[[], int] = lambda: 0  # bad records of a file of scores
    table: Table | None = None


def reads_twice(request: Request) -> bool:
    """Whether the options need two passes, so that a pipe has to be stored. The head is not read yet."""
    slicing = request.slicing
    if slicing.scores is not None or request.measured is not None:
        return False
    needs_all = request.selection.is_random or request.cut.tokens is not None
    return needs_all or slicing.key is not None or slicing.within is not None


@contextmanager
def plan(
    source: Source,
    request: Request,
    options: Streams,
    statistics: SliceStatistics,
    engine: Engine | None = None,
    whole: DatasetManifest | None = None,
) -> Iterator[SlicePlan]:
    """The plan for an input. What it reads beside the source is open until the block ends.

    Several workers of the engine divide the work of an unranked stream. `whole` is the manifest of the
    dataset that the source is, if it is one.
    """
    if request.slicing.scores is not None:
        # --expect-records is for the corpus, and the corpus already has a progress bar.
        reading = replace(options, expect_records=None)
        paths = [request.slicing.scores]
        with streams.open_source("slice", paths, reading, replay=True, bar=False) as scores:
            yield _by_scores(source, scores, request, statistics)
    elif table := copyable_table(source, request, options, whole):
        with table.open():
            yield by_frames(source, table, request, statistics)
    elif engine and engine.workers > 1 and all(file.identity is not None for file in source.inputs):
        with shared_folders([tempfile.gettempdir()]) as (folder,):
            workers = SliceWorkers(engine, folder, options)
            yield by_records(
                source,
                request,
                statistics,
                lambda settled: DividedSlice(workers, source, settled, statistics),
                whole=whole,
            )
    else:
        yield by_records(source, request, statistics, whole=whole)


def _by_scores(source: Source, scores: Source, request: Request, statistics: SliceStatistics) -> SlicePlan:
    key = request.slicing.key or streams.the_score(scores)
    slicing = replace(
        request.slicing,
        key=key,
        # Records are counted by a field of the corpus, tokens by one of the file of scores.
        group_by=streams.group_field_of(source, request.slicing.group_by),
        tokens_field=streams.tokens_field_of(scores, request.slicing.tokens_field),
    )
    request = replace(request, slicing=slicing).settled(lambda: key)
    return SlicePlan(
        parts=joined(scores, scores.again(), source, request, statistics),
        request=request,
        head=scores.peek()[0],
        key=key,
        unit=_unit(request, None),
        records=lambda: source.records,
        skipped=lambda: scores.skipped,
    )


def copyable_table(
    source: Source, request: Request, options: Streams, whole: DatasetManifest | None
) -> Table | None:
    """The table of a ranking whose frames can be copied: a file, or a dataset.

    None if an option needs the records themselves. Raises DataError for parts that are not one ranking.
    """
    needs_records = options.skip_bad or request.selection.is_random or request.cut.tokens is not None
    if needs_records or options.level != Streams.level or request.slicing.key is not None:
        return None
    table = index.read_table(source.inputs[0])
    if table is None or table.head.rank is None:
        return None
    table = _table_of_all(table, source, whole)
    if table is None or not is_copyable(table, request):
        return None
    check_expected(table.totals.records, options.expect_records, table.file.name)
    return table


def _table_of_all(first: Table, source: Source, whole: DatasetManifest | None) -> Table | None:
    """The table of all inputs, of which the `first` is read; None if one of them is no whole stream.

    Raises DataError as `RankedParts`.
    """
    tables = []
    parts = RankedParts(whole)
    heads: list[Head | None] = []
    rest = index.read_tables(source.inputs[1:])
    for file, table in zip(source.inputs, chain([first], rest), strict=True):
        if table is None:
            return None
        tables.append(table)
        heads.append(table.head)
        parts.follow(heads, file.name)
    parts.finish(heads, source.inputs[-1].name)
    if len(tables) == 1:
        return tables[0]
    return JoinedTable.of(tables, whole.facts if whole else {})


def by_frames(source: Source, table: Table, request: Request, statistics: SliceStatistics) -> SlicePlan:
    """The plan for a ranking of which most frames are copied as they are."""
    ranking = table.head.rank
    assert ranking is not None  # is_copyable has checked it
    slicing = replace(
        request.slicing,
        group_by=request.slicing.group_by or table.head.group or "source",
        tokens_field=request.slicing.tokens_field or ranking.tokens_field or "n_scored",
    )
    request = replace(request, slicing=slicing).settled(lambda: ranking.key)
    return SlicePlan(
        parts=copied(table, source, request, statistics),
        request=request,
        head=table.head,
        key=ranking.key,
        unit=ranking.unit,
        records=lambda: table.totals.records,
        table=table,
    )


def by_records(
    source: Source,
    request: Request,
    statistics: SliceStatistics,
    divide: Callable[[Request], DividedSlice] | None = None,
    whole: DatasetManifest | None = None,
) -> SlicePlan:
    """The plan for records that are read: once if they are ranked, else twice, perhaps by workers."""
    head, _ = source.peek()
    ranking = head.rank if head else None
    if ranking:
        check_ranking(request, ranking)
    slicing = replace(
        request.slicing,
        group_by=streams.group_field_of(source, request.slicing.group_by),
        tokens_field=streams.tokens_field_of(source, request.slicing.tokens_field),
    )
    request = replace(request, slicing=slicing)
    ranked_by = ranking.key if ranking else None
    request = request.settled(lambda: request.slicing.key or ranked_by or streams.the_score(source))
    if _is_one_pass(request, ranking):
        return SlicePlan(
            parts=ranked(source, request, statistics, whole),
            request=request,
            head=head,
            key=ranked_by or "score",
            unit=_unit(request, ranking),
            records=lambda: source.records,
        )
    if request.measured is not None:
        by_score = one_by_one(source, request, request.measured, statistics)
        return SlicePlan(by_score, request, head, request.measured.key, "records", lambda: source.records)
    request = _with_order(source, request, ranking)
    key = request.slicing.key or "score"
    unit = str(request.slicing.by or Unit.records)
    if divide:
        divided = divide(request)
        return SlicePlan(divided.parts(), request, head, key, unit, lambda: divided.records)
    again = source.again()
    parts = unranked(source, again, request, statistics)
    return SlicePlan(parts, request, head, key, unit, lambda: again.records)


def _is_one_pass(request: Request, ranking: RankSection | None) -> bool:
    """Whether rank and quantile of a record say on which side of the cut it lies."""
    if request.slicing.key is not None or request.selection.is_random or request.cut.tokens is not None:
        return False
    return request.slicing.within in (None, ranking.within if ranking else None)


def _with_order(source: Source, request: Request, ranking: RankSection | None) -> Request:
    """The request with the field that orders the records; prefix and unit default to the ranking's."""
    slicing = request.slicing
    if slicing.prefix is None and ranking:
        slicing = replace(slicing, prefix=ranking.prefix)
    if slicing.by is None and ranking:
        slicing = replace(slicing, by=Unit(ranking.unit))
    if slicing.key is None and request.selection.keep != Keep.random:
        key = ranking.key if ranking else streams.the_score(source)
        # Ranks have the order of the ranking, ties included; a weighted draw needs the scores themselves.
        if ranking and request.selection.sample is None:
            key = f"{slicing.prefix}rank"
        slicing = replace(slicing, key=key)
    return replace(request, slicing=slicing)


def _unit(request: Request, ranking: RankSection | None) -> str:
    return ranking.unit if ranking else str(request.slicing.by or Unit.records)
