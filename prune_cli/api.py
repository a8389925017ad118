"""The verbs as functions over iterators of records: what `import prune_cli` gives.

A record is a dict. Options are those of the command line, `--keep-unscored` as `keep_unscored=True`, one that repeats as a list. What
fails raises a PruneError, whose `status` is the exit status of the command. Work begins with the first record that is asked for; the verb
runs in one thread, and another takes the records from the iterator.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from . import cli
from .commands.options import Reading, Streams
from .errors import UsageError

Record = dict[str, Any]
PathLike = str | os.PathLike[str]


def read(*paths: PathLike) -> Iterator[Record]:
    """The records of files (zstd, gzip or plain JSON Lines) in turn. Raises PruneError for what is damaged, or is no record."""
    from .records.reader import Wanted

    with Reading().source("read", [os.fspath(path) for path in paths], bar=False) as source:
        for batch in source.batches(Wanted({})):
            yield from map(json.loads, batch.lines)


def write(records: Iterable[Record], path: PathLike, *, force: bool = False) -> None:
    """Write records to a file, whole or not at all: zstd, or JSON Lines where its name ends in .jsonl. `force` replaces one that exists."""
    from . import storage
    from .stream.batch import Record as Line
    from .stream.schema import Head

    streams = Streams(output=os.fspath(path), force=force, single_frame=True)
    with storage.create(streams.output, force=force) as output, streams.sink(output, Head({})) as sink:
        sink.write(Line(_line(record)) for record in records)


def pack(records: Iterable[Record], *, tokenizer: PathLike, **options: Any) -> Iterator[Record]:
    """Blocks of tokens of one length, made of documents."""
    return _piped("pack", records, {"tokenizer": tokenizer, **options})


def score(records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """The records with a field for each `metric`, as a `model` scores them; without one the small one that comes with the package."""
    return _piped("score", records, options)


def rank(records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """The records ordered by a score (`key`), with `rank` and `quantile`. All are read before the first comes out."""
    return _piped("rank", records, options)


def slice(records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """A part of ranked records, as in `by="tokens", keep="middle", frac=0.5`, or with `key` of scored ones.

    An iterator of records has no head: `by` says what they were ranked by.
    """
    return _piped("slice", records, options)


def stat(records: Iterable[Record], **options: Any) -> Record:
    """What the records hold: their number, tokens, and the thresholds of their scores."""
    (found,) = _piped("stat", records, options, plain=False)
    return {name: value for name, value in found.items() if name != "file"}


def train(records: Iterable[Record], output: PathLike, **options: Any) -> Record:
    """Train a model on the records into the directory `output`, and return what its train.json says of the run."""
    list(
        _piped("train", records, {**options, "output": output}, plain=False)
    )  # it writes a directory, and nothing comes back
    found: Record = json.loads((Path(output) / "train.json").read_bytes())
    return found


def eval(models: Sequence[PathLike], records: Iterable[Record], **options: Any) -> Iterator[Record]:
    """How well models predict held-out records: one result for each, and with `against` one for each comparison."""
    return _piped("eval", records, options, operands=models, plain=False)


def _piped(
    verb: str,
    records: Iterable[Record],
    options: Mapping[str, Any],
    *,
    operands: Sequence[PathLike] | None = None,
    plain: bool = True,
) -> Iterator[Record]:
    """Run a verb between two pipes, one of which takes the records while the other gives what it writes."""
    if isinstance(records, str | os.PathLike):
        raise UsageError(f"{os.fspath(records)!r} is no iterator of records", remedy="read(path) is one")
    source, ours = os.pipe()
    theirs, sink = os.pipe()
    arguments = [verb, "--no-progress", *_arguments(options), *(["--plain"] if plain else [])]
    arguments += [] if "output" in options else ["--output", f"/dev/fd/{sink}"]
    arguments += (
        [f"/dev/fd/{source}"]
        if operands is None
        else ["--data", f"/dev/fd/{source}", *(os.fspath(one) for one in operands)]
    )
    feeding = _Thread(lambda: _feed(records, ours), (ours,))
    working = _Thread(lambda: cli.perform(arguments), (source, sink))
    feeding.start()
    working.start()
    try:
        with open(theirs, "rb") as lines:
            yield from (json.loads(line) for line in lines if line.endswith(b"\n"))  # else the verb failed
    finally:  # nobody reads any more: a verb that still writes notices, ends, and so does what feeds it
        working.join()
    if failure := feeding.failure or working.failure:
        raise failure


class _Thread(Thread):
    """Work that ends with its ends of the pipes closed, and its failure kept; that a reader left is none."""

    def __init__(self, work: Callable[[], object], ends: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.work, self.ends = work, ends
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with suppress(BrokenPipeError):
                self.work()
        except BaseException as error:
            self.failure = error
        finally:
            for end in self.ends:
                os.close(end)


def _feed(records: Iterable[Record], pipe: int) -> None:
    """Write records; where they fail, half a line, so that who reads them fails, too."""
    from .stream.writer import HALF_LINE

    with open(pipe, "wb", closefd=False) as file:
        try:
            for record in records:
                file.write(_line(record) + b"\n")
        except BaseException:
            file.write(HALF_LINE)
            raise


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def _arguments(options: Mapping[str, Any]) -> Iterator[str]:
    """Options as the command line has them."""
    for name, value in options.items():
        spelling = f"--{name.rstrip('_').replace('_', '-')}"
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                yield spelling
            elif one is not None and one is not False:
                yield from (spelling, os.fspath(one) if isinstance(one, os.PathLike) else str(one))
