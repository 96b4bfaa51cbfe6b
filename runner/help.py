"""`run-experiment --help`, answered without Hydra: its own takes twice the time, and does not say what an option is."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

from runner import studies
from runner.config import conf_dir

OPENING = """\
run-experiment trains one network on many workers with a method of your choice, and writes down how it went.

Try
  run-experiment algorithm=sgp nodes=4
  run-experiment algorithm=sgp nodes=4 dataset=fashion_mnist model=lenet epochs=5
  run-experiment -m algorithm=allreduce,dpsgd,sgp nodes=2,4 seed=0,1       a sweep: every combination
  run-experiment algorithm=sgp nodes=32 launcher=simulated cluster=10gbe   virtual workers, modelled time
  run-experiment experiment=sgp/scaling                                    what a figure of a paper needs
  experiments table                                                        what came of it
"""
CLOSING = """\
Set (key=value)
  nodes=4  gpus_per_node=1  epochs=10  batch_size=32 (per process)  seed=0  device=auto|cpu|cuda  results_dir=results
  rerun=true runs a finished run again; evaluation.every=5 evaluates every 5 epochs, 0.25 four times an epoch
  server.shards=2 server.placement=own for methods with a parameter server; algorithm.budget=equal for asynchronous ones
  settings of a group by its name: algorithm.overlap=1  optimizer.lr=0.1  schedule.warmup_epochs=5

A SLURM cluster (launcher=slurm, the default where sbatch is found): submits, and returns
  launcher.partition=gpu  launcher.time=12:00:00  launcher.account=mine  launcher.mem=64G
  -m ... launcher.array_parallelism=8     a job array per shape of resources
  dry_run=true            print the script and what sbatch says of it (all launchers: print, write nothing)
  DISTSGD_CONFIG_DIR=DIR  DISTSGD_LAUNCHER=mycluster      a site's options, DIR/launcher/mycluster.yaml; what auto is

A virtual cluster (launcher=simulated): real gradients against a virtual clock, in one process
  cluster=10gbe           links and compute: cluster.inter.bandwidth=5e8  cluster.compute.slow='{3: 2.0}'
  cost=resnet50_v100      the time of another network than the one that is trained; cost.overlap_backward=false
  failures.plan='[{worker: 3, dies_at_s: 12, returns_at_s: 20}]'  failures.timeout_s=60
  problem=none            the time only, with a cost; any number of nodes
  problem.batched=true    faster for small networks: gradients that are wanted together are computed together

See
  run-experiment ... --cfg job                 the whole configuration with every key
  run-experiment ... --config-dir DIR          add options of your own (DIR/algorithm/mine.yaml, ...)
  run-experiment ... -m                        sweep over comma-separated values
  eval "$(run-experiment -sc install=bash)"    tab completion
  run-experiment --hydra-help                  Hydra's own flags
"""
FIRST = ("algorithm", "topology", "dataset", "model", "launcher", "cluster", "cost", "failures", "experiment")


def asked(arguments: list[str]) -> bool:
    """Whether the command line asks for help."""
    return bool({"--help", "-h"} & set(arguments))


def text(arguments: list[str]) -> str:
    """The help, with the options of a `--config-dir` among the others."""
    folders = [conf_dir(), *site_dirs(), *_config_dirs(arguments)]
    groups = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    order = [group for group in FIRST if group in groups] + sorted(groups - set(FIRST))
    width = min(shutil.get_terminal_size().columns, 120)
    indent = 2 + max(map(len, order), default=0) + 2
    lines = []
    for group in order:
        options = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
        heading = f"  {group}".ljust(indent)
        lines += textwrap.wrap(heading + ", ".join(options), width, subsequent_indent=" " * indent)
    known = textwrap.wrap(", ".join(studies.names()), width, initial_indent="  ", subsequent_indent="  ")
    about = "Papers (experiment=study, with scale=virtual, laptop or paper): the runs behind a table or figure"
    return "\n".join([OPENING, "Choose (group=option)", *lines, "", about, *known, "", CLOSING])


def site_dirs() -> list[Path]:
    """The folder of a site's own options, if the environment names one."""
    named = os.environ.get("DISTSGD_CONFIG_DIR")
    return [Path(named).expanduser()] if named else []


def _config_dirs(arguments: list[str]) -> list[Path]:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    following = [Path(value) for flag, value in pairs if flag in ("--config-dir", "-cd")]
    joined = [Path(argument.split("=", 1)[1]) for argument in arguments if argument.startswith("--config-dir=")]
    return following + joined
