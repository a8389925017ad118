"""`eval --samples`: metrics of tasks, paired by document, in folders as lm-evaluation-harness makes them."""

import json
import math
import os

import numpy as np
import pytest
from scipy import stats

from prune_cli.statistics.differences import mcnemar

from .conftest import on_a_terminal, records
from .harness_samples import lay, sample, samples

RIGHT = [1.0] * 30 + [0.0] * 30
WRONG = [0.0] * 12 + [1.0] * 18 + [0.0] * 27 + [1.0] * 3  # 12 answers worse than RIGHT, 3 better


@pytest.fixture
def compare(here):
    """The results of a comparison, and what was said about it."""

    def run(run, base, *options, status=0):
        done = here("eval", "--samples", run, "--against-samples", base, *options, status=status)
        return records(done.stdout), done.stderr.decode()

    return run


def of_kind(results, kind, **fields):
    return [
        result
        for result in results
        if result["result"] == kind and all(result[name] == value for name, value in fields.items())
    ]


# --- Accuracies ---


def test_answers_are_compared_document_by_document(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=WRONG))
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT))
    results, _ = compare(run, base)
    values = {result["model"]: result["value"] for result in of_kind(results, "task")}
    assert values == {str(run): 21 / 60, str(base): 30 / 60}
    [result] = of_kind(results, "task comparison")
    assert (result["task"], result["metric"], result["documents"]) == ("quiz", "acc", 60)
    assert result["delta"] == pytest.approx(-9 / 60)
    assert (result["improved"], result["worsened"]) == (3 / 60, 12 / 60)
    assert result["p_mcnemar"] == pytest.approx(stats.binomtest(3, 15).pvalue)
    # The sign flips are those of McNemar's coins, 10,000 times at random.
    assert result["p"] == pytest.approx(result["p_mcnemar"], abs=0.01)
    spread = 1.96 * np.std(np.subtract(WRONG, RIGHT)) / math.sqrt(60)
    assert result["delta_interval"] == pytest.approx([-9 / 60 - spread, -9 / 60 + spread], abs=0.02)


@pytest.mark.parametrize(
    ("better", "worse"), [(0, 0), (0, 1), (3, 3), (2, 10), (40, 0), (700, 800), (9000, 9300)]
)
def test_mcnemars_test_is_the_binomial_test_of_scipy(better, worse):
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


def test_the_average_gives_each_task_the_same_weight(tmp_path, compare):
    """Task one: 0.5 → 0.35. Task two, a sixth as long: 0.2 → 0.4."""
    short = ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    run = lay(tmp_path / "run", one=samples(acc=WRONG), two=samples(acc=short[1]))
    base = lay(tmp_path / "base", one=samples(acc=RIGHT), two=samples(acc=short[0]))
    results, _ = compare(run, base)
    [average] = of_kind(results, "average comparison")
    assert average["tasks"] == {"one": "acc,none", "two": "acc,none"}
    assert average["value"] == pytest.approx((0.35 + 0.4) / 2)
    assert average["delta"] == pytest.approx((-0.15 + 0.2) / 2)
    assert average["documents"] == 70
    # All answers that differ, whatever their task: 3 + 2 better, 12 worse.
    assert average["p_mcnemar"] == pytest.approx(stats.binomtest(5, 17).pvalue)
    # Two independent means: their variances add up, each divided by the number of tasks twice.
    variances = [np.var(np.subtract(WRONG, RIGHT)) / 60, np.var(np.subtract(*short)) / 10]
    low, high = average["delta_interval"]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(sum(variances)) / 2, rel=0.07)


def test_each_task_of_an_average_is_resampled_for_itself(tmp_path, compare):
    """Two copies of one task, drawn alike, would have the interval of one of them."""
    run = lay(tmp_path / "run", one=samples(acc=WRONG), two=samples(acc=WRONG))
    base = lay(tmp_path / "base", one=samples(acc=RIGHT), two=samples(acc=RIGHT))
    results, _ = compare(run, base)
    alone = np.ptp(of_kind(results, "task comparison", task="one")[0]["delta_interval"])
    average = np.ptp(of_kind(results, "average comparison")[0]["delta_interval"])
    assert average == pytest.approx(alone / math.sqrt(2), rel=0.1)


