"""Small models for the tests: a GPT-2 with random weights and a byte-level tokenizer, and texts for them."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prune_cli.models import language_model as lm

END = "<|endoftext|>"
CONTEXT = 32
PROSE = "The quick brown fox jumps over the lazy dog; näïve cafés, 日本語, and 12,345 sheep.\n"
TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "",
    "a",
    " leading space",
    PROSE * 4,  # longer than any context here
    f"before{END}after</s>",
    "日本 🙂\x00\r\n",
    "word " * 40,
]
IDS = [5, 6, 7, 8, 300, 0, 1, 2]


def byte_level_tokenizer() -> transformers.PreTrainedTokenizerFast:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator([PROSE], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learner, bos_token=END, eos_token=END)


def save(network: Any, path: Path, tokenizer: Any = None) -> Path:
    """A model directory; the weights are made four times what they start as, so that a mistake shows."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    network.save_pretrained(path)
    (tokenizer or byte_level_tokenizer()).save_pretrained(path)
    return path


def tiny_gpt2(path: Path, **more: Any) -> Path:
    torch.manual_seed(1)
    shape = {
        "vocab_size": 320,
        "n_positions": CONTEXT,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return save(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape | more)), path)


def load(path: Path, **settings: Any) -> lm.LanguageModel:
    return lm.load(str(path), lm.ModelSettings(**{"device": "cpu", "dtype": "float32", **settings}))


def edit(file: Path, **values: Any) -> None:
    """Set values in a JSON file of a model directory."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# An n-gram model.
ARPA = """\
\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-1.5\t<unk>
0\t<s>\t-0.3
-0.7\t</s>
-0.6\tthe\t-0.2
-0.8\tfox\t-0.1
-1.1\t0

\\2-grams:
-0.2\t<s> the
-0.25\tthe fox
-0.4\tfox </s>

\\end\\
"""
LABELS = ("__label__hq", "__label__cc")
WORDS = ("</s>", "good", "bad")
SOFTMAX, ONE_VS_ALL, SUPERVISED = 3, 4, 3


def classifier(
    path: Path,
    labels: Sequence[str] = LABELS,
    kind: int = SUPERVISED,
    version: int = 12,
    *,
    words: Sequence[str] = WORDS,
    vectors: Any = ((0, 0), (1, 0), (0, 1)),
    output: Any = None,
    loss: int = SOFTMAX,
    word_ngrams: int = 1,
    buckets: int = 0,
    maxn: int = 0,
) -> bytes:
    """Write a fastText classifier, of three words in two dimensions unless told. Returns the content."""
    if output is None:
        output = ((2, -1), (-1, 2))[: len(labels)]
    matrices = [np.array(rows, np.float32).reshape(len(rows), len(vectors[0])) for rows in (vectors, output)]
    # dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate, t
    numbers = (matrices[0].shape[1], 5, 1, 1, 5, word_ngrams, loss, kind, buckets, min(1, maxn), maxn, 100)
    content = struct.pack("<2i12id", 793712314, version, *numbers, 1e-4)
    content += struct.pack("<3i2q", len(words) + len(labels), len(words), len(labels), 10, -1)
    for word, is_label in [*((word, 0) for word in words), *((name, 1) for name in labels)]:
        content += word.encode() + b"\0" + struct.pack("<qb", 2, is_label)
    for matrix in matrices:
        content += b"\0" + struct.pack("<2q", *matrix.shape) + matrix.tobytes()
    path.write_bytes(content)
    return content
