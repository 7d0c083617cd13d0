"""The list of rules, how they are made, the alignment report, and training by each of them."""

from __future__ import annotations

import csv
import doctest
import importlib
import math
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_networks import NETWORKS, batch, mlp
from torch import nn

import snn.learning
from snn.errors import ShapeError, UnsupportedError
from snn.learning import RULES, Alignment, CreditRule, gradient_alignment, make_rule
from snn.models import AnalogMLP, SpikingMLP
from snn.training import StepResult, train
from snn.training.command_line import main, parse
from snn.training.loss import SequenceLoss

DATA = Path(__file__).parents[1] / "training"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(DATA))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "data: {name: 'tiny_data:load', batch_size: 12}\n"
        "encoding: {steps: 1}\n"
        "network: {class: AnalogMLP, hidden: [16, 12], neuron: Tanh}\n"
        "optimizer: {class: Adam, lr: 0.02}\n"
        "epochs: 6\naccelerator: cpu\ndevices: 1\n",
        encoding="utf-8",
    )
    return path


def run(recipe: Path, *arguments: str) -> int:
    return main(["--config", str(recipe), "--run-dir", str(recipe.parent / "run"), "--overwrite", *arguments])


def test_public_names() -> None:
    assert sorted(snn.learning.__all__) == sorted(
        [
            "RULES",
            "Alignment",
            "Backpropagation",
            "CreditRule",
            "DirectFeedbackAlignment",
            "DualPropagation",
            "EquilibriumPropagation",
            "EventDualPropagation",
            "FeedbackAlignment",
            "FlexiblePhase",
            "SignSymmetric",
            "gradient_alignment",
            "make_rule",
        ]
    )
    assert all(hasattr(snn.learning, name) for name in snn.learning.__all__)


