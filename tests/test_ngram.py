"""N-gram models of KenLM: against its own scores, word by word, and values worked out by hand."""

import math
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import ROOT, lines, records
from .small_models import ARPA

kenlm = pytest.importorskip("kenlm", reason="n-gram models need kenlm")
sentencepiece = pytest.importorskip("sentencepiece", reason="their pieces need sentencepiece")

from prune_cli.models.ngram.binary_file import MAGIC, BinaryFile  # noqa: E402
from prune_cli.models.ngram.hash_table import ABSENT, TableOf32Bits, TableOf64Bits  # noqa: E402
from prune_cli.models.ngram.normalization import normalized  # noqa: E402
from prune_cli.models.ngram.probing import ProbingModel  # noqa: E402

OTHER = ARPA.replace("-0.25\tthe fox", "-1.25\tthe fox")
TEXTS = ["the fox", "The  fox\nthe cat\n\nfox fox", "", "\n", "a\0b the\tfox\u00a0the 7", "the\nfox\r\n"]
CASES = Path(__file__).parent / "cases"
# What KenLM 0.3.0's build_binary made: of ARPA, and of a model of order 5 by lmplz, from 70 lines of words of
# 1 to 33 letters. The tables of that one are nearly full (-p 1.1): most entries are not at their first place.
BINARY = CASES / "ngram.bin"
OF_ORDER_5 = CASES / "ngram-of-order-5.bin"
TRIE = CASES / "ngram-trie.bin"  # of the same model


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with two models."""
    monkeypatch.chdir(tmp_path)
    Path("a.arpa").write_text(ARPA)
    Path("b.arpa").write_text(OTHER)
    return tmp_path


def scored(here, *arguments: object, texts=TEXTS):
    corpus = lines({"text": text} for text in texts)
    return records(here("score", *arguments, "--plain", stdin=corpus).stdout)


def full(path: str, sentences: list[str]) -> tuple[float, int]:
    """Σ log10 p and the number of tokens, by KenLM's scores of single words."""
    model = kenlm.Model(path)
    scores = [score for line in sentences for score, _, _ in model.full_scores(line)]
    return sum(scores), len(scores)


def test_perplexity_by_hand(place, here):
    """log10 p: -0.2 for "the" at the beginning, -0.25 for "fox" behind it, -0.4 for the end."""
    [record] = scored(here, "--model", "a.arpa", "-m", "perplexity", "-m", "bits_per_byte", texts=["the fox"])
    assert record["perplexity"] == pytest.approx(10 ** (0.85 / 3))
    assert record["bits_per_byte"] == pytest.approx(0.85 * math.log2(10) / 7)
    assert record["nll_sum"] == pytest.approx(0.85 * math.log(10))
    assert (record["n_scored"], record["n_bytes"]) == (3, 7)


def words_of(path: Path) -> list[str]:
    """The words at the end of a binary file."""
    content = path.read_bytes()
    return content[content.index(b"<unk>\0") :].decode().rstrip("\0").split("\0")


def texts_of(words: list[str]) -> list[str]:
    """Texts of known and unknown words, of empty lines, and of everything that separates words."""
    source = random.Random(1)
    separators = [" "] * 8 + ["\n", "  ", "\n\n", "\t", "\r\n", "\v\f", "\0", "\u00a0"]
    some = [*words, "x" * 40, "unknown", "<s>", "</s>", "<unk>"]
    return [
        "".join(source.choice(some) + source.choice(separators) for _ in range(source.randint(1, 60)))
        for _ in range(40)
    ]


