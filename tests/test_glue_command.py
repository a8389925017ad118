"""eval --glue as a command: its records, its cache of results, and runs that are resumed."""

import json

import pytest

torch = pytest.importorskip("torch")

from prune_cli.errors import Interrupted, TryAgainError  # noqa: E402
from prune_cli.stages.eval.glue.result_cache import beside  # noqa: E402

from .conftest import SHARED, shared  # noqa: E402
from .glue_examples import examples  # noqa: E402
from .small_models import tiny_gpt2  # noqa: E402


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"), n_positions=64)


# --- The command ---


@pytest.fixture
def tasks(tmp_path):
    """Two small tasks in GLUE's own layout."""
    for folder, names in (("RTE", ("entailment", "not_entailment")), ("WNLI", ("0", "1"))):
        (tmp_path / "glue" / folder).mkdir(parents=True)
        for part, some in (("train", examples(20, 1)), ("dev", examples(8, 2))):
            lines = [
                f"{at}\t{a}\t{b}\t{names[int(label)]}\n"
                for at, ((a, b), label) in enumerate(zip(some.texts, some.labels, strict=True))
            ]
            (tmp_path / "glue" / folder / f"{part}.tsv").write_text(
                "index\tsentence1\tsentence2\tlabel\n" + "".join(lines)
            )
    return tmp_path / "glue"


OPTIONS = ("--epochs", 1, "--batch", 8, "--dtype", "float32")


def test_the_command_writes_one_record_per_result(gpt2, tasks, here):
    out = here("eval", gpt2, "--glue", tasks, "--seeds", 2, *OPTIONS).stdout
    results = [json.loads(line) for line in out.splitlines()]
    assert [(one["result"], one.get("task"), one.get("seed")) for one in results] == [
        *(("glue", "rte", seed) for seed in (0, 1)),
        ("glue task", "rte", None),
        *(("glue", "wnli", seed) for seed in (0, 1)),
        ("glue task", "wnli", None),
        ("glue average", None, None),
    ]
    assert results[-1]["tasks"] == ["rte", "wnli"]


def test_a_stopped_run_resumes_to_the_same_bytes(gpt2, tasks, tmp_path, here):
    whole, out, left = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    here("eval", gpt2, "--glue", tasks, "--seeds", 2, *OPTIONS, "-o", whole)
    first, second, *_ = whole.read_bytes().splitlines(keepends=True)
    marked = first.replace(b'"seed":0,"score":', b'"seed":0,"known":true,"score":')
    left.write_bytes(marked + second[:40])  # killed while it wrote the second
    here("eval", gpt2, "--glue", tasks, "--seeds", 2, *OPTIONS, "-o", out, "--resume")
    assert not left.exists()
    assert out.read_bytes().replace(b'"known":true,', b"") == whole.read_bytes()
    assert out.read_bytes().startswith(marked), "it was not run again"


def test_more_seeds_reuse_the_results_of_a_finished_run(gpt2, tasks, tmp_path, here):
    out = tmp_path / "out.jsonl"
    here("eval", gpt2, "--glue", tasks, "--tasks", "rte", "--seeds", 1, *OPTIONS, "-o", out)
    assert (
        b"exists; -f replaces it"
        in here("eval", gpt2, "--glue", tasks, *OPTIONS, "-o", out, "--resume", status=73).stderr
    )
    out.write_bytes(out.read_bytes().replace(b'"seed":0,"score":', b'"seed":0,"known":true,"score":'))
    here("eval", gpt2, "--glue", tasks, "--tasks", "rte", "--seeds", 2, *OPTIONS, "-o", out, "--resume", "-f")
    assert [json.loads(line).get("known") for line in out.read_bytes().splitlines()] == [
        True,
        None,
        None,
        None,
    ]
    here(
        "eval",
        gpt2,
        "--glue",
        tasks,
        "--tasks",
        "rte",
        "--seeds",
        2,
        "--lr",
        1e-4,
        *OPTIONS,
        "-o",
        out,
        "--resume",
        "-f",
    )
    assert b"known" not in out.read_bytes(), "another protocol is another result"


def stopped(path):
    with beside(path) as results:
        results.add({"task": "rte", "seed": 0})
        with pytest.raises(TryAgainError, match="another run"):
            stopped(path)
        raise Interrupted(15)


def test_the_cache_survives_a_signal_and_is_locked(tmp_path):
    path = str(tmp_path / "out.jsonl")
    with pytest.raises(TryAgainError, match="stopped early"):
        stopped(path)
    with beside(path) as results:
        assert results.find({"task": "rte"}) == {"task": "rte", "seed": 0}
        assert results.find({"task": "rte", "seed": 1}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_of_another_kind_is_left_alone(gpt2, tasks, tmp_path, here):
    for content in (b"not ours\n", b"\x28\xb5\x2f\xfd", b"[1]\n"):
        (tmp_path / "out.partial").write_bytes(content)
        said = here(
            "eval", gpt2, "--glue", tasks, *OPTIONS, "-o", tmp_path / "out", "--resume", status=65
        ).stderr
        assert b"does not hold results of an earlier run" in said
        assert (tmp_path / "out.partial").read_bytes() == content


def test_bad_lines_are_refused_or_skipped_on_request(gpt2, tasks, here):
    with (tasks / "RTE" / "train.tsv").open("a") as file:
        file.write("20\tcut off")
    wanted = ("eval", gpt2, "--glue", tasks, "--tasks", "rte", "--seeds", 1, *OPTIONS)
    assert b"train.tsv:22: has 2 columns, not 4; --skip-bad" in here(*wanted, status=65).stderr
    done = here(*wanted, "--skip-bad", status=3)
    assert b"1 bad lines were skipped" in done.stderr
    assert json.loads(done.stdout.splitlines()[0])["examples"]["train"] == 20


def test_options_that_exclude_each_other_are_errors(gpt2, tasks, tmp_path, here):
    assert b"cannot use --against" in here("eval", gpt2, "--glue", tasks, "--against", gpt2, status=2).stderr
    assert (
        b"cannot use --cluster" in here("eval", gpt2, "--glue", tasks, "--cluster", "source", status=2).stderr
    )
    assert b"--glue DIR" in here("eval", gpt2, "--tasks", "rte", "--data", tasks, status=2).stderr
    assert (
        b"boolq is not a task of GLUE"
        in here("eval", gpt2, "--glue", tasks, "--tasks", "boolq", status=2).stderr
    )
    assert (
        b"has no folder for cola" in here("eval", gpt2, "--glue", tasks, "--tasks", "cola", status=66).stderr
    )
    assert (
        b"--resume needs a regular output file"
        in here("eval", gpt2, "--glue", tasks, "--resume", status=2).stderr
    )
    assert b"no such model directory" in here("eval", tmp_path / "none", "--glue", tasks, status=78).stderr
    train = tasks / "RTE" / "train.tsv"
    assert (
        b"the output is also an input"
        in here("eval", gpt2, "--glue", tasks, "-f", "-o", train, status=73).stderr
    )


@shared
def test_wnli_itself(gpt2, here):
    out = here(
        "eval", gpt2, "--glue", SHARED / "data" / "glue", "--tasks", "WNLI", "--seeds", 1, "--epochs", 1
    ).stdout
    task = json.loads(out.splitlines()[1])
    assert task["examples"] == {"train": 635, "dev": 71}
    assert task["majority"]["accuracy"] == 40 / 71
    assert task["chance"]["accuracy"] == 0.5
