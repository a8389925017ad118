"""prune-cli slice"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from .. import charts, terminal
from ..errors import DataError, UsageError
from . import options
from .options import Files, GroupBy, Streams, TextField, TokensField, Unit, expanded, option
from .selection import Keep, Wish

if TYPE_CHECKING:
    from ..records.reader import Source
    from ..stages.slice.run import Findings, Parted, Slicing, Whole
    from ..statistics.cuts import Cut
    from ..stream.index import Table
    from ..stream.schema import Head, RankSection
    from ..stream.writer import Sink

COST = (
    "A ranked stream is read once, in constant memory; of a ranked file whole frames are copied as they stand, and what is skipped is "
    "not read. -k, --within, --tokens, --sample and --keep random read twice (a pipe is kept in a temporary file meanwhile) and take "
    "some 40 bytes of memory a record, 70 where tokens are counted."
)
EXAMPLES = (
    (
        "Keep the middle half of a ranking:",
        "prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst -o shard.jsonl.zst",
    ),
    (
        "Read what lies at the median:",
        "prune-cli slice --range 0.49:0.51 --plain ranked.jsonl.zst | jq -r .text",
    ),
    (
        "Keep the easier half of a corpus that was scored but not ranked, in its order, and the rest beside it:",
        "prune-cli slice -k perplexity --keep easy --frac 0.5 --rejects hard.jsonl.zst scored.jsonl.zst -o easy.jsonl.zst",
    ),
    (
        "Take 100,000 tokens from the middle outwards, and say what was kept of each source:",
        "prune-cli slice --keep middle --tokens 100000 --summary kept.json ranked.jsonl.zst -o shard.jsonl.zst",
    ),
    (
        "A random half as a baseline:",
        "prune-cli slice --keep random --frac 0.5 --seed 1 ranked.jsonl.zst -o random.jsonl.zst",
    ),
)

log = logging.getLogger(__name__)


@expanded
def slice(
    files: Files = None,
    wish: Wish = Wish(),
    key: Annotated[
        str | None,
        option(
            "--key",
            "-k",
            metavar="FIELD",
            help="Slice by this score, the order kept. The stream need not be ranked.",
        ),
    ] = None,
    scores: Annotated[
        str | None,
        option(
            "--scores",
            metavar="FILE",
            help="Take the scores from FILE, one a record. In its order, as written by `score --only`; ids are checked.",
        ),
    ] = None,
    by: Annotated[
        Unit | None,
        option(
            "--by",
            metavar="UNIT",
            help="F is a share of records or of tokens. A ranked stream says so itself, and another unit is an error.",
        ),
    ] = None,
    within: Annotated[
        str | None, option("--within", metavar="FIELD", help="Cut each value of FIELD for itself.")
    ] = None,
    tokens_field: TokensField = "n_scored",
    text_field: TextField = "text",
    prefix: Annotated[
        str | None,
        option(
            "--prefix",
            metavar="STR",
            help="What stands before `rank` and `quantile`.",
            rich_help_panel=options.FIELDS,
            show_default=False,
        ),
    ] = None,
    rejects: Annotated[
        str | None,
        option(
            "--rejects",
            metavar="FILE",
            help="Write what is not kept to FILE.",
            rich_help_panel=options.RESULT,
        ),
    ] = None,
    summary: Annotated[
        str | None,
        option(
            "--summary",
            metavar="FILE",
            help="Write what was kept and cut to FILE, as JSON.",
            rich_help_panel=options.RESULT,
        ),
    ] = None,
    group_by: GroupBy = "source",
    streams: Streams = Streams(),
) -> None:
    """Keep a part of the distribution of a score.

    Counts are exact, ties are broken by input order, records pass through byte for byte. A slice keeps the quantiles of its
    ranking, so that slicing it again refers to the whole: the top of a slice is what the slice has of the top. Shares of one ranking
    nest, and so do budgets of tokens. Records whose score is null are kept only by --keep-unscored.

    --summary is a JSON object: the cut as it was asked for, `by` (the unit of the shares), `in`, `kept`, `cut` and `unscored` (records
    and tokens), the same by `groups`, `ties` that the cut divides, and `length_correlation`.
    """
    from .. import storage
    from ..stages.slice.run import Findings, Slicing
    from ..stream.schema import Head

    cut = wish.cut()
    if within and cut.tokens is not None:
        raise UsageError(
            "--tokens is a budget for the whole", remedy="leave out --within, or say how much with --frac"
        )
    if scores == "-" and "-" in (files or ["-"]):
        raise UsageError("standard input (-) is named twice", remedy="it can be read only once")
    if scores is not None and wish.draws:
        raise UsageError(
            "random numbers depend on the texts, which --scores FILE has not",
            remedy="put the scores into the corpus, and use -k",
        )
    _check_apart(streams.output, rejects, summary)
    slicing = Slicing(cut, by.value if by else None, key, within, tokens_field, text_field, group_by, prefix,
        wish.keep_unscored, wish.invert, wish.seed, wish.sample)  # fmt: skip
    findings, of_ranking = Findings(), key is None and scores is None
    replay = scores is None and (
        wish.draws or key is not None or within is not None or cut.tokens is not None
    )
    with streams.opened("slice", files, replay=replay) as (source, output), ExitStack() as opened:
        rest = (
            opened.enter_context(storage.create(rejects, source.inputs, force=streams.force))
            if rejects
            else None
        )
        told = (
            opened.enter_context(storage.create(summary, source.inputs, force=streams.force))
            if summary
            else None
        )
        plan = _plan(source, wish, slicing, scores, streams, findings, opened)
        history = _history(wish, key, within, scores)
        keep = ("pack", "score", "rank")
        head = Head.compose("slice", group_by, previous=plan.head, keep=keep, slice=history)
        with streams.sink(output, head) as kept, ExitStack() as also:
            rejected = also.enter_context(replace(streams, output=rejects).sink(rest, head)) if rest else None
            _write(plan, kept, rejected)
            if findings.length_correlation is not None:
                kept.facts["length_correlation"] = findings.length_correlation = round(
                    findings.length_correlation, 6
                )
            if findings.shape is not None and of_ranking:
                kept.facts["shape"] = findings.shape
        findings.tally.check(plan.records())
        if told:
            told.write(
                json.dumps({**history, "by": plan.unit, **_summary(findings)}, indent=2).encode() + b"\n"
            )
    _tell(findings, cut, streams)
    _draw(plan.key, plan.unit if of_ranking else "records", cut, findings, wish, streams)


@dataclass(frozen=True)
class _Plan:
    """How a slice is made: the parts to come, the head, count, score and unit of what is read, its table if frames are copied."""

    parts: "Iterator[Parted | Whole]"
    head: "Head | None"
    table: "Table | None"
    records: Callable[[], int]
    key: str
    unit: str


def _plan(
    source: "Source",
    wish: Wish,
    slicing: "Slicing",
    scores: str | None,
    streams: Streams,
    findings: "Findings",
    opened: ExitStack,
) -> _Plan:
    from ..stages.slice import run as stage

    if scores is not None:
        return _plan_joined(source, wish, slicing, scores, streams, findings, opened)
    if table := _table(source, wish, slicing, streams):
        opened.enter_context(table.file.open())
        copied = table.head.rank
        assert copied is not None  # stage.is_copyable has looked
        count = table.totals.records
        settled = replace(slicing, cut=wish.settled(lambda: copied.key).cut())
        parts = stage.copied(table, source, settled, findings)
        return _Plan(parts, table.head, table, lambda: count, copied.key, copied.unit)
    head, _ = source.peek()
    ranking = head.rank if head else None
    ranked_by = ranking.key if ranking else None
    unit = ranking.unit if ranking else None
    slicing = replace(
        slicing, cut=wish.settled(lambda: slicing.key or ranked_by or options.the_score(source)).cut()
    )
    needs_order = (
        wish.draws
        or slicing.cut.tokens is not None
        or slicing.within not in (None, ranking.within if ranking else None)
    )
    if slicing.key is None and not needs_order:
        return _Plan(
            stage.ranked(source, slicing, findings),
            head,
            None,
            lambda: source.records,
            ranked_by or "score",
            unit or slicing.by or "records",
        )
    if slicing.prefix is None and ranking:
        slicing = replace(slicing, prefix=ranking.prefix)
    slicing = replace(slicing, key=_key(source, wish, slicing, ranking), by=slicing.by or unit)
    again = source.again()
    return _Plan(
        stage.scored(source, again, slicing, findings),
        head,
        None,
        lambda: again.records,
        slicing.key or "score",
        slicing.by or "records",
    )


def _plan_joined(
    source: "Source",
    wish: Wish,
    slicing: "Slicing",
    scores: str,
    streams: Streams,
    findings: "Findings",
    opened: ExitStack,
) -> _Plan:
    from ..stages.slice import run as stage

    theirs = opened.enter_context(
        replace(streams, expect_records=None).source("slice", [scores], replay=True, bar=False)
    )
    key = slicing.key or options.the_score(theirs)
    slicing = replace(slicing, key=key, cut=wish.settled(lambda: key).cut())
    return _Plan(
        stage.joined(theirs, theirs.again(), source, slicing, findings),
        theirs.peek()[0],
        None,
        lambda: source.records,
        key,
        slicing.by or "records",
    )


def _table(source: "Source", wish: Wish, slicing: "Slicing", streams: Streams) -> "Table | None":
    """The table of a ranked file of which whole frames can be taken as they stand, at the level that they have."""
    from ..stages.slice import run as stage
    from ..stream import index

    if (
        len(source.inputs) > 1
        or streams.skip_bad
        or streams.level != Streams.level
        or wish.draws
        or slicing.cut.tokens is not None
    ):
        return None
    found = index.of(source.inputs[0])
    if found is None or not stage.is_copyable(found, slicing):
        return None
    if streams.expect_records not in (None, found.totals.records):
        raise DataError(
            f"{found.totals.records} records came, {streams.expect_records} were expected",
            place=found.file.name,
        )
    return found


def _key(source: "Source", wish: Wish, slicing: "Slicing", ranking: "RankSection | None") -> str | None:
    """By what field the records are ordered; a ranking's ranks are the order in which it has them, ties included."""
    if slicing.key or wish.keep is Keep.random:
        return slicing.key
    if ranking and wish.sample is None:
        return f"{slicing.prefix}rank"
    return ranking.key if ranking else options.the_score(source)


