"""What the clock may stand for: the assumptions under which claims about time are answered."""

from __future__ import annotations

from typing import Any

WIRE = 0.89
"""What gloo reaches of a link's bandwidth: the least median of results/link_efficiency.txt."""
IDEAL_CLUSTER: dict[str, Any] = {"cluster__inter__efficiency": 1.0, "cluster__compute__distribution": "constant"}
IDEAL: dict[str, Any] = IDEAL_CLUSTER | {"cost__overlap_backward": False}
BEHIND = {"gradients reduced behind the backward pass": {"cost__overlap_backward": True}}
LINKS = {f"links at {WIRE:g} of the wire": {"cluster__inter__efficiency": WIRE}}
NOISE = {"gradient times lognormal, sigma 0.1": {"cluster__compute__distribution": "lognormal"}}
CLUSTERS: dict[str, dict[str, Any]] = {
    "ideal links, nothing hidden behind the backward pass": {},
    **BEHIND,
    **LINKS,
    **NOISE,
}
"""How each differs from IDEAL."""
