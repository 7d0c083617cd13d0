"""Random numbers of a run: every draw is a function of the recipe's seed and of the place in the run.

At the start of each epoch all generators are set from (seed, epoch, process), and each batch has its own seed from
(seed, epoch, batch). So an epoch does not depend on how the process arrived there, and a run continued from the end of
an epoch draws what the uninterrupted run draws, on any number of processes.
"""

import random
from typing import Any

import numpy as np
import torch

# First word of each path, so that no two uses of the seed share a stream.
WEIGHTS, EPOCH, ORDER, AUGMENT, ENCODE, EVALUATE, SPLIT = range(7)


def derived_seed(seed: int, *path: int) -> int:
    """Return an independent seed for one place of a run, in [0, 2**63).

    >>> derived_seed(0, EPOCH, 1) == derived_seed(0, EPOCH, 1), derived_seed(0, EPOCH, 1) == derived_seed(0, EPOCH, 2)
    (True, False)
    """
    return int(np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)[0] >> 1)


def set_all_generators(seed: int) -> None:
    """Set the generators of python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the old global generator is what third-party code draws from
    torch.manual_seed(seed)


def generator(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator for one place of a run."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *path))


def generator_states() -> dict[str, Any]:
    """Return the states of all global generators as plain values, for the record kept in a checkpoint."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
