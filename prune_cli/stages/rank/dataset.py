"""How is a ranking written as a dataset? Workers merge its parts, each into an output of its own."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ...engines.work import Engine, Places
from ...settings.rank import Ranking
from ...settings.streams import Streams, processors
from ...stream.dataset import DatasetPlan
from ...stream.writer import Writing
from .. import streams
from ..datasets import Making, NothingToDo, making, planned_inputs
from .divided import Divided, DividedRanking, temporary_folders
from .merging import MergeJob
from .order import Order
from .portions import WorkerShare, share_of

VERB = "rank"
PART = 256 << 20  # bytes of text in a part, at most, but for a single record


def rank_dataset(
    inputs: Sequence[str],
    ranking: Ranking,
    settings: Streams,
    engine: Engine,
    share: WorkerShare | None = None,
) -> Divided | NothingToDo:
    """Rank with the workers of an engine into the dataset that the settings name. Raises PruneError."""
    directory = ranking.output_directory or ""
    share = share or replace(share_of(ranking, engine.workers), piece=PART)
    with (
        streams.open_for_workers(VERB, inputs, settings, passes=2) as (source, progress),
        temporary_folders(ranking) as folders,
    ):
        planned = planned_inputs(source.inputs)
        whole = DividedRanking(
            engine, source, progress, ranking=ranking, streams=settings, folders=folders, share=share
        )
        plan = DatasetPlan(VERB, _settings(whole.order, settings), [], planned)
        with making(directory, plan, source.inputs, force=settings.force) as made:
            if made.manifest:
                return NothingToDo.because(made.manifest)
            engine.check_places(Places([], [directory]))
            divided = _rank(whole, made, settings)
    return replace(divided, skipped=source.skipped)


def _settings(order: Order, reading: Streams) -> dict[str, Any]:
    """The settings that decide what is in the parts."""
    decides = {**asdict(order), "by": order.by.value}
    del decides["is_merge"]
    return {
        **decides,
        "skip_bad": reading.skip_bad,
        "strip_bom": reading.strip_bom,
        "columns": reading.columns,
    }


def _rank(whole: DividedRanking, made: Making, settings: Streams) -> Divided:
    counts = whole.sort()
    head = streams.head_after(whole.source, VERB, whole.order.group_by, rank=counts)
    jobs = whole.jobs(whole.parts())
    names = [f"part-{job.number:05}-of-{job.of:05}.jsonl.zst" for job in jobs]
    made = made.with_parts(names, whole.source.inputs)
    # A worker among several compresses in one thread, since the others keep the CPUs busy.
    threads = 1 if whole.engine.workers > 1 else settings.threads or processors()
    for _ in whole.merged(
        _of_dataset(jobs, names, made), head, Writing(level=settings.level, threads=threads)
    ):
        pass
    made.finish(whole.facts)
    return Divided(whole.order, counts, whole.facts, skipped=0)


def _of_dataset(jobs: Sequence[MergeJob], names: Sequence[str], made: Making) -> list[MergeJob]:
    return [
        replace(
            job,
            output=made.path(name),
            section=made.section(job.number),
            is_made=made.is_made(job.number),
        )
        for job, name in zip(jobs, names, strict=True)
    ]
