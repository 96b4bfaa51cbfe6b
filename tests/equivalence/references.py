"""Methods written as matrices, in this one process: what the tests compare the real ones with."""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.topology import matrix
from runner.build import locate
from runner.config import Config, ranks
from runner.data import load
from runner.graphs import make_graph
from runner.prepare import make_algorithm, make_model, make_sampler
from runner.problem import make_problem


class Reference:
    """Gradients and optimisers of all workers, one after the other; everything else is a matrix product."""

    def __init__(self, config: Config) -> None:
        dataset = load(config["dataset"]).to(dtype=torch.float64)
        self.n = ranks(config)
        self.problem = make_problem(config, make_model(config, dataset), "cpu")
        sampler = make_sampler(config, dataset)
        self.batches = [dataset.batches(sampler, rank, config["seed"]) for rank in range(self.n)]
        self.graph = make_graph(config, make_algorithm(config), self.n, sampler.iterations_per_epoch)
        self.X = self.problem.initial()[:, None].repeat(1, self.n)
        self.columns = [torch.nn.Parameter(self.X[:, i].clone()) for i in range(self.n)]
        self.losses = [0.0] * self.n
        settings = {k: v for k, v in config["optimizer"].items() if k not in ("_target_", "reference_lr")}
        optimizer = locate(config["optimizer"]["_target_"], "optimizer")
        self.optimizers = [optimizer([column], **settings) for column in self.columns]

    def mixing(self, k: int) -> Tensor:
        assert self.graph is not None
        return matrix(self.graph.at(k))

    def stepped(self, X: Tensor, Z: Tensor, k: int) -> Tensor:
        """X - lr step(G(Z), X), column by column."""
        return self.descended(X, self.gradients(Z, k))

    def gradients(self, Z: Tensor, k: int) -> Tensor:
        """G(Z) of the k-th mini-batches, (d, n); the losses are in `losses`."""
        answers = [self.problem.gradient(Z[:, i].contiguous(), self.batches[i](k)) for i in range(self.n)]
        self.losses = [float(loss) for loss, _ in answers]
        return torch.stack([g for _, g in answers], 1)

    def descended(self, X: Tensor, G: Tensor) -> Tensor:
        """X - lr step(G, X), column by column."""
        for i, column in enumerate(self.columns):
            column.data, column.grad = X[:, i].clone(), G[:, i].clone()
            self.optimizers[i].step()
        return torch.stack([column.detach() for column in self.columns], 1)
