"""What a run of training begins with: a tokenizer, the model's configuration, and the token files of what it reads."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError, DataError
from ..models.safety import check_directory
from ..models.tokenizer import (
    PreTrainedTokenizerFast,
    encode,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
    vocabulary_size,
)
from ..settings.train import Training
from ..storage import directories
from . import token_file as tokens
from .model import PretrainedConfig, gpt2_config, read_config, save_tokenizer
from .recipe import SHAPE, Recipe

# In the run's folder while it runs: a tokenizer of our own, the token file of the held-out data; what the tokenizer is trained on.
TRAINED, HELD_OUT = FOLDERS = ("tokenizer", "held-out")
COPY = "documents.jsonl"

log = logging.getLogger(__name__)
Documents = Iterable[tokens.Document]
Report = Callable[[int, Mapping[str, float]], object]


@dataclass(frozen=True)
class Corpus:
    """Documents, and what the caller knows them by (names, sizes, times): where that is the same they need not be read again."""

    documents: Documents
    source: str | None = None


def tokenizer(
    settings: Training, documents: Documents, work: Path, *, known: bool
) -> tuple[PreTrainedTokenizerFast, Documents]:
    """The tokenizer, and the documents again: to train one they are read, and written down, once.

    One that was trained before counts only where the run is `known`, which holds it to the documents that it was trained on.
    """
    if settings.init_from:
        return _checkpoint_tokenizer(settings.init_from, settings.tokenizer), documents
    if settings.tokenizer:
        return load_tokenizer(settings.tokenizer), documents
    if known and (work / TRAINED).exists():
        return load_tokenizer(work / TRAINED), documents
    wanted = settings.train_tokenizer or 0
    tokenizer = train_tokenizer(_texts(tokens.spool(documents, work / COPY)), wanted)
    if (found := vocabulary_size(tokenizer)) < wanted:
        log.warning("the text yields a vocabulary of %d, not %d", found, wanted)
    with directories.whole(work / TRAINED) as folder:
        save_tokenizer(tokenizer, folder)
    return tokenizer, _read_once(work / COPY)


def _checkpoint_tokenizer(checkpoint: Path, given: Path | None) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint that training continues from.

    Raises ConfigurationError if the tokenizer in the directory `given` is a different one.
    """
    check_directory(checkpoint)
    tokenizer: PreTrainedTokenizerFast = load_tokenizer(checkpoint)
    if given and tokenizer_hash(load_tokenizer(given)) != tokenizer_hash(tokenizer):
        fault = f"was trained with another tokenizer than {given}"
        raise ConfigurationError(fault, place=str(checkpoint), remedy="leave out --tokenizer")
    return tokenizer


def configuration(settings: Training, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """The model's: of the preset or our own keys, else the config.json that is named, or that of the checkpoint to begin with."""
    if "layers" not in recipe:
        return read_config(settings.config or (settings.init_from or Path()) / "config.json", tokenizer)
    shape = {name: recipe[name].value for name in SHAPE}
    entries = settings.train_tokenizer or (recipe["vocabulary"].value if "vocabulary" in recipe else 0)
    return gpt2_config(tokenizer, entries=entries, **shape)


def token_file(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, folder: Path, report: Report
) -> tokens.Manifest:
    """The token file that is there, if it is known to come from the same source by the same tokenizer, or a new one."""
    found = tokens.find(folder)
    known = f"{tokenizer_hash(tokenizer)} {corpus.source}" if corpus.source else None
    if found and known and found.source == known:
        return found
    return tokens.pack(
        corpus.documents,
        lambda texts: encode(tokenizer, texts),
        folder,
        vocabulary=vocabulary_size(tokenizer),
        separator=tokenizer.eos_token_id,
        source=known,
        report=lambda documents, tokens: report(0, {"documents": documents, "tokens": tokens}),
    )


def watched(documents: Documents, context: int) -> Iterator[tokens.Document]:
    """The documents, and a word about blocks of ids that the model cannot take as they are; the last of a stream may be short."""
    unfit = 0
    for document in documents:
        unfit += isinstance(document, list) and len(document) % context != 0
        yield document
    if unfit > 1:
        log.warning(
            "%d blocks are no multiple of the model's %d tokens of context: they are joined and cut anew",
            unfit,
            context,
        )


def held_out_file(
    corpus: Corpus, context: int, tokenizer: PreTrainedTokenizerFast, work: Path
) -> tokens.Manifest:
    """The token file of what is held out, with a word on what is trained on all the same."""
    (folder := work / HELD_OUT).mkdir(exist_ok=True)
    manifest = token_file(corpus, tokenizer, folder, lambda step, values: None)
    if manifest.tokens < context:
        raise DataError(
            f"the held-out data are {manifest.tokens} tokens, less than one block of {context}",
            remedy="hold out more",
        )
    if found := int(tokens.is_known(tokens.document_hashes(folder), tokens.document_hashes(work)).sum()):
        log.warning(
            "%d of %d held-out documents are trained on: their loss says little", found, manifest.documents
        )
    return manifest


def _texts(documents: Documents) -> Iterator[str]:
    for document in documents:
        if not isinstance(document, str):
            raise ConfigurationError(
                "blocks of ids say nothing to a new tokenizer",
                remedy="name the one that made them with --tokenizer",
            )
        yield document


def _read_once(copy: Path) -> Iterator[tokens.Document]:
    yield from tokens.spooled(copy)
    copy.unlink()
