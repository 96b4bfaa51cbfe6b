"""The plan of failures: what it says, and what it cannot say."""

from __future__ import annotations

import pytest

from runner.build import ConfigError, build
from runner.cluster.failures import Failures, Happening


def happenings(*plan, workers: int = 8, workers_per_node: int = 1) -> list[Happening]:
    return Failures(list(plan)).happenings(workers, workers_per_node)


def test_a_plan_is_put_into_the_order_of_time():
    assert happenings(
        {"worker": 3, "dies_at_s": 12, "returns_at_s": 20},
        {"node": 1, "pauses_at_s": 5, "resumes_at_s": 13},
        {"worker": 0, "dies_at_s": 0},
    ) == [
        Happening(0.0, 0, "dies"),
        Happening(5.0, 1, "pauses"),
        Happening(12.0, 3, "dies"),
        Happening(13.0, 1, "resumes"),
        Happening(20.0, 3, "returns"),
    ]


def test_a_node_takes_all_its_workers_with_it():
    found = happenings({"node": 1, "dies_at_s": 2}, workers_per_node=4)
    assert found == [Happening(2.0, worker, "dies") for worker in (4, 5, 6, 7)]


def test_one_thing_after_the_other_may_happen_to_a_worker():
    found = happenings(
        {"worker": 1, "dies_at_s": 8, "returns_at_s": 9},
        {"worker": 1, "pauses_at_s": 1, "resumes_at_s": 4},
        {"worker": 1, "dies_at_s": 4, "returns_at_s": 8},
        {"worker": 1, "pauses_at_s": 9, "resumes_at_s": 10},
    )
    assert [each.what for each in found] == [
        *("pauses", "resumes", "dies", "returns", "dies", "returns", "pauses", "resumes")
    ]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (3, "must be a list"),
        ({"worker": 1, "dies_at_s": 1}, "plan={worker: 1, dies_at_s: 1}: must be a list, e.g. [{worker: 1, dies"),
        ([3], "3 must name a worker, a node or a link"),
        ([{"dies_at_s": 3}], "must name a worker"),
        ([{"worker": 1, "node": 1, "dies_at_s": 3}], "one of them"),
        ([{"worker": 8, "dies_at_s": 3}], "{worker: 8, dies_at_s: 3}: there is no worker 8; workers are 0 to 7"),
        ([{"worker": -1, "dies_at_s": 3}], "no worker -1"),
        ([{"worker": True, "dies_at_s": 3}], "no worker True"),
        ([{"worker": "two", "dies_at_s": 3}], "no worker two"),
        ([{"node": 4, "dies_at_s": 3}], "there is no node 4; nodes are 0 to 3"),
        ([{"worker": 1}], "something must happen to it"),
        ([{"worker": 1, "dies_at": 3}], "dies_at is unknown; did you mean dies_at_s? known: dies_at_s, pauses_at_s,"),
        ([{"worker": 1, "returns_at_s": 3}], "say dies_at_s (and returns_at_s)"),
        ([{"worker": 1, "dies_at_s": 3, "resumes_at_s": 5}], "resumes_at_s does not go with dies_at_s"),
        ([{"worker": 1, "dies_at_s": 3, "pauses_at_s": 5}], "pauses_at_s does not go with dies_at_s"),
        ([{"worker": 1, "dies_at_s": 3, "loss": 0.1}], "loss is unknown; known: dies_at_s"),
        ([{"worker": 1, "dies_at_s": 3, 5: 0.1}], "5 is unknown; known: dies_at_s"),
        ([{"worker": 1, "dies_at_s": True}], "dies_at_s must be seconds of virtual time"),
        ([{"worker": 1, "dies_at_s": 3, "returns_at_s": True}], "returns_at_s must be seconds of virtual time"),
        ([{"worker": 1, "pauses_at_s": 3}], "resumes_at_s is missing"),
        ([{"worker": 1, "dies_at_s": -3}], "0 or more"),
        ([{"worker": 1, "dies_at_s": "noon"}], "must be seconds of virtual time"),
        ([{"worker": 1, "dies_at_s": None}], "must be seconds of virtual time"),
        ([{"worker": 1, "dies_at_s": float("nan")}], "0 or more"),
        ([{"worker": 1, "dies_at_s": 3, "returns_at_s": 3}], "must be later than dies_at_s"),
        ([{"worker": 1, "dies_at_s": 3}, {"worker": 1, "dies_at_s": 4}], "worker 1 dies at 4 s, but it is dead"),
        ([{"node": 0, "dies_at_s": 3}, {"worker": 1, "pauses_at_s": 3.5, "resumes_at_s": 4}], "but it is dead"),
        (
            [{"worker": 1, "pauses_at_s": 3, "resumes_at_s": 6}, {"worker": 1, "pauses_at_s": 5, "resumes_at_s": 7}],
            "worker 1 pauses at 5 s, but it is paused",
        ),
        (
            [{"worker": 1, "pauses_at_s": 3, "resumes_at_s": 9}, {"worker": 1, "dies_at_s": 5, "returns_at_s": 7}],
            "worker 1 resumes at 9 s, but it is alive",
        ),
    ],
)
def test_what_a_plan_cannot_say_of_workers(plan, words):
    with pytest.raises(ConfigError, match=r"failures\.plan") as error:
        build({"_target_": "runner.cluster.failures.Failures", "plan": plan}, "failures").happenings(8, 2)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"link": 3}, "link must be two nodes"),
        ({"link": [0, 1, 2]}, "link must be two nodes"),
        ({"link": [0, 4]}, "there is no node 4; nodes are 0 to 3"),
        ({"link": [1, 1]}, "two different nodes"),
        ({"link": [0, True]}, "link must be two nodes"),
        (
            {"link": [0, 1], "los": 0.1},
            "los is unknown; did you mean loss? known: bandwidth_factor, both_ways, from_s,",
        ),
        ({"link": [0, 1], "dies_at_s": 3}, "dies_at_s is unknown"),
        ({"link": [0, 1], "loss": 1.1}, "loss must be between 0 and 1"),
        ({"link": [0, 1], "loss": "some"}, "must be numbers"),
        ({"link": [0, 1], "loss": True}, "must be numbers"),
        ({"link": [0, 1], "loss": 0.1, "from_s": True}, "must be numbers"),
        ({"link": [0, 1], "loss": 0.1, "both_ways": "no"}, "both_ways must be true or false"),
        ({"link": [0, 1], "until_s": 3}, "changes nothing; say loss, bandwidth_factor or latency_factor"),
        ({"link": [0, 1], "loss": 0.0, "bandwidth_factor": 1.0}, "changes nothing"),
        ({"link": [0, 1], "bandwidth_factor": 0}, "bandwidth_factor positive"),
        ({"link": [0, 1], "latency_factor": float("inf")}, "latency_factor 0 or more"),
        ({"link": [0, 1], "from_s": 3, "until_s": 3}, "from_s < until_s"),
    ],
)
def test_what_a_plan_cannot_say_of_links(entry, words):
    with pytest.raises(ConfigError, match=r"failures\.plan") as error:
        Failures([entry]).link_changes(4)
    assert words in str(error.value)


@pytest.mark.parametrize("wrong", [{"timeout_s": -1}, {"detection_s": float("inf")}, {"return_state": "elsewhere"}])
def test_other_settings(wrong):
    [key] = wrong
    with pytest.raises(ConfigError, match=rf"failures\.{key}"):
        build({"_target_": "runner.cluster.failures.Failures", **wrong}, "failures")