@pytest.mark.parametrize(
    "model", ["a.arpa", BINARY, OF_ORDER_5, TRIE], ids=["arpa", "bin", "order 5", "trie"]
)
def test_scores_are_those_of_full_scores(model, place, here):
    words = ["the", "fox", "x"] if model in ("a.arpa", BINARY) else words_of(OF_ORDER_5)
    texts = [*TEXTS, *texts_of(words)]
    for text, record in zip(texts, scored(here, "--model", model, texts=texts), strict=True):
        if not text:
            assert (record["perplexity"], record["n_scored"], record["nll_sum"]) == (None, 0, 0)
            continue
        total, count = full(str(model), text.replace("\0", " ").split("\n"))
        assert record["n_scored"] == count
        assert record["perplexity"] == pytest.approx(10 ** (-total / count), rel=1e-5)


@pytest.mark.parametrize("path", [BINARY, OF_ORDER_5], ids=["order 2", "order 5"])
def test_tables_give_the_bits_of_kenlm(path):
    model = kenlm.Model(str(path))
    texts = [text.replace("\0", " ").encode() for text in texts_of(words_of(path))]
    texts += [b"", b"\n", b" ".join(texts[:9] * 20), b"\n".join(texts * 70)]
    tables = BinaryFile.of(path)
    assert tables is not None
    wanted = [
        sum(score for line in text.decode().split("\n") for score, _, _ in model.full_scores(line))
        for text in texts
    ]
    # In double precision, sums of so few numbers in single precision are exact.
    assert ProbingModel(tables).sums(texts) == wanted
    assert [ProbingModel(tables).sums([text]) for text in texts] == [[total] for total in wanted]


def test_only_hash_tables_are_read_as_such(place):
    assert BinaryFile.of(Path("a.arpa")) is None
    assert BinaryFile.of(TRIE) is None
    # More places for each entry than its tables have.
    content = bytearray(OF_ORDER_5.read_bytes())
    struct.pack_into("<f", content, len(MAGIC) + 4, 1.25)
    Path("other.bin").write_bytes(content)
    assert BinaryFile.of(Path("other.bin")) is None


def test_damaged_tables_end_a_search(tmp_path):
    """KenLM reads them before us, where it is installed."""
    texts = [text.replace("\0", " ").encode() for text in texts_of(words_of(OF_ORDER_5))]
    source = random.Random(0)
    path = tmp_path / "damaged.bin"
    n_read = 0
    for damage in range(60):
        content = bytearray(OF_ORDER_5.read_bytes())
        start = source.randrange(len(MAGIC), len(content))
        end = min(start + source.choice([1, 20, 9000]), len(content))
        content[start:end] = b"\xff" * (end - start) if damage % 2 else source.randbytes(end - start)
        path.write_bytes(content)
        if tables := BinaryFile.of(path):
            n_read += 1
            assert len(ProbingModel(tables).sums(texts)) == len(texts)
    assert n_read > 20


def test_a_likelihood_that_is_no_number_is_refused(place, here):
    content, tables = OF_ORDER_5.read_bytes(), BinaryFile.of(OF_ORDER_5)
    unigrams = tables.unigrams.tobytes()
    Path("nan.bin").write_bytes(content.replace(unigrams, b"\xff" * len(unigrams)))
    done = here("score", "--model", "nan.bin", "--plain", stdin=lines([{"text": "a"}]), status=65)
    assert b"(standard input):1: the model's log-likelihood of it is nan" in done.stderr


def test_kenlm_scores_what_it_reads_differently(place, here, monkeypatch):
    texts = texts_of(words_of(OF_ORDER_5))
    before = scored(here, "--model", OF_ORDER_5, texts=texts)
    monkeypatch.setattr(ProbingModel, "sums", lambda self, texts: [0.0] * len(texts))
    corpus = lines({"text": text} for text in texts)
    done = here("score", "--model", OF_ORDER_5, "--plain", stdin=corpus)
    assert b"ngram-of-order-5.bin: KenLM reads it differently" in done.stderr
    for record, other in zip(records(done.stdout), before, strict=True):
        assert record["nll_sum"] == pytest.approx(other["nll_sum"], rel=1e-6)


