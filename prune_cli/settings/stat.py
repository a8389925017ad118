"""Settings of `prune-cli stat`."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar

from ..errors import UsageError
from ..sizes import parse_fraction
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
    thresholds: Annotated[
        str | None,
        option(
            "--thresholds",
            metavar="LO,HI",
            help="Measure a cut between two quantiles of -k, for slice --cut and streams that come later.",
        ),
    ] = None
    agree: Annotated[
        str | None,
        option(
            "--agree",
            metavar="FIELD,...",
            help="Compare scores: their rank correlation, and what slices by each would share. "
            "Every two of the FIELDs are compared; with --scores, the first with the others.",
        ),
    ] = None
    scores: Annotated[
        str | None,
        option(
            "--scores",
            metavar="FILE",
            help="Read all but the first score of --agree from FILE. A single one is read from both. "
            "FILE is written by `score --only` and has the order of the input; ids are compared.",
        ),
    ] = None
    token_counts: Annotated[
        str | None,
        option(
            "--token-counts",
            metavar="FILE",
            help="Count the tokens of all texts by --tokenizer into FILE, for `score --priors`.",
        ),
    ] = None
    tokenizer: Annotated[
        Path | None,
        option("--tokenizer", metavar="PATH", help="Folder with the tokenizer of --token-counts."),
    ] = None
    tokens_field: TokensField = None
    text_field: TextField = "text"
    group_by: GroupBy = None
    output: OutputFile = None
    force: Force = False

    @property
    def reads_everything(self) -> bool:
        """Whether an option asks for more than a trailer says."""
        asked = (self.key, self.agree, self.thresholds, self.token_counts)
        return self.verify or self.duplicates or any(asked)

    @property
    def fractions(self) -> tuple[Decimal, Decimal] | None:
        """The bounds of --thresholds. Raises UsageError."""
        if self.thresholds is None:
            return None
        low, _, high = self.thresholds.partition(",")
        bounds = parse_fraction(low), parse_fraction(high)
        if not 0 <= bounds[0] < bounds[1] <= 1:
            fault = f"invalid --thresholds '{self.thresholds}': expected LO,HI with 0 <= LO < HI <= 1"
            raise UsageError(fault, remedy="for example --thresholds 0.25,0.75")
        if len(self.key or ()) != 1:
            raise UsageError("--thresholds cuts one score", remedy="name it with a single -k")
        return bounds

    @property
    def compared(self) -> list[str]:
        """The scores that are compared; none without --agree. Raises UsageError."""
        if self.agree is None:
            return []
        names = self.agree.split(",")
        if not all(names) or len({*names}) < len(names):
            fault = f"invalid --agree '{self.agree}': expected the names of different fields"
            raise UsageError(fault, remedy="for example --agree perplexity,el2n")
        if len(names) < 2 and self.scores is None:
            fault = "--agree compares two scores"
            raise UsageError(fault, remedy="name both, or a file that has the other with --scores")
        return names
