"""Settings of `prune-cli pack`."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from ..errors import UsageError
from .option import option
from .streams import GroupBy, TextField

# Fields that a block or a span already has: a carried field of the same name would overwrite them.
RESERVED = ("id", "input_ids", "n_tokens", "spans", "document", "start", "at", "tokens")


class Last(StrEnum):
    """Whether a short last block is written."""

    drop = "drop"
    keep = "keep"


@dataclass(frozen=True)
class Packing:
    """The tokenizer, the length of a block, and the fields that blocks take from their documents."""

    GROUP: ClassVar[str] = "Options"
    tokenizer: Annotated[
        Path | None,
        option("--tokenizer", metavar="PATH", help="Directory of the tokenizer, or of a model that has one."),
    ] = None
    context: Annotated[int, option("--context", metavar="N", min=2, help="Tokens in a block.")] = 2048
    eod: Annotated[
        str,
        option(
            "--eod",
            metavar="auto|ID",
            help="Token to put after each document. auto is the tokenizer's EOS token.",
        ),
    ] = "auto"
    last: Annotated[
        Last,
        option("--last", metavar="drop|keep", help="Drop or keep a last block that is short."),
    ] = Last.drop
    carry: Annotated[
        str,
        option(
            "--carry",
            metavar="FIELD,...",
            help="Fields to copy from documents to blocks. A span has its document's value, "
            "a block the value that most of its tokens have.",
        ),
    ] = ""
    text_field: TextField = "text"
    group_by: GroupBy = None

    def tokenizer_path(self) -> Path:
        """The directory of the tokenizer. Raises UsageError if none was named."""
        if self.tokenizer is None:
            raise UsageError("no tokenizer to pack with", remedy="name its directory with --tokenizer PATH")
        return self.tokenizer

    def carried_fields(self) -> tuple[str, ...]:
        """The fields of --carry, each once.

        Raises UsageError for a name that blocks or spans use themselves.
        """
        if self.text_field == "id":
            raise UsageError("--text-field id: a field cannot be both the text and the id of a document")
        names = tuple(dict.fromkeys(name for name in self.carry.split(",") if name))
        for name in names:
            if name in (*RESERVED, self.text_field):
                fault = f"--carry {name}: blocks already have a field of that name"
                raise UsageError(fault, remedy="rename it first, or leave it out")
        return names

    def eos_token(self) -> int | None:
        """The token id of --eod; None for the tokenizer's own EOS token.

        Raises UsageError for anything else.
        """
        if self.eod == "auto":
            return None
        if not self.eod.isdecimal():
            fault = f"invalid --eod {self.eod}: expected auto or a token id"
            raise UsageError(fault)
        return int(self.eod)