def test_every_metric_has_a_row_and_the_average_takes_the_first(tmp_path, compare):
    """Filters count, too: the second one's exact match is another number."""
    made = {}
    for name, values in {"run": RIGHT, "base": WRONG}.items():
        strict = samples(exact_match=values, acc_norm=WRONG)
        loose = [{**each, "filter": "loose", "metrics": ["exact_match"], "exact_match": 1} for each in strict]
        made[name] = lay(tmp_path / name, quiz=[*strict, *loose])
    results, _ = compare(made["run"], made["base"])
    found = [(each["metric"], each["filter"], each["delta"]) for each in of_kind(results, "task comparison")]
    assert found == [
        ("exact_match", "none", pytest.approx(0.15)),
        ("acc_norm", "none", 0),
        ("exact_match", "loose", 0),
    ]
    [average] = of_kind(results, "average comparison")
    assert average["tasks"] == {"quiz": "exact_match,none"}
    assert average["delta"] == pytest.approx(0.15)


# --- Other metrics ---


def test_perplexities_are_pooled_as_the_harness_pools_them(tmp_path, compare):
    """Nats over words: e^((20 + 10) / (10 + 5)) against e^((30 + 10) / (10 + 5))."""
    run = lay(tmp_path / "run", text=samples(word_perplexity=[[-20, 10], [-10, 5]]))
    base = lay(tmp_path / "base", text=samples(word_perplexity=[[-30, 10], [-10, 5]]))
    results, _ = compare(run, base)
    [result] = of_kind(results, "task comparison")
    assert (result["value"], result["against_value"]) == pytest.approx((math.exp(2), math.exp(8 / 3)))
    assert (result["unit"], result["higher_is_better"]) == ("nats per word", False)
    assert result["delta"] == pytest.approx(-2 / 3)
    assert result["effect"] == pytest.approx(math.exp(-2 / 3) - 1)
    # Lower is better: one document improved, and the other is the same.
    assert (result["improved"], result["worsened"], result["p_mcnemar"]) == (0.5, 0, None)
    # A perplexity is no share: there is nothing to average.
    assert of_kind(results, "average comparison") == []


def test_the_harness_says_which_direction_is_better(tmp_path, compare):
    told = {"higher_is_better": {"quiz": {"distance": False}}}
    run = lay(tmp_path / "run", results=told, quiz=samples(distance=[0.1, 0.2]))
    base = lay(tmp_path / "base", results=told, quiz=samples(distance=[0.3, 0.2]))
    [result] = of_kind(compare(run, base)[0], "task comparison")
    assert (result["higher_is_better"], result["improved"], result["worsened"]) == (False, 0.5, 0)


def test_a_metric_that_samples_do_not_give_is_left_out(tmp_path, compare):
    pairs = [[0, 1]] * 60
    run, base = (lay(tmp_path / name, quiz=samples(acc=RIGHT, f1=pairs)) for name in ("run", "base"))
    results, said = compare(run, base)
    assert [each["metric"] for each in of_kind(results, "task comparison")] == ["acc"]
    assert "quiz: f1 cannot be computed from its samples, and is left out" in said


def test_a_metric_that_the_harness_adds_up_otherwise_is_left_out(tmp_path, compare):
    told = {"results": {"quiz": {"acc,none": 0.5, "best,none": 1.0}}}
    run = lay(tmp_path / "run", results=told, quiz=samples(acc=RIGHT, best=RIGHT))
    base = lay(tmp_path / "base", quiz=samples(acc=WRONG, best=WRONG))
    results, said = compare(run, base)
    assert [each["metric"] for each in of_kind(results, "task comparison")] == ["acc"]
    assert "quiz: best is 0.5 by its samples and 1 by its results, and is left out" in said


