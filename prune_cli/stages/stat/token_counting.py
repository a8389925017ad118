"""How often does each token occur in the texts of a stream?"""

from dataclasses import dataclass
from pathlib import Path

from ...models.text import tokenizer_file
from ...records.documents import check_tokenizer, contents
from ...records.reader import Batch, Source
from ...texts.priors import TokenCounter


def counter(directory: Path) -> TokenCounter:
    """A counter with the tokenizer in a folder. Raises NoInputError or ConfigurationError."""
    return TokenCounter(tokenizer_file.load(directory))


@dataclass(frozen=True)
class TokenFollower:
    """Counts the tokens of the records of a source."""

    counter: TokenCounter
    source: Source
    text_field: str

    def follow(self, batch: Batch) -> None:
        """Count the tokens of a batch.

        Raises DataError for ids that the tokenizer does not have, ConfigurationError for blocks of another.
        """
        check_tokenizer(self.source.heads, self.counter.tokenizer, batch.file)
        self.counter.add(contents(batch, self.text_field), batch.place)
