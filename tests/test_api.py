"""The verbs as functions over iterators say what the commands say, and fail as they do."""

import logging
import shutil
import subprocess
import sys
from itertools import islice

import pytest

import prune_cli
from prune_cli.errors import CannotCreateError, CheckFailed, DataError, UsageError

from .conftest import ROOT, lines, records, scored

CORPUS = scored(300)


def test_rank_and_slice_equal_the_commands(here):
    ranked = list(prune_cli.rank(CORPUS, key="perplexity"))
    assert ranked == records(here("rank", "-k", "perplexity", stdin=lines(CORPUS)).stdout)
    kept = list(prune_cli.slice(ranked, by="records", keep="middle", frac=0.5))
    told = here("slice", "--by", "records", "--keep", "middle", "--frac", 0.5, stdin=lines(ranked)).stdout
    assert kept == records(told)


def test_score_takes_several_metrics_and_adds_its_fields():
    (found,) = prune_cli.score([{"text": "a small text"}], metric=["perplexity", "el2n"], device="cpu")
    assert {"perplexity", "el2n", "nll_sum", "n_scored", "n_bytes"} < found.keys()


@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")  # the corpus is tiny
def test_a_model_is_trained_and_evaluated(tmp_path):
    told = prune_cli.train(
        CORPUS, tmp_path / "run", preset="tiny", train_tokenizer=300, steps=1, batch_tokens=512, device="cpu"
    )
    assert told["summary"]["steps"] == 1
    (result,) = prune_cli.eval([tmp_path / "run"], CORPUS[:60], device="cpu")
    assert (result["result"], result["documents"]) == ("likelihood", 60)


def test_blocks_are_packed(tmp_path):
    tokenizer = ROOT / "prune_cli/reference"
    assert {len(block["input_ids"]) for block in prune_cli.pack(CORPUS, tokenizer=tokenizer, context=64)} == {
        64
    }


def test_stat_counts():
    assert prune_cli.stat(CORPUS, duplicates=True)["records"] == 300


def test_written_files_can_be_read_again(tmp_path):
    path = tmp_path / "corpus.jsonl.zst"
    prune_cli.write(iter(CORPUS), path)
    assert list(prune_cli.read(path)) == CORPUS == records(path.read_bytes())
    with pytest.raises(CannotCreateError):
        prune_cli.write(CORPUS, path)


def test_a_cut_file_is_an_error(tmp_path):
    path = tmp_path / "corpus.jsonl.zst"
    prune_cli.write(CORPUS, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError):
        list(prune_cli.read(path))


def test_failures_equal_those_of_the_command():
    with pytest.raises(UsageError, match="kye"):
        list(prune_cli.rank(CORPUS, kye="perplexity"))
    with pytest.raises(DataError, match="no field `nothing`"):
        list(prune_cli.rank(CORPUS, key="nothing"))


def test_a_failure_of_the_callers_iterator_is_raised():
    def broken():
        yield from CORPUS
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(prune_cli.slice(prune_cli.rank(broken(), key="perplexity"), by="records", keep="top", frac=0.5))


def test_a_caller_may_stop_reading_early():
    endless = ({"text": f"document {number}"} for number in range(10**9))
    assert len(list(islice(prune_cli.score(endless, metric="random"), 3))) == 3


def test_rank_by_tokens_within_a_field_equals_the_command(here):
    options = {"key": "perplexity", "by": "tokens", "within": "source", "reverse": True, "prefix": "r_"}
    ranked = list(prune_cli.rank(iter(CORPUS), **options))
    command = ["rank", "-k", "perplexity", "--by", "tokens", "--within", "source", "-r", "--prefix", "r_"]
    assert ranked == records(here(*command, stdin=lines(CORPUS)).stdout)


@pytest.mark.parametrize(
    "options",
    [
        {"key": "perplexity", "min": 10, "max": 30},
        {"key": "perplexity", "keep": "middle", "frac": 0.3, "by": "tokens", "invert": True},
        {"keep": "random", "frac": 0.5, "seed": 7},
        {"key": "perplexity", "keep": "top", "tokens": 5000, "keep_unscored": True},
    ],
)
@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")  # scores tie
def test_slices_equal_those_of_the_command(here, options):
    arguments = [
        word
        for name, value in options.items()
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))
    ]
    command = here("slice", *arguments, stdin=lines(CORPUS))
    assert list(prune_cli.slice(iter(CORPUS), **options)) == records(command.stdout)


def test_a_record_may_hold_values_that_json_cannot():
    marker = 1 + 2j
    ranked = list(
        prune_cli.rank([{"score": 2.0, "payload": (1, marker)}, {"score": 1, "payload": {3}}], key="score")
    )
    assert [record["payload"] for record in ranked] == [{3}, (1, marker)]


def test_larger_than_memory_is_sorted_on_disk(tmp_path):
    small = list(prune_cli.rank(CORPUS, key="perplexity", buffer_size="1M", temporary_directory=tmp_path))
    assert small == list(prune_cli.rank(CORPUS, key="perplexity"))


