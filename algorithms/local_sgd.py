"""Local SGD: steps alone, then all average their parameters. Stich, ICLR 2019, arXiv:1805.09767.

    H times:  x_i <- x_i - lr step(g(x_i))
    x_i <- mean_j x_j

The same method is K-AVG (Zhou & Cong, IJCAI 2018, arXiv:1708.01012), with K for H. Momentum is kept at an average
(unverified for either paper).
"""

from __future__ import annotations

from dataclasses import dataclass

from algorithms.blocks import Blocks


@dataclass
class LocalSGD(Blocks):
    """See the module.

    Args:
        period: H, or K: local steps between averages.
        momentum: `keep` or `reset` it at an average.
        base: who takes the local steps.
    """