# --- Pairs ---


def test_documents_are_paired_by_hash_whatever_their_order(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=[sample(number, {"acc": number % 2}) for number in range(60)])
    base = lay(tmp_path / "base", quiz=[sample(number, {"acc": number % 2}) for number in range(59, -1, -1)])
    results, _ = compare(run, base)
    [result] = of_kind(results, "task comparison")
    assert (result["improved"], result["worsened"], result["documents"]) == (0, 0, 60)


def test_repeated_and_unpaired_documents_are_counted_and_said(tmp_path, compare):
    twice = [sample(60, {"acc": 1}, document=0), sample(61, {"acc": 1}, document=1)]
    run = lay(tmp_path / "run", quiz=[*samples(acc=RIGHT), *twice])
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT)[3:])
    results, said = compare(run, base)
    [result] = of_kind(results, "task comparison")
    assert (result["documents"], result["repeated"], result["unpaired"]) == (57, 2, 3)
    assert "2 samples repeat a document, which counts once: quiz" in said
    assert "3 documents are not in the samples of every model, and are left out: quiz" in said
    # The value of a model is the harness's own, over all samples.
    assert of_kind(results, "task", model=str(run))[0]["value"] == 32 / 62


def test_documents_without_a_value_are_said(tmp_path, compare):
    few = [math.nan] * 25 + [None] + RIGHT[:34]
    run = lay(tmp_path / "run", quiz=samples(acc=few, f1=[math.nan] * 60))
    results, said = compare(run, lay(tmp_path / "base", quiz=samples(acc=RIGHT, f1=RIGHT)))
    assert of_kind(results, "task comparison")[0]["documents"] == 34
    assert "no document has a value of every model, so these are left out: quiz f1" in said
    assert ".jsonl: 26 of 60 documents have no value of acc,none, and are left out" in said
    assert "intervals from fewer than 50 documents are too narrow: quiz" in said


def test_other_prompts_and_answers_are_said(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=[sample(number, {"acc": 1}) for number in range(60)])
    base = lay(
        tmp_path / "base",
        quiz=[
            sample(number, {"acc": 1}, prompt="!" if number < 2 else "?", target="1" if number else "2")
            for number in range(60)
        ],
    )
    _, said = compare(run, base)
    assert "2 documents have different prompts: quiz" in said
    assert "1 documents have different right answers: quiz" in said


def test_tasks_of_one_side_alone_are_left_out(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=RIGHT), more=samples(acc=RIGHT))
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT), other=samples(acc=RIGHT))
    results, said = compare(run, base)
    assert [each["task"] for each in of_kind(results, "task comparison")] == ["quiz"]
    assert "tasks without samples of every model are left out: more, other" in said


def test_the_newest_samples_of_a_task_are_read(tmp_path, compare):
    run = lay(tmp_path / "run", date="2026-11-28T23-59-59.999999", my_quiz=samples(acc=WRONG))
    lay(run, date="2026-11-29T00-00-00", my_quiz=samples(acc=RIGHT))
    results, said = compare(run, lay(tmp_path / "base", my_quiz=samples(acc=RIGHT)))
    assert of_kind(results, "task comparison")[0]["delta"] == 0
    assert "run: my_quiz has samples of several dates; those of 2026-11-29T00-00-00 are read" in said


# --- Seeds ---


