"""train() on pretended GPUs: without dropout every way over devices gives the losses of the CPU, and resumes."""

from dataclasses import asdict, replace

import pytest
from helpers import fit, read_log, result_of

SAME = 1e-5  # of a loss: the CPU's parts and plain operators sum in different orders


def losses_of(folder) -> list[float]:
    """Return all losses of a log, of training and held out."""
    return [record.get("loss", record.get("valid_loss")) for record in read_log(folder)]


@pytest.fixture
def quiet_options(tiny_options, no_flushing):
    """Return a function from changes to the options of a tiny run without dropout that logs every step."""

    def make(**changes):
        return tiny_options(**{"dropout": 0.0, "log_step": 1, "replace_inputs": 0.0, **changes})

    return make


def train_beside_cpu(pretended, options, device: str, **changes) -> dict:
    """Train on the CPU and on pretended devices, compare all losses, and return what the latter counted."""
    elsewhere = replace(options, device=device, output_dir=f"{options.output_dir}-there", **changes)
    assert fit(options)
    done = pretended.run("train", options=asdict(elsewhere))
    assert done["status"] == 0 and done["finished"]
    expected = losses_of(options.output_path)
    assert len(expected) > 18
    assert losses_of(elsewhere.output_path) == pytest.approx(expected, rel=SAME)
    return done


@pytest.mark.parametrize("device", ["0", "1", "0,1", "1,0"])
def test_the_losses_are_those_of_the_cpu_on_any_devices(pretended, quiet_options, device):
    train_beside_cpu(pretended, quiet_options(), device)
