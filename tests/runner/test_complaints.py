"""The command line as it is composed: order, ranges, and errors in words for people."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.build import ConfigError
from runner.composing import FLAGS_WITH_VALUE, compose, in_hydras_order
from runner.config import AT_LEAST, CHOICES, select

overrides = st.sampled_from(["nodes=4", "seed=0,1", "+a=b", "algorithm=sgp", "x=--cfg"])
flags = st.sampled_from([["-m"], ["--multirun"], ["--help"], ["--config-dir=d"]]) | st.tuples(
    st.sampled_from(sorted(FLAGS_WITH_VALUE)), st.sampled_from(["job", "d", "nodes=4"])
).map(list)


@settings(deadline=None)
@given(st.lists(st.builds(lambda override: [override], overrides) | flags))
def test_overrides_go_before_flags_in_the_order_they_were_typed(pieces):
    typed = [argument for piece in pieces for argument in piece]
    first = [piece[0] for piece in pieces if not piece[0].startswith("-")]
    then = [argument for piece in pieces if piece[0].startswith("-") for argument in piece]
    assert in_hydras_order(typed) == first + then
    assert in_hydras_order(first + then) == first + then


def test_overrides_may_stand_on_both_sides_of_a_flag(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: models.mlp\nhidden: [3]\n")
    cells = compose(["seed=0,1", "-m", "nodes=2", "--config-dir", str(tmp_path), "model=mine"])
    assert [config["seed"] for config, _ in cells] == [0, 1]
    assert all(config["nodes"] == 2 and config["model"]["hidden"] == [3] for config, _ in cells)
    assert [typed for _, typed in cells] == [[f"seed={seed}", "nodes=2", "model=mine"] for seed in (0, 1)]


@pytest.mark.parametrize("text", ["", "epochs: 1\n", "title: A study\nsource: none\nvirtual: [algorithm=sgp]\n"])
def test_a_preset_that_sets_nothing_is_told_what_it_must_begin_with(text, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^experiment=mine: .* must begin with the line `# @package _global_`"):
        compose(["experiment=mine", "--config-dir", str(tmp_path)])


def test_a_sweep_is_every_combination_with_the_last_key_fastest():
    cells = compose(["-m", "algorithm=allreduce,sgp", "nodes=2,4", "seed=0"])
    found = [(config["choices"]["algorithm"], config["nodes"], config["choices"]["topology"]) for config, _ in cells]
    assert found == [
        *(("allreduce", 2, "none"), ("allreduce", 4, "none")),
        *(("sgp", 2, "one_peer_exponential"), ("sgp", 4, "one_peer_exponential")),
    ]


def test_composed_is_plain_with_the_choices_of_our_own_groups():
    [(config, typed)] = compose(["algorithm=sgp", "topology=ring", "model.hidden=[8,8]"])
    assert config["choices"]["algorithm"] == "sgp"
    assert config["choices"]["topology"] == "ring"
    assert not any(group.startswith("hydra") for group in config["choices"])
    assert type(config["model"]["hidden"]) is list
    assert typed == ["algorithm=sgp", "topology=ring", "model.hidden=[8,8]"]
    assert select(config, "evaluation.every") == 1
    assert select(config, "evaluation.no.such") is None


OPTION_OF = {  # keys that only some option of their group has
    "launcher.threads": ["launcher=simulated"],
    "launcher.at_once": ["launcher=simulated"],
    "cluster.gpus_per_node": ["cluster=10gbe"],
    "problem.train_samples": ["problem=none"],
}


@pytest.mark.parametrize(("key", "least"), AT_LEAST.items())
def test_ranges(key, least):
    option = OPTION_OF.get(key, [])
    [(config, _)] = compose([*option, f"{key}={least}"])
    assert select(config, key) == least
    with pytest.raises(ConfigError, match=rf"^{key}={least - 1}: must be a whole number, {least} or more$"):
        compose([*option, f"{key}={least - 1}"])


@pytest.mark.parametrize("key", CHOICES)
def test_choices(key):
    with pytest.raises(ConfigError, match=rf"^{key}=nonsense: must be one of \w+, \w+"):
        compose(["algorithm=async_sgd", f"{key}=nonsense"])


@pytest.mark.parametrize("value", ["0", "-0.1", "true", "fast", "1e9", "nan", "inf", "[0.1]"])
@pytest.mark.parametrize("key", ["lr", "reference_lr"])
def test_learning_rates_are_positive_numbers(key, value):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{key}=.+: must be a positive number$"):
        compose([f"optimizer.{key}={value}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["algorithm=spg"],
            r"^algorithm=spg: there is no such algorithm; did you mean sgp or osgp or lsgd\? known: adpsgd, allreduce",
        ),
        (["dataset=digit"], r"^dataset=digit: .* did you mean digits\? known: .*imagenet"),
        (["topology=rin"], r"^topology=rin: .* did you mean ring"),
        (["model=resnet19"], r"^model=resnet19: .* did you mean resnet18"),
        (["experiment=dmeo"], r"^experiment=dmeo: there is no such experiment; did you mean demo"),
        (["nods=3"], r"^nods: there is no such key; did you mean nodes"),
        (["evaluation.evry=1"], r"^evaluation\.evry: there is no such key; did you mean every\? known: batch_norm, "),
        (["optimizer.momentun=0"], r"^optimizer\.momentun: there is no such key; did you mean momentum"),
        (["algorithm.overlap=1"], r"^algorithm\.overlap: there is no such key; .*known: _target_, worker$"),
        (["nodes=many"], "^nodes=many: must be a whole number"),
        (["epochs=2.5"], r"^epochs=2\.5: must be a whole number"),
        (["nodes=null"], r"^nodes=null: .*not Optional"),
        (["rerun=perhaps"], "^rerun=perhaps: must be true or false"),
        (["evaluation.every=often"], r"^evaluation\.every=often: must be a positive number"),
        (["evaluation=3"], r"^evaluation=3: "),
        (["nodes"], r"^nodes: cannot be read; write key=value"),
        (["results_dir=~/x"], r"^results_dir=~/x: cannot be read; .* quotes, as key=\"'~/a b'\""),
        (["algorithm=sgp,dpsgd"], r"^algorithm=sgp,dpsgd: several values are a sweep, which needs -m"),
        (["seed=0,1"], r"^seed=0,1: several values are a sweep, which needs -m; a list is written key=\[a,b\]"),
        (["seed=1", "optimizer=3"], r"^optimizer=3: must be the name of an option"),
        (["~optimizer.nesterov"], r"^~optimizer\.nesterov: a key cannot be taken out; set it to the value"),
        (["-m", "seed=0,1", "nodes=2,none"], "^nodes=2,none: must be a whole number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_with_what_is_allowed(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose(arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_a_mistake_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["algorithm=spg"], ["-m", "seed=0,1", "nodes=x"], ["nodes=2"], ["-m", "seed=0,1"]):
        try:
            compose(arguments)
        except ConfigError:
            continue
    assert list(tmp_path.iterdir()) == []