def _write(plan: _Plan, kept: "Sink", rejected: "Sink | None") -> None:
    from ..stages.slice.run import Whole

    for part in plan.parts:
        if isinstance(part, Whole):
            sink = kept if part.kept else rejected
            if sink and plan.table:
                sink.copy_frame(plan.table, part.index)
            continue
        if part.kept:
            kept.write_lines(part.kept)
        if part.rejected and rejected:
            rejected.write_lines(part.rejected)


def _check_apart(*paths: str | None) -> None:
    from .. import storage

    named = [storage.location(path) for path in paths if path]
    if len(set(named)) < len(named):
        raise UsageError(
            "two outputs have one name", remedy="give --output, --rejects and --summary a file each"
        )
    if "-" in paths[1:]:
        raise UsageError("--rejects and --summary take a file", remedy="/dev/stderr is one")


def _history(wish: Wish, key: str | None, within: str | None, scores: str | None) -> dict[str, Any]:
    """What the head says of the cut: the options that were given."""
    given = {
        name: getattr(wish, name) for name in ("keep", "frac", "tokens", "sample", "invert", "keep_unscored")
    }
    given |= {
        "range": wish.range_,
        "min": wish.least,
        "max": wish.most,
        "key": key,
        "within": within,
        "scores": scores,
    }
    given["seed"] = wish.seed if wish.draws else None
    return {name: value for name, value in given.items() if value not in (None, False)}


