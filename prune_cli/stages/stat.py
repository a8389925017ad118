"""What a stream holds: records, tokens, groups, and the scores at which shares of it end."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import DataError
from ..records.columns import Labels, counts
from ..records.lines import Block, line_ends
from ..records.reader import MISSING, Anything, Batch, Content, Count, Number, Source, Wanted
from ..statistics.correlation import LengthCorrelation
from ..statistics.cuts import Cut
from ..stream.index import Table
from ..stream.writer import GROUPS
from .slice.ranked import ranking_of

SHARES = ("0", "0.01", "0.05", "0.1", "0.25", "0.3", "0.5", "0.7", "0.75", "0.9", "0.95", "0.99", "1")


@dataclass(frozen=True)
class Wish:
    """What is looked at: the scores, the count of tokens, the group field; for duplicates the text field, else none."""

    scores: Sequence[str]
    tokens_field: str = "n_scored"
    group: str = "source"
    text_field: str | None = None
    by_tokens: str | None = None  # the score that was ranked by tokens, of which shares are shares of tokens
    reverse: bool = False  # the highest score comes first, and of equal ones that which ranks last


def at_once(table: Table, source: Source) -> dict[str, Any]:
    """What the table of a whole file of ours says; of a ranking the thresholds, too, from the few frames in which they lie."""
    totals, known = table.totals, ranking_of(table.head)
    counted = (
        totals["tokens"] or totals["nulls"] == totals["records"]
    )  # else the records do not say how many tokens they have
    groups = {
        name: {"records": records, "tokens": tokens if counted else None}
        for name, (records, tokens) in totals["groups"].items()
    }
    tokens = totals["tokens"] if counted else None
    found = {
        "records": totals["records"],
        "nulls": totals["nulls"],
        "tokens": tokens,
        "bytes": totals["text"],
    }
    correlation = (
        totals.get("length_correlation") if table.head.get("verb") == "rank" else None
    )  # a slice's is that of the whole
    scores = {known["key"]: _ranked(table, source, known)} if known and not known.get("within") else {}
    return {**found, "groups": groups, "scores": scores, "length_correlation": correlation, "verified": False}


def _ranked(table: Table, source: Source, known: dict[str, Any]) -> dict[str, Any]:
    """Thresholds of a ranked file, which has the scored records in order, from the few frames in which they lie."""
    tokens_field = known.get("tokens_field", "n_scored")
    columns, fields = table.columns, Wanted({known["key"]: Number, tokens_field: Count}, (tokens_field,))

    @cache
    def frame(at: int) -> tuple[np.ndarray, np.ndarray]:
        """The scores of a frame and their records' tokens, the lowest score first."""
        text = table.text(at)
        batches = list(
            source.decoded([Block(table.file.name, table.line(at), text, line_ends(text))], fields)
        )
        scores, tokens = (
            np.concatenate(parts)
            for parts in zip(*(_scored(batch, *fields.fields) for batch in batches), strict=True)
        )
        return (scores[::-1], tokens[::-1]) if known["reverse"] else (scores, tokens)

    by_tokens = known["unit"] == "tokens"
    scored = [records - nulls for records, nulls in zip(columns["records"], columns["nulls"], strict=True)]
    order = [at for at, records in enumerate(scored) if records][:: -1 if known["reverse"] else 1]
    sizes = [
        (int(frame(at)[1].sum()) if columns["nulls"][at] else columns["tokens"][at])
        if by_tokens
        else scored[at]
        for at in order
    ]
    ends = list(accumulate(sizes))

    def threshold(share: str, place: int) -> float:
        """The first score whose record lies above a share, or at a place."""
        target = float(share) * ends[-1] if by_tokens else place
        index = min(bisect_right(ends, target), len(order) - 1)
        scores, tokens = frame(order[index])
        before = ends[index] - sizes[index]
        inside = (
            int(np.searchsorted(before + np.cumsum(tokens) - tokens / 2, target))
            if by_tokens
            else place - before
        )
        if inside == len(scores) and index + 1 < len(order):
            return float(frame(order[index + 1])[0][0])
        return float(scores[min(inside, len(scores) - 1)])

    n = sum(scored)
    return {
        "records": n,
        "quantiles": {share: threshold(share, place) for share, place in _places(n).items()},
    }


