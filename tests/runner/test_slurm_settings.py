"""What a SLURM job is asked for: settings, the script that sbatch gets, what is refused. None of it needs a SLURM."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import configure
from hypothesis import given
from hypothesis import strategies as st

from runner import config as configs
from runner.build import ConfigError
from runner.composing import compose
from runner.config import Config
from runner.identity import identity
from runner.launchers import sbatch, slurm
from runner.launchers.slurm_settings import Settings, minutes, parameters, shape
from runner.launchers.slurm_task import place, port
from runner.prepare import resolve

HOSTILE = 'it\'s a "b" $(touch c); `touch d` #e &f | g* ~ é ${HOME}'


def on_slurm(*overrides: str, **more: Any) -> Config:
    return configure("launcher=slurm", "dry_run=true", *overrides, **more)


def script(*overrides: str, jobs: int = 1, **more: Any) -> list[str]:
    """The lines of the script for so many jobs."""
    [cell] = slurm._placed([(on_slurm(*overrides, **more), [])])
    return slurm._request([cell] * jobs, Path("/shared/place"))[0].splitlines()


def asked(lines: list[str]) -> dict[str, str]:
    """The options in a script, unquoted."""
    flags = [word for line in lines if line.startswith("#SBATCH ") for word in shlex.split(line)[1:]]
    return {flag.partition("=")[0].removeprefix("--"): flag.partition("=")[2] for flag in flags}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *((90, 90), ("90", 90), ("0:30", 1), ("30:00", 30), ("1:30:00", 90), ("100:00:00", 6000), ("1-6", 1800)),
        *(("1-06:30", 1830), ("1-06:30:01", 1831), ("2-0", 2880), (None, None)),
    ],
)
def test_times(typed: int | str | None, expected: int | None) -> None:
    assert minutes(typed) == expected


@pytest.mark.parametrize("typed", [0, "0:00", "-5", "", "1h", "1:2:3:4", "1:60:00", "1-", "abc", "1.5", "UNLIMITED"])
def test_malformed_times_are_refused_with_the_forms_that_there_are(typed: int | str) -> None:
    with pytest.raises(ConfigError, match=r"^launcher\.time=.*minutes \(90\).*HH:MM:SS.*null"):
        minutes(typed)


REFUSED = {
    "launcher.time=soon": r"launcher\.time=soon: .* HH:MM:SS",
    "launcher.partitio=x": r"launcher\.partitio: .*did you mean partition",
    "launcher.partition=true": r"launcher\.partition=True: must be a name",
    "launcher.partition=''": r"launcher\.partition='': must be one line",
    "launcher.cpus_per_task=0": r"launcher\.cpus_per_task=0: .*1 or more",
    "launcher.gpus_per_node=many": r"launcher\.gpus_per_node='many': must be a whole number",
    "launcher.array_parallelism=0": r"launcher\.array_parallelism=0: .*1 or more",
    "launcher.signal_delay_s=-1": r"launcher\.signal_delay_s=-1: .*0 or more",
    "launcher.time=1": r"launcher\.signal_delay_s=90: must be less than launcher\.time, 1 minutes",
    "launcher.requeue=perhaps": r"launcher\.requeue='perhaps': must be true or false",
    "launcher.setup=3": r"launcher\.setup=3: must be a list",
    "launcher.srun_args=[1]": r"launcher\.srun_args=\[1\]: must be a list of texts",
    "launcher.additional_parameters=3": r"launcher\.additional_parameters=3: .*nice: 100",
    "+launcher.additional_parameters.array=0-3": r"additional_parameters\.array: is decided by the launcher",
    "+launcher.additional_parameters.ntasks-per-node=3": r"additional_parameters\.ntasks-per-node: is decided",
    "+launcher.additional_parameters.signal=USR1": r"additional_parameters\.signal: is decided by the launcher",
    "launcher.mem=1G +launcher.additional_parameters.mem=2G": r"additional_parameters\.mem=2G: launcher\.mem=1G says",
    "launcher.signal=TERM": r"launcher\.signal=TERM: must be USR1 or USR2",
    "+launcher.additional_parameters.wait=true": r"additional_parameters\.wait: is decided by the launcher",
    "+launcher.additional_parameters={Nice: 1}": r"additional_parameters\.Nice: must be a long option",
    "+launcher.additional_parameters={nice: [1]}": r"additional_parameters\.nice=\[1\]: must be text, a number",
    "threads_per_worker=4 launcher.cpus_per_task=2": r"threads_per_worker=4: launcher\.cpus_per_task=2 is less",
    "gpus_per_node=4 launcher.gres=gpu:a100:2": r"launcher\.gres=gpu:a100:2: has 2 GPUs .*gpus_per_node=4",
    "gpus_per_node=2 launcher.gres=gpu": r"launcher\.gres=gpu: has 1 GPUs",
    "device=cpu backend=nccl": r"backend=nccl: needs device=cuda",
    "algorithm=easgd backend=nccl": r"backend=nccl: easgd is asynchronous",
    "cluster=10gbe": r"cluster=10gbe: is for a virtual cluster",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_refused(typed: str) -> None:
    separate = [typed] if "{" in typed else typed.split()
    with pytest.raises(ConfigError, match=REFUSED[typed]):
        on_slurm("nodes=2", *separate)


@pytest.mark.parametrize("folder", ["a%j", "a\\b", "a\nb", "a\tb", "a\x7f"])
def test_folders_that_slurm_cannot_write_to_are_refused(folder: str, tmp_path: Path) -> None:
    [(config, _)] = compose(["launcher=slurm", "dry_run=true"])
    config["results_dir"] = str(tmp_path / folder)
    with pytest.raises(ConfigError, match=r"^results_dir=.*choose another"):
        resolve(config)


@pytest.mark.parametrize("key", ["partition", "comment", "exclusive", "python", "constraint", "mem"])
@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x1b", "\u2028", "\x85"])
def test_a_line_break_in_a_value_is_refused(key: str, character: str) -> None:
    with pytest.raises(ConfigError, match=rf"^launcher\.{key}=.*one line"):
        Settings("slurm", 1, **{key: f"a{character}#SBATCH --uid=0"})  # type: ignore[arg-type]


def test_a_line_break_is_refused_wherever_it_stands() -> None:
    for settings in ({"srun_args": ["a\nb"]}, {"setup": ["a\nb"]}, {"additional_parameters": {"nice": "1\n2"}}):
        with pytest.raises(ConfigError, match="one line"):
            Settings("slurm", 1, **settings)  # type: ignore[arg-type]
    assert Settings("slurm", 1, setup="module load a\nmodule load b\n").setup == ["module load a", "module load b"]  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1))
def test_any_other_text_is_one_option_of_one_line(text: str) -> None:
    given_ = {"comment": text, "additional_parameters": {"reservation": text}, "srun_args": [f"--x={text}"]}
    settings = Settings("slurm", 1, **given_)  # type: ignore[arg-type]
    resources = {
        "comment": settings.comment,
        "additional_parameters": settings.additional_parameters,
        "srun_args": settings.srun_args,
    }
    lines = sbatch.script(Path("/shared") / "place", 1, resources, None).splitlines()
    plain = {**resources, "comment": "a", "additional_parameters": {"reservation": "a"}, "srun_args": ["a"]}
    assert len(lines) == len(sbatch.script(Path("/shared/place"), 1, plain, None).splitlines())
    assert asked(lines)["comment"] == asked(lines)["reservation"] == text
    [command] = [line for line in lines if line.startswith("srun ")]
    assert f"--x={text}" in shlex.split(command)


def test_defaults_and_what_is_left_out() -> None:
    config = on_slurm("algorithm=sgp", "nodes=4")
    assert (config["gpus_per_node"], config["device"], config["backend"]) == (8, "cuda", "nccl")
    assert on_slurm("algorithm=easgd")["backend"] == "gloo"
    options = asked(script("algorithm=sgp", "nodes=4"))
    place = "/shared/place"
    assert options == {
        "nodes": "4",
        "ntasks-per-node": "8",
        "cpus-per-task": "1",
        "gpus-per-node": "8",
        "signal": "USR2@90",
        "requeue": "",
        "open-mode": "append",
        "job-name": "sgp-4-nodes-x-8-seed-0",
        "output": f"{place}/%j_0_log.out",
        "error": f"{place}/%j_0_log.err",
    }  # and no wckey, which submitit would write


ARRIVES = {  # what is typed -> the options that it becomes
    "launcher.partition=[gpu,spare]": {"partition": "gpu,spare"},
    "launcher.account=12345": {"account": "12345"},
    "launcher.qos=high": {"qos": "high"},
    "launcher.constraint='a100&ib'": {"constraint": "a100&ib"},
    "launcher.time=01:30:00": {"time": "90"},
    "launcher.mem=64G": {"mem": "64G"},
    "launcher.mem=0": {"mem": "0"},
    "launcher.cpus_per_task=6": {"cpus-per-task": "6"},
    "launcher.gpus_per_node=4": {"gpus-per-node": "4", "ntasks-per-node": "4"},
    "launcher.exclude=[n7,n8]": {"exclude": "n7,n8"},
    "launcher.nodelist=n1": {"nodelist": "n1"},
    "launcher.exclusive=true": {"exclusive": ""},
    "launcher.exclusive=user": {"exclusive": "user"},
    "launcher.dependency='afterok:1'": {"dependency": "afterok:1"},
    "launcher.mail_type=[END,FAIL]": {"mail-type": "END,FAIL"},
    "launcher.mail_user=me@here": {"mail-user": "me@here"},
    "launcher.wckey=w": {"wckey": "w"},
    "launcher.comment='a b'": {"comment": "a b"},
    "launcher.requeue=false": {"no-requeue": "", "requeue": None},
    "launcher.signal_delay_s=30": {"signal": "USR2@30"},
    "launcher.signal=USR1": {"signal": "USR1@90"},
    "launcher.additional_parameters={nice: 100, hold: true, spread_job: null, reservation: r}": {
        "nice": "100",
        "hold": "",
        "reservation": "r",
        "spread-job": None,
    },
    "+launcher.additional_parameters.mail-user=you": {"mail-user": "you"},
}


def test_every_setting_arrives() -> None:
    plain = asked(script()) | {"job-name": None}
    for typed, options in ARRIVES.items():
        expected = {key: value for key, value in (plain | options).items() if value is not None}
        found = asked(script(typed))
        assert {key: value for key, value in found.items() if key != "job-name"} == expected, typed


def test_gpus_by_type_or_none_at_all() -> None:
    by_type = asked(script("gpus_per_node=2", "launcher.gres=gpu:a100:2"))
    assert by_type["gres"] == "gpu:a100:2"
    assert "gpus-per-node" not in by_type
    without = asked(script("gpus_per_node=2", "device=cpu", "launcher.gres=gpu:a100:2"))
    assert not {"gres", "gpus-per-node"} & set(without)
    assert without["ntasks-per-node"] == "2"


def test_cores_are_those_of_threads_and_loaders_and_srun_is_told_too() -> None:
    lines = script("threads_per_worker=3", "device=cpu")
    assert asked(lines)["cpus-per-task"] == "3"
    [command] = [shlex.split(line) for line in lines if line.startswith("srun ")]
    assert {"--cpus-per-task=3", "--kill-on-bad-exit=1", "--wait=0"} <= set(command)
    config = on_slurm("threads_per_worker=3", "device=cpu")
    config["dataset"]["loader_processes"] = 4
    assert parameters(config)["cpus_per_task"] == 7


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.parametrize("placement", ["beside_0", "own"])
def test_each_process_is_the_part_of_one_task(nodes: int, gpus: int, shards: int, placement: str) -> None:
    config = {"nodes": nodes, "gpus_per_node": gpus, "servers": shards, "server": {"placement": placement}}
    of_job, per_node = shape(config)
    parts = [(node, place(config, node, local)) for node in range(of_job) for local in range(per_node)]
    ranks = [part.rank for _, part in parts if part.rank is not None]
    assert sorted(ranks) == list(range(configs.processes(config)))
    training = [(node, part) for node, part in parts if part.rank is not None and part.rank < nodes * gpus]
    assert all(part.rank == node * gpus + part.local_rank for node, part in training)
    beside = [node for node, part in parts if part.rank is not None and part.rank >= nodes * gpus]
    assert set(beside) <= {0 if placement == "beside_0" else nodes}


def cells(*arguments: str) -> list[slurm.Placed]:
    composed = compose(["launcher=slurm", "dry_run=true", "device=cpu", "model.hidden=[8]", *arguments])
    return slurm._placed([(resolve(config), overrides) for config, overrides in composed])


def test_cells_of_one_shape_make_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = cells("-m", "nodes=2,4", "gpus_per_node=1", "algorithm=sgp,easgd,allreduce", "seed=0,1")
    arrays = slurm._arrays(sweep)
    shapes = [{(cell.config["nodes"], cell.config["servers"]) for cell in array} for array in arrays]
    assert sorted(map(list, shapes)) == [[(2, 0)], [(2, 1)], [(4, 0)], [(4, 1)]]
    assert sorted(cell.heading for array in arrays for cell in array) == sorted(cell.heading for cell in sweep)
    differing = cells("-m", "launcher.time=10,20", "seed=0,1") + cells("-m", "results_dir=a,b", "seed=0,1")
    assert [len(array) for array in slurm._arrays(differing)] == [2, 2, 2, 2]
    monkeypatch.setattr(slurm, "MOST_CELLS", 5)
    assert [len(array) for array in slurm._arrays(cells("-m", "seed=range(12)"))] == [5, 5, 2]


def test_the_array_and_its_cap() -> None:
    lines = script("launcher.array_parallelism=3", jobs=12)
    assert asked(lines)["array"] == "0-11%3"
    assert asked(lines)["output"] == "/shared/place/%A_%a_0_log.out"
    assert "array" not in asked(script())


def test_a_hostile_place_reaches_python_as_it_is(tmp_path: Path) -> None:
    """The script, run by bash, with an srun that writes down what it is given."""
    place = tmp_path / HOSTILE
    [cell] = slurm._placed([(on_slurm("launcher.snapshot=true", "launcher.setup=['export A=\"1 2\"']"), [])])
    text = slurm._request([cell], place)[0]
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin/srun"
    srun.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" "$PYTHONPATH" "$A" > {shlex.quote(str(tmp_path / "got"))}\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": "/a b"}
    subprocess.run(["bash"], input=text, cwd=tmp_path, env=environment, text=True, check=True, capture_output=True)
    got = (tmp_path / "got").read_bytes().decode().split("\0")[:-1]
    assert got[-1] == "1 2"
    assert got[-2] == f"{place}/code:/a b"
    assert got[-3] == str(place)
    assert got[:5] == ["--unbuffered", "--output", f"{place}/%j_%t_log.out", "--error", f"{place}/%j_%t_log.err"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "got"]  # nothing was touched


def test_names_of_jobs_are_plain() -> None:
    [cell] = cells("algorithm=sgp", "algorithm.overlap=1")
    cell.config["choices"]["algorithm"] = "a;b $(c) 'd' é\n"
    name = slurm._resources([cell], Path("/p"))["job_name"]
    assert re.fullmatch(r"[\w.=+-]+", name, re.ASCII)
    assert name.startswith("a-b-c-d-overlap=1-")
    assert name.endswith("4-nodes-x-8-seed-0")


WORDS = {
    "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified": (
        *("launcher.partition=nope", "invalid partition specified: nope", "sinfo"),
    ),
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified": (
        *("launcher.account=me", "Invalid account"),
    ),
    "allocation failure: Requested node configuration is not available": (
        *("nodes=9", "cpus_per_task=4", "mem=1T", "use fewer nodes"),
    ),
    "sbatch: error: Invalid --time specification": ("launcher.time=5", "Invalid --time"),
    "sbatch: error: Memory specification can not be satisfied": ("launcher.mem=1T", "Memory specification"),
    "sbatch: error: Invalid generic resource (gres) specification": ("launcher=slurm", "gpus_per_node"),
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)": ("launcher=slurm", "violates accounting", "ask for less"),
    "sbatch: unrecognized option '--bogus'\nTry \"sbatch --help\" for more information": (
        *("launcher.additional_parameters", "'--bogus'"),
    ),
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)": (
        *("launcher=slurm", "contact slurm controller", "sinfo shows whether"),
    ),
    "something new": ("launcher=slurm: sbatch says: something new",),
}


@pytest.mark.parametrize("said", WORDS)
def test_sbatchs_words_and_what_to_do(said: str) -> None:
    resources = {"partition": "nope", "account": "me", "nodes": 9, "cpus_per_task": 4, "mem": "1T", "time": 5}
    message = sbatch.explain(said, resources)
    assert "\n" not in message
    assert "error:" not in message
    for fragment in WORDS[said]:
        assert fragment in message


def test_without_a_slurm_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"^launcher=slurm: there is no sbatch here; .*launcher=local.*dry_run=true"):
        configure("launcher=slurm")
    assert configure("launcher=slurm", "dry_run=true")["launcher"]["kind"] == "slurm"


def test_what_auto_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*arguments: str) -> Config:
        [(config, _)] = compose(["launcher=auto", *arguments])
        launcher: Config = config["launcher"]
        return launcher

    assert chosen()["kind"] == "local"  # tests say so
    monkeypatch.delenv("DISTSGD_LAUNCHER")
    (tmp_path / "sbatch").touch(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert chosen()["kind"] == "local"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen("launcher.partition=gpu")["partition"] == "gpu"
    site = tmp_path / "si't e"
    (site / "launcher").mkdir(parents=True)
    (site / "launcher/mine.yaml").write_text("defaults: [slurm]\npartition: ours\nmem: 60G\n")
    monkeypatch.setenv("DISTSGD_CONFIG_DIR", str(site))
    monkeypatch.setenv("DISTSGD_LAUNCHER", "mine")
    assert {"kind": "slurm", "partition": "ours", "mem": "7G", "gpus_per_node": 8}.items() <= chosen(
        "launcher.mem=7G"
    ).items()
    monkeypatch.setenv("DISTSGD_LAUNCHER", "nowhere")
    with pytest.raises(ConfigError, match=r"^DISTSGD_LAUNCHER=nowhere: there is no such launcher"):
        chosen()
    monkeypatch.setenv("DISTSGD_CONFIG_DIR", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"^DISTSGD_CONFIG_DIR=.*gone: is no folder"):
        chosen()


def test_the_kind_of_launcher_is_part_of_a_runs_identity_and_its_settings_are_not() -> None:
    plain = ("nodes=2", "gpus_per_node=1", "device=cpu")
    here = on_slurm(*plain)
    assert identity(here) != identity(configure("launcher=local", *plain))
    settings = ("launcher.mem=3G", "launcher.time=7", "launcher.setup=[a]", "launcher.gpus_per_node=4")
    assert identity(on_slurm(*plain, *settings)) == identity(here)
    assert identity(configure("launcher=local", *plain, "dry_run=true")) == identity(configure(*plain))


@given(st.integers(1, 2**26))
def test_jobs_meet_where_no_outgoing_connection_comes_from_and_neighbours_never_on_one_port(job: int) -> None:
    ports = [port(job + other) for other in range(1001)]  # the largest array of SLURM's default
    assert len({*ports}) == len(ports)
    assert 1024 < min(ports) <= max(ports) < 32768  # where Linux begins, unless told otherwise
