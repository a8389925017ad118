"""Options that contradict each other, or that have no effect because of another, are usage errors."""

import pytest

import prune_cli
from prune_cli.cli import VERBS, application
from prune_cli.commands import conflicts
from prune_cli.errors import UsageError
from prune_cli.settings.train import Training
from prune_cli.training import recipe

# A command line, and the option that it gives in vain. No file is looked at, so that none exists.
IN_VAIN = [
    ("rank -c -o F x", "--output"),
    ("rank --check --plain x", "--plain"),
    ("rank -c -S 1M x", "--buffer-size"),
    ("rank -c --group-by source x", "--group-by"),
    ("rank --plain --level 9 x", "--level"),
    ("rank --ray-address head:6379 x", "--ray-address"),
    ("score --engine local --ray-address auto x", "--ray-address"),
    ("pack --plain --single-frame --tokenizer t x", "--single-frame"),
    ("slice --keep top --frac 0.5 --seed 0 x", "--seed"),
    ("slice --min 1 --within source x", "--within"),
    ("slice -k a --prefix b --keep top --frac 0.5 x", "--prefix"),
    ("score --seed 0 x", "--seed"),
    ("score -m perplexity -m entropy --top-k 5 x", "--top-k"),
    ("score -m random --model m x", "--model"),
    ("score -m random --stride 4 x", "--stride"),
    ("stat --text-field body x", "--text-field"),
    ("train --init-from m --seed 1 --steps 1 -o r x", "--seed"),
    ("eval m --data d --seeds 5", "--seeds"),
    ("eval m --data d --epochs 3", "--epochs"),
    ("eval m --data d --lr 1e-5", "--lr"),
    ("eval m --data d --batch 32", "--batch"),
    ("eval m --data d --tasks rte", "--tasks"),
    ("eval m --glue g --seed 0", "--seed"),
    ("eval m --glue g --expect-records 3", "--expect-records"),
    ("eval m --glue g --text-field body", "--text-field"),
    ("eval r --against b --context 8", "--context"),
    ("eval r --per-document f", "--per-document"),
    ("stat -q -v x", "--verbose"),
    ("stat --quiet --progress x", "--progress"),
]


@pytest.mark.parametrize(("line", "option"), IN_VAIN, ids=[line for line, _ in IN_VAIN])
def test_an_option_without_effect_is_a_usage_error(here, line, option):
    said = here(*line.split(), status=2).stderr.decode()
    assert f": {option} has no effect: " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        "slice --keep random --frac 0.5 --seed 1",
        "slice --sample 1 --frac 0.5 --seed 1",
        "slice --range 0:0.5 --by tokens",
        "score -m random -m perplexity --seed 1 --context 8",
        "score -m some_package_of_others --seed 1 --top-k 3",
        "score -m top_k_accuracy --top-k 3",
        "eval m --glue g --seeds 2 --context 8",
        "rank -q --no-progress",
        "stat --duplicates --text-field body",
        "train --preset tiny --seed 1",
    ],
)
def test_options_with_an_effect_are_none(options):
    """The parser accepts them; the files do not exist."""
    verb, *arguments = options.split()
    command = application((verb,)).commands[verb]
    command.make_context(verb, [*arguments, "does/not/exist"])


def test_rules_name_options_that_exist():
    for verb in VERBS:
        command = application((verb,)).commands[verb]
        fields = {parameter.name for parameter in command.params}
        rules = (*conflicts.MESSAGES, *conflicts.RULES.get(verb, ()))
        assert {field for rule in rules for field in rule.fields} <= fields


def test_defaults_and_the_environment_are_not_given(here, monkeypatch, tmp_path):
    monkeypatch.setenv("ZSTD_CLEVEL", "5")
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n')
    here("rank", "--plain", "-k", "a", tmp_path / "in.jsonl")


def test_python_functions_refuse_the_same():
    with pytest.raises(UsageError, match="`seed` has no effect: nothing is drawn at random"):
        list(prune_cli.slice([], keep="top", frac=0.5, seed=1))
    with pytest.raises(UsageError, match="`top_k` has no effect"):
        list(prune_cli.score([], top_k=3))


@pytest.mark.parametrize(("warmup", "steps"), [(9, 5), (2, 1)])
def test_a_warm_up_that_is_longer_than_the_run_is_refused(tmp_path, warmup, steps):
    settings = Training(preset="tiny", tokenizer=tmp_path, steps=steps, warmup=warmup)
    with pytest.raises(UsageError, match=f"--warmup {warmup} is longer than the run of {steps} steps"):
        recipe.choose(settings)


def test_a_warm_up_of_the_whole_run_reaches_the_peak(tmp_path):
    """The rate of step k of N is k/N of the peak, so that the last step has the peak."""
    settings = Training(preset="tiny", tokenizer=tmp_path, steps=4, warmup=4, lr=1.0, schedule="wsd")
    made = recipe.plan(recipe.choose(settings), context=512, blocks=100)
    assert [recipe.learning_rate(made, step) for step in range(4)] == [0.25, 0.5, 0.75, 1]


def test_a_warm_up_is_compared_with_a_budget_of_tokens_too(tmp_path):
    """160k tokens in batches of 16 × 1024 are 10 steps."""
    settings = Training(preset="tiny", tokenizer=tmp_path, tokens=160_000, warmup=11)
    with pytest.raises(UsageError, match="--warmup 11 is longer than the run of 10 steps"):
        recipe.plan(recipe.choose(settings), context=512, blocks=100)


@pytest.mark.parametrize("point", ["0", "0ep", "0%", "4,0", "0.0%"])
def test_nothing_is_saved_before_the_first_step(tmp_path, point):
    settings = Training(preset="tiny", tokenizer=tmp_path, steps=8, save_at=point)
    with pytest.raises(UsageError, match="there is nothing to save before the first step"):
        recipe.choose(settings)
