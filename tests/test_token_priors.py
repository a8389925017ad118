"""Token priors and the counts they come from, against whole texts that the tokenizer itself took apart."""

import json
import math
import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from prune_cli.models.text.splitting import WORD_PATTERNS
from prune_cli.models.text.tokenizer import specification
from prune_cli.settings.stat import Inspection
from prune_cli.settings.streams import Reading
from prune_cli.stages.stat.describing import subjects
from prune_cli.stages.stat.run import OneStatJob, StatStage
from prune_cli.terminal import silent
from prune_cli.texts import priors, token_lookup
from prune_cli.texts.tokens import merges

from .conftest import lines, records
from .small_models import TEXTS, byte_level_tokenizer
from .small_tokenizers import PROSE, learned_tokenizer, random_text


@pytest.mark.parametrize("words", [None, *WORD_PATTERNS.values()], ids=["built in", *WORD_PATTERNS])
def test_pieces_have_the_tokens_of_the_whole(words, monkeypatch):
    monkeypatch.setattr(token_lookup, "JOINED", 7)
    monkeypatch.setattr(priors, "BATCH_CHARACTERS", 3000)
    one = learned_tokenizer(words)
    source = random.Random(0)
    texts = [random_text(source) for _ in range(900)]
    counter = priors.TokenCounter(one)
    assert counter._pieces._rules.cuts
    assert counter._pieces._is_merging
    for at in range(0, len(texts), 90):
        counter.add(texts[at : at + 90])
    expected = Counter(token for text in texts for token in one(text)["input_ids"])
    counts = counter.take()
    assert counter._pieces._is_merging
    assert {token: n for token, n in enumerate(counts.counts.tolist()) if n} == expected
    assert counts.documents == 900
    # Forgetting changes nothing.
    monkeypatch.setattr(priors, "MOST_PIECES", 50)
    for at in range(0, len(texts), 90):
        counter.add(texts[at : at + 90])
    assert (counter.take().counts == counts.counts).all()
    logs = np.log(np.maximum(counts.counts, 1) / counts.counts.sum())
    found = priors.TokenPriors(one, counts).moments(texts)
    for text, moments in zip(texts, found, strict=True):
        own = logs[one(text)["input_ids"]]
        assert moments == (pytest.approx((own.mean(), own.var())) if len(own) else None)


def test_merges_that_the_tokenizer_does_not_make_are_not_used(monkeypatch):
    one = learned_tokenizer(None)
    wrong = merges.Merges(one.get_vocab(), [])
    monkeypatch.setattr(token_lookup, "merges_of", lambda specification: wrong)
    counter = priors.TokenCounter(one)
    counter.add([PROSE])
    assert dict(Counter(one(PROSE)["input_ids"])) == tokens_of(counter)
    assert not counter._pieces._is_merging


def tokens_of(counter: priors.TokenCounter) -> dict[int, int]:
    return {token: n for token, n in enumerate(counter.take().counts.tolist()) if n}


@pytest.mark.parametrize(
    "model",
    [{"dropout": 0.5}, {"ignore_merges": True}, {"byte_fallback": True}, {"end_of_word_suffix": "</w>"}],
)
def test_models_that_do_more_than_merge_have_no_merges(model):
    content = specification(learned_tokenizer(None))
    assert merges.merges_of(content) is not None
    assert merges.merges_of(content | {"model": content["model"] | model}) is None


def test_a_score_does_not_depend_on_the_texts_beside_it():
    one = learned_tokenizer(None)
    source = random.Random(1)
    texts = [random_text(source) for _ in range(200)] + ["stop, ", "a word", "stop,", " a"]
    counter = priors.TokenCounter(one)
    counter.add(texts)
    own = priors.TokenPriors(one, counter.take())
    together = own.moments(texts)
    assert [own.moments([text])[0] for text in texts] == together


