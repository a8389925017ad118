"""report: its numbers are those of DuckDB, numpy and the records themselves."""

import json
import math
from pathlib import Path

import duckdb
import numpy as np
import pytest
from scipy.stats import spearmanr

from prune_cli.stages.report.collect.runs import thinned
from prune_cli.stages.report.collect.sampling import DuplicateCounter, RowSample

from .conftest import lines, scored, status_of

SOURCES = ("web", "mail", "code")


def rows(count: int = 3_000) -> list[dict]:
    """Records of three sources whose scores differ, in two scores, one of them null now and then."""
    dice = np.random.default_rng(5)
    records = []
    for index in range(count):
        source = SOURCES[index % 3]
        score = float(np.exp(dice.normal(3 + index % 3, 1)))
        records.append(
            {
                "id": f"doc-{index}",
                "text": f"text {index // 2 * 2 if index < 20 else index}",
                "source": source,
                "perplexity": None if index % 50 == 0 else score,
                "el2n": score / (score + 10),
                "n_scored": int(dice.integers(1, 500)),
            }
        )
    return records


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> Path:
    """A corpus ranked by tokens, its middle half, and a part cut by a bound, in one folder."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "corpus.jsonl").write_bytes(lines(rows()))
    at = {name: str(folder / name) for name in ("corpus.jsonl", "ranked.zst", "middle.zst", "low.zst")}
    ranking = ("rank", "-k", "perplexity", "--by", "tokens", at["corpus.jsonl"], "-o", at["ranked.zst"])
    assert status_of(*ranking) == 0
    middle = ("slice", "--keep", "middle", "--frac", "0.5", at["ranked.zst"], "-o", at["middle.zst"])
    assert status_of(*middle) == 0
    low = ("slice", "-k", "perplexity", "--max", "30", at["corpus.jsonl"], "-o", at["low.zst"])
    assert status_of(*low) == 0
    return folder


@pytest.fixture
def numbers(here, streams) -> dict:
    """The numbers of a report with both slices."""
    cuts = ("--slice", streams / "middle.zst", "--slice", streams / "low.zst")
    return json.loads(here("report", "--json", *cuts, streams / "ranked.zst").stdout)


def test_composition_before_and_after_is_duckdbs(numbers, streams):
    low = next(cut for cut in numbers["slices"] if cut["name"].endswith("low.zst"))
    for condition, groups in (("true", numbers["groups"]), ("perplexity <= 30", low["groups"])):
        counted = duckdb.sql(
            f"select source, count(*), sum(n_scored) from '{streams}/corpus.jsonl' where {condition} "
            "group by source"
        ).fetchall()
        assert groups == {name: {"records": count, "tokens": tokens} for name, count, tokens in counted}


def test_a_cut_by_a_bound_ends_at_the_last_score_below_it(numbers):
    low = next(cut for cut in numbers["slices"] if cut["name"].endswith("low.zst"))
    below = max(row["perplexity"] for row in rows() if row["perplexity"] and row["perplexity"] <= 30)
    # The low end of the slice is that of all scores, and no edge.
    assert low["edges"] == [{"score": below, "keeps": "below"}]
    assert low["label"] == "at most 30"


def test_bars_hold_every_scored_token_once_and_the_kept_ones_in_them(numbers):
    [perplexity] = [each for each in numbers["distributions"] if each["field"] == "perplexity"]
    scored_tokens = sum(row["n_scored"] for row in rows() if row["perplexity"] is not None)
    for bins in (perplexity["linear"], perplexity["logarithmic"]):
        assert sum(bins["whole"]) == scored_tokens
        for cut in numbers["slices"]:
            kept = bins["kept"][cut["name"]]
            assert sum(kept) == cut["amount"]["tokens"]
            assert all(part <= whole for part, whole in zip(kept, bins["whole"], strict=True))
        assert np.array_equal(np.sum(list(bins["by_group"].values()), axis=0), bins["whole"])


def test_bars_are_numpys(numbers):
    [perplexity] = [each for each in numbers["distributions"] if each["field"] == "perplexity"]
    edges = np.array(perplexity["logarithmic"]["edges"])
    kept = [row for row in rows() if row["perplexity"] is not None]
    scores = np.clip([row["perplexity"] for row in kept], edges[0], edges[-1])
    counts, _ = np.histogram(scores, edges, weights=[row["n_scored"] for row in kept])
    # A score within 0.02 % of an edge may fall to the other side.
    assert np.abs(counts - perplexity["logarithmic"]["whole"]).sum() <= 0.01 * counts.sum()


def test_correlations_and_overlaps_are_scipys(numbers):
    both = [row for row in rows() if row["perplexity"] is not None]
    scores = [row["perplexity"] for row in both]
    [length] = [each for each in numbers["lengths"] if each["field"] == "perplexity"]
    expected = spearmanr(scores, [row["n_scored"] for row in both]).statistic
    assert (length["of"], length["is_exact"]) == ("tokens", True)
    assert math.isclose(length["correlation"], expected, abs_tol=1e-4)
    [agreement] = numbers["agreements"]
    # One score rises with the other: they agree in everything.
    assert agreement["correlation"] == 1
    assert all(each["share"] == 1 for each in agreement["shared"])


def test_copies_are_counted(numbers):
    assert numbers["duplicates"] == {"records": 3_000, "copies": 10, "most_often": 2, "is_exact": True}


def test_documents_come_from_the_ends_and_both_sides_of_each_cut(numbers):
    by_place: dict[str, list[dict]] = {}
    for document in numbers["documents"]:
        assert "text" not in document
        by_place.setdefault(document["place"], []).append(document)
    everything = [row for row in rows() if row["perplexity"] is not None]
    low = min(everything, key=lambda row: row["perplexity"])
    assert low["id"] in [document["name"] for document in by_place["lowest"]]
    edge = next(cut for cut in numbers["slices"] if cut["name"].endswith("low.zst"))["edges"][0]["score"]
    [inside] = [name for name in by_place if name.startswith("just inside") and f"{edge:.4g}" in name]
    [outside] = [name for name in by_place if name.startswith("just outside") and f"{edge:.4g}" in name]
    assert all(each["scores"]["perplexity"] <= edge for each in by_place[inside])
    assert all(each["scores"]["perplexity"] > edge for each in by_place[outside])
    nearest = min(row["perplexity"] for row in everything if row["perplexity"] > edge)
    assert nearest in [each["scores"]["perplexity"] for each in by_place[outside]]
    assert len(numbers["documents"]) <= 200


def test_sentences_name_the_cut_the_source_that_lost_most_and_length(numbers):
    text = " ".join(numbers["findings"])
    assert "keeps the middle 50 % by tokens of perplexity" in text
    assert "By source, " in text
    assert "loses most" in text
    assert "Length does not explain the cut" in text


def test_commands_are_those_of_the_heads(numbers):
    commands = [step["command"] for step in numbers["slices"][0]["steps"]]
    assert commands == [
        "prune-cli rank -k perplexity --by tokens",
        "prune-cli slice --keep middle --frac 0.5",
    ]


def test_a_slice_of_another_corpus_is_noticed(here, streams, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(scored(5_000)))
    done = here("report", "--json", "--slice", other, streams / "ranked.zst")
    [warning] = [each for each in json.loads(done.stdout)["warnings"] if "not a slice" in each]
    assert "other.jsonl has records that" in warning
    assert warning.encode() in done.stderr


def test_a_slice_of_another_ranking_is_noticed(here, streams, tmp_path):
    ranked, cut = str(tmp_path / "ranked.zst"), str(tmp_path / "cut.zst")
    part = tmp_path / "part.jsonl"
    part.write_bytes(lines(rows(900)))
    here("rank", "-k", "perplexity", part, "-o", ranked)
    here("slice", "--keep", "middle", "--frac", "0.5", ranked, "-o", cut)
    said = here("report", "--json", "--slice", cut, streams / "ranked.zst").stderr
    assert b"cut.zst was cut from a ranking of 882 records, and" in said


def test_a_sample_is_the_same_in_whatever_pieces_it_comes():
    values = np.arange(10_000.0)[:, None]
    whole, pieces = (RowSample(1, 3, most=100) for _ in range(2))
    whole.add(values)
    for piece in np.array_split(values, 37):
        pieces.add(piece)
    assert np.array_equal(whole.rows(), pieces.rows())
    assert len(whole.rows()) == 100
    assert not whole.is_all
    # Uniform: the mean of 100 draws from 0 to 9,999 lies within five standard errors.
    assert abs(whole.rows().mean() - 4_999.5) < 5 * 2_887 / 10


def test_copies_of_very_many_texts_are_estimated():
    dice = np.random.default_rng(0)
    texts = dice.integers(0, 1 << 63, 20_000, dtype=np.uint64) * np.uint64(2)
    counter = DuplicateCounter(most=1_000)
    # Each text occurs twice, in pieces.
    for piece in np.array_split(np.concatenate([texts, texts]), 11):
        counter.add(piece)
    copies, most_often = counter.copies()
    assert not counter.is_exact
    assert abs(copies - 20_000) < 3_000
    assert most_often == 2


def test_a_run_of_100_000_steps_is_thinned_without_losing_a_spike():
    values = np.random.default_rng(0).normal(3, 0.01, 100_000)
    values[77_777] = 9.0
    chosen = thinned(values)
    assert len(chosen) <= 802
    assert 77_777 in chosen
    assert (chosen[0], chosen[-1]) == (0, 99_999)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--run", "nowhere"), 66, "nowhere: no metrics.jsonl; name the directory"),
        (("--results", "ranked.zst"), 65, "is no result of `eval`"),
        (("--results", "odd.jsonl"), 65, "odd.jsonl:1: is no result of `eval`"),
        (("--score", "absent", "corpus.jsonl"), 65, "no record has a field `absent`"),
        (("missing.zst",), 66, "missing.zst"),
    ],
)
def test_bad_input_is_one_line(arguments, status, words, here, streams, monkeypatch):
    monkeypatch.chdir(streams)
    Path("odd.jsonl").write_bytes(lines([{"result": "comparison", "documents": "many"}]))
    done = here("report", "--json", *arguments, status=status)
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert not done.stdout


def test_seeds_are_listed_as_a_shell_would_and_many_comparisons_are_counted(here, tmp_path):
    about = {"result": "comparison", "data": "test", "documents": 9, "includes_training_noise": True}
    effects = [(-0.03, [-0.05, -0.01]), (0.01, [-0.02, 0.04]), (0.02, [-0.01, 0.05])]
    results = [
        {**about, "model": [f"{name}-1", f"{name}-2"], "against": ["base-1", "base-2"]}
        | {"effect": effect, "effect_interval": interval, "p": 0.1}
        for name, (effect, interval) in zip(("middle", "top", "bottom"), effects, strict=True)
    ]
    (tmp_path / "results.jsonl").write_bytes(lines(results))
    numbers = json.loads(here("report", "--json", "--results", tmp_path / "results.jsonl").stdout)
    assert [each["model"] for each in numbers["comparisons"]] == ["middle-{1,2}", "top-{1,2}", "bottom-{1,2}"]
    assert numbers["findings"] == [
        "Of 3 comparisons with a baseline: 1 better, 0 worse, 2 not distinguishable.",
        "middle-{1,2} is better than base-{1,2} on test: perplexity -3.00% (95 % interval -5.00% to -1.00%).",
    ]


def test_tasks_are_counted_and_their_average_has_a_sentence(here, tmp_path):
    """In the direction that the task calls better, with the exact p value where there is one."""
    tasks = [("quiz", "acc", True, 0.1), ("prices", "brier", False, 0.1), ("quiz", "acc_norm", True, 0.0)]
    about = {"model": "middle", "against": "base", "documents": 60, "value": 0.5, "p": 0.3}
    results = [
        {**about, "result": "task comparison", "task": task, "metric": metric, "filter": "none"}
        | {"higher_is_better": is_better, "delta": delta, "delta_interval": [delta - 0.05, delta + 0.05]}
        | {"p_mcnemar": 0.25 if metric == "acc" else None}
        for task, metric, is_better, delta in tasks
    ]
    average = {**about, "result": "average comparison", "tasks": {"quiz": "acc,none"}, "delta": -0.1}
    results.append(average | {"delta_interval": [-0.15, -0.05], "includes_training_noise": True})
    (tmp_path / "results.jsonl").write_bytes(lines(results))
    numbers = json.loads(here("report", "--json", "--results", tmp_path / "results.jsonl").stdout)
    assert [(each["task"], each["p"]) for each in numbers["tasks"]] == [
        ("quiz (acc)", 0.25),
        ("prices (brier)", 0.3),
        ("quiz (acc_norm)", 0.3),
        ("average of 1 task", 0.3),
    ]
    assert numbers["findings"] == [
        "middle is worse than base on the average of 1 task: -10.00 points (95 % interval -15.00 to -5.00).",
        "Of 3 comparisons on tasks: 1 better, 1 worse, 1 not distinguishable. "
        "By chance alone one in twenty would seem better or worse.",
    ]
    assert len(numbers["warnings"]) == 1
