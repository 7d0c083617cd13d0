"""Check of layer sizes."""

from collections.abc import Sequence


def positive_sizes(argument: str, sizes: Sequence[int]) -> list[int]:
    """Return `sizes` as a list.

    Raises: ValueError naming `argument` if it is not a sequence of positive whole numbers.
    """
    if (
        isinstance(sizes, str)
        or not isinstance(sizes, Sequence)
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
    ):
        raise ValueError(f"{argument} must be a list of positive numbers, got {sizes!r}")
    return list(sizes)
