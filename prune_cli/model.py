"""Load a causal language model and its tokenizer, form batches and run them: how likely is each token of a text?

The one home of transformers. A text becomes a `Document` (tokens, the first of which is never scored), a document becomes
windows that fit the context, windows of many documents become batches, and the output layer is applied to a few rows at a time.
"""

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
import torch
import transformers
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars
from numpy.typing import NDArray
from torch import nn
from transformers.activations import NewGELUActivation

from .errors import ConfigurationError, DataError, OutOfMemoryError, UnavailableError, UsageError
from .head import Head, split
from .pretrained import tokenizer_hash, use_blocked_attention
from .safety import check_directory, is_local

log = logging.getLogger(__name__)

Content = str | Sequence[int]  # a text, or the ids of a block

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
LOADING_ERRORS = (OSError, ValueError, LookupError, RuntimeError, ImportError, AttributeError, TypeError, MemoryError)

# Tokens in a batch, padding included: on a processor no more than its cache takes between two layers; a card wants to be filled.
BATCH_TOKENS = {"cpu": 2048, "cuda": 1 << 16}
WHOLE_LOGITS_BYTES = 1 << 28  # for models whose own forward has to be used


@dataclass(frozen=True)
class Settings:
    """How a model is run. `load` gives back what `auto` and None became: they are recorded with the scores."""

    device: str = "auto"  # auto | cpu | cuda[:N]
    dtype: str = "auto"  # auto | float32 | bfloat16; auto is bfloat16 where the processor or card has it natively
    context: int | None = None  # tokens that a window feeds to the model; None: as many as it was made for
    stride: int | None = None  # tokens that a later window scores; None: the context
    bos: str = "auto"  # auto: texts get a prefix token, blocks none | always | never
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("dtype", ("auto", "float32", "bfloat16")), ("bos", ("auto", "always", "never"))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{getattr(self, name)!r} is not one of {', '.join(choices)}", place=f"--{name}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"{self.device!r} is not one of auto, cpu, cuda, cuda:N", place="--device")
        for name in ("context", "stride", "batch_tokens"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError("must be 1 or more", place=f"--{name.replace('_', '-')}")


@dataclass(frozen=True)
class Document:
    """A record as the model sees it: every token but the first is scored."""

    tokens: NDArray[np.int64]
    n_bytes: int | None  # UTF-8 bytes of the scored tokens, None where the vocabulary cannot say
    n_unknown: int = 0  # tokens that stand for text the vocabulary cannot spell

    @property
    def n_scored(self) -> int:
        return max(0, len(self.tokens) - 1)


@dataclass(frozen=True)
class TokenStatistics:
    """What the output layer says of each scored token, in order."""

    nll: NDArray[np.float32]  # negative log-likelihood, nats

    @property
    def nll_sum(self) -> float:
        return float(self.nll.sum(dtype=np.float64))


# --- loading ----------------------------------------------------------------------------------------------------------------


def load(name: str, settings: Settings = Settings()) -> "LanguageModel":
    """A model and its tokenizer, ready to score. Nothing is fetched unless `name` is a hub's; only safetensors are read.

    Raises ConfigurationError, UnavailableError (the hub did not answer), OutOfMemoryError.
    """
    _silence()
    directory = Path(name) if is_local(name) else _fetch(name)
    check_directory(directory)
    tokenizer = _load_tokenizer(directory)
    with _loading(name):
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False).get_text_config()
    settings = _resolve(settings, config, name)
    _check_vocabulary(tokenizer, config.vocab_size, name)
    return LanguageModel(name, _load_network(directory, settings, name), tokenizer, settings)


def _load_tokenizer(directory: Path) -> Any:
    with _loading(str(directory)):
        return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def _silence() -> None:
    """Standard error is for people: the libraries' bars and logs are off."""
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()


