"""Pruning that goes with a training, as callbacks: zeros that stay zeros, and zeros that become more little by little.

Both act at the end of the optimiser's own step, so that evaluation, early stopping, averages and checkpoints see the pruned
weights alone. Which weights are zero is read from the weights when a run starts: one that is resumed needs nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from minigpt.prune.magnitude import (
    check_pattern,
    check_share,
    check_weights,
    choose_zeros,
    matrices,
    set_to_zero,
)

if TYPE_CHECKING:
    from minigpt.trainer import Trainer


class KeepZeros:
    """A callback that keeps at zero what is zero in the blocks' matrices when the run starts: a pruned model recovers.

    Raises, when the run starts:
        ValueError: there are no zeros, or a matrix is zero throughout.
    """

    def on_start(self, trainer: Trainer) -> None:
        self._weights = matrices(trainer.model)
        self._check(trainer)
        # A matrix that is zero throughout has not begun to learn, and is not pruned.
        self._zeros = {name: (weight == 0) & weight.any() for name, weight in self._weights.items()}
        after = self._after(trainer)
        self._hooks = [optimizer.register_step_post_hook(after) for optimizer in trainer.optimizers]

    def on_end(self, trainer: Trainer) -> None:
        for hook in self._hooks:
            hook.remove()

    def _check(self, trainer: Trainer) -> None:
        check_weights(self._weights)
        if all(weight.all() for weight in self._weights.values()):
            raise ValueError("the model has no zeros to keep; train what prune(model) gives, or use GradualPruning.")

    def _after(self, trainer: Trainer) -> Any:
        return lambda *_: set_to_zero(self._weights, self._zeros)


def sparsity_at(step: int, start: int, end: int, every: int, sparsity: float) -> float:
    """The share of zeros after `step` updates: none at `start`, fast at first, all at `end` (Zhu & Gupta 2017, equation 1).

    It changes every `every` updates, by what a cubic has come to by then.
    """
    if step >= end:
        return sparsity
    changed_at = step - (step - start) % every
    return 0.0 if step < start else sparsity * (1 - (1 - (changed_at - start) / (end - start)) ** 3)


class GradualPruning(KeepZeros):
    """A callback that prunes along the way, by the cubic of `sparsity_at`; each row of the history gets its `sparsity`.

    What has become zero stays zero. An average of the weights looks back to when there were fewer zeros: prune it afterwards.

    Args:
        start: updates before the first weights go.
        end: updates after which `sparsity` is reached.
        every: updates between two choices, in which the model recovers.
        sparsity: the share of zeros at the end.
        pattern: "global" or "per_layer", as in `prune`.

    Raises:
        ValueError: numbers that give no schedule, a sparsity outside [0, 1), an unknown pattern; and when the run starts, one
            that ends before `end`, or with patience, which could give weights back from before they were pruned.
    """

    def __init__(self, start: int, end: int, every: int, sparsity: float = 0.5, pattern: str = "global"):
        check_share("sparsity", sparsity)
        check_pattern(pattern, "global", "per_layer")
        if not (0 <= start < end and 1 <= every <= end - start):
            raise ValueError(
                f"start={start}, end={end}, every={every} give no schedule; use 0 <= start < end, and every from 1 to "
                "end - start."
            )
        self.start, self.end, self.every, self.sparsity, self.pattern = start, end, every, sparsity, pattern

    def on_step(self, trainer: Trainer, row: dict[str, float]) -> None:
        row["sparsity"] = self._sparsity

    def _check(self, trainer: Trainer) -> None:
        if trainer.config.max_steps < self.end:
            raise ValueError(
                f"the run ends at max_steps={trainer.config.max_steps}, before end={self.end} of the pruning."
            )
        if trainer.rescue is not None:
            raise ValueError(
                "patience may give back weights from before they were pruned: prune without it, then let a second run recover "
                "with KeepZeros() and patience."
            )

    def _after(self, trainer: Trainer) -> Any:
        self._reached, self._sparsity = self._share(trainer.step), _share_of(self._zeros)

        def prune_on(*_: Any) -> None:
            set_to_zero(self._weights, self._zeros)
            share = self._share(trainer.step + 1)
            if share > self._reached:
                chosen = choose_zeros(self._weights, share, self.pattern)
                self._zeros = {name: chosen[name] | zero for name, zero in self._zeros.items()}
                self._reached, self._sparsity = share, _share_of(self._zeros)
                set_to_zero(self._weights, self._zeros)

        return prune_on

    def _share(self, step: int) -> float:
        return sparsity_at(step, self.start, self.end, self.every, self.sparsity)


def _share_of(zeros: dict[str, Tensor]) -> float:
    return sum(int(zero.sum()) for zero in zeros.values()) / sum(zero.numel() for zero in zeros.values())
