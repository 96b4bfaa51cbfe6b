"""One of two processes that add up a number through gloo: what `experiments doctor` starts twice."""

from __future__ import annotations

import os
import sys
from datetime import timedelta


def main() -> None:
    """Arguments: rank, port on this machine, network interface, seconds to wait."""
    rank, port, interface, patience_s = sys.argv[1:]
    os.environ["GLOO_SOCKET_IFNAME"] = interface

    import torch
    import torch.distributed as dist

    timeout = timedelta(seconds=float(patience_s))
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=int(rank), world_size=2, timeout=timeout)
    total = torch.tensor([float(rank) + 1])
    dist.all_reduce(total)
    assert total.item() == 3, total
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
