"""N-gram models of KenLM: against its own scores, word by word, and values worked out by hand."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, lines, records
from .small_models import ARPA

kenlm = pytest.importorskip("kenlm", reason="n-gram models need kenlm")
sentencepiece = pytest.importorskip("sentencepiece", reason="their pieces need sentencepiece")

from prune_cli.models.ngram.normalization import normalized  # noqa: E402

OTHER = ARPA.replace("-0.25\tthe fox", "-1.25\tthe fox")
TEXTS = ["the fox", "The  fox\nthe cat\n\nfox fox", "", "\n", "a\0b the\tfox\u00a0the 7", "the\nfox\r\n"]
# The binary file that KenLM 0.3.0's build_binary made of ARPA (probing).
BINARY = Path(__file__).parent / "cases" / "ngram.bin"


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


@pytest.mark.parametrize("model", ["a.arpa", BINARY], ids=["arpa", "bin"])
def test_scores_are_those_of_full_scores(model, place, here):
    source = random.Random(1)
    texts = [*TEXTS, *(" ".join(source.choices(["the", "fox", "x", "\n"], k=40)) for _ in range(20))]
    for text, record in zip(texts, scored(here, "--model", model, texts=texts), strict=True):
        if not text:
            assert (record["perplexity"], record["n_scored"]) == (None, 0)
            continue
        total, count = full(str(model), text.replace("\0", " ").split("\n"))
        assert record["n_scored"] == count
        assert record["perplexity"] == pytest.approx(10 ** (-total / count), rel=1e-5)


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