def _scored(batch: Batch, key: str, tokens_field: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a batch that are none of them null, and their tokens."""
    scores = np.array(batch[key], dtype=float)
    kept = ~np.isnan(scores)
    return scores[kept], counts(batch[tokens_field])[kept]


def _places(n: int) -> dict[str, int]:
    """For each share the rank of the lowest record that `slice --range SHARE:1` keeps; for 1 that of the highest there is."""
    return {share: min(Cut("range", Decimal(share)).ranks(n)[0], n - 1) for share in SHARES} if n else {}


def reading(source: Source, wish: Wish) -> dict[str, Any]:
    """The same by reading everything, for any stream, and by group; 16 bytes of memory a record and score, 24 more for duplicates.

    Raises DataError where the trailers of our own streams count other records than come, and where no record has a wished score.
    """
    labels, parts, texts, size, absent = (
        Labels(str, most=GROUPS + 1),
        [],
        [],
        0,
        [*wish.scores, wish.tokens_field],
    )
    for batch in source.batches(_wanted(wish)):
        absent = [name for name in absent if batch[name].count(MISSING) == len(batch)]
        scores = np.array([_numbers(batch[name]) for name in wish.scores]).reshape(
            len(wish.scores), len(batch)
        )
        parts.append((scores, counts(batch[wish.tokens_field]), labels.codes(batch[wish.group])))
        texts += [_digests(batch, wish.text_field)] if wish.text_field else []
        size += len(batch.text)
    if size and absent not in ([], [wish.tokens_field]):
        raise DataError(
            f"no record has a field `{absent[0]}`",
            place=source.inputs[0].name,
            remedy="name a score that is there with -k",
        )
    nothing = (np.zeros((len(wish.scores), 0)), np.zeros(0, np.int64), np.zeros(0, np.int32))
    scores, tokens, groups = (np.concatenate(column, axis=-1) for column in zip(nothing, *parts, strict=True))
    found = {**_described(scores, tokens, wish), "bytes": size}
    _check(found, source)
    by_group = {
        name: _described(scores[:, groups == code], tokens[groups == code], wish)
        for code, name in enumerate(labels.names)
    }
    correlation = _correlation(scores[0], tokens) if len(scores) == 1 else None
    duplicates = {"duplicates": _duplicates(texts)} if wish.text_field else {}
    if size and absent:  # nobody knows how many tokens there are
        for one in (found, *by_group.values()):
            one["tokens"] = None
    shown = dict(sorted(by_group.items())) if len(by_group) <= GROUPS else {}
    return {**found, "groups": shown, "length_correlation": correlation, "verified": True, **duplicates}


def _wanted(wish: Wish) -> Wanted:
    fields: dict[str, Any] = {
        wish.group: Anything,
        wish.tokens_field: Count,
        **dict.fromkeys(wish.scores, Number),
    }
    if wish.text_field:
        fields |= {wish.text_field: str | None, "input_ids": Content | None}
    return Wanted(fields, tuple(fields), tuple(wish.scores))


def _numbers(values: list[Any]) -> np.ndarray:
    return np.array([None if value is MISSING else value for value in values], dtype=float)


def _described(scores: np.ndarray, tokens: np.ndarray, wish: Wish) -> dict[str, Any]:
    nulls = int(np.isnan(scores).all(0).sum()) if len(scores) else 0
    step = -1 if wish.reverse else 1
    sizes = {wish.by_tokens: tokens[::step]}
    found = {
        name: _thresholds(row[::step], sizes.get(name)) for name, row in zip(wish.scores, scores, strict=True)
    }
    return {"records": len(tokens), "nulls": nulls, "tokens": int(tokens.sum()), "scores": found}


def _thresholds(scores: np.ndarray, tokens: np.ndarray | None) -> dict[str, Any]:
    """The scores at which shares of the records begin, or with `tokens` of these."""
    order = np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]
    places = _places(len(order))
    if tokens is not None and places:
        sizes = tokens[order]
        middles = (2 * np.cumsum(sizes) - sizes) / max(2 * int(sizes.sum()), 1)
        places = {share: min(int(np.searchsorted(middles, float(share))), len(order) - 1) for share in places}
    return {
        "records": len(order),
        "quantiles": {share: float(scores[order[place]]) for share, place in places.items()},
    }


def _correlation(scores: np.ndarray, tokens: np.ndarray) -> float | None:
    order = np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]
    lengths = LengthCorrelation()
    lengths.add(scores[order], tokens[order])
    found = lengths.value()
    return None if found is None else round(found, 6)


def _digests(batch: Batch, text_field: str) -> np.ndarray:
    """128 bits for each text, or for each list of token ids where there is one."""
    found = []
    for index, (text, ids) in enumerate(zip(batch[text_field], batch["input_ids"], strict=True)):
        content = text if ids is MISSING else ids
        if content is MISSING or content is None:
            raise DataError(
                f"no field `{text_field}` (nor `input_ids`)",
                place=batch.place(index),
                remedy="--text-field FIELD names the text",
            )
        data = content.encode() if isinstance(content, str) else np.array(content, dtype=np.int64).tobytes()
        found.append(blake2b(data, digest_size=16, person=type(content).__name__.encode()).digest())
    return np.array(found, dtype="V16")


def _duplicates(texts: list[np.ndarray]) -> dict[str, int]:
    pairs = np.concatenate([np.zeros(0, "V16"), *texts]).view(np.dtype([("high", "<u8"), ("low", "<u8")]))
    sizes = np.unique(pairs, return_counts=True)[1]
    return {
        "distinct": len(sizes),
        "copies": len(pairs) - len(sizes),
        "most_often": int(sizes.max(initial=0)),
    }


def _check(found: dict[str, Any], source: Source) -> None:
    """Hold the counts to the trailers', where every part of the stream has one."""
    if source.trailers and len(source.trailers) == len(source.heads) and not source.skipped:
        told = sum(trailer["totals"]["records"] for trailer in source.trailers)
        if told != found["records"]:
            raise DataError(
                f"the trailer counts {told} records, {found['records']} came", remedy="fetch or make it again"
            )
