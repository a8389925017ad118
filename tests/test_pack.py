"""pack: documents in, blocks out, and every token of every document in one of them."""

import io
import json
import random
import subprocess
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from prune_cli import formats  # noqa: E402
from prune_cli.models.text import tokenizer as tokenizer_module  # noqa: E402
from prune_cli.models.text.loading import load_tokenizer, train_tokenizer  # noqa: E402
from prune_cli.models.text.tokenizer import tokenizer_hash  # noqa: E402
from prune_cli.records.documents import Document  # noqa: E402
from prune_cli.records.lines import line_ends  # noqa: E402
from prune_cli.records.reader import MISSING, Batch  # noqa: E402
from prune_cli.stages.pack import blocks as stage  # noqa: E402
from prune_cli.training.model import save_tokenizer  # noqa: E402

from .conftest import SHARED, damaged, lines, records, shared, status_of, zstd  # noqa: E402

WORDS = ["lorem", "ipsum", "dolor", "ünï", "<|endoftext|>"]
END = 256  # in the stage's tests a byte is a token


def corpus(count=40, seed=1):
    dice = random.Random(seed)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(0, 30))) for _ in range(count)]
    return [
        {"id": f"doc-{index}", "text": text, "source": dice.choice("ab")} for index, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two tokenizers, and a model that was trained with the first."""
    home = tmp_path_factory.mktemp("pack")
    for name, entries in (("tokenizer", 280), ("other", 270)):
        save_tokenizer(train_tokenizer([record["text"] for record in corpus()], entries), home / name)
    (home / "small.toml").write_text(
        "layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 64\n"
    )
    (home / "corpus.jsonl").write_bytes(lines(corpus()))
    model = ["--config", home / "small.toml", "--steps", 2, home / "corpus.jsonl"]
    assert status_of("train", "--tokenizer", home / "tokenizer", "-o", home / "model", *model) == 0
    assert status_of("train", "--tokenizer", home / "other", "-o", home / "stranger", *model) == 0
    return home


def packed(here, home, *options, stdin=None, **more):
    data = lines(corpus()) if stdin is None else stdin
    return here("pack", "--tokenizer", home / "tokenizer", "--context", 32, *options, stdin=data, **more)


def stream(home, corpus):
    """All documents by plain transformers, special tokens taken as text, and EOS after each."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "tokenizer")
    found = [
        tokenizer(record["text"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for record in corpus
    ]
    return [[*ids, tokenizer.eos_token_id] for ids in found if ids]


def joined(blocks):
    return [token for block in blocks for token in block["input_ids"]]


# The stream


def test_blocks_are_the_documents_one_after_the_other(home, here):
    blocks = records(packed(here, home).stdout)
    expected = list(chain.from_iterable(stream(home, corpus())))
    assert [len(block["input_ids"]) for block in blocks] == [32] * (len(expected) // 32)
    assert joined(blocks) == expected[: len(expected) // 32 * 32]
    assert [block["id"] for block in blocks] == [f"block-{index}" for index in range(len(blocks))]
    assert all(list(block) == ["id", "input_ids", "n_tokens", "spans"] for block in blocks)
    assert all(block["n_tokens"] == 32 for block in blocks)


def test_the_last_short_block_is_kept_on_request(home, here):
    blocks = records(packed(here, home, "--last", "keep").stdout)
    assert joined(blocks) == list(chain.from_iterable(stream(home, corpus())))
    assert blocks[-1]["n_tokens"] == len(blocks[-1]["input_ids"]) < 32


def test_spans_say_where_every_token_came_from(home, here):
    documents = {
        record["id"]: ids
        for record, ids in zip([one for one in corpus() if one["text"]], stream(home, corpus()), strict=True)
    }
    found: dict[str, list[int]] = {name: [] for name in documents}
    for block in records(packed(here, home, "--last", "keep").stdout):
        assert [span["at"] for span in block["spans"]] == list(
            np.cumsum([0, *(span["tokens"] for span in block["spans"])])
        )[:-1]
        for span in block["spans"]:
            assert span["start"] == len(found[span["id"]])
            assert corpus()[span["document"]]["id"] == span["id"]
            found[span["id"]] += block["input_ids"][span["at"] : span["at"] + span["tokens"]]
    assert found == documents


def test_a_carried_field_is_that_of_most_of_the_blocks_tokens(home, here):
    done = packed(here, home, "--carry", "source,missing")
    assert b"pack: warning: no document has a field `missing` to carry" in done.stderr
    data = done.stdout
    sources = [record["source"] for record in corpus()]
    for block in records(data):
        counts = {
            name: sum(span["tokens"] for span in block["spans"] if span["source"] == name) for name in "ab"
        }
        assert counts[block["source"]] == max(counts.values())
        assert [span["source"] for span in block["spans"]] == [
            sources[span["document"]] for span in block["spans"]
        ]
        assert block["missing"] is None


def test_ids_and_carried_fields_are_as_they_were(home, here):
    value = b'[1e30, 123456789012345678901234567890, "\\u0041\\/"]'
    corpus = b'{"id":1.10,"text":"lorem","x" : ' + value + b'}\n{"text":"a"}\n'
    out = packed(here, home, "--carry", "x", "--last", "keep", "--plain", stdin=corpus).stdout
    assert out.count(b'"id":1.10,') == 1
    assert out.count(b'"x":' + value) == 2
    assert [list(span) for span in json.loads(out)["spans"]] == [
        ["document", *name, "start", "at", "tokens", "x"] for name in (["id"], [])
    ]


def test_text_inside_a_document_cannot_end_it(home, here):
    blocks = records(packed(here, home, "--last", "keep", stdin=lines([{"text": "a<|endoftext|>b"}])).stdout)
    assert [block["input_ids"].count(0) for block in blocks] == [1]


def test_documents_without_tokens_are_left_out(home, here):
    done = packed(
        here, home, "--last", "keep", "-v", stdin=lines([{"text": ""}, {"id": 7, "text": "a"}, {"text": ""}])
    )
    [block] = records(done.stdout)
    assert [(span["document"], span["id"], span["tokens"]) for span in block["spans"]] == [(1, 7, 2)]
    assert b"2 documents have no tokens" in done.stderr


def test_no_documents_give_no_blocks(home, here):
    assert b"no bytes at all" in packed(here, home, stdin=b"", status=65).stderr
    assert records(packed(here, home, "--allow-empty", stdin=b"").stdout) == []
    empty = packed(here, home, stdin=zstd(b""))
    assert (records(empty.stdout), empty.stderr) == ([], b"")
    assert b"all 2 tokens are dropped" in packed(here, home, stdin=lines([{"text": "a"}])).stderr


def test_a_successful_run_is_silent_and_repeatable(home, here, monkeypatch):
    first = packed(here, home)
    monkeypatch.setattr(stage, "CHARACTERS", 50)
    monkeypatch.setattr(tokenizer_module, "BATCH_CHARACTERS", 20)
    assert (packed(here, home).stdout, first.stderr) == (first.stdout, b"")


def test_later_documents_do_not_change_earlier_blocks(home, here):
    some, all_ = (records(packed(here, home, stdin=lines(corpus()[:count])).stdout) for count in (25, 40))
    assert all_[: len(some)] == some
    assert 0 < len(some) < len(all_)


# The stage, a byte a token


def encode(texts):
    return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def documents(texts):
    lines = b"\n" * len(texts)
    batch = Batch("corpus", range(len(texts)), lines, line_ends(lines), {"id": [MISSING] * len(texts)})
    return [Document(batch, index, text) for index, text in enumerate(texts)]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30)),
    context=st.integers(2, 40),
    keep=st.booleans(),
    batch=st.integers(1, 60),
)
def test_packing_is_a_partition(texts, context, keep, batch):
    before, stage.CHARACTERS = stage.CHARACTERS, batch
    counts = stage.PackCounts()
    try:
        made = stage.pack(documents(texts), encode, stage.BlockLayout(context, END, keep), counts)
        blocks = [json.loads(record.line) for record in made]
    finally:
        stage.CHARACTERS = before
    expected = [token for text in texts if text for token in [*text.encode(), END]]
    assert joined(blocks) == expected[: len(expected) if keep else len(expected) // context * context]
    assert all(len(block["input_ids"]) == context for block in blocks[:-1])
    assert counts.tokens + counts.dropped == len(expected)
    assert (counts.documents, counts.blocks, counts.with_eos) == (len(texts), len(blocks), 0)
    spans = [span for block in blocks for span in block["spans"]]
    assert sum(span["tokens"] for span in spans) == counts.tokens


# What it refuses


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"body": "x"}, b"no field `text`"),
        ({"text": 3}, b"`text` is a number"),
        ({"id": 1, "text": None}, b"`text` is null, not a string"),
        ({"input_ids": [1, 2]}, b"packed or tokenized already; pack documents"),
        ({"text": "a", "input_ids": [1, 2]}, b"packed or tokenized already"),
    ],
)
def test_records_that_cannot_be_packed_are_named(home, here, record, words):
    done = packed(here, home, stdin=lines([{"text": "good"}, record]), status=65)
    assert b"(standard input):2: " in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--eod", "280"], 78, b"--eod 280 is outside its vocabulary of 280; name a token"),
        (["--eod", "-1"], 2, b"invalid --eod -1: expected auto or a token id"),
        (["--eod", "end"], 2, b"invalid --eod end: expected auto"),
        (["--context", "1"], 2, b"1 is not in the range"),
        (["--carry", "source,tokens"], 2, b"--carry tokens: "),
        (["--carry", "text"], 2, b"--carry text: "),
        (["--text-field", "id"], 2, b"--text-field id"),
        (["--tokenizer", "none"], 66, b"none: is not a directory"),
    ],
)
def test_options_that_make_no_blocks_are_refused(home, here, options, status, words):
    assert words in packed(here, home, *options, status=status).stderr


