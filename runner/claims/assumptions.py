"""What the clock may stand for: the assumptions under which claims about time are answered."""

from __future__ import annotations

from typing import Any

IDEAL_CLUSTER: dict[str, Any] = {"cluster__inter__efficiency": 1.0, "cluster__compute__distribution": "constant"}
IDEAL: dict[str, Any] = IDEAL_CLUSTER | {"cost__overlap_backward": False}
BEHIND = {"gradients reduced behind the backward pass": {"cost__overlap_backward": True}}
LINKS = {
    "links at gloo's 0.94, all-reduce at 0.89 of the wire": {
        "cluster": "10gbe_gloo",
        "cluster__inter__efficiency": 0.94,
    }
}
"""The least medians of results/link_efficiency.txt."""
NOISE = {"gradient times lognormal, sigma 0.1": {"cluster__compute__distribution": "lognormal"}}
CLUSTERS: dict[str, dict[str, Any]] = {
    "ideal links, nothing hidden behind the backward pass": {},
    **BEHIND,
    **LINKS,
    **NOISE,
}
"""How each differs from IDEAL."""