def _fetch(name: str) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except (RepositoryNotFoundError, HFValidationError):
        fault = "there is neither such a directory nor such a public model on the hub"
        raise ConfigurationError(fault, place=name, remedy="begin a path with ./") from None
    except OSError as error:
        raise UnavailableError(f"the hub cannot be reached ({_first_line(error)})", place=name, remedy="begin a path with ./") from None


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say what transformers raises in our words; what it warns of is checked by ourselves."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except LOADING_ERRORS as error:
        if _is_out_of_memory(error):
            raise OutOfMemoryError("no memory for the weights", place=name, remedy="use --dtype bfloat16 or a smaller model") from None
        fault = f"cannot be loaded ({_first_line(error)})"
        raise ConfigurationError(fault, place=name, remedy="it must be a causal language model that transformers knows") from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _resolve(settings: Settings, config: Any, name: str) -> Settings:
    """Put what this machine and this model have in place of `auto` and None."""
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ConfigurationError("there is no such device", place=device, remedy="use --device cpu")
    limit = getattr(config, "max_position_embeddings", None)
    context = settings.context or limit
    if context is None:
        raise ConfigurationError("its configuration tells no context length", place=name, remedy="name one with --context")
    if limit and context > limit:
        raise ConfigurationError(f"the model reads {limit} tokens at most", place=name, remedy=f"use --context {limit} or less")
    stride = settings.stride or context
    if stride > context:
        raise UsageError(f"a stride of {stride} passes over tokens: the context is {context}", place="--stride")
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if _has_bfloat16(device) else "float32"
    batch_tokens = settings.batch_tokens or BATCH_TOKENS[torch.device(device).type]
    return replace(settings, device=device, dtype=dtype, context=context, stride=stride, batch_tokens=batch_tokens)


def _has_bfloat16(device: str) -> bool:
    """Whether it is native: emulated it is slower than float32."""
    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return any(present for name, present in capabilities.items() if name.endswith("bf16"))


def _check_vocabulary(tokenizer: Any, size: int, name: str) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= size:
        fault = f"the tokenizer has ids up to {largest}, the model knows {size}"
        raise ConfigurationError(fault, place=name, remedy="use the tokenizer that the model was trained with")


def _load_network(directory: Path, settings: Settings, name: str) -> Any:
    loaded: Any
    with _loading(name):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        network, report = loaded
        network = network.eval().requires_grad_(False).to(settings.device)
    if report["missing_keys"]:
        fault = f"the weights lack {_some(report['missing_keys'])}"
        raise ConfigurationError(fault, place=name, remedy="config.json is of another model, or this is no language model")
    if report["unexpected_keys"]:
        log.warning("%s: the model has no use for some weights: %s", name, _some(report["unexpected_keys"]))
    _fuse_gelu(network)
    if (settings.device, settings.dtype) == ("cpu", "bfloat16"):
        use_blocked_attention(network)
    return network