EXAMPLES = [
    *(f"snn.learning.{module.name}" for module in pkgutil.iter_modules(snn.learning.__path__)),
    *("snn.neurons.dyadic", "snn.neurons.dyadic_events", "snn.training.loss"),
    *("snn.models.analog_mlp", "snn.models.analog_vgg", "snn.models.residual"),
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_example_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "learning.md").read_text(encoding="utf8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    (hidden, *_), (readout, cosine, norm_ratio) = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (hidden, readout) == ("0", "2")
    assert (float(cosine), float(norm_ratio)) == pytest.approx((1.0, 1.0))


def test_every_rule_is_listed() -> None:
    defined: set[Any] = set()
    for module in pkgutil.iter_modules(snn.learning.__path__):
        names = vars(importlib.import_module(f"snn.learning.{module.name}"))
        defined |= {v for v in names.values() if isinstance(v, type) and issubclass(v, CreditRule)}
    assert {kind for kind in defined if not getattr(kind, "__abstractmethods__", None)} == set(RULES.values())
    wanted = ["bp", "dfa", "dual_propagation", "eqprop", "event_dual_propagation", "fa", "flexible_phase"]
    assert sorted(RULES) == [*wanted, "sign_symmetric"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_fills_all_gradients_and_reports(name: str) -> None:
    net, (x, y) = mlp().double(), batch((8,))
    rule = make_rule(name)
    rule.prepare(net)
    result = rule(net, x, y, lambda loss: loss.backward())
    assert isinstance(result, StepResult)
    if name != "event_dual_propagation":  # its logits are those of the activities that were received
        torch.testing.assert_close(result.logits, net(x).detach())
    torch.testing.assert_close(result.loss, nn.functional.cross_entropy(result.logits, y))
    assert not result.loss.requires_grad
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape
        assert bool(parameter.grad.isfinite().all())


def test_unknown_rule_and_option_name_the_closest() -> None:
    with pytest.raises(ValueError, match="rule: unknown 'dual_prop'; did you mean 'dual_propagation'"):
        make_rule("dual_prop")
    with pytest.raises(ValueError, match=r"rule.bta: dual_propagation has no such option; did you mean 'beta'"):
        make_rule("dual_propagation", options={"bta": 1})
    with pytest.raises(ValueError, match=r"rule.beta: sign_symmetric has no such option; it has none"):
        make_rule("sign_symmetric", options={"beta": 1})
    with pytest.raises(TypeError, match=r"options must be DualPropagation.Options, got"):
        RULES["dual_propagation"](None, make_rule("fa").options)


def test_seed_is_taken_unless_the_options_give_one() -> None:
    assert make_rule("fa", seed=7).options.seed == 7
    assert make_rule("fa", options={"seed": 3}, seed=7).options.seed == 3


def test_backpropagation_is_perfectly_aligned() -> None:
    for name, (make, shape) in NETWORKS.items():
        net, (x, y) = make().double(), batch(shape)
        found = gradient_alignment(net, "bp", x, y)
        weighted = [key for key, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
        assert list(found) == weighted, name
        for alignment in found.values():
            assert alignment.cosine == pytest.approx(1.0)
            assert alignment.norm_ratio == pytest.approx(1.0)


def test_alignment_takes_a_name_a_class_and_a_rule_and_agrees_with_the_numbers() -> None:
    net, (x, y) = mlp().double(), batch((8,))
    found = gradient_alignment(net, "dfa", x, y)
    assert gradient_alignment(net, RULES["dfa"], x, y) == found
    rule = make_rule("dfa")
    assert gradient_alignment(net, rule, x, y) == found
    net.zero_grad()
    rule(net, x, y, lambda loss: loss.backward())
    ours = torch.cat([net[2].weight.grad.flatten(), net[2].bias.grad])
    true = torch.cat(
        [g.flatten() for g in torch.autograd.grad(nn.functional.cross_entropy(net(x), y), [*net[2].parameters()])]
    )
    assert found["2"].cosine == pytest.approx(float(torch.cosine_similarity(ours, true, 0)))
    assert found["2"].norm_ratio == pytest.approx(float(ours.norm() / true.norm()))


def test_alignment_leaves_gradients_buffers_generators_and_parameters_alone() -> None:
    net = SpikingMLP(
        (8,), 4, hidden=(6,), neuron={"class": "LIF", "backend": "reference"}, batch_norm=True, dropout=0.5
    )
    x, y = torch.rand(3, 9, 8), torch.arange(9) % 4
    parameters = list(net.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    found = gradient_alignment(net, "bp", x, y)
    assert all(alignment.cosine == pytest.approx(1.0, abs=1e-5) for alignment in found.values())
    assert bool((parameters[0].grad == 1).all())
    assert all(parameter.grad is None for parameter in parameters[1:])
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_alignment_of_zero_updates() -> None:
    net, (x, y) = mlp().double(), batch((8,))
    found = gradient_alignment(net, make_rule("dfa", options={"gain": 0.0}), x, y)
    assert found["0"] == Alignment(0.0, 0.0)
    net[6].weight.data.zero_()
    still = gradient_alignment(net, make_rule("dfa", options={"gain": 0.0}), x, y)
    assert still["0"] == Alignment(1.0, 1.0)
    lost = gradient_alignment(net, "dfa", x, y)["0"]
    assert lost.cosine == 0.0
    assert math.isinf(lost.norm_ratio)


def test_alignment_leaves_learned_feedback_weights_out() -> None:
    net, (x, y) = mlp().double(), batch((8,))
    rule = make_rule("dual_propagation", options={"feedback": "kolen_pollack"})
    found = gradient_alignment(net, rule, x, y)
    assert found["6"] == pytest.approx((1.0, 1.0))
    assert found["0"].cosine < 0.9


def test_alignment_adds_a_missing_time_axis_and_names_wrong_shapes() -> None:
    net, (x, y) = AnalogMLP((8,), 4, hidden=(5,)), batch((8,))
    x = x.float()
    assert gradient_alignment(net, "fa", x, y) == gradient_alignment(net, "fa", x.unsqueeze(0), y)
    with pytest.raises(ShapeError, match=r"x must be \[T, 9, ...\] for 9 labels, got \(7, 8\)"):
        gradient_alignment(net, "fa", x[:7], y)
    with pytest.raises(ShapeError, match=r"x must be \[9, ...\] for 9 labels"):
        gradient_alignment(mlp(), "fa", x[:7], y)
    with pytest.raises(UnsupportedError, match="T = 1, got T = 2"):
        gradient_alignment(net, "dual_propagation", torch.stack([x, x]), y)


def test_smoothed_squared_error_and_its_derivative() -> None:
    for name in ("cross_entropy", "squared_error"):
        loss = SequenceLoss(name, label_smoothing=0.1)  # type: ignore[arg-type]
        logits, y = torch.randn(9, 4, dtype=torch.float64, requires_grad=True), torch.arange(9) % 4
        (expected,) = torch.autograd.grad(loss(logits.unsqueeze(0), y), logits)
        torch.testing.assert_close(loss.errors(logits.detach(), y) / 9, expected)
    steps = SequenceLoss("squared_error", "steps")(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]), torch.tensor([1]))
    mean = SequenceLoss("squared_error", "mean")(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]), torch.tensor([1]))
    assert (steps.item(), mean.item()) == (0.25, 0.125)
    with pytest.raises(ValueError, match="name must be cross_entropy or squared_error, got 'mse'"):
        SequenceLoss("mse")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RULES)
