"""A training run on disk, so that it can be cut off anywhere and go on bit for bit: one file, whole or not at all."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from minigpt.files import write_atomically

if TYPE_CHECKING:
    from minigpt.trainer import Trainer

RESUME_FILE = "resume.pt"


def save_state(trainer: Trainer) -> bool:
    """Write weights, optimiser, history, step and random state into the trainer's folder; whether that worked.

    A full disk ends no run: it is a warning, and what was saved before stays.
    """
    state = {
        "config": trainer.config.to_dict(),
        "model": trainer.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "scaler": trainer.scaler.state_dict(),
        "rows": trainer.history.rows,
        "step": trainer.step,
        "random": torch.get_rng_state(),
        "best": trainer.rescue.weights if trainer.rescue else None,
    }
    if trainer.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(trainer.device)
    try:
        write_atomically(trainer.folder, {RESUME_FILE: lambda path: torch.save(state, path)})
    except OSError as error:
        warnings.warn(f"training goes on without a checkpoint of step {trainer.step}: {error}", stacklevel=2)
        return False
    return True


def load_state(trainer: Trainer) -> None:
    """Put a run that was saved back into the trainer, which goes on as if it had never stopped.

    Raises:
        ValueError: the file is damaged, or the run was begun with other settings, another shape of model, or a version
            of this package that kept other things; the fields that differ are named.
    """
    path = trainer.folder / RESUME_FILE
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        theirs = state["config"] | _shapes(state["model"])
    except Exception as error:  # torch reports a damaged file in many types
        raise ValueError(f"{path} is damaged ({error}); remove it to begin again.") from error
    ours = trainer.config.to_dict() | _shapes(trainer.model.state_dict())
    names = [name for name in theirs | ours if theirs.get(name) != ours.get(name)]
    if names:
        changed = "; ".join(f"{name}: {theirs.get(name)} there, {ours.get(name)} here" for name in names[:4])
        raise ValueError(f"the run in {trainer.folder} was begun with other settings ({changed}).")
    trainer.model.load_state_dict(state["model"])
    for optimizer, its_state in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(its_state)
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.history.rows[:] = state["rows"]
    trainer.step = state["step"]
    if trainer.rescue:
        trainer.rescue.replay(state["rows"], state["best"])
    torch.set_rng_state(state["random"].cpu())
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), trainer.device)


def _shapes(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: list(tensor.shape) for name, tensor in weights.items()}
