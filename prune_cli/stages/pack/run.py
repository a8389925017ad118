"""Run `pack`: from documents and settings to a stream of blocks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...records.documents import Verbatim, documents
from ...settings.pack import Last, Packing
from ...settings.streams import Streams
from .. import streams
from .blocks import IDENTITY, BlockLayout, PackCounts, pack

if TYPE_CHECKING:
    from .tokenization import BlockTokenizer


@dataclass(frozen=True)
class Report:
    """Counts of a run. Every token is in a block or was dropped: `tokens` + `dropped` is the length of the stream."""

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
class Job:
    """Pack the documents of `inputs`."""

    inputs: tuple[str, ...]
    packing: Packing
    streams: Streams

    def run(self) -> Report:
        """Write the blocks. Raises PruneError."""
        tokenizer_path = self.packing.tokenizer
        if tokenizer_path is None:
            raise UsageError("no tokenizer to pack with", remedy="name its directory with --tokenizer PATH")
        carry = self.packing.carried_fields()
        eos = self.packing.eos_token()
        with streams.open_streams("pack", self.inputs, self.streams) as (source, output):
            # An unreadable input fails here, before the import of torch, which takes seconds.
            source.peek()
            from .tokenization import load

            tokenizer = load(tokenizer_path, eos)
            layout = self._layout(tokenizer, carry)
            head = streams.head_after(
                source, "pack", self.packing.group_by, (), pack=self._provenance(tokenizer)
            )
            counts = PackCounts()
            read = documents(source, self.packing.text_field, IDENTITY, *carry, kind=Verbatim)
            with streams.open_sink(self.streams, output, head) as sink:
                sink.write(pack(read, tokenizer.encode, layout, counts))
        return Report(
            context=layout.context,
            documents=counts.documents,
            empty=counts.empty,
            blocks=counts.blocks,
            tokens=counts.tokens,
            dropped=counts.dropped,
            skipped=source.skipped,
        )

    def _layout(self, tokenizer: "BlockTokenizer", carry: tuple[str, ...]) -> BlockLayout:
        return BlockLayout(
            context=self.packing.context,
            eos=tokenizer.eos,
            keep_last=self.packing.last == Last.keep,
            carry=carry,
            group=self.packing.group_by,
            unknown=tokenizer.unknown,
        )

    def _provenance(self, tokenizer: "BlockTokenizer") -> dict[str, Any]:
        """Tokenizer and layout for the head. `train` and `score` refuse blocks of another tokenizer by this hash."""
        return {
            "tokenizer": tokenizer.hash,
            "context": self.packing.context,
            "eod": tokenizer.eos,
            "last": self.packing.last.value,
        }
