"""The verbs as functions over iterators of records: what `import prune_cli` gives.

A record is a dict. Options are those of the command line: `--keep-unscored` is `keep_unscored=True`, and a
repeated option is a list. A failure raises a PruneError, whose `status` is the exit status of the command; a
warning of a command is a PruneWarning here. All functions but `stat`, `train` and `write` are generators:
nothing runs, and no error is raised, before the first record is requested.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from . import sizes
from .commands import conflicts
from .errors import PruneError as PruneError
from .errors import PruneWarning as PruneWarning
from .errors import UsageError
from .settings.eval import Comparison, Evaluation
from .settings.model import ModelSettings
from .settings.option import Setting, settings_of
from .settings.pack import Packing
from .settings.rank import Ranking
from .settings.score import Scores
from .settings.slice import Selection, Slicing
from .settings.stat import Inspection
from .settings.streams import Reading, Streams
from .settings.train import Training

if TYPE_CHECKING:
    from .stages.memory import RecordSource

log = logging.getLogger(__name__)
Record = dict[str, Any]
PathLike = str | os.PathLike[str]
Kind = TypeVar("Kind")


# Of the options of reading, those that apply to records in memory.
_READING = ("skip_bad", "expect_records")
# Options that make sense for files alone.
_OF_FILES = {
    "rank": ("check", "merge", "output_directory"),
    "slice": ("rejects", "summary", "scores", "output_directory"),
    "stat": ("output", "force", "scores", "token_counts", "tokenizer"),
    "eval": ("data",),
}


def read(*paths: PathLike) -> Iterator[Record]:
    """The records of files (zstd, gzip or plain JSON Lines) in turn. Raises PruneError for damaged ones."""
    # Imports are late throughout: `import prune_cli` loads nothing heavy, and rank needs no torch.
    from . import storage
    from .records.reader import Wanted
    from .stages import streams

    names = storage.expand([os.fspath(path) for path in paths])
    with (
        _warnings(),
        streams.open_source("read", names, Streams(), bar=False) as source,
    ):
        for batch in source.batches(Wanted({})):
            yield from map(json.loads, batch.lines)


def write(records: Iterable[Record], path: PathLike, *, force: bool = False) -> None:
    """Write records to a file, whole or not at all: zstd, or JSON Lines if its name ends in .jsonl.

    `force` replaces an existing file.
    """
    from . import storage
    from .records.documents import written
    from .stages import streams
    from .stream.batch import Record as Line
    from .stream.schema import Head

    # A single ordinary frame: the records have no provenance that a head could give.
    settings = Streams(output=os.fspath(path), force=force, single_frame=True)
    with (
        _warnings(),
        storage.create(settings.output, force=force) as output,
        streams.open_sink(settings, output, Head({})) as sink,
    ):
        sink.write(Line(written(record)) for record in records)


def pack(records: Iterable[Record], *, tokenizer: PathLike, **options: Any) -> Iterator[Record]:
    """Blocks of tokens of one length, made of documents."""
    packing, checks = _settings("pack", {"tokenizer": tokenizer, **options}, Packing, Reading)
    from .stages.pack.run import blocks

    with _opened(records, checks) as source:
        yield from (json.loads(block.line) for block in blocks(source, packing))


def score(records: Iterable[Record], *, only: str | Sequence[str] = (), **options: Any) -> Iterator[Record]:
    """The records with a field for each `metric`, computed by `model` or by the model that ships with us.

    `only` names the fields to keep, among the new ones and those of the record.
    """
    scores, running, checks = _settings("score", options, Scores, ModelSettings, Reading)
    names = only.split(",") if isinstance(only, str) else list(only)
    from .stages.score.worker import score_source

    with _opened(records, checks) as source:
        for document, new in score_source(source, scores, running):
            record = source.record(document) | new
            yield {name: record[name] for name in names} if names else record


def rank(records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """The records ordered by a score (`key`), with `rank` and `quantile`. All are read before the first is
    returned; beyond `buffer_size` they are sorted on disk.
    """
    ranking, checks = _settings("rank", options, Ranking, Reading)
    from .stages import memory
    from .stages.rank.run import ranked_parts

    with _opened(records, checks) as source:
        for names, part in ranked_parts(source, ranking):
            ranks: list[int | None] = part.ranks.tolist()
            quantiles: list[float | None] = [None] * len(ranks)
            if part.quantiles is None:
                ranks = [None] * len(ranks)
            else:
                quantiles = part.quantiles.tolist()
            ordered = memory.records_of(part.rows, part.blocks)
            for record, *values in zip(ordered, ranks, quantiles, strict=True):
                yield record | dict(zip(names, values, strict=True))


def slice(records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """A part of ranked records, as in `by="tokens", keep="middle", frac=0.5`; with `key`, of scored records.

    An iterator of records has no head: `by` names the unit of the ranking. `range`, `min` and `max` are
    accepted under these names.
    """
    options = {_RENAMED.get(name, name): value for name, value in options.items()}
    selection, slicing, checks = _settings("slice", options, Selection, Slicing, Reading)
    from .stages import memory
    from .stages.slice.plan import reads_twice
    from .stages.slice.run import slice_source
    from .stages.slice.selection import request

    replay = reads_twice(request(selection, slicing))
    with _opened(records, checks, replay=replay) as source:
        for part in slice_source(source, selection, slicing):
            if part.kept:
                yield from memory.decoded(part.kept.text, part.kept.sizes)


def stat(records: Iterable[Record], **options: Any) -> Record:
    """What the records hold: their number, tokens, and the thresholds of their scores."""
    inspection, checks = _settings("stat", options, Inspection, Reading)
    from .stages.stat.describing import describe_records

    with _opened(records, checks) as source:
        return describe_records(source, inspection).content


def train(records: Iterable[Record], output: PathLike, **options: Any) -> Record:
    """Train a model on the records into the directory `output`, and return its train.json."""
    settings, checks = _settings("train", {**options, "output": output}, Training, Reading)
    settings.check()
    from .stages.train import TrainJob
    from .training.distributed import join

    job = TrainJob((), settings, replace(checks, progress=False))
    with (
        _opened(records, checks) as source,
        join(settings.device, sharded=settings.fsdp) as processes,
    ):
        job.train_on(source, processes)
    described: Record = json.loads((Path(output) / "train.json").read_bytes())
    return described


def eval(models: Sequence[PathLike], records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """How well models predict held-out records: a result for each, and with `against` for each comparison."""
    groups = _settings("eval", options, Evaluation, Comparison, ModelSettings, Reading)
    evaluation, comparison, running, checks = groups
    from .stages.eval import checks as eval_checks
    from .stages.eval import held_out, operands
    from .stages.eval.run import EvalJob

    eval_checks.check_comparison(comparison)

    job = EvalJob(
        tuple(os.fspath(model) for model in models),
        evaluation,
        comparison,
        model_settings=running,
        reading=Streams(progress=False),
    )
    results = []
    with _opened(records, checks) as source:
        for result in job.results([held_out.from_source(source.name, source, evaluation)]):
            results.append(result)
            yield result
    eval_checks.check_outcome(results, operands.sides(job.models, comparison).models, comparison)


# --- Options -----------------------------------------------------------------------------------------


_RENAMED = {"range": "range_", "min": "least", "max": "most"}  # options whose names are Python built-ins


def _settings(verb: str, options: Mapping[str, Any], *kinds: Any) -> list[Any]:
    """Settings of each kind. Raises UsageError for unknown options and values that the command refuses."""
    of_files = _OF_FILES.get(verb, ())
    known = {field.name for kind in kinds for field in fields(kind) if kind is not Reading} | {*_READING}
    for name in options:
        if name in of_files:
            raise UsageError(f"`{name}` is an option for files", remedy=f"use the command prune-cli {verb}")
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f"did you mean `{near[0]}`?" if near else f"help(prune_cli.{verb}) lists the options"
            raise UsageError(f"{verb} has no option `{name}`", remedy=remedy)
    given = {name: value for name, value in options.items() if value is not None}
    # The records of `eval` are its test set.
    conflicts.check(verb, {**given, "data": True} if verb == "eval" else given, lambda field: f"`{field}`")
    return [_filled(kind, options) for kind in kinds]


def _filled(kind: type[Kind], options: Mapping[str, Any]) -> Kind:
    declared = {setting.name: setting for setting in settings_of(kind)}
    values = {
        field.name: options[field.name]
        for field in fields(kind)  # type: ignore[arg-type]
        if options.get(field.name) is not None
    }
    return kind(**{name: _checked(declared[name], value) for name, value in values.items()})


def _checked(setting: Setting, value: Any) -> Any:
    try:
        return _value(setting, value)
    except TypeError:  # from fspath and Path
        raise UsageError(f"`{setting.name}` is {value!r}, a {type(value).__name__}") from None


def _value(setting: Setting, value: Any) -> Any:
    """The value in the type of the setting. Raises UsageError as the command line does."""
    kinds = get_args(setting.type) or (setting.type,)
    if setting.type == list[str] or list[str] in kinds:
        texts = value if isinstance(value, list | tuple) else [value]
        return [os.fspath(text) for text in texts]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return _choice(setting, kind, value)
    if Path in kinds:
        return Path(value)
    if str in kinds and not isinstance(value, str):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return _bounded(setting, kinds, value)


def _choice(setting: Setting, kind: type[StrEnum], value: Any) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(kind)
        raise UsageError(f"`{setting.name}` is {value!r}, which is not one of {choices}") from None


def _bounded(setting: Setting, kinds: Sequence[Any], value: Any) -> Any:
    """A number or a switch, within the bounds of the option."""
    if setting.option.is_count and isinstance(value, str):
        value = sizes.parse_count(value)
    # bool is an int in Python, and 1 is a float to whoever writes lr=1.
    number = float in kinds and isinstance(value, int) and not isinstance(value, bool)
    if not number and not isinstance(value, tuple(kinds)):
        raise UsageError(f"`{setting.name}` is {value!r}, a {type(value).__name__}")
    if isinstance(value, float) and not isfinite(value):
        raise UsageError(f"`{setting.name}` is {value!r}, not a finite number")
    low, high = setting.option.min, setting.option.max
    if (low is not None and value < low) or (high is not None and value > high):
        raise UsageError(f"`{setting.name}` is {value!r}, which is out of range")
    return value


# --- Sources and warnings ----------------------------------------------------------------------------


@contextmanager
def _opened(records: Iterable[Record], checks: Reading, *, replay: bool = False) -> Iterator["RecordSource"]:
    """A source of the records, and warnings while it is read.

    Raises UsageError for a path instead of records, which is the likely mistake.
    """
    if isinstance(records, str | os.PathLike):
        fault = f"{os.fspath(records)!r} is not an iterator of records"
        raise UsageError(fault, remedy="prune_cli.read(path) is one")
    from .records.reader import ReadingLimits
    from .stages.memory import RecordSource
    from .stages.streams import report_skipped

    reading = ReadingLimits(skip_bad=checks.skip_bad, expect_records=checks.expect_records)
    with _warnings(), closing(RecordSource(records, reading, replay=replay)) as source:
        yield source
        report_skipped(source)


class _AsWarning(logging.Handler):
    """Issues each logged warning as a PruneWarning."""

    users = 0  # verbs at work

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warnings.warn(record.getMessage(), PruneWarning, stacklevel=2)


_HANDLER = _AsWarning()


@contextmanager
def _warnings() -> Iterator[None]:
    """Issue the warnings of the package as PruneWarnings. Only the logger of the package is touched."""
    package = logging.getLogger("prune_cli")
    # Several verbs may be at work, one on the records of another: the last one to end removes the handler.
    _HANDLER.users += 1
    package.addHandler(_HANDLER)  # does nothing if it is there
    try:
        yield
    finally:
        _HANDLER.users -= 1
        if not _HANDLER.users:
            package.removeHandler(_HANDLER)
