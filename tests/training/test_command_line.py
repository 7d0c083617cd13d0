"""Recipe, overrides and mistakes on the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from neuromorphic import cli
from snn.training.command_line import main, parse
from snn.training.errors import suggestion
from snn.training.recipe import RECIPE_FOLDER, Recipe, check_keys, recipe_names, recipe_to_dict


def recipe_of(*arguments: str) -> Recipe:
    return parse(["--config", "digits", "--run-dir", "unused", *arguments])[1]


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name: str) -> None:
    _, recipe = parse(["--config", name, "--run-dir", "unused"])
    given = yaml.safe_load((RECIPE_FOLDER / f"{name}.yaml").read_text())
    assert recipe_to_dict(recipe)["network"] == given["network"]
    assert recipe.epochs == given["epochs"]


def test_overrides_reach_every_depth() -> None:
    changed = recipe_of(
        *("--epochs", "3", "--data.batch-size=32", "--network.hidden", "[7, 8]", "--network.neuron.tau", "5"),
        *("--num-nodes", "2", "--optimizer.lr=1e-4", "--bptt_steps", "2", "--network.neuron.v_reset", "null"),
    )
    assert (changed.epochs, changed.data.batch_size, changed.num_nodes, changed.bptt_steps) == (3, 32, 2, 2)
    assert changed.network["hidden"] == [7, 8]
    assert changed.network["neuron"]["tau"] == 5
    assert changed.network["neuron"]["v_reset"] is None
    assert changed.network["neuron"]["detach_reset"] is True  # from the recipe
    assert changed.optimizer["lr"] == 1e-4
    assert recipe_of("--network.neuron", "IF", "--network.neuron.v_threshold", "2").network["neuron"] == {
        "class": "IF",
        "v_threshold": 2,
    }


def test_a_recipe_survives_its_own_file(tmp_path: Path) -> None:
    recipe = recipe_of("--devices", "[0, 1]", "--trainer.deterministic", "true", "--clip_norm", "0.5")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(recipe_to_dict(recipe)))
    assert parse(["--config", str(path), "--run-dir", "unused"])[1] == recipe


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epoch", "3"], ["unknown flag --epoch", "did you mean 'epochs'"]),
        (["--data.nmae", "mnist"], ["unknown key 'data.nmae'", "did you mean 'name'"]),
        (["--data.name", "mnits"], ["data.name", "'mnits'", "did you mean 'mnist'"]),
        (["--data.name", "slow_digits:nothing"], ["data.name", "cannot be imported"]),
        (["--data.name", "slow_digits:broken"], ["data.name", "no file for train"]),
        (["--data.batch_size", "0"], ["data.batch_size must be >= 1, got 0"]),
        (["--data.val_fraction", "1.5"], ["data.val_fraction must be in [0, 1), got 1.5"]),
        (["--data", "null"], ["data must be a mapping"]),
        (["--encoding.name", "drect"], ["encoding.name", "did you mean 'direct'"]),
        (["--network.class", "SpikingMPL"], ["network.class", "did you mean 'SpikingMLP'"]),
        (["--network.hiden", "[3]"], ["network.hiden", "did you mean 'hidden'"]),
        (["--network.hidden", "30"], ["network", "hidden must be a list of positive numbers, got 30"]),
        (["--network.neuron", "LIFF"], ["neuron", "did you mean 'LIF'"]),
        (["--network.neuron.taau", "3"], ["neuron", "'taau'", "did you mean 'tau'"]),
        (["--network.neuron.tau", "0.5"], ["SpikingMLP: LIF: tau must be > 1"]),
        (["--optimizer.class", "AdamV"], ["optimizer.class", "did you mean 'Adam"]),
        (["--optimizer.lrr", "1"], ["optimizer.lrr", "did you mean 'lr'"]),
        (["--optimizer.lr", "-1"], ["optimizer", "learning rate"]),
        (["--bptt_steps", "2.5"], ["bptt_steps must be int or null, got 2.5"]),
        (["--epochs", "many"], ["epochs must be int, got 'many'"]),
        (["--seed"], ["--seed needs a value"]),
        (["--trainer.devices", "2"], ["give it as devices, outside trainer"]),
        (["--trainer.precison", "16"], ["trainer.precison"]),
        (["--accelerator", "quantum"], ["accelerator"]),
        (["--config", "digit"], ["no file 'digit'", "did you mean 'digits'"]),
        (["--resume", "--overwrite"], ["--resume and --overwrite exclude each other"]),
        (["digits"], ["digits"]),
        (["--network.hidden", "[3"], ["--network.hidden", "not a YAML value"]),
        (["--epochs.more", "3"], ["--epochs.more: epochs is 30 and has no keys"]),
    ],
)
def test_a_mistake_is_named_and_ends_with_code_2(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert main(["--config", "digits", "--run-dir", str(tmp_path / "run"), *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "data: [", "epochs: 3\nepoch: 4\n"])
def test_a_file_that_is_no_recipe_is_an_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["--config", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "error: " in capsys.readouterr().err


def test_missing_flags_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "digits"]) == 2
    assert main(["--run-dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "--run-dir is missing" in message
    assert "--config is missing" in message


def test_script_prints_results_and_hides_no_mistake(
    train_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = train_script("--config", "digits", "--run-dir", str(tmp_path / "run"), "--epochs", "1")
    assert done.returncode == 0, done.stderr
    for words in ("test accuracy", "spikes per neuron", "time per epoch", str(tmp_path / "run" / "raster.png")):
        assert words in done.stdout
    again = train_script("--config", "digits", "--run-dir", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr


def test_console_command_passes_arguments_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", "digit", "--run-dir", "unused"]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "train" in capsys.readouterr().out


def test_help_lists_the_keys_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("--data.batch_size", "--bptt_steps", "--resume", "mnist_mlp"))


def test_suggestion_needs_a_close_word() -> None:
    assert suggestion("zzzz", ["epochs"]) == "Valid: epochs"
    assert suggestion("EPOCH", ["epochs"]).startswith("did you mean 'epochs'")


def test_nested_keys_are_checked() -> None:
    check_keys({"data": {"name": "digits"}, "network": {"anything": 1}}, Recipe)
    with pytest.raises(ValueError, match=r"'data\.x'"):
        check_keys({"data": {"x": 1}}, Recipe)
