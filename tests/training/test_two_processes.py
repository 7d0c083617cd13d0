"""Two processes train what one trains."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.parametrize("bptt_steps", ["null", "2"])
def test_two_gloo_processes_equal_one(
    bptt_steps: str, train_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    # Without augmentation, dropout and batch normalisation nothing depends on which process sees an image, except the
    # order in which gradients are added.
    shared = ["--epochs", "2", "--network.batch_norm", "false", "--bptt-steps", bptt_steps, "--accelerator", "cpu"]
    for count in ("1", "2"):
        done = train_script("--config", "digits", "--run-dir", str(tmp_path / count), "--devices", count, *shared)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 1/2") == 1
    content = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("1", "2")]
    for key, value in content[0]["state_dict"].items():
        torch.testing.assert_close(value, content[1]["state_dict"][key], rtol=1e-3, atol=1e-4)
    metrics = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("1", "2")]
    assert metrics[0]["test_accuracy"] == pytest.approx(metrics[1]["test_accuracy"], abs=0.01)
    assert metrics[0]["spikes_per_neuron_per_step"] == pytest.approx(metrics[1]["spikes_per_neuron_per_step"], rel=0.01)
