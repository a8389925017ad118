"""Long texts in pieces: the very tokens of the whole, or the whole."""

import json
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from prune_cli.models.text import splitting  # noqa: E402
from prune_cli.models.text import tokenizer as tokenizer_module  # noqa: E402
from prune_cli.models.text.loading import load_tokenizer  # noqa: E402
from prune_cli.models.text.splitting import WORD_PATTERNS, splitter  # noqa: E402
from prune_cli.models.text.tokenizer import encode, specification, tokenizer_hash  # noqa: E402

from .conftest import SHARED, shared  # noqa: E402

END = "<|endoftext|>"
PROSE = [
    "the quick brown fox; it's 1984 or 19840. ünï привет、世界 かな. DON'T  stop\n\n\tnow! a_b(c) x=1,2",
    " the  dog\r\n's e\u0301 12 345",
] * 5
KNOWN = [None, *WORD_PATTERNS.values()]  # None: GPT-2's own, which the library has built in


def tokenizer(words=None, normalizer=None, before=(), added=(), model=None):
    """A byte-level tokenizer that cuts its texts into words by this expression."""
    learner = Tokenizer(model or models.BPE())
    cut = pre_tokenizers.Split(Regex(words), "isolated") if words else None
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    learner.pre_tokenizer = pre_tokenizers.Sequence([*before, *([cut] if cut else []), last])
    learner.decoder = decoders.ByteLevel()
    learner.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(PROSE, trainer)
    learner.add_tokens(list(added))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learner, eos_token=END)


def llama_2(cut="▁", **model):
    """A tokenizer of sentencepiece's kind, its vocabulary learned from texts cut at `cut`."""
    learner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, **model))
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Split(cut, "merged_with_next")
    learner.train_from_iterator(
        PROSE, trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", END, "x. y"], show_progress=False)
    )
    learner.pre_tokenizer = None
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learner, eos_token=END)


TOKENIZERS = [
    *(tokenizer(words) for words in KNOWN),
    tokenizer(normalizer=normalizers.NFC()),
    tokenizer(before=[pre_tokenizers.Digits(individual_digits=True)]),
    tokenizer(added=["x. y", "  ", " the", ". .", "a."]),
    llama_2(),
    *([load_tokenizer(SHARED / "data" / "stories260k")] if SHARED.is_dir() else []),
]


def cuts(tokenizer, special=False):
    return splitter(specification(tokenizer), special=special)


def whole(tokenizer, text, special=False):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=not special, verbose=False)[
        "input_ids"
    ]


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(" .\n\t,'xy1aäか世")
        | st.sampled_from([END, "x. y", " the", "'s", "e\u0301", "\u0301", "  ", "x ", " y", "</s>"]),
    ),
    max_size=60,
)


@pytest.mark.parametrize("which", range(len(TOKENIZERS)))
@pytest.mark.parametrize("special", [False, True])
@settings(max_examples=150, deadline=None)
@given(parts=TEXTS)
def test_pieces_have_the_tokens_of_the_whole_text(which, special, parts):
    text, one = "".join(parts), TOKENIZERS[which]
    cut = list(_short(cuts(one, special), text))
    assert "".join(cut) == text or " ".join(cut) == text
    ids = [index for piece in cut for index in whole(one, piece, special)]
    assert ids == whole(one, text, special)


def _short(cut, text):
    before, splitting.PIECE_CHARACTERS = splitting.PIECE_CHARACTERS, 1
    try:
        yield from cut(text)
    finally:
        splitting.PIECE_CHARACTERS = before


def test_pieces_have_the_intended_length_and_end_with_a_word():
    text = "the quick brown fox. " * 20_000
    found = list(cuts(TOKENIZERS[0])(text))
    assert len(found) == len(text) // splitting.PIECE_CHARACTERS + 1
    assert all(
        splitting.PIECE_CHARACTERS <= len(piece) < splitting.PIECE_CHARACTERS + 10 for piece in found[:-1]
    )
    assert all(left[-1].isalpha() and right[0] in " ." for left, right in pairwise(found))


