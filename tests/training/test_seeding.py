"""Random numbers as a function of seed and place."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import torch

from snn.training.seeding import derived_seed, generator, generator_states, set_all_generators


def test_every_place_has_its_own_seed() -> None:
    places = [(seed, *path) for seed in range(3) for path in product(range(3), range(3))]
    assert len({derived_seed(*place) for place in places}) == len(places)
    assert derived_seed(5, 1, 2) == derived_seed(5, 1, 2)
    assert 0 <= derived_seed(2**63 - 1, 1) < 2**63


def test_all_generators_repeat() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    set_all_generators(7)
    first = draws()
    set_all_generators(7)
    assert draws() == first
    set_all_generators(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_place_draws_without_touching_the_global_generator() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(1, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_states_of_all_generators_are_recorded() -> None:
    set_all_generators(3)
    states = generator_states()
    assert torch.equal(states["torch"], torch.get_rng_state())
    assert tuple(states["python"][1]) == random.getstate()[1]
    np.random.rand()  # noqa: NPY002
    random.random()
    assert states["numpy"][2] != generator_states()["numpy"][2]
    assert states["python"][1] != generator_states()["python"][1]
