"""Where a network's features are looked at by methods that compare more than outputs."""

from collections.abc import Sequence


def thirds(chain: Sequence[str]) -> list[str]:
    """Three of the named modules of a body in order: after about 1/3, 2/3 and 3/3 of it.

    Args:
        chain: the module in front of the body, then the parts of the body. Shallow bodies repeat a name, and one
            without parts gives what is in front of it.
    """
    parts = len(chain) - 1
    return [chain[round(parts * third / 3)] for third in (1, 2, 3)]
