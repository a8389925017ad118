"""Byte-level tokenizers learned from a sentence, and texts of many scripts that test how they cut."""

import random

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from prune_cli.texts.tokens import merges

PROSE = (
    "the quick brown fox; it's 1984 or 19840. ünï привет, мир. 世界 かな. DON'T  stop\n\n\tnow! a_b(c) x=1,2"
)


def learned_tokenizer(words: str | None, normalizer=None, model=None) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer that cuts its texts into words by this expression."""
    learner = Tokenizer(model or models.BPE())
    cut = [pre_tokenizers.Split(Regex(words), "isolated")] if words else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    learner.pre_tokenizer = pre_tokenizers.Sequence([*cut, last])
    learner.decoder = decoders.ByteLevel()
    learner.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator([PROSE] * 9, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learner)


def random_text(source: random.Random) -> str:
    """Words of many scripts, stops and white space in any order."""
    parts = ["the", "Fox", "it's", "1984", "ü", "привет", "世界", "e\u0301", "\U0001f600", "_", "(", "\u3002"]
    parts += [" ", " ", "  ", "\n", "\r\n", "\t", ",", ".", "!?", ";", ":", "'s", "'", "'ll", "'Ve", "''t"]
    parts += ["iPhone", "x" * merges.LONGEST, "\0", "-", "/a", "#", "NASA"]
    parts += [
        "\n/",
        "/",
        "\n ",
        "   ",
        "\r",
        "\u00a0",
        "“",
        "”",
        "é",
        "12345",
        "²",
        "<",
        "\u0338",
        "=",
        "ß.",
        "ж'",
        "'d",
    ]
    return "".join(source.choices(parts, k=source.choice([0, 1, 2, 5, 60])))
