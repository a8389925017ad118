"""The recipe of a run: the origin of each value, the steps of a budget, the learning rate of each step."""

import pytest

from prune_cli.errors import ConfigurationError, UsageError
from prune_cli.settings.train import Training
from prune_cli.training.recipe import Plan, choose, learning_rate, plan

from .training import SHAPE

MODEL = {"tokenizer": "t", "preset": "124m"}


def test_a_value_comes_from_the_user_the_paper_the_preset_or_the_default():
    recipe = choose(Training(**MODEL, protocol="paper", batch_tokens=4096))
    chosen = {
        name: (recipe[name].value, recipe[name].origin)
        for name in ("batch_tokens", "lr", "steps", "context", "schedule")
    }
    assert chosen == {
        "batch_tokens": (4096, "given"),
        "lr": (1.5e-4, "paper"),
        "steps": (8000, "paper"),
        "context": (2048, "preset"),
        "schedule": ("cosine", "default"),
    }
    paper = plan(choose(Training(**MODEL, protocol="paper")), 2048, 3_700_000)
    assert (paper.batch, paper.steps, paper.warmup) == (2048, 8000, 400)
    assert "steps" not in choose(Training(**MODEL, protocol="paper", epochs=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MODEL, "needs one budget"),
        ({**MODEL, "steps": 1, "tokens": 1}, "needs one budget"),
        ({"steps": 1, "tokenizer": "t"}, "needs a model"),
        ({"steps": 1, "preset": "tiny"}, "needs a tokenizer"),
        ({**MODEL, "steps": 1, "preset": "huge"}, "--preset huge is unknown; use one of tiny, 124m, 1.5b"),
        ({**MODEL, "preset": "tiny", "protocol": "paper"}, "use --preset 124m or 1.5b"),
        ({**MODEL, "steps": 0}, "--steps 0 is not above zero"),
        ({**MODEL, "steps": 1, "save_at": "1,x"}, "--save-at x is not a number of steps"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message):
        choose(Training(**options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHAPE + "dropout = 1", "unknown key, dropout"),
        ("layers = 2", "lacks the key width"),
        (SHAPE.replace("2", "'2'", 1), "its layers"),
        ("=", "is not TOML"),
    ],
)
def test_impossible_configuration_files(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        choose(Training(config=tmp_path / "c.toml", tokenizer=tmp_path, steps=1))


def test_budgets_and_saves_are_counted_in_steps():
    made = plan(
        choose(Training(**MODEL, epochs=4.4, save_at="250, 0.55ep,14%,100%", save_every=900)),
        2048,
        256 * 1000,
    )
    assert (made.batch, made.steps, made.warmup, made.saves) == (
        256,
        4400,
        220,
        {250, 550, 616, 900, 1800, 2700, 3600, 4400},
    )
    assert plan(choose(Training(**MODEL, tokens=(1 << 20) + 1)), 2048, 9).steps == 3
    with pytest.raises(UsageError, match="2ep is step 2000, beyond the last step, 100"):
        plan(choose(Training(**MODEL, steps=100, save_at="2ep")), 2048, 256 * 1000)
    with pytest.raises(UsageError, match="is less than one block of 2048"):
        plan(choose(Training(**MODEL, steps=1, batch_tokens=2047)), 2048, 9)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_the_learning_rate_rises_and_falls(schedule, middle):
    made = Plan(steps=111, batch=1, context=1, warmup=10, lr=2.0, schedule=schedule, saves=frozenset())
    rates = [learning_rate(made, step) / 2 for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1, 1, middle, 1 if schedule == "constant" else 0.1])
