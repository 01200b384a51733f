"""Answers to notebook 06's exercise about an honest measurement: right ones, and wrong ones with their mistake."""

import contextlib
import math

import numpy as np
import torch
import torch.nn.functional as F


@torch.no_grad()
def _mean_loss(model, batches):
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    total, count = 0.0, 0
    for idx, targets in batches:
        n = (targets != -100).sum().item()
        total, count = total + model(idx, targets)[1].item() * n, count + n
    for part, was_training in modes:
        part.training = was_training
    return total / count


def _from_logits(model, batches):
    modes = {name: part.training for name, part in model.named_modules()}
    losses = []
    with torch.inference_mode():
        for idx, targets in batches:
            logits = model.train(False)(idx)[0]
            losses.append(F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")[targets != -100])
    for name, part in model.named_modules():
        part.train(modes[name])
    return torch.cat(losses).mean()


def _joined(model, batches):
    awake = [part for part in model.modules() if part.training]
    idx, targets = (torch.cat(list(parts)) for parts in zip(*(_as_rows(batch) for batch in batches)))
    with torch.no_grad():
        _, loss = model.eval()(idx, targets)
    for part in awake:
        part.training = True
    return loss.numpy()


def _as_rows(batch):
    idx, targets = batch
    return idx.reshape(-1, 1), targets.reshape(-1, 1)


@contextlib.contextmanager
def _asleep(model):
    before = [part.training for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in zip(model.modules(), before):
            part.training = mode


def _by_context(model, batches):
    with _asleep(model), torch.no_grad():
        counts = np.array([int((targets >= 0).sum()) for _, targets in batches])
        losses = np.array([float(model(*batch)[1]) for batch in batches])
    return np.average(losses, weights=counts)


def _only_dropout(model, batches):
    """Every part by hand, without eval()."""
    changed = [part for part in model.modules() if part.training]
    for part in changed:
        part.training = False
    with torch.no_grad():
        sums = [F.cross_entropy(model(idx)[0].flatten(0, 1), y.flatten(), reduction="sum") for idx, y in batches]
    for part in changed:
        part.training = True
    return sum(sums) / sum((y != -100).sum() for _, y in batches)


def _restore(model, modes):
    for part, mode in modes:
        part.training = mode


def _measured(
    some=lambda batches: batches,
    size=lambda targets: (targets != -100).sum().item(),
    mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes),
    ready=lambda model: model.eval(),
    done=_restore,
    gradients=torch.no_grad,
    each=lambda loss: None,
):
    """An answer that goes wrong in one of its steps."""

    def answer(model, batches):
        modes = [(part, part.training) for part in model.modules()]
        ready(model)
        losses, sizes = [], []
        with gradients():
            for idx, targets in some(batches):
                loss = model(idx, targets)[1]
                each(loss)
                losses.append(loss.item())
                sizes.append(size(targets))
        done(model, modes)
        return mean(losses, sizes)

    return answer


def _training(model, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for idx, targets in batches:
        loss = model(idx, targets)[1]
        loss.backward()
        optimizer.step()
    return loss.item()


def _return_in_the_loop(model, batches):
    model.eval()
    with torch.no_grad():
        for idx, targets in batches:
            return model(idx, targets)[1].item()


def _head_alone(model):
    model.dropout.eval()
    model.training = False


MEASURED = [
    ("weights_changed", _training),
    ("weights_changed", _measured(done=lambda model, _: model.head.data.zero_())),
    ("dropout_on", _measured(ready=lambda model: None)),
    ("dropout_on", _measured(ready=lambda model: model.train())),
    ("dropout_on", _measured(ready=_head_alone)),
    ("dropout_on", _measured(ready=lambda model: None, mean=lambda losses, sizes: np.mean(losses))),
    ("first_batch_only", _return_in_the_loop),
    ("first_batch_only", _measured(lambda batches: batches[:1])),
    ("last_batch_only", _measured(lambda batches: batches[-1:])),
    ("last_batch_left_out", _measured(lambda batches: batches[:-1])),
    ("mean_of_means", _measured(mean=lambda losses, sizes: sum(losses) / len(losses))),
    ("mean_of_means", _measured(mean=lambda losses, sizes: np.mean(losses), gradients=contextlib.nullcontext)),
    ("ignored_counted", _measured(size=torch.numel)),
    ("ignored_counted", _measured(size=len)),
    ("summed", _measured(mean=lambda losses, sizes: sum(losses))),
    ("not_divided", _measured(mean=lambda losses, sizes: np.dot(losses, sizes))),
    ("divided_twice", _measured(mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes) / len(sizes))),
    ("perplexity", _measured(mean=lambda losses, sizes: math.exp(np.dot(losses, sizes) / sum(sizes)))),
    ("mean_of_means", _measured(mean=lambda losses, sizes: math.exp(np.mean(losses)))),
    ("bits", _measured(mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes) / math.log(2))),
    ("sign", _measured(mean=lambda losses, sizes: -np.dot(losses, sizes) / sum(sizes))),
    ("backward", _measured(gradients=contextlib.nullcontext, each=lambda loss: loss.backward())),
    ("graph_kept", _measured(gradients=contextlib.nullcontext)),
    ("left_in_eval", _measured(done=lambda model, modes: None)),
    ("left_in_training", _measured(done=lambda model, modes: model.train())),
    ("frozen_part_woken", _measured(done=lambda model, modes: model.train(modes[0][1]))),
    ("frozen_part_woken", _measured(done=lambda model, modes: modes[0][1] and model.train())),
    ("pair_returned", lambda model, batches: model.eval()(*batches[0])),
    ("not_one_number", _measured(mean=lambda losses, sizes: losses)),
    ("not_one_number", _measured(mean=lambda losses, sizes: f"{np.mean(losses):.3f}")),
    ("value", _measured(mean=lambda losses, sizes: 0.0)),
    ("raised", lambda model, batches: model(batches)),
]

ANSWERS = {"overfitting/evaluate": (_mean_loss, MEASURED)}
ALSO_RIGHT = {"overfitting/evaluate": [_from_logits, _joined, _by_context, _only_dropout, _measured()]}
