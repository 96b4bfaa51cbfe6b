"""A method that says what a test tells it to, on the virtual cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from virtual import CPU

from runner.config import Config
from runner.simulation import Simulation

SENT_S, V, B = 0.1, 1e8, 1e9
PLAIN = ("algorithm=gossip_push", "algorithm.budget=equal")
SERVED = ("algorithm=async_sgd", "algorithm.budget=equal")
OWN = "server.placement=own"
Script = Callable[[Any], Awaitable[None]]


class Talk:
    """A method that does what a script says, on each worker and on each server."""

    topology = "none"
    synchronous = False

    def __init__(self, script: Script, server: Script | None) -> None:
        self.script, self.server = script, server

    async def run(self, worker: Any) -> AsyncGenerator[Any, None]:
        await self.script(worker)
        for nothing in ():
            yield nothing

    async def serve(self, worker: Any) -> AsyncGenerator[Any, None]:
        assert self.server is not None
        await self.server(worker)
        for nothing in ():
            yield nothing


def talk(config: Config, script: Script, server: Script | None = None, seconds: list[float] | None = None) -> Any:
    """Let all workers, and servers, follow their scripts; the cluster afterwards.

    Args:
        seconds: of all gradients of a worker.
    """
    simulation = Simulation(config, CPU)
    simulation.algorithm = Talk(script, server)  # type: ignore[assignment]
    if seconds is not None:
        simulation.cluster.seconds_of = lambda worker, draw: seconds[worker]
    simulation.run(lambda worker, x: None)
    return simulation.cluster


def listening(worker: Any, channel: str, heard: list[Any]) -> Any:
    """A loop over the messages of a channel that notes (receiver, sender, channel, its last part, when)."""

    async def loop() -> None:
        async for sender, message in worker.messages(channel, like=(0.0,)):
            heard.append((worker.rank, sender, channel, message[-1], worker.engine.now))

    return loop()