def _summary(findings: "Findings") -> dict[str, Any]:
    return {
        **findings.tally.summary(),
        "ties": findings.ties.found(),
        "length_correlation": findings.length_correlation,
    }


def _tell(findings: "Findings", cut: "Cut", streams: Streams) -> None:
    """The closing line, and warnings: of scores that the cut could not tell apart, of nothing kept, of a budget that was not used."""
    found = _summary(findings)
    for tie in found["ties"]:
        log.warning(
            "%d records tie at %r, and %d of them are inside the cut: input order decided",
            tie["records"],
            tie["score"],
            tie["inside"],
        )
    kept, rest, unscored = (found[fate]["records"] for fate in ("kept", "cut", "unscored"))
    tokens, others = found["kept"]["tokens"], found["cut"]["tokens"]
    if cut.tokens is not None and rest and tokens < 0.95 * cut.tokens:
        log.warning(
            "%d of %d tokens are kept: the next record in turn has more than what is left of them",
            tokens,
            cut.tokens,
        )
    elif rest and not kept:
        log.warning("nothing is kept of %d scored records (a share is one of the whole ranking)", rest)
    groups = [f"{name or '(none)'} {one['kept']['records']:,} of {sum(one[fate]['records'] for fate in one):,}"
              for name, one in sorted(found["groups"].items(), key=lambda item: -item[1]["kept"]["records"])]  # fmt: skip
    parts = [
        f"kept {kept:,} of {found['in']:,} records ({tokens:,} of {tokens + others:,} tokens); {rest:,} cut, {unscored:,} unscored",
        *groups[:8],
        *([" ..."] if groups[8:] else []),
    ]
    if found["length_correlation"] is not None:
        parts.append(f"rank correlation of score with length {found['length_correlation']:.2f}")
    terminal.closing("; ".join(parts), quiet=streams.quiet)


def _draw(key: str, unit: str, cut: "Cut", findings: "Findings", wish: Wish, streams: Streams) -> None:
    """How the scores are distributed, and which of them were kept, for who is watching."""
    shape = findings.shape
    if shape is None or wish.sample is not None:
        return
    if wish.keep is Keep.random:
        kept, rest = (_summary(findings)[fate]["records"] for fate in ("kept", "cut"))
        share = charts.evenly(kept / max(kept + rest, 1))
    else:
        found = findings.between
        if found is None:
            found = (
                charts.quantiles(shape, cut.least, cut.most)
                if cut.keep == "scores"
                else (float(cut.low), float(cut.high))
            )
        share = charts.between(*found, invert=wish.invert)
    terminal.closing("\n".join(charts.histogram(key, shape, unit, share)), quiet=streams.quiet)
