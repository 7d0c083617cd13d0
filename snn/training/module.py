"""The training step as Lightning sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from snn.layers.annealed_step import anneal_steps
from snn.layers.delay_positions import anneal_sigma, clamp_delays, learnable_delays
from snn.neurons.diet import clamp_leaks
from snn.training.bptt import Loss, Rule
from snn.training.loss import SequenceLoss
from snn.training.seeding import ENCODE, EPOCH, EVALUATE, derived_seed, generator_states, set_all_generators
from snn.training.spike_rates import SpikeCounter, sum_dtype


@dataclass(frozen=True)
class Parts:
    """What a training step is made of.

    Args:
        network: [T, B, ...] -> logits [T, B, classes].
        rule: fills the gradients of a batch; see snn.training.bptt.
        loss: of logits and labels, used in evaluation.
        alignment: (input, labels) -> cosine and norm ratio of each layer's update, on the last batch of each epoch; None
            measures nothing.
        encode: (images [B, ...], seed) -> sequence [T, B, ...].
        make_optimizer: network -> optimiser.
        rate_factor: (step, step count, steps per epoch, whether of delays) -> factor on the learning rate.
        clip_norm: largest norm of the gradient, None for no limit.
        seed: of the run.
        record: saved with every checkpoint under the key `spikeloop`, plain values.
        frozen: parameters that are not trained in the first `frozen_epochs` epochs.
        frozen_epochs: see `frozen`.
        scores: logits [T, B, classes] -> [B, classes], whose largest entry is the answer.
    """

    network: nn.Module
    rule: Rule
    loss: Loss
    alignment: Callable[[torch.Tensor, torch.Tensor], dict[str, tuple[float, float]]] | None
    encode: Callable[[torch.Tensor, int], torch.Tensor]
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    rate_factor: Callable[[int, int, int, bool], float]
    clip_norm: float | None
    seed: int
    record: dict[str, Any]
    frozen: Sequence[nn.Parameter] = ()
    frozen_epochs: int = 0
    scores: Callable[[torch.Tensor], torch.Tensor] = SequenceLoss().scores


@dataclass
class Totals:
    """Sums over images, kept on the device so that no step waits for it."""

    loss: torch.Tensor | float = 0.0
    correct: torch.Tensor | float = 0.0
    count: int = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add one batch: its mean loss, scores [B, classes] and labels [B]."""
        self.loss = self.loss + loss.detach().to(sum_dtype(loss.device)) * len(labels)
        self.correct = self.correct + (logits.argmax(1) == labels).sum()
        self.count += len(labels)


class TrainingModule(LightningModule):
    """Encodes each batch, lets the rule fill the gradients, and takes one optimiser step."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        # The rule calls backward itself, once per chunk of a truncated sequence.
        self.automatic_optimization = False
        self.network = parts.network
        self.parts = parts
        self.train_totals = Totals()
        self.evaluation_totals: list[Totals] = []
        self.alignment: dict[str, tuple[float, float]] = {}
        self.spikes = SpikeCounter(parts.network)

    def configure_optimizers(self) -> Any:
        optimizer = self.parts.make_optimizer(self.network)
        step_count = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = step_count // (self.trainer.max_epochs or 1)

        delays = {id(delay) for delay in learnable_delays(self.network)}

        def factor_of(group: dict[str, Any]) -> Callable[[int], float]:
            of_delays = id(group["params"][0]) in delays
            return lambda step: self.parts.rate_factor(step, step_count, steps_per_epoch, of_delays)

        factors = [factor_of(group) for group in optimizer.param_groups]
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factors)]

    def on_train_epoch_start(self) -> None:
        set_all_generators(derived_seed(self.parts.seed, EPOCH, self.current_epoch, self.global_rank))
        self.train_totals = Totals()
        epochs = self.trainer.max_epochs or 1
        anneal_sigma(self.network, self.current_epoch, epochs)
        anneal_steps(self.network, self.current_epoch, epochs)
        for parameter in self.parts.frozen:
            parameter.requires_grad_(self.current_epoch >= self.parts.frozen_epochs)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        seed = derived_seed(self.parts.seed, ENCODE, self.current_epoch, batch_idx, self.global_rank)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        x = self.parts.encode(images, seed)
        if self.parts.alignment is not None and self.trainer.is_last_batch:
            self.alignment = self.parts.alignment(x, labels)
        result = self.parts.rule(self.network, x, labels, self.manual_backward)
        optimizer.step()
        clamp_delays(self.network)
        clamp_leaks(self.network)
        schedule: Any = self.lr_schedulers()
        schedule.step()
        self.train_totals.add(result.loss, result.logits, labels)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Lightning calls this after it has undone the gradient scaling of mixed precision.
        if self.parts.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.parts.clip_norm)

    def on_validation_epoch_start(self) -> None:
        self.evaluation_totals = [Totals(), Totals()]
        self.spikes.reset()

    def validation_step(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        images, labels = batch
        seed = derived_seed(self.parts.seed, EVALUATE, dataloader_idx, batch_idx, self.global_rank)
        x = self.parts.encode(images, seed)
        if dataloader_idx == 0:  # the test images
            with self.spikes.counting():
                logits = self.network(x)
        else:
            logits = self.network(x)
        self.evaluation_totals[dataloader_idx].add(self.parts.loss(logits, labels), self.parts.scores(logits), labels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spikeloop"] = {**self.parts.record, "generators": generator_states()}
