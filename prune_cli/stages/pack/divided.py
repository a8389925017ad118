"""How do several workers pack one stream of blocks?

A block may begin in one shard of the documents and end in a later one. So the shards are tokenized first,
each into a temporary file. Then it is known which tokens of all documents each shard has, and workers write
the blocks that begin in a shard, with the first tokens of the next ones at their end. The parent joins them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from ... import storage, terminal
from ...engines.work import Engine, Places
from ...records.documents import Document, Verbatim, documents
from ...records.reader import Source, check_expected
from ...settings.pack import Packing
from ...settings.streams import Streams, processors
from ...storage.temporary import SharedFile
from ...stream import writer
from ...stream.schema import Head
from ...stream.section import Shard
from .. import streams
from .blocks import IDENTITY, BlockLayout, Ids, PackCounts, Portion, pack_portion, token_stream

VERB = "pack"


# --- Tokens ---


@dataclass(frozen=True)
class Tokenized:
    """What is known of the tokens of a shard, which are in the file `path`."""

    path: str
    tokens: int  # EOS included
    counts: PackCounts
    blank: int
    skipped: int
    layout: BlockLayout
    provenance: dict[str, object]


@dataclass(frozen=True)
class TokenJob:
    """Tokenize a shard into the file `path`."""

    shard: Shard
    path: str

    @property
    def name(self) -> str:
        """The input."""
        return self.shard.input


@dataclass(frozen=True)
class TokenStage:
    """The settings of all jobs."""

    packing: Packing
    streams: Streams
    group: str
    verb: str = VERB

    def open(self) -> "TokenWorker":
        """A worker, which loads the tokenizer."""
        return TokenWorker(self)


class TokenWorker:
    """Tokenizes one shard after another."""

    def __init__(self, stage: TokenStage) -> None:
        # The import of torch, in a worker and not in its parent.
        from .tokenization import layout_of, load, provenance_of

        self.stage = stage
        self.tokenizer = load(stage.packing.tokenizer_path(), stage.packing.eos_token())
        self.layout = layout_of(stage.packing, self.tokenizer, stage.group)
        self.provenance = provenance_of(stage.packing, self.tokenizer)

    def do(self, job: TokenJob, progress: terminal.Progress) -> Tokenized:
        """Tokenize a shard. Raises PruneError."""
        counts = PackCounts(absent=set(self.layout.carry))
        tokens = 0
        source = streams.source_of([job.shard.open_input()], self.stage.streams, progress)
        shown = streams.RecordProgress(source)
        with closing(source), SharedFile(job.path, write=True) as file:
            store = _Store(file)

            def encode(texts: list[str]) -> list[Ids]:
                return store.add(self.tokenizer.encode(texts))

            read = shown.through(_documents(source, self.stage.packing))
            for _, _, ids in token_stream(read, encode, self.layout, counts):
                tokens += len(ids)
            store.finish()
        return Tokenized(
            path=job.path,
            tokens=tokens,
            counts=counts,
            blank=source.blank,
            skipped=source.skipped,
            layout=self.layout,
            provenance=self.provenance,
        )


class _Store:
    """Writes the tokens of documents behind each other, then the number of each document, and their count."""

    def __init__(self, file: SharedFile) -> None:
        self.file = file
        self.sizes: list[int] = []

    def add(self, encoded: list[Ids]) -> list[Ids]:
        self.sizes += map(len, encoded)
        if encoded:
            self.file.append(np.concatenate(encoded).astype("<i4").tobytes())
        return encoded

    def finish(self) -> None:
        self.file.append(np.array([*self.sizes, len(self.sizes)], "<i8").tobytes())


def _stored(paths: Sequence[str]) -> Iterator[Ids]:
    """The tokens of each document in files that `_Store` wrote, in order."""
    for path in paths:
        with SharedFile(path) as file:
            size = storage.input_at(path).size or 0
            count = int(np.frombuffer(file.read_at(size - 8, 8), "<i8")[0])
            sizes = np.frombuffer(file.read_at(size - 8 * (count + 1), 8 * count), "<i8")
            offset = 0
            for tokens in sizes.tolist():
                yield np.frombuffer(file.read_at(offset, 4 * tokens), "<i4").astype(np.int32)
                offset += 4 * tokens


def _documents(source: Source, packing: Packing) -> Iterator[Document]:
    return documents(source, packing.text_field, IDENTITY, *packing.carried_fields(), kind=Verbatim)


# --- Blocks ---


@dataclass(frozen=True)
class BlockJob:
    """Write the blocks that begin in the first of the shards, into the stream `output`."""

    shards: tuple[Shard, ...]
    tokens: tuple[str, ...]  # the files of their tokens
    portion: Portion
    output: str

    @property
    def name(self) -> str:
        """The input."""
        return self.shards[0].input


@dataclass(frozen=True)
class Written:
    """The stream of a job, and whether its groups are too many to be counted."""

    output: str
    drops_groups: bool


@dataclass(frozen=True)
class BlockStage:
    """The settings of all jobs."""

    packing: Packing
    streams: Streams
    layout: BlockLayout
    head: Head
    level: int
    verb: str = VERB

    def open(self) -> "BlockWorker":
        """A worker."""
        return BlockWorker(self)


@dataclass(frozen=True)
class BlockWorker:
    """Writes the blocks of one shard after another."""

    stage: BlockStage

    def do(self, job: BlockJob, progress: terminal.Progress) -> Written:
        """Write the blocks of a shard. Raises PruneError."""
        stage = self.stage
        inputs = [shard.open_input() for shard in job.shards]
        # The first pass has warned of every bad record.
        with (
            closing(streams.source_of(inputs, stage.streams, terminal.silent()).again()) as source,
            storage.create(job.output, force=True) as output,
            writer.open_sink(
                output, stage.head, writer.Writing(level=stage.level, threads=processors())
            ) as sink,
        ):
            stored = _stored(job.tokens)

            def encode(texts: list[str]) -> list[Ids]:
                return [next(stored) for _ in texts]

            read = _documents(source, stage.packing)
            sink.write(pack_portion(read, encode, stage.layout, job.portion))
        progress.advance(inputs[0].size or 0)
        return Written(job.output, sink.drops_groups)


def block_jobs(
    shards: Sequence[Shard], tokenized: Sequence[Tokenized], folder: str, *, keep_last: bool
) -> list[BlockJob]:
    """The jobs for all blocks. Shards in which no block begins have none."""
    context = tokenized[0].layout.context
    before = list(accumulate((each.tokens for each in tokenized), initial=0))
    documents_before = list(accumulate((each.counts.documents for each in tokenized), initial=0))
    blocks = before[-1] // context
    if keep_last and before[-1] % context:
        blocks += 1
    jobs = []
    for number in range(len(shards)):
        # The first block that begins at this token or behind it.
        first = min(blocks, -(-before[number] // context))
        after = min(blocks, -(-before[number + 1] // context))
        if after == first:
            continue
        end = min(after * context, before[-1])
        stop = next(index for index in range(number, len(shards)) if before[index + 1] >= end) + 1
        portion = Portion(
            documents=documents_before[number],
            first_block=first,
            skip=first * context - before[number],
            blocks=after - first,
        )
        paths = tuple(each.path for each in tokenized[number:stop])
        output = os.path.join(folder, f"{number}.zst")
        jobs.append(BlockJob(tuple(shards[number:stop]), paths, portion, output))
    return jobs


# --- All of it ---


def tokenize(
    engine: Engine,
    stage: TokenStage,
    shards: Sequence[Shard],
    folder: str,
    progress: terminal.Progress,
) -> list[Tokenized]:
    """Tokenize all shards. Raises PruneError."""
    jobs = [TokenJob(shard, os.path.join(folder, f"{shard.number}.tokens")) for shard in shards]
    # Of the whole, not of a shard.
    uncounted = replace(stage, streams=replace(stage.streams, expect_records=None))
    paths = [*(shard.input for shard in shards), str(stage.packing.tokenizer_path())]
    engine.check_places(Places(paths, [folder]))
    tokenized = engine.map(uncounted, jobs, progress)
    records = sum(each.counts.documents + each.skipped for each in tokenized)
    check_expected(records, stage.streams.expect_records)
    return tokenized


def counts_of(tokenized: Sequence[Tokenized], jobs: Sequence[BlockJob], *, keep_last: bool) -> PackCounts:
    """The counts of all shards and blocks."""
    layout = tokenized[0].layout
    counts = PackCounts(absent=set(layout.carry))
    for each in tokenized:
        counts.documents += each.counts.documents
        counts.empty += each.counts.empty
        counts.unknown += each.counts.unknown
        counts.with_eos += each.counts.with_eos
        counts.absent &= each.counts.absent
    tokens = sum(each.tokens for each in tokenized)
    counts.blocks = sum(job.portion.blocks for job in jobs)
    counts.dropped = 0 if keep_last else tokens % layout.context
    counts.tokens = tokens - counts.dropped
    return counts
