"""How does a slice of a stream in any order become a dataset? Each shard of its inputs becomes a part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....engines.plan import inspect, plan
from ....engines.work import Places
from ....records.reader import Source
from ....storage import output_paths
from ....storage.base import Input
from ....stream.schema import Head
from ....stream.section import Shard
from ....stream.writer import Writing
from ...datasets import Making
from ...divided import InputPortion
from ..divided import DividedSlice, FinishedPart, SliceWorkers, SplitJob
from ..plan import SlicePlan, by_records
from ..selection import Request
from ..split import SliceStatistics


@dataclass(frozen=True)
class NamedShards:
    """The shards of the inputs, and the file names of their parts."""

    shards: tuple[Shard, ...]
    names: tuple[str, ...]


def shards_of(inputs: Sequence[Input]) -> NamedShards:
    """The shards of a plan, whose parts have the names of the inputs."""
    shards = plan([inspect(file) for file in inputs])
    names = output_paths.names(inputs)
    of_input = {file.path: name for file, name in zip(inputs, names, strict=True)}
    parts = [output_paths.of_part(of_input[each.input], each.part, each.parts) for each in shards]
    return NamedShards(tuple(shards), tuple(parts))


class DividedShards(DividedSlice):
    """A slice that workers write into the parts of a dataset."""

    def __init__(
        self,
        workers: SliceWorkers,
        source: Source,
        request: Request,
        statistics: SliceStatistics,
        shards: NamedShards,
    ) -> None:
        self.shards = shards
        super().__init__(workers, source, request, statistics)

    def start(self, made: Making, head: Head) -> None:
        """Say where the parts go, and what their heads have in common, before the first of `parts`."""
        self.made = made
        self.head = head

    def _portions(self) -> list[InputPortion]:
        return [InputPortion.of([shard]) for shard in self.shards.shards]

    def _job(self, number: int, job: SplitJob) -> SplitJob:
        return replace(
            job,
            output=FinishedPart(self.made.path(self.shards.names[number]), None),
            section=self.made.section(number + 1),
            is_made=self.made.is_made(number + 1),
        )

    def _head(self) -> Head:
        return self.head

    def _writing(self) -> Writing:
        return Writing(level=self.workers.streams.level, threads=1)


@dataclass(frozen=True)
class ShardParts:
    """The parts of a slice that is made shard by shard."""

    planned: SlicePlan
    divided: DividedShards

    def make(self, made: Making, head: Head) -> Making:
        """Make the parts that are missing; the records of the others are only counted."""
        made = made.with_parts(self.divided.shards.names, self.divided.source.inputs)
        self.divided.workers.engine.check_places(Places([], [made.directory]))
        self.divided.start(made, head)
        for _ in self.planned.parts:
            pass
        return made


def shard_parts(
    workers: SliceWorkers, source: Source, request: Request, statistics: SliceStatistics, shards: NamedShards
) -> ShardParts | None:
    """The parts of a slice that reads its input twice; None for any other."""
    divided: list[DividedShards] = []

    def divide(settled: Request) -> DividedShards:
        divided.append(DividedShards(workers, source, settled, statistics, shards))
        return divided[0]

    planned = by_records(source, request, statistics, divide)
    return ShardParts(planned, divided[0]) if divided else None
