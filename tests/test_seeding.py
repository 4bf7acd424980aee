"""Randomness is an argument."""

from __future__ import annotations

import torch

from fedpdm.seeding import key_seed, numpy_generator, torch_generator, torch_seeded


def test_every_part_of_the_key_matters() -> None:
    keys = [(0,), (0, "a"), (0, "a", "bc"), (0, "ab", "c"), (0, "a", 1), (0, "a", "1"), (1, "a", 1)]
    assert len({key_seed(*key) for key in keys}) == len(keys)


def test_the_value_is_fixed_for_ever() -> None:
    # Stored runs are resumed by later versions: this number must not move.
    assert key_seed(42, "batches", "detroit", 1, 0) == 6651058525378987123


def test_generators_repeat() -> None:
    assert numpy_generator(1, "a").integers(1 << 40) == numpy_generator(1, "a").integers(1 << 40)
    first = torch.rand(4, generator=torch_generator(1, "a"))
    assert torch.equal(first, torch.rand(4, generator=torch_generator(1, "a")))


def test_seeded_block_puts_the_global_state_back() -> None:
    torch.manual_seed(8)
    expected = torch.rand(2)
    torch.manual_seed(8)
    with torch_seeded(1, "inside"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with torch_seeded(1, "inside"):
        assert torch.equal(torch.rand(2), inside)
