"""What the clock may stand for: the assumptions under which claims about time are answered."""

from __future__ import annotations

from typing import Any

IDEAL_CLUSTER: dict[str, Any] = {
    "cluster": "10gbe",
    "cluster__inter__efficiency": 1.0,
    "cluster__compute__distribution": "constant",
    "cluster__compute__sleep_ranks": [],
}
IDEAL: dict[str, Any] = IDEAL_CLUSTER | {"cost__overlap_backward": False}
IDEAL_LINKS: dict[str, dict[str, Any]] = {"ideal links": {}}
LINKS: dict[str, dict[str, Any]] = {
    "links at gloo's 0.94, all-reduce at 0.89 of the wire": {
        "cluster": "10gbe_gloo",
        "cluster__inter__efficiency": 0.94,
    }
}
"""The least medians of results/link_efficiency.txt."""
STRAGGLER: dict[str, dict[str, Any]] = {
    "one GPU sleeps 0 to 0.3 s after each gradient": {"cluster__compute__sleep_ranks": [3]}
}
"""The option of the code of Jin et al. 2016."""
NOISE: dict[str, dict[str, Any]] = {
    "gradient times lognormal, sigma 0.1": {"cluster__compute__distribution": "lognormal"}
}
"""Ours: how gradient times vary in the papers is not known."""
AFTER: dict[str, dict[str, Any]] = {"ideal links, gradients reduced after the backward pass": {}}
BEHIND: dict[str, dict[str, Any]] = {
    "ideal links, gradients reduced behind the backward pass": {"cost__overlap_backward": True}
}
CLUSTERS: dict[str, dict[str, Any]] = {**AFTER, **BEHIND, **LINKS, **STRAGGLER, **NOISE}
"""How each differs from IDEAL."""
