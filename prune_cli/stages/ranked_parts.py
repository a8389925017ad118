"""Is an input one ranking? If it is a single stream, or all parts of a ranked dataset, in order."""

from collections.abc import Sequence

from ..errors import DataError
from ..stream.dataset import DatasetManifest
from ..stream.schema import Head

ALL_PARTS = "name the folder of the dataset, or all of its parts in order"
AGAIN = "rank all of it again: prune-cli rank (with --merge if it is several rankings)"


def rankings_of(heads: Sequence[Head | None], place: str, *, is_whole: bool) -> list[list[int]]:
    """The numbers of the heads that belong to one ranking each: consecutive parts of one plan, or one alone.

    Unless `is_whole`, raises DataError if not all parts of a plan are there, in order.
    """
    rankings: list[list[int]] = []
    plan = None
    for number, head in enumerate(heads):
        part = head.part if head else None
        if part is None or part.plan != plan:
            rankings.append([])
        rankings[-1].append(number)
        plan = part.plan if part else None
    for numbers in rankings if not is_whole else ():
        RankedParts().finish([heads[number] for number in numbers], place)
    return rankings


class RankedParts:
    """Follows the heads of an input that has to be one ranking.

    With the `manifest` of the dataset that the input is, its parts are known to be there, and in order: those
    of a slice are a part of the ranking.
    """

    def __init__(self, manifest: DatasetManifest | None = None) -> None:
        self.manifest = manifest
        self.followed = 0
        self.last: Head | None = None

    def follow(self, heads: Sequence[Head | None], place: str) -> None:
        """Raise DataError if one of the heads after those that were followed cannot be there."""
        for head in heads[self.followed :]:
            fault = self._fault(head)
            if fault:
                is_part = head is not None and head.part is not None
                raise DataError(
                    f"{fault}: the input is not one ranking",
                    place=place,
                    remedy=ALL_PARTS if is_part else AGAIN,
                )
            self.followed += 1
            self.last = head

    def finish(self, heads: Sequence[Head | None], place: str) -> None:
        """All heads are there. Raises DataError if they end before the last part."""
        self.follow(heads, place)
        part = self.last.part if self.last else None
        if part and part.number != part.of and self.manifest is None:
            fault = f"the input ends with part {part.number} of {part.of}"
            raise DataError(f"{fault}: the rest of the ranking is missing", place=place, remedy=ALL_PARTS)

    def _fault(self, head: Head | None) -> str | None:
        part = head.part if head else None
        if self.manifest is not None:
            # Parts of other rankings would have another N, or other fields.
            return self._fault_of_sections(head)
        if not self.followed:
            if part is None or part.number == 1:
                return None
            return f"the input begins with part {part.number} of {part.of}"
        before = self.last.part if self.last else None
        if part is None or before is None:
            # Streams without any head are lines that follow each other.
            return "several streams follow each other" if head or self.last else None
        if part.plan != before.plan:
            return f"part {part.number} of another ranking follows part {before.number}"
        return (
            None if part.number == before.number + 1 else f"part {part.number} follows part {before.number}"
        )

    def _fault_of_sections(self, head: Head | None) -> str | None:
        first = self.last.rank if self.last else None
        is_alike = not self.followed or (head.rank if head else None) == first
        return None if is_alike else "parts of several rankings follow each other"