def test_a_tokenizer_without_words_takes_texts_whole():
    learner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    counter = priors.TokenCounter(transformers.PreTrainedTokenizerFast(tokenizer_object=learner))
    counter.add(["a b a", "c", "", [1, 1]])
    assert counter.take().counts.tolist() == [2, 3, 1]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a tokenizer `t` and a corpus in two files."""
    byte_level_tokenizer().save_pretrained(tmp_path / "t")
    monkeypatch.chdir(tmp_path)
    for name, texts in {"a": TEXTS[::2], "b": TEXTS[1::2]}.items():
        Path(f"{name}.jsonl").write_bytes(lines({"text": text} for text in texts))
    return tmp_path


COUNT = ("stat", "--tokenizer", "t", "--token-counts")
SCORE = ("score", "-m", "token_prior_mean", "-m", "token_prior_std", "--tokenizer", "t", "--plain")


def test_counts_of_parts_are_those_of_the_whole(place, here):
    here(*COUNT, "both.json", "a.jsonl", "b.jsonl")
    here(*COUNT, "a.json", "a.jsonl")
    here(*COUNT, "b.json", "b.jsonl")
    both = Path("both.json").read_bytes()
    whole = here(*SCORE, "--priors", "both.json", "a.jsonl").stdout
    assert here(*SCORE, "--priors", "a.json", "--priors", "b.json", "a.jsonl").stdout == whole
    one = byte_level_tokenizer()
    one.backend_tokenizer.encode_special_tokens = True  # one that is spelled out is ordinary text
    expected = Counter(token for text in TEXTS for token in one.backend_tokenizer.encode(text).ids)
    found = json.loads(both)
    assert {token: n for token, n in enumerate(found["counts"]) if n} == expected
    assert found["documents"] == len(TEXTS)


def test_a_worker_counts_one_file_after_the_other(place, here):
    here(*COUNT, "both.json", "a.jsonl", "b.jsonl")
    stage = StatStage(Inspection(token_counts="x.json", tokenizer=Path("t")), Reading())
    worker = pickle.loads(pickle.dumps(stage)).open()
    jobs = [OneStatJob(subject) for subject in subjects(["a.jsonl", "b.jsonl"])]
    first, second = (worker.do(job, silent()).token_counts for job in jobs)
    assert (first + second).to_json() == Path("both.json").read_bytes()


def test_token_priors_by_hand(place, here):
    """Of four tokens three are "a" and one is "b"; "c" was never counted, and is taken as counted once."""
    one = byte_level_tokenizer()
    [a], [b], [c] = (one(letter)["input_ids"] for letter in "abc")
    corpus = [{"input_ids": [a, a, b]}, {"text": "a"}]
    here(*COUNT, "counts.json", stdin=lines(corpus))
    texts = [{"input_ids": [a, b]}, {"text": "a"}, {"text": "c"}, {"text": ""}, {"input_ids": [c, b]}]
    out = records(here(*SCORE, "--priors", "counts.json", stdin=lines(texts)).stdout)
    frequent, rare = math.log(3 / 4), math.log(1 / 4)
    assert [record["token_prior_mean"] for record in out] == [
        *(pytest.approx(value) for value in ((frequent + rare) / 2, frequent, rare)),
        None,
        pytest.approx(rare),
    ]
    assert [record["token_prior_std"] for record in out] == [
        *(pytest.approx(value, abs=1e-7) for value in (math.log(3) / 2, 0, 0)),
        None,
        pytest.approx(0, abs=1e-7),
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["score", "-m", "token_prior_std"], 2, "token_prior_std needs --priors"),
        (["score", "-m", "token_prior_std", "--priors", "c.json"], 2, "--priors needs --tokenizer"),
        (["score", "-m", "random", "--priors", "c.json"], 2, "--priors has no effect"),
        ([*SCORE, "--priors", "missing.json"], 66, "missing.json: "),
        ([*SCORE, "--priors", "a.jsonl"], 65, "a.jsonl: is no file of token counts; make one with "),
        ([*SCORE, "--priors", "foreign.json"], 78, "foreign.json: its tokens were made by tokenizer 0123"),
        (["stat", "--token-counts", "new.json"], 2, "--token-counts needs --tokenizer"),
        (["stat", "--tokenizer", "t"], 2, "--tokenizer has no effect: no tokens are counted"),
        ([*COUNT, "c.json"], 73, "c.json"),
        ([*COUNT, "a.jsonl", "-f"], 73, "a.jsonl"),
        (["stat", "--tokenizer", "missing", "--token-counts", "new.json"], 66, "missing: is not a directory"),
    ],
)
def test_counts_that_cannot_be_used(arguments, status, said, place, here):
    here(*COUNT, "c.json", "a.jsonl")
    counts = json.loads(Path("c.json").read_bytes())
    Path("foreign.json").write_text(json.dumps({**counts, "tokenizer": "0123456789abcdef"}))
    assert said in here(*arguments, "a.jsonl", status=status).stderr.decode()
    assert not Path("new.json").exists()


def test_ids_that_the_tokenizer_lacks_name_their_record(place, here):
    here(*COUNT, "c.json", "a.jsonl")
    block = b'{"text":"a"}\n{"input_ids":[99999]}\n'
    for command in ([*SCORE, "--priors", "c.json"], [*COUNT, "new.json"]):
        assert b"(standard input):2: input_ids has an id" in here(*command, stdin=block, status=65).stderr
