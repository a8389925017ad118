"""prune-cli pack"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .. import terminal
from ..errors import ConfigurationError, UsageError
from . import options
from .options import Files, GroupBy, Streams, TextField, expanded, option

if TYPE_CHECKING:
    from ..pretrained import PreTrainedTokenizerFast


class Last(StrEnum):
    """What becomes of the tokens at the end that do not fill a block."""

    drop = "drop"
    keep = "keep"


@expanded
def pack(
    files: Files = None,
    tokenizer: Annotated[Path | None, option("--tokenizer", metavar="PATH", help="The directory of the model or its tokenizer.")] = None,
    context: Annotated[int, option("--context", metavar="N", min=2, help="Tokens in a block; the paper's has 2048.")] = 2048,
    eod: Annotated[
        str, option("--eod", metavar="auto|ID", help="The end-of-document token; auto is the tokenizer's end of text.")
    ] = "auto",
    last: Annotated[Last, option("--last", help="Drop the last block if it is short, or keep it so.")] = Last.drop,
    carry: Annotated[str, option("--carry", metavar="FIELD,...", help="Fields of the documents that spans and blocks get, too.")] = "",
    text_field: TextField = "text",
    group_by: GroupBy = "source",
    streams: Streams = Streams(),
) -> None:
    """Pack documents into blocks of one length: the paper's unit.

    Documents are tokenized, an end-of-document token after each, put one after the other and cut into blocks, never padded. A
    block has `id`, `input_ids`, `n_tokens` and `spans`, which say what came from where: the number of the document (and its id),
    the start in it, the place in the block, the tokens. A carried field of a block is that of most of its tokens.

    Example: prune-cli pack --tokenizer gpt2/ --carry source corpus.jsonl.zst | prune-cli score --model gpt2/
    """
    if tokenizer is None:
        raise UsageError("no tokenizer to pack with", remedy="name its directory with --tokenizer PATH")
    fields, token = _fields(carry, text_field), _token(eod)
    with streams.opened("pack", files) as (source, output):
        from .. import pretrained
        from ..io.documents import Verbatim, documents
        from ..stages import pack as stage

        loaded = pretrained.load_tokenizer(tokenizer, needs_end=token is None)
        end = _end(loaded, token, tokenizer)
        packing = stage.Packing(context, end, last is Last.keep, fields, group_by, pretrained.unknown_token(loaded))
        tally = stage.Tally()
        found = documents(source, text_field, stage.IDENTITY, *fields, kind=Verbatim)
        blocks = stage.pack(found, lambda texts: pretrained.encode(loaded, texts), packing, tally)
        how = {"tokenizer": pretrained.tokenizer_hash(loaded), "context": context, "eod": end, "last": last.value}
        with streams.sink(output, options.head_after(source, "pack", group_by, (), pack=how)) as sink:
            sink.write(blocks)
    dropped = f"; {tally.dropped:,} tokens at the end dropped" if tally.dropped else ""
    terminal.closing(
        f"packed {tally.documents:,} documents into {tally.blocks:,} blocks of {context:,} tokens{dropped}", quiet=streams.quiet
    )


def _fields(carry: str, text_field: str) -> tuple[str, ...]:
    """The fields to carry; UsageError for one whose name a block or a span has a use of its own for."""
    fields = tuple(dict.fromkeys(name for name in carry.split(",") if name))
    if text_field == "id":
        raise UsageError("--text-field id: the text cannot be what a document is known by")
    taken = ("id", "input_ids", "n_tokens", "spans", "document", "start", "at", "tokens", text_field)
    for name in fields:
        if name in taken:
            raise UsageError(f"--carry {name}: blocks have no room for a field of that name", remedy="rename it first, or leave it out")
    return fields


def _token(eod: str) -> int | None:
    """The end-of-document token that was asked for, None for the tokenizer's own."""
    if eod == "auto":
        return None
    if not eod.isdecimal():
        raise UsageError(f"--eod {eod} is no token", remedy="auto, or its number in the vocabulary")
    return int(eod)


def _end(tokenizer: "PreTrainedTokenizerFast", token: int | None, place: Path) -> int:
    from ..pretrained import vocabulary

    if token is None:
        return int(tokenizer.eos_token_id)
    if token >= (size := vocabulary(tokenizer)):
        fault = f"--eod {token} is outside its vocabulary of {size}"
        raise ConfigurationError(fault, place=str(place), remedy="name a token that it has")
    return token