def test_seeds_of_two_recipes_are_compared_by_welchs_test(tmp_path, here):
    """Documents that all runs find as hard add nothing but a little: what is left is Welch's t test."""
    rights = {"a1": 30, "a2": 33, "a3": 31, "b1": 40, "b2": 41, "b3": 43}
    for name, right in rights.items():
        lay(tmp_path / name, quiz=samples(acc=[1] * right + [0] * (60 - right)))
    a, b = ([tmp_path / f"{side}{seed}" for seed in (1, 2, 3)] for side in "ab")
    options = [*(word for each in a for word in ("--samples", each))]
    options += [word for each in b for word in ("--against-samples", each)]
    results = records(here("eval", *options).stdout)
    [result] = of_kind(results, "task comparison")
    assert (result["model"], result["against"]) == ([*map(str, a)], [*map(str, b)])
    runs = [[rights[path.name] / 60 for path in side] for side in (a, b)]
    assert result["delta"] == pytest.approx(np.mean(runs[0]) - np.mean(runs[1]))
    errors = result["standard_errors"]
    assert errors["runs"] == pytest.approx(math.sqrt(sum(np.var(side, ddof=1) / 3 for side in runs)))
    assert result["includes_training_noise"]
    assert result["p_mcnemar"] is None
    assert len(of_kind(results, "average comparison")) == 1


# --- Options ---


def test_the_values_of_each_document_are_written(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=WRONG))
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT))
    compare(run, base, "--per-document", tmp_path / "documents.jsonl.zst")
    written = records((tmp_path / "documents.jsonl.zst").read_bytes())
    assert [each["value"] for each in written] == WRONG
    assert [each["against_value"] for each in written] == RIGHT
    assert (written[0]["task"], written[0]["document"], written[0]["model"]) == ("quiz", 0, str(run))


def test_samples_without_a_baseline_have_values_and_intervals(tmp_path, here):
    folder = lay(tmp_path / "run", quiz=samples(acc=RIGHT))
    [result] = records(here("eval", "--samples", folder).stdout)
    assert (result["result"], result["value"]) == ("task", 0.5)
    low, high = result["value_interval"]
    assert 0.35 < low < 0.5 < high < 0.65


def test_a_terminal_gets_a_table(tmp_path):
    run = lay(tmp_path / "run", quiz=samples(acc=WRONG))
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT))
    shown = on_a_terminal("stdout", "eval", "--samples", run, "--against-samples", base, COLUMNS="80")
    row = next(line for line in shown.splitlines() if "quiz acc" in line)
    assert row.split()[:5] == ["quiz", "acc", "0.35", "0.5", "-0.15"]
    assert "average of 1" in shown


@pytest.mark.parametrize(("allowed", "status"), [(5, 0), (0, 1)])
def test_an_average_that_is_worse_for_certain_fails(tmp_path, compare, allowed, status):
    run = lay(tmp_path / "run", quiz=samples(acc=WRONG))
    base = lay(tmp_path / "base", quiz=samples(acc=RIGHT))
    results, said = compare(run, base, "--fail-if-worse", allowed, status=status)
    assert results, "they are complete even if the check fails"
    assert ("points worse, and 0 are allowed" in said) == bool(status)


def test_few_documents_cannot_tell(tmp_path, compare):
    made = [lay(tmp_path / name, quiz=samples(acc=[1, 0, 1])) for name in ("run", "base")]
    _, said = compare(*made, "--fail-if-worse", 1, status=65)
    assert "3 documents cannot tell; --fail-if-worse needs 20" in said
    assert "intervals from fewer than 50 documents are too narrow: quiz" in said


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--against-samples", "a"), "--against-samples needs samples to compare"),
        (("--samples", "a", "model"), "--samples takes the place of models, and model is one"),
        ((), "there is no model to evaluate"),
        (("--samples", "a", "--data", "t"), "--data has no effect: --samples are results already"),
        (("--samples", "a", "--resume"), "--resume has no effect"),
        (("--samples", "a", "--samples", "a/"), "--samples names a/ twice"),
        (("--samples", "a", "--fail-if-worse", "1"), "--fail-if-worse needs a baseline"),
        (("--samples", "a", "--per-document", "o", "-o", "o"), "would go to the same place"),
    ],
)
def test_options_that_do_not_go_together(here, options, fault):
    assert fault in here("eval", *options, status=2).stderr.decode()