def test_hash_tables_need_no_kenlm(place, here, monkeypatch):
    texts = texts_of(words_of(OF_ORDER_5))
    before = scored(here, "--model", OF_ORDER_5, texts=texts)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    assert scored(here, "--model", OF_ORDER_5, texts=texts) == before
    done = here("score", "--model", TRIE, "--plain", stdin=lines([{"text": "a"}]), status=78)
    assert b"ngram-trie.bin: an n-gram model without hash tables needs kenlm; pip install" in done.stderr


@pytest.mark.parametrize("table", [TableOf32Bits, TableOf64Bits])
@pytest.mark.parametrize(
    "load", [0.3, 0.99, 1], ids=["empty", "nearly full", "full, as only damage makes it"]
)
def test_every_key_is_found(table, load):
    source = np.random.default_rng(3)
    count = 2000
    keys = source.integers(1, 1 << 63, int(load * count), np.uint64)
    absent = source.integers(1, 1 << 63, 500, np.uint64)
    value_type = "<u8" if table is TableOf64Bits else "<u4"
    entries = np.zeros(count, [("key", "<u8"), ("value", value_type)])
    for number, key in enumerate(keys.tolist()):
        place = key % count
        while entries["key"][place]:
            place = (place + 1) % count
        entries[place] = key, number
    # It begins where no number of eight bytes is aligned.
    data = np.frombuffer(bytes(4) + entries.tobytes(), np.uint8)[4:]
    places = table(data).find(np.concatenate([keys, absent]))
    assert (places[len(keys) :] == ABSENT).all()
    assert table(data).values(places[: len(keys)]).tolist() == list(range(len(keys)))


def test_ensembles_and_two_model_scores(place, here):
    names = ("-m", "perplexity", "-m", "excess_loss", "-m", "perplexity_ratio", "-m", "excess_bits_per_byte")
    out = scored(here, *names, "--model", "a.arpa", "--against", "b.arpa")
    both = scored(here, "--model", "a.arpa", "--model", "b.arpa", "--per-model")
    for text, record, together in zip(TEXTS, out, both, strict=True):
        if not text:
            assert record["excess_loss"] is together["perplexity"] is None
            continue
        sentences = text.replace("\0", " ").split("\n")
        (first, count), (second, _) = full("a.arpa", sentences), full("b.arpa", sentences)
        excess = (second - first) * math.log(10)
        assert record["excess_loss"] == pytest.approx(excess / count, abs=1e-6)
        assert record["perplexity_ratio"] == pytest.approx(math.exp(excess / count), rel=1e-5)
        assert record["excess_bits_per_byte"] == pytest.approx(
            excess / math.log(2) / len(text.encode()), abs=1e-6
        )
        assert together["perplexity"] == pytest.approx(10 ** (-(first + second) / 2 / count), rel=1e-5)
        assert together["perplexity_2"] == pytest.approx(10 ** (-second / count), rel=1e-5)


def test_normalization_of_ccnet_by_hand(place, here):
    assert normalized(" Ça coûte 12 € — «oui»…\t") == 'ca coute 00 €  -  "oui"...'
    assert normalized("１２３ Ⅳ，。！") == "000 ⅳ,.!"
    assert normalized("\u200bTabs\tgo\x7f") == "\u200btabsgo"
    [record] = scored(here, "--model", "a.arpa", "--normalize", "ccnet", texts=["THÉ 7\nFox "])
    total, count = full("a.arpa", ["the 0", "fox"])
    assert (record["n_scored"], record["n_bytes"]) == (count, 11)
    assert record["perplexity"] == pytest.approx(10 ** (-total / count), rel=1e-5)


def test_pieces_of_sentencepiece_are_tokens(place, here):
    texts = ["the fox and the dog", "a fox\n\nthe 日本語 fox"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix="sp", vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file="sp.model")
    out = scored(here, "--model", "a.arpa", "--tokenizer", "sp.model", texts=texts[:2])
    for text, record in zip(texts, out, strict=False):
        total, count = full(
            "a.arpa", [" ".join(pieces.encode(line, out_type=str)) for line in text.split("\n")]
        )
        assert record["n_scored"] == count
        assert record["perplexity"] == pytest.approx(10 ** (-total / count), rel=1e-5)


