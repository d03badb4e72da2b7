"""What counts as a spike."""

from __future__ import annotations

import random

from allam.engine.stability import FEWEST, PATIENCE, Spikes


def noisy(count: int, level: float = 2.0) -> list[float]:
    chance = random.Random(3)
    return [level + chance.gauss(0, 0.05) for _ in range(count)]


def test_noise_is_no_spike_and_a_jump_is_one() -> None:
    spikes = Spikes()
    assert not any(spikes.add(v) for v in noisy(300))
    assert spikes.add(4.0)
    assert not spikes.add(2.0)


def test_a_fall_is_no_spike() -> None:
    spikes = Spikes()
    assert not any(spikes.add(v) for v in [*noisy(100), 0.2])


def test_nothing_is_judged_before_there_is_enough_to_judge_by() -> None:
    spikes = Spikes()
    assert not any(spikes.add(v) for v in [*noisy(FEWEST - 1), 50.0])


def test_every_step_of_a_burst_counts_until_its_level_is_the_new_one() -> None:
    spikes = Spikes()
    for value in noisy(200):
        spikes.add(value)
    assert sum(spikes.add(v) for v in noisy(200, level=9.0)) == PATIENCE


def test_ripples_on_a_flat_stretch_are_no_spikes() -> None:
    spikes = Spikes()
    assert not any(spikes.add(v) for v in [*[1.0] * 100, 1.05])
    assert spikes.add(1.5)
