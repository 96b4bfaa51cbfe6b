"""Model + data + loss: the gradient at a flat iterate x, and how good x is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.layers import dropout_layers
from runner.randomness import stream_seed

Forward = Callable[[Tensor], Tensor]


@dataclass
class Score:
    """Sums over evaluated samples, so that parts evaluated apart add up exactly."""

    correct: int
    loss: float
    samples: int


class Problem:
    """Cross-entropy of a network.

    The network's parameters are views of whatever flat vector x was last looked at: nothing is copied to move
    between iterates. The layout of x is the parameters in the order of `model.parameters()`; with `channels_last`
    each convolution weight lies in memory as (out, height, width, in).

    Args:
        model: the network, at the initial point.
        seed: of the run; keys the dropout masks.
        dtype: float32 or float64.
        autocast: "bfloat16" for mixed precision in the forward pass, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        autocast: str | None = None,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002  the name that people know from torch
    ) -> None:
        self.seed, self.device, self.dtype = seed, torch.device(device), dtype
        self.channels_last = channels_last
        self.model = model.to(self.device, dtype)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.parameters = list(self.model.parameters())
        self.sizes = [p.numel() for p in self.parameters]
        self.shapes = [p.shape for p in self.parameters]
        self.dropouts = dropout_layers(self.model)
        self.autocast = None if autocast is None else getattr(torch, autocast)
        self.forward: nn.Module = cast("nn.Module", torch.compile(self.model)) if compile else self.model
        self.x0 = self.flatten([p.detach() for p in self.parameters])

    @property
    def dimension(self) -> int:
        """d, the number of parameters."""
        return sum(self.sizes)

    def initial(self) -> Tensor:
        return self.x0.clone()

    def flatten(self, pieces: Iterable[Tensor]) -> Tensor:
        """One tensor per parameter -> a flat vector (d,)."""
        return torch.cat([self._memory_order(piece).reshape(-1) for piece in pieces])

    def _memory_order(self, piece: Tensor) -> Tensor:
        return piece.permute(0, 2, 3, 1) if self.channels_last and piece.dim() == 4 else piece

    def look_at(self, x: Tensor) -> None:
        """Make the network's parameters views of x."""
        for parameter, piece, shape in zip(self.parameters, x.split(self.sizes), self.shapes, strict=True):
            if self.channels_last and len(shape) == 4:
                out, channels, height, width = shape
                parameter.data = piece.view(out, height, width, channels).permute(0, 3, 1, 2)
            else:
                parameter.data = piece.view(shape)

    def gradient(
        self,
        x: Tensor,
        batch: tuple[Tensor, Tensor],
        key: tuple[int, ...] = (),
        reducer: Forward | None = None,
        reduced: Callable[[], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss () and gradient (d,) of the mean cross-entropy over the batch, at x.

        Args:
            batch: images (B, C, H, W) and labels (B,).
            key: names this draw; the dropout masks are a function of (seed, key).
            reducer: the model wrapped in torch's DDP, to have the gradient averaged as it is computed.
            reduced: called when that has been done.
        """
        images, labels = batch
        self.look_at(x)
        self._key_dropout(key)
        self._set_training(True)
        loss = nn.functional.cross_entropy(self._logits(images, reducer or self.forward), labels)
        if reducer is None:
            pieces = torch.autograd.grad(loss, self.parameters)
        else:
            for parameter in self.parameters:
                parameter.grad = None
            loss.backward()
            if reduced is not None:
                reduced()
            pieces = tuple(p.grad for p in self.parameters if p.grad is not None)
        return loss.detach(), self.flatten(pieces)

    def gradients(self, xs: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (W,) and gradients (W, d) for W iterates (W, d) at once, each on its own batch.

        The same numbers as `gradient` up to rounding; for networks without buffers and dropout.

        Args:
            xs: (W, d).
            images: (W, B, C, H, W).
            labels: (W, B).
        """
        names = [name for name, _ in self.model.named_parameters()]

        def loss(x: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            pieces = [p.view(shape) for p, shape in zip(x.split(self.sizes), self.shapes, strict=True)]
            logits = torch.func.functional_call(self.model, dict(zip(names, pieces, strict=True)), (images,))
            return nn.functional.cross_entropy(logits, labels)

        self._set_training(True)
        gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss))(xs, images, labels)
        return losses, gradients

    @torch.no_grad()
    def evaluate(self, x: Tensor, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """Top-1 and loss of the network at x, in evaluation mode, with the buffers as they are."""
        self.look_at(x)
        self._set_training(False)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        samples = 0
        for images, labels in batches:
            logits = self._logits(images, self.model)
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
            correct += (logits.argmax(1) == labels).sum()
            samples += len(labels)
        return Score(int(correct), float(loss), samples)

    @torch.no_grad()
    def recalibrate(self, x: Tensor, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the BatchNorm statistics to their plain mean over forward passes of `batches` at x."""
        self.look_at(x)
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's spelling of a cumulative mean
        self._key_dropout((-1,))
        self._set_training(True)
        for images, _ in batches:
            self._logits(images, self.model)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def buffers(self) -> dict[str, Tensor]:
        """The network's floating-point buffers (BatchNorm statistics), by name."""
        return {name: buffer for name, buffer in self.model.named_buffers() if buffer.is_floating_point()}

    def _logits(self, images: Tensor, forward: Forward) -> Tensor:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.autocast is None:
            return forward(images)
        with torch.autocast(self.device.type, self.autocast):
            return forward(images).float()

    def _set_training(self, training: bool) -> None:
        if self.model.training != training:  # to walk through all modules at each step would show in its time
            self.model.train(training)

    def _key_dropout(self, key: tuple[int, ...]) -> None:
        if self.dropouts:
            generator = torch.Generator(self.device)
            generator.manual_seed(stream_seed(self.seed, "dropout", *key))
            for layer in self.dropouts:
                layer.generator = generator


def make_problem(config: dict[str, Any], model: nn.Module, device: torch.device | str) -> Problem:
    """The problem of a resolved configuration."""
    node = config["problem"]
    return Problem(
        model,
        seed=config["seed"],
        device=device,
        dtype=getattr(torch, node["dtype"]),
        autocast=node["autocast"],
        channels_last=node["channels_last"],
        compile=node["compile"],
    )
