"""prune-cli pack"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .. import terminal
from ..errors import ConfigurationError, UsageError
from . import options
from .options import Files, GroupBy, Streams, TextField, expanded, option

COST = "One pass; a few megabytes of documents in memory; blocks are written as they fill."
EXAMPLES = (
    (
        "Make blocks of 2,048 tokens that know their source, and score them:",
        "prune-cli pack --tokenizer gpt2/ --carry source corpus.jsonl.zst | prune-cli score --model gpt2/ > scored.jsonl.zst",
    ),
    (
        "Shorter ones, the last of which may be short, too:",
        "prune-cli pack --tokenizer gpt2/ --context 512 --last keep corpus.jsonl.zst -o blocks.jsonl.zst",
    ),
)

if TYPE_CHECKING:
    from ..models.tokenizer import PreTrainedTokenizerFast


class Last(StrEnum):
    """What becomes of the tokens at the end that do not fill a block."""

    drop = "drop"
    keep = "keep"


@expanded
def pack(
    files: Files = None,
    tokenizer: Annotated[
        Path | None,
        option("--tokenizer", metavar="PATH", help="A directory with a tokenizer, a model's or its own."),
    ] = None,
    context: Annotated[int, option("--context", metavar="N", min=2, help="Tokens in a block.")] = 2048,
    eod: Annotated[
        str,
        option(
            "--eod", metavar="auto|ID", help="End-of-document token. auto is the tokenizer's end of text."
        ),
    ] = "auto",
    last: Annotated[
        Last, option("--last", metavar="drop|keep", help="What becomes of a short last block.")
    ] = Last.drop,
    carry: Annotated[
        str,
        option(
            "--carry",
            metavar="FIELD,...",
            help="Fields that blocks take from documents. A span has its document's value, a block that of most of its tokens.",
        ),
    ] = "",
    text_field: TextField = "text",
    group_by: GroupBy = "source",
    streams: Streams = Streams(),
) -> None:
    """Pack documents into blocks of one length: the paper's unit.

    Documents are tokenized, an end-of-document token after each, put one after the other and cut into blocks, never padded. A
    block has `id`, `input_ids`, `n_tokens` and `spans`, which say what came from where: the number of the document (and its id),
    the start in it, the place in the block, the tokens.
    """
    if tokenizer is None:
        raise UsageError("no tokenizer to pack with", remedy="name its directory with --tokenizer PATH")
    fields, token = _fields(carry, text_field), _token(eod)
    with streams.opened("pack", files) as (source, output):
        source.peek()  # what cannot be read is refused before torch, which the tokenizers bring along, is loaded
        from ..models.tokenizer import (
            encode,
            load_tokenizer,
            tokenizer_hash,
            unknown_token,
        )
        from ..records.documents import Verbatim, documents
        from ..stages import pack as stage

        loaded = load_tokenizer(tokenizer, needs_eos=token is None)
        end = _end(loaded, token, tokenizer)
        packing = stage.Packing(context, end, last is Last.keep, fields, group_by, unknown_token(loaded))
        tally = stage.Tally()
        found = documents(source, text_field, stage.IDENTITY, *fields, kind=Verbatim)
        blocks = stage.pack(found, lambda texts: encode(loaded, texts), packing, tally)
        how = {
            "tokenizer": tokenizer_hash(loaded),
            "context": context,
            "eod": end,
            "last": last.value,
        }
        with streams.sink(output, options.head_after(source, "pack", group_by, (), pack=how)) as sink:
            sink.write(blocks)
    dropped = f"; {tally.dropped:,} tokens at the end dropped" if tally.dropped else ""
    terminal.closing(
        f"packed {tally.documents:,} documents into {tally.blocks:,} blocks of {context:,} tokens{dropped}",
        quiet=streams.quiet,
    )


def _fields(carry: str, text_field: str) -> tuple[str, ...]:
    """The fields to carry; UsageError for one whose name a block or a span has a use of its own for."""
    fields = tuple(dict.fromkeys(name for name in carry.split(",") if name))
    if text_field == "id":
        raise UsageError("--text-field id: the text cannot be what a document is known by")
    taken = ("id", "input_ids", "n_tokens", "spans", "document", "start", "at", "tokens", text_field)
    for name in fields:
        if name in taken:
            raise UsageError(
                f"--carry {name}: blocks have no room for a field of that name",
                remedy="rename it first, or leave it out",
            )
    return fields


def _token(eod: str) -> int | None:
    """The end-of-document token that was asked for, None for the tokenizer's own."""
    if eod == "auto":
        return None
    if not eod.isdecimal():
        raise UsageError(f"--eod {eod} is no token", remedy="auto, or its number in the vocabulary")
    return int(eod)


def _end(tokenizer: "PreTrainedTokenizerFast", token: int | None, place: Path) -> int:
    from ..models.tokenizer import vocabulary_size

    if token is None:
        return int(tokenizer.eos_token_id)
    if token >= (size := vocabulary_size(tokenizer)):
        fault = f"--eod {token} is outside its vocabulary of {size}"
        raise ConfigurationError(fault, place=str(place), remedy="name a token that it has")
    return token
