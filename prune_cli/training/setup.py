"""What is settled before the first step of a run? Tokenizer, model configuration, token files, plan."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ConfigurationError, DataError, UsageError
from ..models import safety
from ..models.description import context_length
from ..models.device import resolve_dtype
from ..models.text.loading import PreTrainedTokenizerFast, load_tokenizer, train_tokenizer
from ..models.text.tokenizer import encode, tokenizer_hash, vocabulary_size
from ..settings.train import Training
from ..storage import directories
from . import token_file
from .distributed import Processes
from .model import PretrainedConfig, config_hash, gpt2_config, read_config, save_tokenizer
from .recipe import DESCRIPTION, SHAPE, Plan, Recipe, plan
from .token_file import Blocks, Document, Manifest

# Folders in DIR.partial: the tokenizer if the run trains one, and the token file of the held-out documents.
TOKENIZER, HELD_OUT = FOLDERS = ("tokenizer", "held-out")
COPY = "documents.jsonl"  # in DIR.partial while a tokenizer is trained

log = logging.getLogger(__name__)
Documents = Iterable[Document]
Callback = Callable[[int, Mapping[str, float]], object]  # step and values; see loop.train


@dataclass(frozen=True)
class Corpus:
    """Documents, and a fingerprint of their source.

    A resumed run does not read them again if the fingerprint is unchanged. None, as for a pipe, never is.
    """

    documents: Documents
    source: str | None = None


@dataclass(frozen=True)
class Corpora:
    """The documents to train on, and those to compute a held-out loss on, if any."""

    training: Corpus
    held_out: Corpus | None = None


@dataclass(frozen=True)
class TrainingRun:
    """Everything that is settled before the first step. Nothing in it changes during the run."""

    work: Path  # DIR.partial
    recipe: Recipe
    plan: Plan
    blocks: Blocks
    held_out: Blocks | None
    config: PretrainedConfig
    config_hash: str  # taken first, because making a model writes into `config`
    tokenizer: PreTrainedTokenizerFast
    parent: Path | None  # the checkpoint of --init-from
    parent_hash: str | None  # of its files
    device: torch.device
    dtype: torch.dtype
    processes: Processes


def prepare(
    corpora: Corpora,
    settings: Training,
    recipe: Recipe,
    *,
    work: Path,
    device: torch.device,
    processes: Processes,
    report: Callback,
) -> TrainingRun:
    """Tokenize the documents on rank 0, and settle everything else on all ranks.

    Raises UsageError if a batch has fewer blocks than there are processes, and what the steps below raise.
    """
    manifest, held_out_manifest = processes.on_rank_zero(
        lambda: _token_files(corpora, settings, recipe, work, report)
    )
    # Rank 0 has trained the tokenizer by now, if the run trains one. Every rank loads it from the folder.
    tokenizer, _ = prepare_tokenizer(settings, (), work, reuse=True)
    config = model_config(settings, recipe, tokenizer)
    context = context_of(config)
    blocks = Blocks(work, manifest, context, recipe["data_seed"].value)
    held_out = Blocks(work / HELD_OUT, held_out_manifest, context, seed=0) if held_out_manifest else None
    return TrainingRun(
        work=work,
        recipe=recipe,
        plan=_plan(recipe, blocks, processes),
        blocks=blocks,
        held_out=held_out,
        config=config,
        config_hash=config_hash(config),
        tokenizer=tokenizer,
        parent=settings.init_from,
        parent_hash=_parent_hash(settings.init_from, processes),
        device=device,
        dtype=resolve_dtype(recipe["dtype"].value, device),
        processes=processes,
    )


def _parent_hash(parent: Path | None, processes: Processes) -> str | None:
    if parent is None:
        return None
    # The files have gigabytes, so one rank hashes them for all.
    return processes.on_rank_zero(lambda: safety.directory_hash(parent))


def _plan(recipe: Recipe, blocks: Blocks, processes: Processes) -> Plan:
    planned = plan(recipe, blocks.context, blocks.count)
    # A rank without a block would wait for gradients that nobody computes.
    if planned.batch < processes.world:
        fault = f"a batch of {planned.batch} blocks is less than one for each of {processes.world} processes"
        raise UsageError(fault, remedy="raise --batch-tokens")
    length = math.ceil(blocks.count / planned.batch)
    if planned.adapt and planned.adapt.first_choice(length, planned.steps) is None:
        log.warning(
            "--adapt has no effect: a pass takes %d steps, and none begins from step %d (--adapt-from) on "
            "and before step %d; train longer, or lower --adapt-from",
            length,
            planned.adapt.start,
            planned.adapt.until or planned.steps,
        )
    return planned


def _token_files(
    corpora: Corpora, settings: Training, recipe: Recipe, work: Path, report: Callback
) -> tuple[Manifest, Manifest | None]:
    """Make the token files of training and held-out documents. Raises DataError if either is too short."""
    # Without train.json, nothing says which documents a tokenizer in this folder was trained on.
    reuse = (work / DESCRIPTION).exists()
    tokenizer, documents = prepare_tokenizer(settings, corpora.training.documents, work, reuse=reuse)
    context = context_of(model_config(settings, recipe, tokenizer))
    corpus = Corpus(_warning_of_odd_blocks(documents, context), corpora.training.source)
    manifest = prepare_token_file(corpus, tokenizer, work, report)
    if manifest.tokens < context:
        fault = (
            f"{manifest.documents} documents have {manifest.tokens} tokens, less than one block of {context}"
        )
        raise DataError(fault, remedy="train on more, or use a model with a shorter context")
    if corpora.held_out is None:
        return manifest, None
    return manifest, _held_out_file(corpora.held_out, context, tokenizer, work)


def prepare_tokenizer(
    settings: Training, documents: Documents, work: Path, *, reuse: bool
) -> tuple[PreTrainedTokenizerFast, Documents]:
    """Load or train the tokenizer. Returns it, and the documents to tokenize.

    With `reuse`, a tokenizer that this run trained before an interruption is loaded.
    """
    if settings.init_from:
        return _checkpoint_tokenizer(settings.init_from, settings.tokenizer), documents
    if settings.tokenizer:
        return load_tokenizer(settings.tokenizer), documents
    if reuse and (work / TOKENIZER).exists():
        return _own_tokenizer(work / TOKENIZER), documents
    # Training the tokenizer reads all documents, which may come from a pipe: a copy serves the second pass.
    entries = settings.train_tokenizer or 0
    tokenizer = train_tokenizer(_texts(token_file.write_copy(documents, work / COPY)), entries)
    if (size := vocabulary_size(tokenizer)) < entries:
        log.warning("the tokenizer has %d entries, not %d: the text is too small for more", size, entries)
    with directories.whole(work / TOKENIZER) as folder:
        save_tokenizer(tokenizer, folder)
        directories.seal(folder, {})
    return tokenizer, _read_once(work / COPY)


def _own_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that this run trained before an interruption. Raises DataError if it is damaged."""
    # Version 0.1.0 wrote no seal.
    if (folder / directories.SEAL).exists() and directories.sealed(folder) is None:
        raise DataError("is damaged", place=str(folder), remedy="start over with -f")
    tokenizer: PreTrainedTokenizerFast = load_tokenizer(folder)
    return tokenizer


