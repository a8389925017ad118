"""The text of the reference model: python -m tests.bench.reference_data CLEAN.jsonl.zst DIRECTORY
[SOURCE=COPIES]...

Writes training.jsonl and heldout.jsonl (`id, text, source`) into DIRECTORY, the same bytes on every run. A
twentieth of each source's works is held out whole: novels, addresses and encyclopedia articles by name, news
by article. Genesis stays in English only, in two translations that are one work, and is all trained on.
"""

import json
import math
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

# How often a text stands in the training stream: half of its bytes are novels then, which are three quarters
# of the data.
COPIES = {"abc": 4, "genesis": 1, "inaugural": 3, "novels": 1, "state_union": 3, "wikipedia": 6}
HELD_OUT = 20  # one work of so many
SHORTEST = 60  # characters
PART = 2000  # characters: about a context of the model, so that it sees many beginnings
PIECE = re.compile(r"(.+)-(\d+)")  # the file or novel, and where in it a piece begins


@dataclass(frozen=True)
class Document:
    """One record; `work` is what is held out whole."""

    id: str
    text: str
    source: str
    work: str


def main(clean: Path, directory: Path, copies: dict[str, int]) -> None:
    """Write both streams and say what is in them."""
    directory.mkdir(parents=True, exist_ok=True)
    training, heldout = streams(clean)
    _write(
        directory / "training.jsonl",
        [document for document in training for _ in range(copies[document.source])],
    )
    _write(directory / "heldout.jsonl", heldout)


def streams(clean: Path) -> tuple[list[Document], list[Document]]:
    """What is trained on, each document once, and what is held out."""
    documents = [part for document in whole(read(clean)) for part in parts(document)]
    held = held_out(documents)
    return [one for one in documents if one.work not in held], [one for one in documents if one.work in held]


def read(clean: Path) -> Iterator[Document]:
    """The English documents of the corpus."""
    for line in subprocess.run(["zstd", "-dcq", clean], capture_output=True, check=True).stdout.splitlines():
        record = json.loads(line)
        if record["source"] != "genesis" or "-english-" in record["id"]:
            yield Document(record["id"], record["text"], record["source"], record["id"])


def whole(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents with the pieces of a file put together again, news cut into articles; of novels not all
    pieces are there.
    """
    files = defaultdict(list)
    for document in documents:
        name, place = found.groups() if (found := PIECE.fullmatch(document.id)) else (document.id, "0")
        if document.source == "wikipedia":
            yield document
        elif document.source == "novels":
            yield Document(document.id, document.text, document.source, name)
        else:
            files[document.source, name].append((int(place), document.text))
    for (source, name), pieces in files.items():
        text = "".join(text for _, text in sorted(pieces))
        for number, article in enumerate(text.split("\n\n") if source == "abc" else [text]):
            yield Document(f"{name}-{number}", article, source, f"{name}-{number}")


def parts(document: Document) -> Iterator[Document]:
    """A document cut at line ends into parts of PART characters or little more, short ones left out."""
    lines, size, number = list[str](), 0, 0
    for line in [*document.text.splitlines(keepends=True), None]:
        if size >= PART or line is None:
            if len(text := "".join(lines).strip()) >= SHORTEST:
                yield Document(f"{document.id}/{number}", text, document.source, document.work)
            lines, size, number = [], 0, number + 1
        if line is not None:
            lines.append(line)
            size += len(line)


def held_out(documents: Iterable[Document]) -> set[str]:
    """The works of each source whose names have the lowest hashes; of Genesis none."""
    works = defaultdict(set)
    for document in documents:
        if document.source != "genesis":
            works[document.source].add(document.work)
    return {
        work
        for names in works.values()
        for work in sorted(names, key=_hash)[: math.ceil(len(names) / HELD_OUT)]
    }


def _hash(name: str) -> bytes:
    return blake2b(name.encode()).digest()


def _write(path: Path, documents: list[Document]) -> None:
    lines = (json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[document.source] += len(document.text.encode())
    shown = ", ".join(f"{source} {size / 1e6:.2f}" for source, size in sorted(sizes.items()))
    print(f"{path.name}: {len(documents):,} documents, {sizes.total() / 1e6:.1f} MB ({shown})")


if __name__ == "__main__":
    asked = dict(argument.split("=") for argument in sys.argv[3:])
    main(
        Path(sys.argv[1]), Path(sys.argv[2]), COPIES | {source: int(count) for source, count in asked.items()}
    )
