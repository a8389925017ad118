"""Settings of `prune-cli stat`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .option import option
from .streams import Force, GroupBy, OutputFile, TextField, TokensField


@dataclass(frozen=True)
class Inspection:
    """Which scores are described, and whether every record is read."""

    GROUP: ClassVar[str] = "Options"
    key: Annotated[
        list[str] | None,
        option(
            "--key",
            "-k",
            metavar="FIELD",
            help="Score to describe. Repeat for more; the default is every score that the stream names.",
        ),
    ] = None
    verify: Annotated[
        bool, option("--verify", help="Read every record and compare the counts with the trailer.")
    ] = False
    duplicates: Annotated[bool, option("--duplicates", help="Count exact duplicates of the text.")] = False
    tokens_field: TokensField = None
    text_field: TextField = "text"
    group_by: GroupBy = None
    output: OutputFile = None
    force: Force = False

    @property
    def reads_everything(self) -> bool:
        """Whether an option asks for more than a trailer says."""
        return self.verify or self.duplicates or bool(self.key)
