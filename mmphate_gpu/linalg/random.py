"""Random numbers, drawn on the CPU, so that a seed gives the same numbers on every device."""

from __future__ import annotations

import torch

from ..errors import check_number
from ..ops.chunks import chunk_elements, row_chunks


def seeded_generator(random_state: int | None) -> torch.Generator:
    """A CPU generator with this seed; None takes a seed from the system."""
    generator = torch.Generator("cpu")
    if random_state is None:
        generator.seed()
    else:
        generator.manual_seed(int(check_number("random_state", random_state, low=0, high=2**63 - 1, integer=True)))
    return generator


# Random bits of an int64: torch draws integers from 0 to 2^63 - 1.
BITS = 63


def random_signs(
    n: int,
    width: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:  # (n, width)
    """Independent entries 1 and -1 with equal probability: random directions from a bit an entry.

    The bits are drawn on the CPU and unpacked on ``device``: 5 ns and 8 bytes for 63 entries, where a normal number
    takes 20 to 30 ns and 8 bytes for each.
    """
    n_words = -(-n * width // BITS)
    words = torch.empty(n_words, dtype=torch.int64, device="cpu").random_(generator=generator).to(device)
    places = torch.arange(BITS, device=device)
    signs = torch.empty(n_words, BITS, dtype=dtype, device=device)
    for part in row_chunks(n_words, BITS, chunk_elements(words.device)):
        signs[part] = (words[part, None] >> places & 1).mul_(2).sub_(1)
    return signs.flatten()[: n * width].view(n, width)