def _checkpoint_tokenizer(checkpoint: Path, given: Path | None) -> PreTrainedTokenizerFast:
    """The tokenizer of the checkpoint of --init-from.

    Raises ConfigurationError if the tokenizer in the directory `given` is a different one.
    """
    # Its weights only mean something together with its own tokenizer.
    safety.check_directory(checkpoint)
    tokenizer: PreTrainedTokenizerFast = load_tokenizer(checkpoint)
    if given and tokenizer_hash(load_tokenizer(given)) != tokenizer_hash(tokenizer):
        fault = f"was trained with a different tokenizer than {given}"
        raise ConfigurationError(fault, place=str(checkpoint), remedy="leave out --tokenizer")
    return tokenizer


def model_config(settings: Training, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """The configuration of the model: from a preset or a TOML file, a config.json, or a checkpoint."""
    if "layers" in recipe:
        shape = {name: recipe[name].value for name in SHAPE}
        padded = recipe["vocabulary"].value if "vocabulary" in recipe else 0
        # A tokenizer that the run trains has the requested size, whatever the vocabulary of the preset.
        return gpt2_config(tokenizer, entries=settings.train_tokenizer or padded, **shape)
    return read_config(settings.config or (settings.init_from or Path()) / "config.json", tokenizer)


def context_of(config: PretrainedConfig) -> int:
    """How many tokens the model reads, and a block has."""
    context = context_length(config)
    assert context is not None  # `read_config` refuses a configuration that does not say it
    return context


def prepare_token_file(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, folder: Path, report: Callback
) -> Manifest:
    """The token file in `folder` if its source and tokenizer are the same, else a new one."""
    source = f"{tokenizer_hash(tokenizer)} {corpus.source}" if corpus.source else None
    manifest = token_file.find(folder)
    # A pipe has no fingerprint: its documents are read again, and later compared by their hashes.
    if manifest and source and manifest.source == source:
        if not manifest.checksums:
            log.warning("%s: its token file has no checksums, so that damage would not be noticed", folder)
        return manifest
    return token_file.pack(
        corpus.documents,
        lambda texts: encode(tokenizer, texts),
        folder,
        vocabulary=vocabulary_size(tokenizer),
        separator=tokenizer.eos_token_id,
        source=source,
        report=lambda documents, tokens: report(0, {"documents": documents, "tokens": tokens}),
    )


def _warning_of_odd_blocks(documents: Documents, context: int) -> Iterator[Document]:
    """The documents. Warns at the end if blocks of ids do not fit into the context of the model."""
    odd = 0
    for document in documents:
        odd += isinstance(document, list) and len(document) % context != 0
        yield document
    # One odd block is normal: the last of a packed stream may be short.
    if odd > 1:
        log.warning(
            "the lengths of %d blocks are not multiples of the model's context of %d tokens: "
            "they are joined and cut again",
            odd,
            context,
        )


def _held_out_file(corpus: Corpus, context: int, tokenizer: PreTrainedTokenizerFast, work: Path) -> Manifest:
    """The token file of the held-out documents. Warns if some of them are training data."""
    folder = work / HELD_OUT
    folder.mkdir(exist_ok=True)
    manifest = prepare_token_file(corpus, tokenizer, folder, lambda step, values: None)
    if manifest.tokens < context:
        fault = f"the held-out data has {manifest.tokens} tokens, less than one block of {context}"
        raise DataError(fault, remedy="hold out more")
    hashes = token_file.document_hashes(folder)
    if common := int(token_file.is_known(hashes, token_file.document_hashes(work)).sum()):
        log.warning(
            "%d of %d held-out documents are in the training data: the held-out loss is too low",
            common,
            manifest.documents,
        )
    return manifest


def _texts(documents: Documents) -> Iterator[str]:
    for document in documents:
        if not isinstance(document, str):
            raise ConfigurationError(
                "cannot train a tokenizer on token ids",
                remedy="name the tokenizer that made them with --tokenizer",
            )
        yield document


def _read_once(copy: Path) -> Iterator[Document]:
    """The documents of the copy, which is as large as the corpus and therefore deleted at the end."""
    yield from token_file.read_copy(copy)
    copy.unlink()
