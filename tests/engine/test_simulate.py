"""The command `simulate`: every ready network, its JSON and its plot."""

import json
import subprocess
import sys

import pytest

from neuromorphic.engine.networks import Options, cuba, microcircuit
from neuromorphic.engine.networks.microcircuit import synapse_numbers
from neuromorphic.engine.simulate_cli import main

REQUIRED = {
    "neurons", "synapses", "build_s", "run_s", "realtime_factor", "rate_hz", "rates_hz", "cv_isi",
    "synaptic_events_per_s", "peak_bytes",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "scale", "low", "high"),
    [("cuba", "1", 4.0, 7.5), ("coba", "1", 10.0, 18.0), ("brunel", "0.4", 44.7, 46.6), ("brunel-stdp", "0.1", 1.0, 60.0),
     ("microcircuit", "0.05", 1.5, 4.5)],
)  # fmt: skip
def test_figures(name, scale, low, high, tmp_path, capsys):
    path, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    arguments = [name, "--scale", scale, "--duration-ms", "400", "--warmup-ms", "100", "--seed", "2", "--threads", "1"]
    assert main([*arguments, "--json", str(path), "--plot", str(plot)]) == 0
    result = json.loads(path.read_text())
    assert set(result) >= REQUIRED
    assert low < result["rate_hz"] < high
    assert isinstance(result["rate_hz"], float)
    assert set(result["rates_hz"]) == set(result["cv_isi_by_population"])
    assert result["realtime_factor"] == pytest.approx(result["run_s"] / 0.4)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "synaptic events/s" in capsys.readouterr().out


def test_microcircuit_numbers():
    assert abs(int(synapse_numbers().sum()) - 298_880_969) < 50
    with pytest.raises(ValueError, match="fall silent"):
        microcircuit(Options(scale=0.1), drive="dc")


def test_microcircuit_rates_at_a_tenth():
    ready = microcircuit(Options(scale=0.1, seed=3))
    ready.network.run(500.0)
    report = ready.network.run(1000.0)
    rates = [report.spikes[name] / p.n for name, p in ready.populations.items()]
    assert rates == pytest.approx([0.40, 2.02, 3.88, 4.96, 6.58, 7.73, 0.83, 6.99], rel=0.2, abs=0.1)


def test_cuba_has_the_examples_synapse_numbers():
    net = cuba(Options()).network.build()
    count = sum(len(net.synapses(p)[0]) for p in net.projections)
    assert count == pytest.approx(320_000, rel=0.01)


def test_bad_arguments_end_with_a_message(capsys):
    with pytest.raises(SystemExit):
        main(["brunel", "--scale", "-1"])
    assert "scale must be in" in capsys.readouterr().err


def test_the_script_runs(tmp_path):
    command = [sys.executable, "scripts/simulate.py", "cuba", "--duration-ms", "20", "--warmup-ms", "10", "--no-plot"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cuba on numba: 4000 neurons" in done.stdout
