"""What makes two runs the same run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from harness import configure

from runner import identity as identities
from runner.config import Config, freeze, load, timing_only
from runner.identity import VIRTUAL_GROUPS, content, flat, identity, ledger, settings, variant

SGP = ("algorithm=sgp", "nodes=2")
NO_MATTER = {
    *("results_dir", "rerun", "dry_run", "checkpoint_every", "record_every", "warmup_iterations", "tensorboard"),
    *("dataset.root", "dataset.download", "dataset.loader_processes"),
    *("launcher.timeout_s", "launcher.rendezvous", "launcher.node_rank", "launcher.threads", "launcher.at_once"),
    "cluster.compute.trace",  # its content counts
    *("typed", "servers", "asynchronous", "evaluated_model"),  # what was typed, and what follows
    *("choices.launcher", "choices.experiment"),
}


@pytest.fixture(scope="module")
def base() -> Config:
    return configure(*SGP)


def changed(config: Config, key: str, value: Any) -> Config:
    other = copy.deepcopy(config)
    *path, last = key.split(".")
    node = other
    for part in path:
        node = node[part]
    node[last] = value
    return other


def another(value: Any) -> Any:
    """A different value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, 7]
    return f"{value or ''}x"


@pytest.mark.parametrize(
    "overrides",
    [
        SGP,
        ("optimizer=adamw", "schedule=steps"),
        ("algorithm=sgp", "topology=two_then_one_peer", "sampling=label_skew"),
        ("dataset=synthetic", "dataset.train_samples=64", "dataset.test_samples=4", "model=resnet20"),
        ("launcher=simulated", "cost=resnet50_v100", "cluster.compute.slow={3: 2.0}"),
        ("launcher=simulated", "cost=resnet50_v100", "problem=none"),
    ],
    ids=" ".join,
)
def test_every_key_but_these_makes_another_run(overrides):
    config = configure(*overrides)
    seen = {identity(config): "the run itself"}
    for key, value in flat(config):
        changed_identity = identity(changed(config, key, another(value)))
        group = key.removeprefix("choices.").split(".")[0]
        if group in VIRTUAL_GROUPS and config["launcher"]["kind"] != "simulated":
            assert changed_identity == identity(config), f"{key} must not matter on real processes"
        elif key in NO_MATTER or key.startswith("choices.hydra"):
            assert changed_identity == identity(config), f"{key} must not matter"
        elif timing_only(config) and group in ("dataset", "model"):
            assert changed_identity == identity(config), f"{key} must not matter where nothing is trained"
        else:
            assert changed_identity not in seen, f"{key} makes the same run as {seen.get(changed_identity)}"
            seen[changed_identity] = key


@pytest.mark.parametrize("key", ["root", "download", "loader_processes"])
def test_where_the_data_is_makes_no_other_run(base, key):
    assert identity(changed(base, f"dataset.{key}", 1)) == identity(changed(base, f"dataset.{key}", 2))


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("nodes=2",),
        ("gpus_per_node=1",),
        ("batch_size=32",),
        ("optimizer.lr=0.025",),  # 0.1 x 64 / 256
        ("batch_size=32", "optimizer.lr=0.025", "seed=0", "algorithm.overlap=0", "evaluation.every=1"),
        ("topology=one_peer_exponential",),  # the method's own default
        ("launcher=local",),
        ("launcher.timeout_s=60", "rerun=true", "record_every=7", "warmup_iterations=0"),
        ("device=cpu", "backend=gloo"),
    ],
    ids=" ".join,
)
def test_left_to_its_default_or_spelt_out_is_one_run(more):
    assert identity(configure(*SGP, "device=cpu", *more)) == identity(configure(*SGP, "device=cpu"))


@pytest.mark.parametrize(
    "more",
    [
        ("seed=1",),
        ("nodes=1", "gpus_per_node=2"),
        ("batch_size=31",),
        ("optimizer.lr=0.03",),
        ("algorithm.overlap=1",),
        ("topology=ring",),
        ("evaluation.batch_norm=average",),
        ("threads_per_worker=2",),
        ("problem.dtype=float64",),
        ("+optimizer.maximize=true",),
    ],
    ids=" ".join,
)
def test_typed_another_setting_is_another_run(base, more, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)  # threads_per_worker=2 needs two cores
    assert identity(configure(*SGP, *more)) != identity(base)


TIMING = ("launcher=simulated", "problem=none", "cost=resnet50_v100", "device=cpu")


def test_a_rate_that_is_not_by_the_rule_is_named_and_not_the_rules():
    run = ("algorithm=sgp", "nodes=4", "batch_size=64", "device=cpu", "optimizer.reference_lr=0.2")
    assert settings(configure(*run)) == "optimizer.reference_lr=0.2"
    assert settings(configure(*run, "optimizer.lr=0.01")) == "optimizer.lr=0.01"
    assert settings(configure(*run, "optimizer.lr=0.2")) == "optimizer.reference_lr=0.2"  # 256 images: the same


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "adamw"])
def test_a_rate_that_the_optimizer_has_by_default_is_not_named(optimizer):
    run = ("algorithm=downpour", "nodes=4", "batch_size=64", "device=cpu", f"optimizer={optimizer}")
    assert settings(configure(*run)) == ""
    assert settings(configure(*run, "optimizer.lr=0.3")) == "optimizer.lr=0.3"