def test_no_tokenizer_is_a_usage_error(here):
    assert b"--tokenizer PATH" in here("pack", stdin=b"", status=2).stderr


def test_a_tokenizer_without_eos_needs_an_option(home, here, tmp_path):
    tokenizer = load_tokenizer(home / "tokenizer")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer).save_pretrained(
        tmp_path / "endless"
    )
    assert (
        b"no EOS token"
        in here("pack", "--tokenizer", tmp_path / "endless", stdin=lines(corpus()), status=78).stderr
    )
    out = here(
        "pack", "--tokenizer", tmp_path / "endless", "--eod", 5, "--context", 32, stdin=lines(corpus())
    ).stdout
    assert sum(block["input_ids"].count(5) for block in records(out)) > 30


def test_documents_that_contain_eos_give_a_warning(home, here):
    a = records(packed(here, home, "--last", "keep", stdin=lines([{"text": "a"}])).stdout)[0]["input_ids"][0]
    assert (
        b"2 documents contain the EOS token"
        in packed(
            here,
            home,
            "--eod",
            a,
            "--last",
            "keep",
            stdin=lines([{"text": "a b a"}, {"text": "a"}, {"text": "b"}]),
        ).stderr
    )


def test_damaged_streams_are_refused(home, here, tmp_path):
    data, victim = (
        here("rank", "-k", "length", stdin=lines({**record, "length": 1} for record in corpus())).stdout,
        tmp_path / "damaged.zst",
    )
    for what, broken in damaged(data, 20):
        victim.write_bytes(broken)
        assert (
            status_of(
                "pack", "--tokenizer", home / "tokenizer", "--context", 32, victim, "-o", tmp_path / "out"
            )
            == 65
        ), what
        assert not (tmp_path / "out").exists()