def test_bad_records_are_skipped_with_a_warning():
    broken = [{"perplexity": "high"}, *CORPUS]
    with pytest.warns(prune_cli.PruneWarning, match="1 bad records were skipped"):
        ranked = list(prune_cli.rank(broken, key="perplexity", skip_bad=True))
    assert len(ranked) == len(CORPUS)


def test_an_error_behind_a_skipped_record_names_its_own_number(tmp_path):
    texts = [{"text": 7}, {"text": "good"}, {"text": "good", "input_ids": [1]}]
    with pytest.raises(DataError, match=r"\(records\):3: it has `input_ids`"):
        list(prune_cli.pack(texts, tokenizer=ROOT / "prune_cli/reference", context=64, skip_bad=True))


@pytest.mark.parametrize("record", [1, "text", None, [1, 2]])
def test_a_record_that_is_no_dict_is_an_error_that_names_it(record):
    with pytest.raises(DataError, match=r"\(records\):1: a record is a dict, not a"):
        list(prune_cli.rank([record], key="perplexity"))


def test_a_carried_field_that_json_cannot_hold_is_an_error_that_names_the_record():
    with pytest.raises(DataError, match=r"\(records\):1: `kind` is \{3\}, not a value of JSON"):
        list(
            prune_cli.pack([{"text": "a", "kind": {3}}], tokenizer=ROOT / "prune_cli/reference", carry="kind")
        )


@pytest.mark.parametrize("score", [float("nan"), True, "7", [1]])
def test_a_score_that_is_not_a_number_names_the_record(score):
    with pytest.raises(DataError, match=r"\(records\):301: `perplexity` is .*, not a finite number or null"):
        list(prune_cli.rank([*CORPUS, {"perplexity": score}], key="perplexity"))


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("rank", {"check": True}),
        ("rank", {"merge": True}),
        ("slice", {"rejects": "rest.zst", "keep": "top", "frac": 0.5}),
        ("slice", {"scores": "scores.zst", "keep": "top", "frac": 0.5}),
        ("stat", {"output": "stat.json"}),
    ],
)
def test_options_for_files_are_refused(verb, options):
    with pytest.raises(UsageError, match="is an option for files; use the command"):
        list(getattr(prune_cli, verb)(CORPUS, **options))


@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")  # of few documents
def test_a_model_that_is_worse_fails_the_check(tmp_path):
    reference = ROOT / "prune_cli/reference"
    results = prune_cli.eval(
        [reference], CORPUS[:20], against=[shuffled(tmp_path / "other")], fail_if_worse=1e9, device="cpu"
    )
    assert [result["result"] for result in results] == ["likelihood", "likelihood", "comparison"]
    with pytest.raises(CheckFailed):
        list(
            prune_cli.eval(
                [tmp_path / "other"], CORPUS[:20], against=[reference], fail_if_worse=0, device="cpu"
            )
        )
    with pytest.raises(UsageError, match="needs a baseline"):
        list(prune_cli.eval([reference], CORPUS[:40], fail_if_worse=1))


def shuffled(directory):
    """A copy of the shipped model whose output layer is wrong."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "prune_cli/reference")
    model.get_input_embeddings().weight.data.mul_(0.1)
    model.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "prune_cli/reference" / name, directory)
    return directory


def test_the_functions_warn_as_the_commands_do():
    nulls = [{"perplexity": None, "n_scored": 1}] * 3
    with pytest.warns(prune_cli.PruneWarning, match="none of 3 records has a score"):
        list(prune_cli.rank(nulls, key="perplexity"))
    ties = [{"perplexity": 1.0, "n_scored": 1}] * 4
    with pytest.warns(prune_cli.PruneWarning, match="4 records tie at 1.0, and 2 of them are inside"):
        list(prune_cli.slice(ties, key="perplexity", keep="top", frac=0.5))


def test_warnings_go_on_when_another_verb_ends():
    first = prune_cli.rank([{"score": 1.0}], key="score")
    second = prune_cli.rank([{"score": None}] * 2, key="score")
    assert next(first)["rank"] == 0
    assert next(second)["rank"] is None
    assert list(first) == []
    with pytest.warns(prune_cli.PruneWarning, match="none of 2 records"):
        list(second)


def test_values_are_those_of_the_command_line():
    assert len(list(prune_cli.rank(CORPUS, key="perplexity", expect_records="300"))) == 300
    with pytest.raises(DataError, match="300 records arrived, 1000 were expected"):
        list(prune_cli.rank(CORPUS, key="perplexity", expect_records="1K"))
    with pytest.raises(UsageError, match=r"`metric` is \[1\], a list"):
        list(prune_cli.score(CORPUS, metric=[1]))


def test_the_callers_logging_is_left_alone(caplog):
    package = logging.getLogger("prune_cli")
    before = (list(package.handlers), package.level, package.propagate, list(logging.getLogger().handlers))
    list(prune_cli.rank(CORPUS, key="perplexity"))
    after = (list(package.handlers), package.level, package.propagate, list(logging.getLogger().handlers))
    assert before == after


def test_importing_it_loads_nothing():
    script = (
        "import sys, prune_cli; print([name for name in ('torch', 'numpy', 'typer') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT).stdout
        == "[]\n"
    )