def test_a_text_without_word_ends_stays_whole():
    assert list(cuts(TOKENIZERS[0])("-" * 200_000)) == ["-" * 200_000]
    assert list(cuts(TOKENIZERS[0])("")) == [""]


@pytest.mark.parametrize(
    "unknown",
    [
        tokenizer(r"\w+|\W"),
        tokenizer(normalizer=normalizers.Lowercase()),
        tokenizer(before=[pre_tokenizers.Punctuation()]),
        tokenizer(added=[AddedToken("the", lstrip=True)]),
        tokenizer(added=[AddedToken("the", single_word=True)]),
        tokenizer(normalizer=normalizers.NFC(), added=[AddedToken("e\u0301", normalized=True)]),
        llama_2(cut="q"),
        llama_2(ignore_merges=True),
    ],
)
def test_an_unknown_kind_of_tokenizer_gets_whole_texts(unknown):
    text = "the quick brown fox. " * 10_000
    assert list(cuts(unknown)(text)) == [text]


@shared
@pytest.mark.parametrize("which", ["gpt2-tokenizer", "stories260k"])
def test_a_real_text_of_a_megabyte_keeps_its_tokens(which):
    data = subprocess.run(
        ["zstd", "-dc", SHARED / "data" / "web.jsonl.zst"], capture_output=True, check=True
    ).stdout
    text = "\n".join(json.loads(line)["text"] for line in data.splitlines()[::50])[:1_500_000]
    real = load_tokenizer(SHARED / "data" / which)
    [ids] = encode(real, [text])
    assert ids.tolist() == whole(real, text)
    assert len(list(cuts(real)(text))) == len(text) // splitting.PIECE_CHARACTERS + 1


def test_texts_of_any_length_keep_their_order(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "BATCH_CHARACTERS", 500)
    monkeypatch.setattr(splitting, "PIECE_CHARACTERS", 100)
    texts = ["", "the fox. " * 100, "a", "-" * 700, "", "b it's. " * 50]
    assert [ids.tolist() for ids in encode(TOKENIZERS[0], texts)] == [
        whole(TOKENIZERS[0], text) for text in texts
    ]
    assert encode(TOKENIZERS[0], []) == []


def test_special_tokens_in_a_text_are_text_by_default():
    [text], [token] = (
        encode(TOKENIZERS[0], [END]),
        encode(TOKENIZERS[0], [END], special=True),
    )
    assert token.tolist() == [TOKENIZERS[0].eos_token_id]
    assert TOKENIZERS[0].eos_token_id not in text
    assert TOKENIZERS[0].decode(text) == END


def test_truncation_and_padding_are_switched_off(tmp_path):
    one = tokenizer()
    one.backend_tokenizer.enable_truncation(3)
    one.backend_tokenizer.enable_padding(length=5)
    assert [len(ids) for ids in encode(one, ["the quick brown fox", ""])] == [
        len(whole(tokenizer(), "the quick brown fox")),
        0,
    ]


def test_a_tokenizer_written_in_python_encodes_whole_texts():
    by_byte = transformers.ByT5Tokenizer()
    assert [ids.tolist() for ids in encode(by_byte, ["ab", ""])] == [[100, 101], []]


# One hash


def test_the_hash_does_not_depend_on_how_a_tokenizer_is_stored(tmp_path):
    one = tokenizer()
    (tmp_path / "bare").mkdir()
    one.backend_tokenizer.model.save(str(tmp_path / "bare"))
    bare = load_tokenizer(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "saved")
    bare.backend_tokenizer.enable_truncation(3)
    bare.backend_tokenizer.enable_padding(length=5)
    hashes = {
        tokenizer_hash(bare),
        tokenizer_hash(load_tokenizer(tmp_path / "saved")),
        tokenizer_hash(transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")),
        tokenizer_hash(transformers.GPT2Tokenizer.from_pretrained(tmp_path / "bare")),
    }
    assert len(hashes) == 1
    assert tokenizer_hash(tokenizer(added=["the"])) not in hashes
    assert tokenizer_hash(tokenizer(normalizer=normalizers.NFC())) not in hashes
