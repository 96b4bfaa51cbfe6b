"""The event heap: order, deadlock, and what happens to a coroutine that is paused or closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.runtimes.engine import DeadlockError, Engine, Pending, Ready, Task, VirtualClock


class Alarm(Pending[float]):
    """Goes off so many seconds after it was made."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        super().__init__()
        engine.at(engine.now + seconds, self.complete, engine.now + seconds)


class Never(Pending[None]):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def describe(self) -> str:
        return self.name


def start(engine: Engine, name: str, run: AsyncGenerator, yielded: Callable = lambda x: None) -> Task:
    task = Task(engine, name, run, yielded)
    engine.start(task)
    return task


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 1000))
def test_events_happen_in_the_order_of_time_then_of_posting(times, seed):
    engine, happened = Engine(), []
    for place, time_s in enumerate(times):
        engine.at(time_s, happened.append, (time_s, place))

    async def patient():
        await Alarm(engine, 10.0)
        yield Random(seed).random()

    start(engine, "patient", patient())
    engine.run()
    assert happened == sorted(happened)
    assert len(happened) == len(times)


def test_tasks_take_turns_in_the_same_order_every_time():
    def told() -> list[tuple[float, str]]:
        engine, happened = Engine(), []

        async def steps(name: str, seconds: float):
            for _ in range(3):
                await Alarm(engine, seconds)
                yield name

        for name, seconds in (("a", 2.0), ("b", 1.0), ("c", 2.0)):
            start(engine, name, steps(name, seconds), lambda name: happened.append((engine.now, name)))
        engine.run()
        return happened

    assert told() == [(1, "b"), (2, "a"), (2, "c"), (2, "b"), (3, "b"), (4, "a"), (4, "c"), (6, "a"), (6, "c")]
    assert told() == told()


def test_what_is_ready_takes_no_time():
    engine, seen = Engine(), []

    async def hasty():
        alarm = Alarm(engine, 0.0)
        seen.append(alarm.arrived)
        seen.append(await Ready("at once"))
        seen.append(await alarm)
        seen.append(alarm.arrived)
        yield await alarm  # once more: it is there

    start(engine, "hasty", hasty(), seen.append)
    engine.run()
    assert seen == [False, "at once", 0.0, True, 0.0]
    assert VirtualClock(engine).now() == 0.0


def test_a_deadlock_names_who_waits_for_whom():
    engine = Engine()

    async def waiting(what: str):
        await Alarm(engine, 1.5)
        yield 0
        await Never(what)
        yield 1

    async def fine():
        await Alarm(engine, 5.0)
        yield 0

    start(engine, "worker 0", waiting("message 1 of worker 1"))
    start(engine, "worker 1", waiting("the mean of 3 workers"))
    start(engine, "worker 2", fine())
    with pytest.raises(DeadlockError) as error:
        engine.run()
    assert str(error.value) == (
        "deadlock at 5 s of virtual time: worker 0 waits for message 1 of worker 1; "
        "worker 1 waits for the mean of 3 workers"
    )


def test_a_deadlock_of_many_is_told_in_one_line():
    engine = Engine()

    async def waiting():
        yield await Never("an event")

    for rank in range(100):
        start(engine, f"worker {rank}", waiting())
    with pytest.raises(DeadlockError, match=r"worker 7 waits for an event; and 92 more$"):
        engine.run()


def test_a_pause_holds_back_what_came_meanwhile():
    engine, times = Engine(), []

    async def steps():
        for _ in range(3):
            await Alarm(engine, 1.0)
            yield engine.now

    task = start(engine, "worker 0", steps(), times.append)
    engine.at(1.5, lambda _: task.pause())
    engine.at(7.0, lambda _: task.resume())
    engine.run()
    assert times == [1.0, 7.0, 8.0]


def test_a_pause_between_two_events_changes_nothing_by_itself():
    """Whether what is waited for is late then is the business of what is waited for."""
    engine, times, told = Engine(), [], []

    class Told(Alarm):
        def stood_still(self, since_s: float) -> None:
            told.append((since_s, engine.now))

    async def steps():
        await Told(engine, 4.0)
        yield engine.now

    task = start(engine, "worker 0", steps(), times.append)
    engine.at(1.0, lambda _: task.pause())
    engine.at(2.5, lambda _: task.resume())
    engine.run()
    assert (times, told) == ([4.0], [(1.0, 2.5)])


def test_a_task_paused_before_its_start_starts_late():
    engine, times = Engine(), []

    async def steps():
        yield engine.now

    task = start(engine, "worker 0", steps(), times.append)
    task.pause()
    engine.at(3.0, lambda _: task.resume())
    engine.run()
    assert times == [3.0]


@pytest.mark.parametrize("close_at_s", [0.0, 0.5, 1.0, 1.5])
def test_a_closed_task_goes_no_further_and_cleans_up(close_at_s):
    engine, happened = Engine(), []

    async def steps():
        try:
            for k in range(3):
                await Alarm(engine, 1.0)
                yield k
        finally:
            happened.append("end")

    async def beside():
        await Alarm(engine, 9.0)
        yield 0

    task = Task(engine, "worker 0", steps(), happened.append)
    engine.at(close_at_s, lambda _: task.close())
    engine.start(task)
    start(engine, "worker 1", beside())
    engine.run()
    begun = close_at_s > 0  # one that has not begun has nothing to clean up
    assert happened == [*range(int(close_at_s >= 1.5)), *(["end"] if begun else [])]
    assert engine.now == 9.0


def test_a_task_closed_while_paused_never_goes_on():
    engine, happened = Engine(), []

    async def steps():
        await Alarm(engine, 1.0)
        yield 0

    async def beside():
        await Alarm(engine, 9.0)
        yield 0

    task = start(engine, "worker 0", steps(), happened.append)
    start(engine, "worker 1", beside())
    engine.at(0.5, lambda _: task.pause())
    engine.at(2.0, lambda _: task.close())
    engine.run()
    assert not happened