@pytest.mark.parametrize("more", [("dataset=synthetic", "model=lenet"), ("model.hidden=[3]", "dataset.augment=true")])
def test_without_training_the_data_and_the_network_make_no_other_run(more):
    plain, other = configure(*TIMING), configure(*TIMING, *more)
    assert identity(other) == identity(plain)
    assert settings(other) == settings(plain)
    trained = [override for override in TIMING if override != "problem=none"]
    assert identity(configure(*trained, "model.hidden=[3]")) != identity(configure(*trained))


def test_a_run_for_the_time_only_is_what_it_was_when_data_and_network_still_counted():
    """What is hashed are the defaults of that time; a default changed later must not reach it."""
    config = configure(*TIMING)
    for group, option in (("dataset", "digits"), ("model", "mlp")):
        assert content(config)[group] == {"": option}
        assert ledger()[f"{group}/{option}"]["_target_"] == config[group]["_target_"]
    assert content(configure(*TIMING, "model=lenet"))["model"] == {"": "mlp"}


def test_the_same_number_spelt_differently_is_one_run():
    whole = configure(*SGP, "optimizer.weight_decay=0", "schedule.warmup_epochs=2", "optimizer.lr=1")
    point = configure(*SGP, "optimizer.weight_decay=0.0", "schedule.warmup_epochs=2.0", "optimizer.lr=1.0")
    assert identity(whole) == identity(point)


def test_a_resolved_configuration_keeps_no_trace_of_what_was_left_open(base):
    assert base["gpus_per_node"] == 1
    assert base["batch_size"] == 32
    assert base["optimizer"]["lr"] == pytest.approx(0.025)
    assert base["launcher"]["kind"] == "local"
    assert "auto" not in {base["device"], base["backend"]}


class TestLedger:
    """A key that is added later, or a default that is changed later."""

    def with_entry(self, monkeypatch: pytest.MonkeyPatch, section: str, key: str, default: Any) -> None:
        entries = copy.deepcopy(ledger())
        entries[section][key] = default
        monkeypatch.setattr(identities, "ledger", lambda: entries)

    @pytest.mark.parametrize(("section", "key"), [("algorithm/sgp", "algorithm.push"), ("", "evaluation.top5")])
    def test_a_new_key_at_its_default_orphans_no_run(self, base, monkeypatch, section, key):
        before = identity(base)
        self.with_entry(monkeypatch, section, key.removeprefix("algorithm."), "off")
        assert identity(changed(base, key, "off")) == before
        assert identity(base) == before  # frozen before the key was there
        assert identity(changed(base, key, "on")) != before

    def test_a_changed_default_makes_new_runs(self, base):
        """conf/ says something else now; the ledger still says what the key meant in runs that left it alone."""
        assert ledger()["algorithm/sgp"]["overlap"] == 0
        assert identity(changed(base, "algorithm.overlap", 1)) != identity(base)

    def test_an_option_of_the_users_own_is_hashed_in_full(self, base):
        mine = changed(base, "choices.algorithm", "mine")
        assert identity(mine) != identity(base)
        assert identity(changed(mine, "algorithm.overlap", 1)) != identity(mine)
        assert variant(changed(mine, "algorithm.overlap", 1)) == "overlap=1, merge=arrived, biased=false"


@pytest.mark.parametrize(
    "overrides",
    [
        SGP,
        ("algorithm=dpsgd", "optimizer=adam", "schedule=steps", "optimizer.eps=1e-9"),
        ("algorithm=sgp", "topology=complete_then_one_peer", "sampling=label_skew", "optimizer.lr=1e-5"),
        ("algorithm=sgp", "topology=sequence", "model.hidden=[]", "dataset.train_samples=100"),
    ],
    ids=" ".join,
)
def test_the_frozen_configuration_is_the_run(tmp_path, overrides):
    config = configure(*overrides)
    (tmp_path / "config.yaml").write_text(freeze(config))
    assert load(tmp_path) == config
    assert identity(load(tmp_path)) == identity(config)


def test_variant_names_what_differs_from_the_methods_defaults(base):
    assert variant(base) == ""
    assert variant(changed(base, "algorithm.overlap", 1)) == "overlap=1"
    both = changed(changed(base, "algorithm.merge", "exact"), "algorithm.overlap", 2)
    assert variant(both) == "overlap=2, merge=exact"
    assert variant(changed(base, "seed", 3)) == ""


OWN_CLUSTER = """
defaults: [10gbe]
inter: {bandwidth: 1e8}
"""


def test_of_an_option_of_ones_own_settings_name_what_was_typed(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(OWN_CLUSTER)
    mine = ("launcher=simulated", "cluster=mine", "--config-dir", str(tmp_path))
    assert settings(configure(*mine)) == ""
    assert settings(configure(*mine, "seed=3", "cluster.inter.loss=0.1")) == "cluster.inter.loss=0.1"
    slow = configure(*mine, "cluster.compute.slow={3: 2.0}")
    assert settings(slow) == "cluster.compute.slow.3=2.0"
    assert settings(configure("launcher=simulated", "cluster.inter.loss=0.1")) == "cluster.inter.loss=0.1"
    del slow["typed"]  # frozen before it was noted
    assert settings(slow) == ""