def _some(names: set[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


def _fuse_gelu(network: nn.Module) -> None:
    """GPT-2's GELU is written out in eight operations, which take as long as a third of its matrix products; torch has it as one."""
    for module in list(network.modules()):
        for child, layer in list(module.named_children()):
            if isinstance(layer, NewGELUActivation):
                setattr(module, child, nn.GELU(approximate="tanh"))


# --- the model --------------------------------------------------------------------------------------------------------------


class LanguageModel:
    """Says how likely texts are. `settings` has no `auto` left in it."""

    def __init__(self, name: str, network: Any, tokenizer: Any, settings: Settings) -> None:
        self.name, self.tokenizer, self.settings = name, tokenizer, settings
        assert settings.context is not None  # `load` has put numbers in their place
        assert settings.stride is not None
        assert settings.batch_tokens is not None
        self._context, self._stride, self._batch_tokens = settings.context, settings.stride, settings.batch_tokens
        self._device = torch.device(settings.device)
        self.vocabulary: int = network.config.get_text_config().vocab_size
        self._prefix = _prefix(tokenizer, settings.bos, name)
        self._lengths = token_lengths(tokenizer, self.vocabulary)
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)  # GPT-2 says `<unk>` and means its end of text
        self._unknown = tokenizer.unk_token_id if tokenizer.unk_token_id not in ends else None
        self._trunk, layer = split(network, self.vocabulary, min(8, self._context), name)
        self._head = Head(layer, self.vocabulary, getattr(torch, settings.dtype), self._device)
        if layer is None:
            log.info("%s: its output is more than a matrix product; its own forward is used, which is slower", name)
            self._batch_tokens = min(self._batch_tokens, max(1, WHOLE_LOGITS_BYTES // (4 * self.vocabulary)))

    @property
    def tokenizer_hash(self) -> str:
        """The same for two tokenizers that turn every text into the same ids."""
        return tokenizer_hash(self.tokenizer)

    def encode(self, content: Content) -> Document:
        """One record's tokens. Raises DataError for an id that the model does not know."""
        return self.encode_many([content])[0]

    def encode_many(self, contents: Sequence[Content], place: Callable[[int], str] = "record {}".format) -> list[Document]:
        """Many records' tokens, the texts in parallel. `place` names the record at an index, for errors.

        A text gets the model's BOS in front (else its EOS), a block gets nothing, unless the settings say otherwise: then every
        token that the record itself has is scored, or all but its first.
        """
        texts = [content for content in contents if isinstance(content, str)]
        ids = iter(self._tokenize(texts))
        return [
            self._text(content, next(ids)) if isinstance(content, str) else self._block(content, place(index))
            for index, content in enumerate(contents)
        ]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """No special tokens: a BOS that the tokenizer would add itself must not be doubled."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, padding=False, truncation=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids

    def _text(self, text: str, ids: list[int]) -> Document:
        prefix = self._prefix if self.settings.bos != "never" else []
        n_bytes: int | None = len(text.encode())
        if ids and not prefix:
            n_bytes = self._without_first(len(text.encode()), ids)
        unknown = 0 if self._unknown is None else ids.count(self._unknown)
        return Document(np.array([*prefix, *ids], dtype=np.int64), n_bytes, unknown)

    def _without_first(self, n_bytes: int, ids: list[int]) -> int | None:
        """A text's bytes without its first token's; the space that sentencepiece puts in front of a text is not the text's."""
        if self._lengths is None:
            return None
        added = max(0, int(self._lengths[ids].sum()) - n_bytes)
        return n_bytes - max(0, int(self._lengths[ids[0]]) - added)

    def _block(self, ids: Sequence[int], place: str) -> Document:
        if len(ids) and not 0 <= min(ids) <= max(ids) < self.vocabulary:
            fault = f"input_ids has {min(ids) if min(ids) < 0 else max(ids)}, and the model knows the ids from 0 to {self.vocabulary - 1}"
            raise DataError(fault, place=place, remedy="use the model that the blocks were packed for")
        prefix = self._prefix if self.settings.bos == "always" else []
        tokens = np.array([*prefix, *ids], dtype=np.int64)
        n_bytes = None if self._lengths is None else int(self._lengths[tokens[1:]].sum())
        return Document(tokens, n_bytes)

    @torch.inference_mode()
    def token_statistics(self, documents: Sequence[Document]) -> list[TokenStatistics]:
        """Score every token but the first of each document, exactly once, in batches made from all of them.

        The longest windows come first, so that memory is at its highest at once. Where it runs out, batches are halved for
        the rest of the run. Raises OutOfMemoryError when a single window is too much.
        """
        nll = [np.empty(document.n_scored, np.float32) for document in documents]
        rows = self._rows(documents)
        while rows:
            batch = rows[: max(1, self._batch_tokens // self._padded(rows[0].width))]
            values = self._try(batch, documents)
            if values is None:
                continue
            for row, value in zip(batch, np.split(values, np.cumsum([row.end - row.first for row in batch])[:-1]), strict=True):
                nll[row.document][row.first - 1 : row.end - 1] = value
            rows = rows[len(batch) :]
        return [TokenStatistics(each) for each in nll]

    def _rows(self, documents: Sequence[Document]) -> "list[_Row]":
        rows = [
            _Row(index, *window)
            for index, document in enumerate(documents)
            for window in windows(len(document.tokens), self._context, self._stride)
        ]
        return sorted(rows, key=lambda row: -row.width)

    def _padded(self, width: int) -> int:
        """The next of a few dozen widths: a processor's matrix products keep code and buffers for every shape they have met."""
        step = 8 if width <= 64 else 32
        return min(-(-width // step) * step, self._context)

    def _try(self, batch: "list[_Row]", documents: Sequence[Document]) -> NDArray[np.float32] | None:
        """The batch's likelihoods; None, and smaller batches from now on, when memory runs out."""
        try:
            return self._run(batch, documents)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if len(batch) == 1:
            raise OutOfMemoryError(f"a window of {batch[0].width} tokens is too much", place=self.name, remedy="lower --context")
        self._batch_tokens = len(batch) // 2 * batch[0].width
        log.warning("out of memory: going on with batches of %d tokens", self._batch_tokens)
        return None

    def _run(self, batch: "list[_Row]", documents: Sequence[Document]) -> NDArray[np.float32]:
        """Pad on the right, without a mask: causal attention never looks there. Only scored positions reach the output layer."""
        shape = (len(batch), self._padded(batch[0].width))  # (B, T)
        inputs, targets, scored = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
        for at, row in enumerate(batch):
            tokens = documents[row.document].tokens[row.start : row.end]
            inputs[at, : row.width], targets[at, : row.width] = tokens[:-1], tokens[1:]
            scored[at, row.first - row.start - 1 : row.width] = True
        keep = torch.from_numpy(scored).to(self._device)
        hidden = self._trunk(torch.from_numpy(inputs).to(self._device))[keep]  # (R, D)
        values: NDArray[np.float32] = self._head(hidden, torch.from_numpy(targets).to(self._device)[keep]).cpu().numpy()
        return values


class _Row(NamedTuple):
    """A window of a document: `tokens[start:end]` are read, `tokens[first:end]` are scored."""

    document: int
    start: int
    end: int
    first: int

    @property
    def width(self) -> int:
        """Tokens fed to the model: the last one is only predicted."""
        return self.end - self.start - 1


def windows(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cut a sequence of tokens, the first of which is not scored, into windows (start, end, first scored) that fit the context.

    A window reads `tokens[start:end]`: it feeds all but the last to the model, at most `context`, and scores `tokens[first:end]`.
    The first scores `context` tokens; each later one the next `stride`, with as much left context as fits; the last ends at the
    end. Every token is scored exactly once. At stride = context these are lm-evaluation-harness's rolling windows.
    """
    if length < 2:
        return
    end = min(length, context + 1)
    yield 0, end, 1
    while end < length:
        first, end = end, min(end + stride, length)
        yield end - context - 1, end, first


# --- the tokenizer ----------------------------------------------------------------------------------------------------------


def _prefix(tokenizer: Any, bos: str, name: str) -> list[int]:
    """The token that stands before a text: BOS, else EOS, as in lm-evaluation-harness."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None and bos == "always":
        raise ConfigurationError("the tokenizer has neither BOS nor EOS", place=name, remedy="use --bos never")
    return [] if token is None else [token]


def token_lengths(tokenizer: Any, vocabulary: int) -> NDArray[np.int64] | None:
    """How many bytes of text each id stands for, special tokens 0; None unless the vocabulary is made of bytes.

    In byte-level BPE each character of a token stands for one byte; with byte fallback ▁ is a space and <0x0A> a byte.
    """
    spec = _specification(tokenizer)
    byte_level = "ByteLevel" in json.dumps(spec.get("decoder"))
    if not byte_level and not spec["model"].get("byte_fallback"):
        return None
    lengths = np.zeros(vocabulary, np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token) if byte_level else _sentencepiece_length(token)
    for added in spec["added_tokens"]:
        lengths[added["id"]] = len(added["content"].encode())
    lengths[tokenizer.all_special_ids] = 0
    return lengths


def _specification(tokenizer: Any) -> dict[str, Any]:
    """What its tokenizer.json says; of the few tokenizers that have none, the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec: dict[str, Any] = json.loads(backend.to_str()) if backend else {"model": {"vocab": tokenizer.get_vocab()}}
    return spec


def _sentencepiece_length(token: str) -> int:
    return 1 if BYTE_TOKEN.fullmatch(token) else len(token.replace("▁", " ").encode())
