"""Run `pack`: from documents and settings to a stream of blocks."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ... import storage
from ...engines.plan import inspect, plan
from ...engines.work import Engine
from ...records.documents import Verbatim, documents
from ...records.reader import Source
from ...settings.pack import Last, Packing
from ...settings.streams import Streams
from ...storage.base import Output
from ...storage.temporary import shared_folders
from ...stream.batch import Record
from ...stream.section import Shard
from .. import streams
from ..joining import Joiner, temporary_directory
from . import divided
from .blocks import IDENTITY, PackCounts, pack, warn

VERB = "pack"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackReport:
    """Counts of a run.

    Every token is in a block or was dropped: `tokens` + `dropped` is the length of the stream.
    """

    context: int
    documents: int = 0
    empty: int = 0
    blocks: int = 0
    tokens: int = 0
    dropped: int = 0
    skipped: int = 0

    def closing(self) -> list[str]:
        """The closing line."""
        packed = f"packed {self.documents:,} documents into {self.blocks:,} blocks of {self.context:,} tokens"
        return [f"{packed}; {self.dropped:,} tokens at the end dropped" if self.dropped else packed]


@dataclass(frozen=True)
class PackJob:
    """Pack the documents of `inputs`."""

    inputs: tuple[str, ...]
    packing: Packing
    streams: Streams

    def run(self) -> PackReport:
        """Write the blocks. Raises PruneError."""
        tokenizer_path = self.packing.tokenizer_path()
        carry = self.packing.carried_fields()
        eos = self.packing.eos_token()
        with streams.open_streams(VERB, self.inputs, self.streams) as (source, output):
            shown = streams.RecordProgress(source)
            # An unreadable input fails here, before the import of torch, which takes seconds.
            source.peek()
            from .tokenization import layout_of, load, provenance_of

            tokenizer = load(tokenizer_path, eos)
            group = group_of(source, self.packing)
            layout = layout_of(self.packing, tokenizer, group)
            provenance = provenance_of(self.packing, tokenizer)
            head = streams.head_after(source, VERB, group, (), pack=provenance)
            counts = PackCounts()
            read = documents(source, self.packing.text_field, IDENTITY, *carry, kind=Verbatim)
            with streams.open_sink(self.streams, output, head) as sink:
                sink.write(pack(shown.through(read), tokenizer.encode, layout, counts))
        return _report(counts, layout.context, source.skipped)


@dataclass(frozen=True)
class PackOnEngine:
    """Pack with the workers of an engine, if there are several and the inputs can be divided."""

    job: PackJob
    engine: Engine

    def run(self) -> PackReport:
        """As `PackJob.run`: it writes the same blocks. Raises PruneError."""
        job = self.job
        paths = job.inputs or ("-",)
        if self.engine.workers == 1 or any(storage.is_stream(path) or path == "-" for path in paths):
            return job.run()
        job.packing.tokenizer_path()
        # Tokens first, then blocks: two passes.
        with streams.open_streams(VERB, job.inputs, job.streams, passes=2) as (source, output):
            source.peek()
            group = group_of(source, job.packing)
            shards = plan([inspect(file) for file in source.inputs])
            directory = temporary_directory(job.streams.output)
            with shared_folders([directory]) as [folder]:
                return self._divided(source, output, shards, folder, group)

    def _divided(
        self, source: Source, output: Output, shards: list[Shard], folder: str, group: str
    ) -> PackReport:
        job = self.job
        progress = streams.InputProgress(source)
        keep_last = job.packing.last == Last.keep
        stage = divided.TokenStage(job.packing, job.streams, group)
        tokenized = divided.tokenize(self.engine, stage, shards, folder, progress)
        jobs = divided.block_jobs(shards, tokenized, folder, keep_last=keep_last)
        head = streams.head_after(source, VERB, group, (), pack=tokenized[0].provenance)
        # What is decompressed again is compressed as fast as can be.
        is_decompressed = streams.is_plain_by_name(job.streams) or job.streams.single_frame
        blocks = divided.BlockStage(
            job.packing,
            replace(job.streams, expect_records=None),
            tokenized[0].layout,
            head,
            level=1 if is_decompressed else job.streams.level,
        )
        with streams.open_sink(job.streams, output, head) as sink:
            joiner = Joiner(sink)
            for written in self.engine.each(blocks, jobs, progress):
                joiner.append(written.output)
                sink.drops_groups |= written.drops_groups
        counts = divided.counts_of(tokenized, jobs, keep_last=keep_last)
        warn(counts)
        skipped = sum(each.skipped for each in tokenized)
        streams.log_skipped(sum(each.blank for each in tokenized), skipped)
        return _report(counts, job.packing.context, skipped)


def _report(counts: PackCounts, context: int, skipped: int) -> PackReport:
    return PackReport(
        context=context,
        documents=counts.documents,
        empty=counts.empty,
        blocks=counts.blocks,
        tokens=counts.tokens,
        dropped=counts.dropped,
        skipped=skipped,
    )


def group_of(source: Source, packing: Packing) -> str:
    """The field that blocks are counted by. Warns if they cannot have it."""
    group = streams.group_field_of(source, packing.group_by)
    if packing.group_by and group not in packing.carried_fields():
        fault = "--group-by %s counts nothing: blocks have that field only with --carry %s"
        log.warning(fault, group, group)
    return group


def blocks(source: Source, packing: Packing) -> Iterator[Record]:
    """The blocks of the documents of a source. Raises PruneError."""
    from .tokenization import layout_of, load

    tokenizer = load(packing.tokenizer_path(), packing.eos_token())
    read = documents(source, packing.text_field, IDENTITY, *packing.carried_fields(), kind=Verbatim)
    return pack(
        read, tokenizer.encode, layout_of(packing, tokenizer, packing.group_by or "source"), PackCounts()
    )
