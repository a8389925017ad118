"""The output layer: each statistic of a token is that of float64, also where the model is sure."""

import math

import pytest
import torch

from prune_cli.models.head import COLUMNS, OutputHead, exact_statistics

NAMES = ("nll", "error_norm", "entropy", "rank")
CPU = torch.device("cpu")


def plain(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The definitions, in float64."""
    logits = logits.double()
    chances = torch.softmax(logits, -1)
    own = logits.gather(1, targets[:, None])
    return {
        "nll": torch.nn.functional.cross_entropy(logits, targets, reduction="none"),
        "error_norm": (chances - torch.nn.functional.one_hot(targets, logits.shape[1])).norm(dim=-1),
        "entropy": -torch.special.xlogy(chances, chances).sum(-1),
        "rank": (logits > own).sum(-1).double(),
    }


def layer(
    vocabulary: int, spread: float, *, bias: bool = False, dtype: torch.dtype = torch.float32
) -> torch.nn.Linear:
    torch.manual_seed(3)
    made = torch.nn.Linear(48, vocabulary, bias=bias, dtype=dtype).requires_grad_(False)
    torch.nn.init.normal_(made.weight, std=spread)
    return made


@pytest.mark.parametrize("vocabulary", [5, 300, COLUMNS, 2 * COLUMNS + 7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_statistics_are_those_of_float64(vocabulary, bias, spread):
    output, hidden, targets = (
        layer(vocabulary, spread, bias=bias),
        torch.randn(70, 48),
        torch.randint(vocabulary, (70,)),
    )
    expected = plain(
        torch.nn.functional.linear(
            hidden.double(), output.weight.double(), output.bias.double() if bias else None
        ),
        targets,
    )
    found = OutputHead(output, vocabulary, torch.float32, CPU)(hidden, targets, NAMES)
    for name in NAMES:
        assert found[name].double().numpy() == pytest.approx(
            expected[name].numpy(), rel=1e-5, abs=2e-5 if name == "entropy" else 5e-6
        ), name


@pytest.mark.parametrize("distance", [1e-3, 5.0, 20.0, 40.0, 80.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_digits_are_lost_when_a_token_is_almost_certain(distance, sign):
    """Sure of the right token (sign 1) or of a wrong one.

    The usual formula, Σp² − 2p + 1, is 23 % off at an error norm of 1e-4.
    """
    logits = torch.zeros(1, 4)
    logits[0, 0], logits[0, 1], targets = sign * distance, sign * distance / 2, torch.tensor([0])
    found = OutputHead(None, 4, torch.float32, CPU)(logits, targets, NAMES)
    rivals = (
        [math.exp(value - sign * distance) for value in (sign * distance / 2, 0, 0)]
        if sign > 0 or distance < 100
        else []
    )
    if rivals:
        total = 1 + math.fsum(rivals)
        norm = math.sqrt(math.fsum(rivals) ** 2 + math.fsum(each * each for each in rivals)) / total
        assert float(found["nll"]) == pytest.approx(math.log1p(math.fsum(rivals)), rel=3e-7)
        assert float(found["error_norm"]) == pytest.approx(norm, rel=3e-7)
    else:
        assert float(found["nll"]) == pytest.approx(distance + math.log(2), rel=1e-6)
        assert float(found["error_norm"]) == pytest.approx(math.sqrt(1.5), rel=1e-6)
    assert float(found["rank"]) == (0 if sign > 0 else 3)


def test_the_bounds_of_the_error_norm():
    uniform = OutputHead(None, 10, torch.float32, CPU)(torch.zeros(1, 10), torch.tensor([3]), ("error_norm",))
    assert float(uniform["error_norm"]) == pytest.approx(math.sqrt(1 - 1 / 10))
    wrong = torch.full((1, 10), -100.0).index_fill(1, torch.tensor([4]), 100.0)
    assert float(
        OutputHead(None, 10, torch.float32, CPU)(wrong, torch.tensor([3]), ("error_norm",))["error_norm"]
    ) == pytest.approx(math.sqrt(2))


def test_exact_statistics_agree():
    logits, targets = torch.randn(30, 50, dtype=torch.float64) * 5, torch.randint(50, (30,))
    for name, values in exact_statistics(logits, targets).items():
        assert values.numpy() == pytest.approx(plain(logits, targets)[name].numpy(), rel=1e-12, abs=1e-14), (
            name
        )


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_infinite_logits_give_no_finite_loss(broken):
    logits = torch.zeros(2, 5)
    logits[1, 2] = broken
    found = OutputHead(None, 5, torch.float32, CPU)(logits, torch.tensor([0, 0]), NAMES)
    assert math.isfinite(found["nll"][0])
    assert not math.isfinite(found["nll"][1])


def test_bfloat16_keeps_its_precision_for_large_logits():
    """Logits near 100, as GPT-2's are: rounded to bfloat16 they would be ½ apart."""
    output = layer(3000, 1.0, dtype=torch.bfloat16)
    output.weight += 2
    hidden, targets = (torch.randn(50, 48) * 0.3 + 1).to(torch.bfloat16), torch.randint(3000, (50,))
    logits = hidden.double() @ output.weight.double().T
    assert float(logits.mean()) > 90
    exact = plain(logits, targets)
    found = OutputHead(output, 3000, torch.bfloat16, CPU)(hidden, targets, NAMES)
    usual = torch.nn.functional.cross_entropy(output(hidden).float(), targets, reduction="none")
    assert float((usual - exact["nll"]).abs().max()) > 0.1
    for name, tolerance in (("nll", 5e-3), ("error_norm", 2e-2), ("entropy", 0.05)):
        assert found[name].numpy() == pytest.approx(exact[name].numpy(), rel=tolerance, abs=tolerance), name