# What is done with blocks


def test_blocks_are_scored_ranked_sliced_and_trained_on(home, here, tmp_path):
    data = packed(here, home, "--carry", "source").stdout
    scored = here("score", "--model", home / "model", stdin=data).stdout
    assert {record["n_scored"] for record in records(scored)} == {31}
    ranked = here("rank", "--by", "tokens", stdin=scored).stdout
    half = here("slice", "--keep", "middle", "--frac", "0.5", stdin=ranked).stdout
    assert 0 < len(records(half)) < len(records(data))
    done = here(
        "train",
        "--config",
        home / "small.toml",
        "--tokenizer",
        home / "model",
        "--steps",
        2,
        "-o",
        tmp_path / "run",
        stdin=half,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    summary = json.loads((tmp_path / "run" / "train.json").read_text())
    assert summary["data"]["documents"] == len(records(half))
    assert summary["data"]["tokens"] == 32 * len(records(half))  # no end of document is added to a block
    (tmp_path / "half.zst").write_bytes(half)
    [result] = [
        json.loads(line)
        for line in here("eval", tmp_path / "run", "--data", tmp_path / "half.zst").stdout.splitlines()
    ]
    assert result["tokens"] == 31 * len(records(half))


def test_the_counts_by_source_are_those_of_the_blocks(home, here):
    data = packed(here, home, "--carry", "source").stdout
    events, blocks = list(formats.read(io.BytesIO(data))), records(data)
    expected = {name: [sum(block["source"] == name for block in blocks)] for name in "ab"}
    assert events[-1].totals.groups == {name: (*count, 32 * count[0]) for name, count in expected.items()}
    pack = events[0].json["pack"]
    assert pack == {"tokenizer": pack["tokenizer"], "context": 32, "eod": 0, "last": "drop"}
    assert pack["tokenizer"] == tokenizer_hash(load_tokenizer(home / "model"))


def test_another_tokenizers_blocks_are_refused(home, here, tmp_path):
    ranked = here("rank", "-k", "n_tokens", stdin=packed(here, home).stdout).stdout
    (tmp_path / "foreign.jsonl").write_bytes(lines(corpus()))
    (tmp_path / "blocks").write_bytes(here("slice", "--keep", "top", "--frac", "0.5", stdin=ranked).stdout)
    both = [tmp_path / "foreign.jsonl", tmp_path / "blocks"]
    train = ["train", "--config", home / "small.toml", "--steps", 2, "-o", tmp_path / "run", *both]
    ours, theirs = (
        tokenizer_hash(load_tokenizer(home / name))[:12].encode() for name in ("other", "tokenizer")
    )
    said = here(*train, "--tokenizer", home / "other", status=78).stderr
    assert b"blocks: its blocks were packed with tokenizer " + theirs + b", not with " + ours in said
    assert (
        b"not with one that is yet to be trained" in here(*train, "--train-tokenizer", 300, status=78).stderr
    )
    assert not (tmp_path / "run").exists()
    here(*train, "--tokenizer", home / "tokenizer")
    here("eval", home / "model", "--data", tmp_path / "blocks")
    assert theirs in here("eval", home / "stranger", "--data", tmp_path / "blocks", status=78).stderr


def test_blocks_longer_than_the_context_give_a_warning(home, here, tmp_path):
    train = [
        "train",
        "--config",
        home / "small.toml",
        "--steps",
        1,
        "--tokenizer",
        home / "tokenizer",
        "-o",
        tmp_path / "run",
        "-f",
    ]
    assert here(*train, stdin=packed(here, home, "--context", 64, "--last", "keep").stdout).stderr == b""
    odd = packed(here, home, "--context", 48).stdout
    assert f"{len(records(odd))} blocks are not multiples".encode() in here(*train, stdin=odd).stderr


@shared
def test_real_documents_are_packed_as_gpt2_tokenizes_them(here):
    data = subprocess.run(
        ["zstd", "-dc", SHARED / "data" / "web.jsonl.zst"], capture_output=True, check=True
    ).stdout
    some = [json.loads(line) for line in data.splitlines()[::300]]
    out = here(
        "pack", "--tokenizer", SHARED / "data" / "gpt2-tokenizer", "--last", "keep", stdin=lines(some)
    ).stdout
    tokenizer = load_tokenizer(SHARED / "data" / "gpt2-tokenizer")
    expected = [
        tokenizer(record["text"], split_special_tokens=True, verbose=False)["input_ids"]
        for record in some
        if record["text"]
    ]
    assert joined(records(out)) == [token for ids in expected for token in [*ids, 50256]]


def test_a_group_that_blocks_do_not_carry_gives_a_warning(home, here):
    assert b"--group-by source counts nothing" in packed(here, home, "--group-by", "source").stderr
    assert packed(here, home, "--group-by", "source", "--carry", "source").stderr == b""