def test_an_ngram_model_needs_no_torch(place):
    script = (
        "import sys; from prune_cli import cli; status = cli.run(['score', '--model', 'a.arpa', '--plain']);"
        "print(status, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=lines([{"text": "the fox"}]),
        capture_output=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == b"0 False\n"


def test_the_head_says_how_tokens_were_made(place, here):
    corpus = lines([{"text": "the fox"}])
    Path("c.jsonl").write_bytes(corpus)
    run = ("score", "--model", "a.arpa", "-O", "out", "c.jsonl")
    here(*run)
    here(*run)  # finished: the same hashes without loading
    said = here("score", "--model", "b.arpa", "-O", "out", "c.jsonl", status=78).stderr
    assert b"models" in said
    assert b"normalize" in here(*run, "--normalize", "ccnet", status=78).stderr


def damaged(name: str, status: int, said: str, content: bytes | None = None, *more: str):
    return pytest.param(name, content, more, status, said, id=f"{name} {said[:20]}")


@pytest.mark.parametrize(
    ("name", "content", "more", "status", "said"),
    [
        damaged("no.arpa", 66, "no.arpa: no such file"),
        damaged("cut.arpa", 78, "cut.arpa: KenLM cannot load it: ", ARPA[:-60].encode()),
        damaged("cut.bin", 78, "cut.bin: KenLM cannot load it: ", BINARY.read_bytes()[:-200]),
        damaged("head.bin", 78, "head.bin: KenLM cannot load it: ", BINARY.read_bytes()[:90]),
        damaged(
            "old.bin",
            78,
            "old.bin: KenLM cannot load it: Binary file has version 4 but",
            BINARY.read_bytes().replace(b"version 5", b"version 4"),
        ),
        damaged("text.bin", 78, "text.bin: KenLM cannot load it: ", b"not a model\n"),
        damaged("a.arpa", 66, "sp.model: no such file", None, "--tokenizer", "sp.model"),
        damaged("a.arpa", 78, "a.arpa: sentencepiece cannot load it", None, "--tokenizer", "a.arpa"),
        damaged("a.arpa", 2, "entropy needs the probabilities of all tokens", None, "-m", "entropy"),
        damaged("a.arpa", 2, "--self-check", None, "--self-check", "3"),
        damaged("a.arpa", 78, "all models of an ensemble must have the same", None, "--model", "{reference}"),
    ],
)
def test_models_that_cannot_be_used(name, content, more, status, said, place, here):
    from prune_cli import reference

    if content is not None:
        Path(name).write_bytes(content)
    Path("c.jsonl").write_bytes(lines([{"text": "the fox"}]))
    options = [word.format(reference=reference.DIRECTORY) for word in more]
    done = here("score", "--model", name, *options, "-o", "out.zst", "c.jsonl", status=status)
    assert said in done.stderr.decode()
    assert not Path("out.zst").exists()


def test_options_of_ngram_models_need_one(here):
    said = here("score", "-m", "perplexity", "--normalize", "ccnet", stdin=b"", status=2).stderr
    assert b"--normalize has no effect: no model is an n-gram model" in said


def test_a_block_of_ids_is_named(place, here):
    said = here("score", "--model", "a.arpa", stdin=b'{"text":"a"}\n{"input_ids":[1]}\n', status=65).stderr
    assert b"(standard input):2: an n-gram model reads texts" in said


@pytest.mark.sweep
def test_workers_share_the_model(place, here):
    Path("c.jsonl").write_bytes(lines({"text": text} for text in TEXTS * 50))
    alone = here("score", "--model", BINARY, "--plain", "c.jsonl").stdout
    assert here("score", "--model", BINARY, "--plain", "-j", 2, "c.jsonl").stdout == alone