def test_training_script_takes_every_rule(name: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe, "--rule", name) == 0
    assert f"rule: {name}" in (recipe.parent / "run" / "config.yaml").read_text()
    with (recipe.parent / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    if name in ("bp", "dual_propagation", "eqprop", "sign_symmetric"):
        assert float(rows[-1]["test_accuracy"]) > 0.8


def test_options_of_the_rule_and_the_alignment_of_each_epoch(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rule", "dual_propagation", "--rule.beta", "1e-3", "--rule.alpha", "0.3", "--alignment", "true"]
    assert run(recipe, *arguments, "--loss.name", "squared_error", "--epochs", "2") == 0
    with (recipe.parent / "run" / "alignment.csv").open() as file:
        rows = list(csv.DictReader(file))
    layers = ["stack.layers.linear1", "stack.layers.linear2", "stack.layers.readout"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [(epoch, layer) for epoch in "12" for layer in layers]
    assert all(float(row["cosine"]) > 0.999 for row in rows)
    assert all(float(row["norm_ratio"]) == pytest.approx(1, abs=0.02) for row in rows)
    assert run(recipe) == 0
    assert not (recipe.parent / "run" / "alignment.csv").exists()


def test_measuring_the_alignment_changes_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = []
    for measured in ("true", "false"):
        assert run(recipe, "--rule", "flexible_phase", "--alignment", measured, "--epochs", "2") == 0
        saved = torch.load(recipe.parent / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        weights.append(saved)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


class Cut(Exception):  # noqa: N818 - stands for a killed process
    pass


@pytest.mark.parametrize("rule", ["{class: dual_propagation, feedback: kolen_pollack}", "fa", "dfa", "flexible_phase"])
def test_continued_run_ends_with_the_same_weights(rule: str, recipe: Path) -> None:
    """The random feedback weights and phases are those of the run that was cut."""
    _, options = parse(["--config", str(recipe), "--run-dir", "unused", "--rule", rule])
    whole, cut = recipe.parent / "whole", recipe.parent / "cut"
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise Cut

    train(options, whole, report=lambda _: None)
    with pytest.raises(Cut):
        train(options, cut, report=report)
    train(options, cut, resume=True, report=lines.append)
    assert len(lines) == 6
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, cut)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any("feedback" in key for key in weights[0]) == ("kolen" in rule)


MISTAKES = {
    "--rule dual_prop": ["rule: unknown 'dual_prop'", "did you mean 'dual_propagation'"],
    "--rule bp --rule.bta 1": ["rule.bta: bp has no such option"],
    "--rule.beta 1": ["rule must be a name or a mapping with the key 'class', got {'beta': 1}"],
    "--rule dual_propagation --rule.beta -1": ["rule: dual_propagation", "beta must be > 0, got -1"],
    "--rule {beta:1}": ["rule must be a name or a mapping with the key 'class'"],
    "--rule 3": ["rule"],
    "--rule dfa --bptt-steps 2 --network.class SpikingMLP --network.neuron LIF": ["only the rule bp cuts"],
    "--rule eqprop --encoding.steps 2": ["rule: eqprop", "T = 1, got T = 2"],
    "--rule dual_propagation --network.class SpikingMLP --network.neuron LIF": ["'stack.layers.neuron1' (LIF)"],
    "--loss.name hinge": ["loss.name", "hinge"],
    "--network.neuron ReLu": ["neuron must be one of ReLU", "'ReLu'"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_named_and_leave_no_folder(line: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("{beta:1}", "{beta: 1}") for word in line.split()]
    assert run(recipe, *words) == 2
    error = capsys.readouterr().err
    for part in MISTAKES[line]:
        assert part in error
    assert not (recipe.parent / "run").exists()
