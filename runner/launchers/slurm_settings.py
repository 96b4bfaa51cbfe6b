"""What a SLURM job is asked for: the settings of conf/launcher/slurm.yaml checked, and turned into submitit's.

Values end in lines `#SBATCH --key=value` of a script, which submitit quotes. A line break would begin a line of its
own, so there is none; only `setup` and `python` are shell by design. Nothing here imports torch or submitit.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner import config as configs
from runner.build import ConfigError, build
from runner.config import Config

TIME = re.compile(
    r"(?:(?P<d>\d+)-(?P<dh>\d+)(?::(?P<dm>[0-5]?\d)(?::(?P<ds>[0-5]?\d))?)?)"
    r"|(?:(?P<h>\d+):(?P<hm>[0-5]?\d):(?P<hs>[0-5]?\d))|(?:(?P<m>\d+)(?::(?P<s>[0-5]?\d))?)"
)
IN_PATHS = re.compile(r"[%\\\x00-\x1f\x7f]")
"""SLURM replaces % in the names of output files, and takes a backslash for "replace nothing"."""
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
TEXTS = (
    *("partition", "account", "qos", "constraint", "mem", "gres", "exclude", "nodelist", "dependency"),
    *("mail_type", "mail_user", "wckey", "comment"),
)
DECIDED = {"nodes", "ntasks", "ntasks_per_node", "array", "output", "error", "signal"}
"""Options of sbatch that follow from the run, or that its tasks rely on."""
SIGNALS = ("USR1", "USR2")
"""That announce the time limit; SLURM has its own use for TERM."""
IN_THE_WAY = {"wait", "parsable", "quiet", "test_only"}
"""Options that change what sbatch prints or when it returns."""

Text = str | int | list[Any] | None


@dataclass
class Settings:
    """conf/launcher/slurm.yaml, where each is explained."""

    kind: str
    timeout_s: int
    gpus_per_node: int = 8
    partition: Text = None
    account: Text = None
    qos: Text = None
    constraint: Text = None
    time: int | str | None = None
    mem: Text = None
    cpus_per_task: int | None = None
    gres: Text = None
    exclude: Text = None
    nodelist: Text = None
    exclusive: bool | str = False
    dependency: Text = None
    mail_type: Text = None
    mail_user: Text = None
    wckey: Text = None
    comment: Text = None
    additional_parameters: dict[str, Any] | None = None
    array_parallelism: int = 256
    requeue: bool = True
    signal: str = "USR2"
    signal_delay_s: int = 90
    setup: list[str] = field(default_factory=list)
    srun_args: list[str] = field(default_factory=list)
    python: str | None = None
    snapshot: bool = False

    def __post_init__(self) -> None:
        for key in TEXTS:
            setattr(self, key, _text(key, getattr(self, key)))
        self.time = minutes(self.time)
        for key, least in (("gpus_per_node", 1), ("cpus_per_task", 1), ("array_parallelism", 1), ("signal_delay_s", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"launcher.{key}={value}: must be a whole number, {least} or more")
        if self.signal not in SIGNALS:
            raise ConfigError(f"launcher.signal={self.signal}: must be {' or '.join(SIGNALS)}")
        if self.time is not None and self.signal_delay_s >= 60 * self.time:
            raise ConfigError(
                f"launcher.signal_delay_s={self.signal_delay_s}: must be less than launcher.time, {self.time} minutes"
            )
        if isinstance(self.exclusive, str):
            _one_line("exclusive", self.exclusive)
        if self.python is not None:
            _one_line("python", self.python)
        self.setup, self.srun_args = _lines("setup", self.setup), _lines("srun_args", self.srun_args)
        self.additional_parameters = _additional(self.additional_parameters)
        for option, value in self.additional_parameters.items():
            key = option.replace("-", "_")
            if key in (*TEXTS, "time", "cpus_per_task") and None not in (value, getattr(self, key)):
                raise ConfigError(
                    f"launcher.additional_parameters.{option}={value}: launcher.{key}={getattr(self, key)} says it "
                    "already; leave one of them out"
                )


def resolve(config: Config) -> None:
    """Bring the settings into one form, refusing those that no cluster would accept; fill in gpus_per_node.

    Raises:
        ConfigError: an unknown key, a wrong type, a malformed time, a line break in a value, too few cores or GPUs.
    """
    if not config["dry_run"] and shutil.which("sbatch") is None:
        raise ConfigError(
            "launcher=slurm: there is no sbatch here; type the command on a login node of the cluster, "
            "use launcher=local, or add dry_run=true to see the script"
        )
    target = f"{Settings.__module__}.{Settings.__qualname__}"
    config["launcher"] = asdict(build({"_target_": target, **config["launcher"]}, "launcher"))
    launcher, threads = config["launcher"], config["threads_per_worker"]
    gpus = config["gpus_per_node"] = config["gpus_per_node"] or launcher["gpus_per_node"]
    if launcher["cpus_per_task"] is not None and launcher["cpus_per_task"] < threads:
        raise ConfigError(
            f"threads_per_worker={threads}: launcher.cpus_per_task={launcher['cpus_per_task']} is less; "
            "ask for as many cores, or leave cpus_per_task out"
        )
    asked = re.fullmatch(r"gpu(?::[^:,]+)??(?::(\d+))?", launcher["gres"] or "")
    if asked and config["device"] != "cpu" and int(asked[1] or 1) < gpus:
        raise ConfigError(
            f"launcher.gres={launcher['gres']}: has {int(asked[1] or 1)} GPUs per node for gpus_per_node={gpus} "
            f"processes; ask for {gpus}, or set gpus_per_node"
        )
    _check_paths(config)


def _check_paths(config: Config) -> None:
    """Refuse what SLURM cannot have in the name of an output file; all else is quoted."""
    folder = str(Path(config["results_dir"]).expanduser().absolute())
    if IN_PATHS.search(folder):
        raise ConfigError(
            f"results_dir={config['results_dir']!r}: {folder!r} has a %, a backslash or a control character, "
            "which SLURM does not take in the names of output files; choose another"
        )
    if config["launcher"]["snapshot"] and ":" in folder:
        raise ConfigError(
            f"results_dir={config['results_dir']}: has a colon, so that Python would not find the code that "
            "launcher.snapshot=true puts there; choose another, or leave snapshot out"
        )


def minutes(time: int | str | None) -> int | None:
    """A time limit in minutes, rounded up as SLURM does.

    >>> minutes(90), minutes("90"), minutes("01:30:00"), minutes("1-12:00:00"), minutes("30:00"), minutes("1-6")
    (90, 90, 90, 2160, 30, 1800)

    Raises:
        ConfigError: it has none of the forms that SLURM knows, or is nothing.
    """
    if time is None:
        return None
    found = TIME.fullmatch(str(time))
    part = {key: int(value or 0) for key, value in found.groupdict().items()} if found else {}
    seconds = 0
    if found:
        hours = 24 * part["d"] + part["dh"] + part["h"]
        seconds = 3600 * hours + 60 * (part["dm"] + part["hm"] + part["m"]) + part["ds"] + part["hs"] + part["s"]
    if seconds <= 0:
        raise ConfigError(
            f"launcher.time={time}: must be minutes (90), or one of MM:SS, HH:MM:SS, D-HH, D-HH:MM and D-HH:MM:SS "
            "(in YAML in quotes), or null for the partition's default"
        )
    return math.ceil(seconds / 60)


def shape(config: Config) -> tuple[int, int]:
    """Nodes of the job, and tasks on each: one per GPU, and one per server beside those of node 0 or on one node more.

    Every node has as many tasks as the fullest; those without a part end at once.
    """
    gpus, servers = int(config["gpus_per_node"]), configs.servers(config)
    if servers and config["server"]["placement"] == "own":
        return int(config["nodes"]) + 1, max(gpus, servers)
    return int(config["nodes"]), gpus + servers


def parameters(config: Config) -> dict[str, Any]:
    """What submitit's SlurmExecutor is told: the resources of one cell, in its words."""
    launcher = config["launcher"]
    nodes, tasks = shape(config)
    loaders = config["dataset"].get("loader_processes") or 0
    cpus = launcher["cpus_per_task"] or config["threads_per_worker"] + loaders
    gpus: dict[str, Any] = {}
    if config["device"] != "cpu":
        gpus = {"gres": launcher["gres"]} if launcher["gres"] else {"gpus_per_node": config["gpus_per_node"]}
    more = {key.replace("-", "_"): value for key, value in launcher["additional_parameters"].items()}
    more = {key: value for key, value in more.items() if value is not None and value is not False}
    return {
        **{key: launcher[key] for key in (*TEXTS, "time", "array_parallelism") if key != "gres"},
        **gpus,
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cpus,
        "exclusive": launcher["exclusive"] or None,
        "setup": launcher["setup"],
        # Since SLURM 22.05 srun does not take --cpus-per-task from sbatch. Tasks without a part end before the others.
        "srun_args": [f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1", "--wait=0", *launcher["srun_args"]],
        "additional_parameters": {
            "signal": f"{launcher['signal']}@{launcher['signal_delay_s']}",  # not the one that submitit would ask for
            "requeue" if launcher["requeue"] else "no_requeue": True,
            **more,
        },
    }


def _text(key: str, value: Text) -> str | None:
    """A value of sbatch: lists are written with commas, numbers are names here (an account 12345)."""
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if not all(type(each) in (str, int) for each in values):
        raise ConfigError(f"launcher.{key}={value}: must be a name, a list of names, or null")
    return _one_line(key, ",".join(map(str, values)))


def _one_line(key: str, text: str) -> str:
    if CONTROL.search(text) or not text:
        raise ConfigError(f"launcher.{key}={text!r}: must be one line of text, or null")
    return text


def _lines(key: str, lines: Any) -> list[str]:
    lines = lines.splitlines() if isinstance(lines, str) else lines
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ConfigError(f"launcher.{key}={lines!r}: must be a list of texts, e.g. ['one', 'two']")
    return [_one_line(key, line) for line in lines]


def _additional(options: Any) -> dict[str, Any]:
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise ConfigError(f"launcher.additional_parameters={options!r}: must be options and values, e.g. {{nice: 100}}")
    for option, value in options.items():
        key = f"additional_parameters.{option}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", str(option)):
            raise ConfigError(f"launcher.{key}: must be a long option of sbatch without its dashes, e.g. reservation")
        name = str(option).replace("-", "_")
        if any(other.startswith(name) for other in DECIDED | IN_THE_WAY):  # sbatch takes the beginning of a name for it
            raise ConfigError(f"launcher.{key}: is decided by the launcher (nodes, results_dir, ...); leave it out")
        if value is not None and not isinstance(value, str | int | float):
            raise ConfigError(f"launcher.{key}={value!r}: must be text, a number, true for a bare option, or null")
        _one_line(key, str(value))
    return options
