"""train --adapt: passes that choose their blocks by loss, as in a plain loop; resumed; refused."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prune_cli.errors import ConfigurationError, UsageError
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.models.text.tokenizer import encode
from prune_cli.training import token_file
from prune_cli.training.model import gpt2_config, load_model, new_model
from prune_cli.training.passes import selection
from prune_cli.training.passes.plan import AdaptPlan
from prune_cli.training.recipe import choose, plan

from .conftest import lines
from .training import Killed, documents, furnished, killed_at, metrics, settings, train, weights

BLOCKS = 172  # in the corpus of `documents()`
STEPS = 60


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return furnished(tmp_path_factory.mktemp("adapt"))


# A plain loop: an order, a choice and a training of its own

WORD = (1 << 64) - 1


def splitmix(value, *salts):
    """splitmix64 in Python's whole numbers."""
    for salt in (0, *salts):
        value = ((value ^ salt) + 0x9E3779B97F4A7C15) & WORD
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & WORD
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & WORD
        value ^= value >> 31
    return value


def plain_choice(losses, part, share, number):
    """The weight of each block that a pass keeps, by the definition of the manual."""
    if part == "infobatch":
        mean = math.fsum(losses.values()) / len(losses)
        kept = {block: 1.0 for block, loss in losses.items() if loss >= mean}
        drawn = {block for block in losses if splitmix(block, 0, number, 1) / 2**64 < share}
        return kept | dict.fromkeys(drawn - kept.keys(), 1 / share)
    count = math.floor(share * len(losses) + 0.5)
    first = {"bottom": 0, "middle": (len(losses) - count) // 2, "top": len(losses) - count}[part]
    ordered = sorted(losses, key=lambda block: (losses[block], block))
    return dict.fromkeys(ordered[first : first + count], 1.0)


def plain_passes(losses, part, share, steps, batch):
    """The blocks and weights of each step. `losses` are filled by the caller, step by step."""
    step = 0
    until = steps - math.ceil(steps / 8) if part == "infobatch" else steps
    for number in range(1, steps + 2):
        is_chosen = number > 1 and step < until
        kept = plain_choice(losses, part, share, number) if is_chosen else dict.fromkeys(range(BLOCKS), 1.0)
        order = sorted(kept, key=lambda block: splitmix(block, 0, number - 1))
        for start in range(0, len(order), batch):
            if step == steps or (is_chosen and step == until):
                break
            blocks = [order[place % len(order)] for place in range(start, start + batch)]
            yield blocks, [kept[block] for block in blocks]
            step += 1


def plain_run(home, folder, part, share, steps, batch):
    """Train with torch's own AdamW. Returns the blocks of each step, the losses of each and the weights."""
    tokenizer = load_tokenizer(home / "tokenizer")
    manifest = token_file.pack(
        documents(), lambda texts: encode(tokenizer, texts), folder, vocabulary=300, separator=0
    )
    blocks = token_file.Blocks(folder, manifest, 32, seed=0)
    model = new_model(gpt2_config(tokenizer, layers=2, width=32, heads=2, context=32, entries=300), seed=0)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    recorded: dict[int, float] = {}
    trained, step_losses = [], []
    for step, (chosen, of_blocks) in enumerate(plain_passes(recorded, part, share, steps, batch)):
        ids = torch.from_numpy(np.stack([blocks[block] for block in chosen]))
        logits = model(input_ids=ids).logits[:, :-1]
        of_tokens = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        losses = of_tokens.view(len(ids), -1).mean(1)
        (losses * torch.tensor(of_blocks)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plain_rate(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        recorded |= dict(zip(chosen, losses.tolist(), strict=True))
        trained.append(chosen)
        step_losses.append(losses.mean().item())
    return trained, step_losses, model


def plain_rate(step, steps, peak=1e-2):
    warmup = steps // 20
    done = (step - warmup) / (steps - 1 - warmup)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


@pytest.mark.parametrize(
    ("part", "share", "steps", "batch"),
    [
        ("middle", 0.5, 45, 8),
        ("bottom", 0.3, 45, 8),
        ("top", 0.3, 8, 100),
        ("infobatch", 0.5, 60, 8),
        ("infobatch", 0.2, 10, 100),
    ],
)
def test_the_passes_are_those_of_a_plain_loop(home, tmp_path, monkeypatch, part, share, steps, batch):
    """With 100 blocks a batch, a pass of 52 fills its only batch with blocks from its beginning."""
    trained = []
    stack = token_file.Blocks.stack

    def noted(blocks, indices):
        trained.append(list(indices))
        return stack(blocks, indices)

    monkeypatch.setattr(token_file.Blocks, "stack", noted)
    options = {"adapt": part, "adapt_frac": str(share), "steps": steps, "batch_tokens": 32 * batch}
    train(documents(), settings(home, **options), tmp_path / "run")
    expected, losses, model = plain_run(home, tmp_path, part, share, steps, batch)
    assert trained == expected
    assert [line["loss"] for line in metrics(tmp_path / "run")] == pytest.approx(losses, abs=1e-4)
    ours = load_model(tmp_path / "run").state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-3)


# The choice, by hand


def chosen(losses, part, share, number=2):
    return selection.weights(np.array(losses, np.float32), AdaptPlan(part, share, 1), 0, number).tolist()


def test_a_part_is_that_of_slice():
    losses = [5, 1, 4, 2, 3, 3]
    assert chosen(losses, "bottom", 0.5) == [0, 1, 0, 1, 1, 0]  # of equal losses the earlier block
    assert chosen(losses, "middle", 0.5) == [0, 0, 0, 1, 1, 1]
    assert chosen(losses, "top", 0.34) == [1, 0, 1, 0, 0, 0]
    assert sum(chosen(losses, "top", 0.01)) == sum(chosen(losses, "middle", 0.01)) == 1
    assert chosen(losses, "middle", 0.01) == [0, 0, 0, 0, 0, 1]  # never none


def test_infobatch_keeps_the_expected_gradient():
    losses = [0.0] * 10_000 + [1.0] * 10_000
    drawn = [np.array(chosen(losses, "infobatch", 0.2, number)) for number in (2, 3)]
    for of_pass in drawn:
        assert set(of_pass[:10_000]) == {0, 5}
        assert (of_pass[10_000:] == 1).all()
        # The standard deviation of this mean of 10,000 draws is 0.02.
        assert of_pass[:10_000].mean() == pytest.approx(1, abs=0.08)
    assert (drawn[0] != drawn[1]).any()
    assert chosen([2.5, 2.5, 2.5], "infobatch", 0.5) == [1, 1, 1]


# Resumed, recorded, refused


@pytest.mark.parametrize(
    ("part", "every", "stops"), [("middle", 9, (28,)), ("top", 11, (40,)), ("infobatch", 9, (28, 56))]
)
def test_a_resumed_run_ends_with_the_same_bits(home, tmp_path, part, every, stops):
    """From steps 27, within the second pass, and 33, at its end (54: in infobatch's last, whole pass)."""
    adaptive = settings(home, adapt=part, steps=STEPS, save_every=every)
    train(documents(), adaptive, tmp_path / "whole")
    for step in stops:
        with pytest.raises(Killed):
            train(documents(), adaptive, tmp_path / "run", resume=True, report=killed_at(step))
    train(documents(), adaptive, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    clockless = [
        [{**line, "tokens_per_second": 0} for line in metrics(tmp_path / name)] for name in ("run", "whole")
    ]
    assert clockless[0] == clockless[1]
    assert not [*(tmp_path / "run").rglob("passes.safetensors")]


def test_the_first_line_of_a_pass_says_what_it_kept(home, tmp_path):
    train(documents(), settings(home, adapt="middle", steps=STEPS), tmp_path / "run")
    begun = [line for line in metrics(tmp_path / "run") if "pass" in line]
    assert [(line["step"], line["pass"], line["kept_blocks"]) for line in begun] == [
        *((1, 1, 172), (23, 2, 86), (34, 3, 86), (45, 4, 86), (56, 5, 86))
    ]
    assert "kept_min_loss" not in begun[0]
    for line in begun[1:]:
        assert 1 < line["kept_min_loss"] < line["kept_max_loss"] < 7
        assert line["rescaled_blocks"] == 0


def test_infobatch_adapts_from_a_point_on_and_ends_with_all_blocks(home, tmp_path):
    options = {"adapt": "infobatch", "adapt_frac": "25%", "adapt_from": "26", "steps": 100}
    train(documents(), settings(home, **options), tmp_path / "run")
    begun = [line for line in metrics(tmp_path / "run") if "pass" in line]
    assert [(line["step"], line["kept_blocks"]) for line in begun[:2]] == [(1, 172), (23, 172)]
    assert all(8 < line["rescaled_blocks"] < line["kept_blocks"] < 172 for line in begun[2:-1])
    assert (begun[-1]["step"], begun[-1]["kept_blocks"]) == (88, 172)
    chosen = json.loads((tmp_path / "run" / "train.json").read_text())["chosen"]
    assert chosen["adapt"] == {"value": "infobatch", "from": "given"}
    assert chosen["adapt_from"] == {"value": "26", "from": "given"}


def test_a_run_that_adapts_is_resumed_with_the_same_rule_only(home, tmp_path):
    with pytest.raises(Killed):
        train(documents(), settings(home, adapt="top", save_every=3), tmp_path / "run", report=killed_at(4))
    with pytest.raises(ConfigurationError, match="was started with --adapt top, not bottom"):
        train(documents(), settings(home, adapt="bottom", save_every=3), tmp_path / "run", resume=True)
    with pytest.raises(ConfigurationError, match="was started with --adapt top, not None"):
        train(documents(), settings(home, save_every=3), tmp_path / "run", resume=True)


@pytest.mark.parametrize("part", ["middle", "infobatch"])
def test_a_run_without_a_second_pass_is_warned_of(home, tmp_path, caplog, part):
    train(documents(), settings(home, adapt=part), tmp_path / "run")
    end = 17 if part == "infobatch" else 20
    assert f"none begins from step 22 (--adapt-from) on and before step {end}" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": "easy"}, "--adapt easy is unknown; use one of bottom, middle, top, infobatch"),
        ({"adapt_frac": "0.5"}, "--adapt-frac needs --adapt; add --adapt PART"),
        ({"adapt_from": "1ep"}, "--adapt-from needs --adapt; add --adapt PART"),
        ({"adapt": "top", "adapt_frac": "1"}, "invalid --adapt-frac '1'"),
        ({"adapt": "top", "adapt_frac": "half"}, "invalid --adapt-frac 'half'"),
        ({"adapt": "top", "adapt_from": "x"}, "--adapt-from x is not a number of steps"),
        ({"adapt": "top", "adapt_from": "0"}, "--adapt-from 0: there is nothing to adapt before the first"),
        ({"adapt": "top", "adapt_from": "1ep,2ep"}, "--adapt-from takes one point"),
        ({"adapt": "top", "adapt_from": ""}, "--adapt-from takes one point"),
        ({"adapt": "top", "adapt_from": "3ep"}, "--adapt-from 3ep is after step 30, and the last step is 20"),
    ],
)
def test_impossible_options(home, options, message):
    with pytest.raises(UsageError) as refused:
        plan(choose(settings(home, **options)), 32, 80)
    assert message in str(refused.value)


def test_bad_options_of_the_command_are_usage_errors(home, tmp_path, here):
    command = ("train", "--config", home / "shape.toml", "--tokenizer", home / "tokenizer", "--steps", 60)
    corpus = lines([{"text": text} for text in documents()])
    said = here(*command, "--adapt", "tip", "-o", tmp_path / "run", stdin=corpus, status=2).stderr
    assert b"'tip' is not one of 'bottom', 'middle', 'top', 'infobatch'" in said
    said = here(*command, "--adapt-frac", "0.5", "-o", tmp_path / "run", stdin=corpus, status=2).stderr
    assert said.startswith(b"prune-cli train: --adapt-frac needs --adapt; add --adapt PART")
    here(*command, "--adapt", "middle", "-o", tmp_path / "run", stdin=corpus)
    assert [line["pass"] for line in metrics(tmp_path / "run") if "pass" in line] == [1, 2, 3, 4, 5]
