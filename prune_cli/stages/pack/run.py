"""Run `pack`: from documents and settings to a stream of blocks."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...records.documents import Verbatim, documents
from ...records.reader import Source
from ...settings.pack import Last, Packing
from ...settings.streams import Streams
from ...stream.batch import Record
from .. import streams
from .blocks import IDENTITY, BlockLayout, PackCounts, pack

if TYPE_CHECKING:
    from .tokenization import BlockTokenizer

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
        with streams.open_streams("pack", self.inputs, self.streams) as (source, output):
            shown = streams.RecordProgress(source)
            # An unreadable input fails here, before the import of torch, which takes seconds.
            source.peek()
            from .tokenization import load

            tokenizer = load(tokenizer_path, eos)
            group = streams.group_field_of(source, self.packing.group_by)
            if self.packing.group_by and group not in carry:
                fault = "--group-by %s counts nothing: blocks have that field only with --carry %s"
                log.warning(fault, group, group)
            layout = _layout(self.packing, tokenizer, group)
            head = streams.head_after(source, "pack", group, (), pack=self._provenance(tokenizer))
            counts = PackCounts()
            read = documents(source, self.packing.text_field, IDENTITY, *carry, kind=Verbatim)
            with streams.open_sink(self.streams, output, head) as sink:
                sink.write(pack(shown.through(read), tokenizer.encode, layout, counts))
        return PackReport(
            context=layout.context,
            documents=counts.documents,
            empty=counts.empty,
            blocks=counts.blocks,
            tokens=counts.tokens,
            dropped=counts.dropped,
            skipped=source.skipped,
        )

    def _provenance(self, tokenizer: "BlockTokenizer") -> dict[str, Any]:
        """Tokenizer and layout for the head.

        `train` and `score` refuse blocks of another tokenizer by this hash.
        """
        return {
            "tokenizer": tokenizer.hash,
            "context": self.packing.context,
            "eod": tokenizer.eos,
            "last": self.packing.last.value,
        }


def blocks(source: Source, packing: Packing) -> Iterator[Record]:
    """The blocks of the documents of a source. Raises PruneError."""
    from .tokenization import load

    tokenizer = load(packing.tokenizer_path(), packing.eos_token())
    read = documents(source, packing.text_field, IDENTITY, *packing.carried_fields(), kind=Verbatim)
    return pack(
        read, tokenizer.encode, _layout(packing, tokenizer, packing.group_by or "source"), PackCounts()
    )


def _layout(packing: Packing, tokenizer: "BlockTokenizer", group: str) -> BlockLayout:
    return BlockLayout(
        context=packing.context,
        eos=tokenizer.eos,
        keep_last=packing.last == Last.keep,
        carry=packing.carried_fields(),
        group=group,
        unknown=tokenizer.unknown,
    )