# --- Bad input ---


def test_a_folder_without_samples(tmp_path, here):
    (tmp_path / "empty").mkdir()
    assert (
        "holds no samples_TASK_DATE.jsonl"
        in here("eval", "--samples", tmp_path / "empty", status=66).stderr.decode()
    )
    assert "is not a folder" in here("eval", "--samples", tmp_path / "absent", status=66).stderr.decode()


def test_a_folder_with_one_model_is_taken_for_its_own(tmp_path, here):
    """lm_eval --output_path OUT makes OUT/MODEL."""
    lay(tmp_path / "out" / "model", quiz=samples(acc=RIGHT))
    [result] = records(here("eval", "--samples", tmp_path / "out").stdout)
    assert (result["model"], result["value"]) == (str(tmp_path / "out"), 0.5)
    lay(tmp_path / "out" / "second", quiz=samples(acc=RIGHT))
    said = here("eval", "--samples", tmp_path / "out", status=2).stderr.decode()
    assert "holds samples of 2 models: model, second; name the folder of one" in said


def test_no_document_in_common(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=RIGHT))
    base = lay(tmp_path / "base", quiz=[sample(number, {"acc": 1}) for number in range(100, 160)])
    results, said = compare(run, base, status=65)
    assert results == [], "nothing is written before the documents are paired"
    assert "quiz: the models have no document in common" in said


def test_no_task_in_common(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=RIGHT))
    base = lay(tmp_path / "base", other=samples(acc=RIGHT))
    assert "have no metric of a task in common" in compare(run, base, status=65)[1]


def test_a_cut_line_is_named(tmp_path, compare):
    run = lay(tmp_path / "run", quiz=samples(acc=RIGHT))
    [path] = run.glob("samples*")
    os.truncate(path, path.stat().st_size - 20)
    _, said = compare(run, lay(tmp_path / "base", quiz=samples(acc=RIGHT)), status=65)
    assert f"{path}:60: not JSON; the file was cut or damaged" in said


def test_a_file_that_lacks_whole_lines_is_named(tmp_path, here):
    counted = {"n-samples": {"quiz": {"original": 1000, "effective": 60}}}
    folder = lay(tmp_path / "run", results=counted, quiz=samples(acc=RIGHT)[:50])
    said = here("eval", "--samples", folder, status=65).stderr.decode()
    assert "holds 50 of 60 documents" in said


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[]", "is no sample: it has no `doc_hash`"),
        ('{"doc_hash": "a", "filter": "none"}', "is no sample: it has no `metrics`"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_lines_that_are_no_samples(tmp_path, here, line, fault):
    folder = lay(tmp_path / "run", quiz=samples(acc=RIGHT))
    [path] = folder.glob("samples*")
    path.write_bytes(line.encode("latin-1") + b"\n")
    said = here("eval", "--samples", folder, status=65).stderr.decode()
    assert f"{path}:1: {fault}" in said


def test_an_empty_file_holds_no_samples(tmp_path, here):
    folder = lay(tmp_path / "run", quiz=[])
    said = here("eval", "--samples", folder, status=65).stderr.decode()
    assert "holds no samples; evaluate again" in said


def test_documents_may_hold_nan(tmp_path, here):
    """The harness writes NaN, which strict JSON does not know."""
    made = [{**each, "doc": {"number": math.nan}} for each in samples(acc=RIGHT)]
    [result] = records(here("eval", "--samples", lay(tmp_path / "run", quiz=made)).stdout)
    assert result["value"] == 0.5


def test_damaged_results_are_named(tmp_path, here):
    folder = lay(tmp_path / "run", results={}, quiz=samples(acc=RIGHT))
    [path] = folder.glob("results*")
    path.write_text('{"results": ')
    said = here("eval", "--samples", folder, status=65).stderr.decode()
    assert f"{path}: not a JSON object" in said
    path.write_text(json.dumps([]))
    here("eval", "--samples", folder, status=65)
