"""Answers to notebook 04's exercises about windows and validation: right ones, and wrong ones with their mistake."""

import contextlib
import math

import numpy as np
import torch
import torch.nn.functional as F

from minigpt.evaluate import evaluate_loss


def _windows(tokens, starts, T):
    at = starts[:, None] + torch.arange(T)  # (B, T)
    return tokens[at], tokens[at + 1]


def _by_slices(tokens, starts, T):
    idx = torch.stack([tokens[s : s + T] for s in starts])
    return idx, torch.stack([tokens[s + 1 : s + T + 1] for s in starts])


def _one_cut(tokens, starts, T):
    cut = torch.stack([tokens[s : s + T + 1] for s in starts.tolist()])
    return [cut[:, :-1], cut[:, 1:]]


def _unfolded(tokens, starts, T):
    rows = tokens.unfold(0, T + 1, 1)[starts]
    return rows[:, :T], rows[:, 1:].contiguous()


def _as_one_tensor(tokens, starts, T):
    return torch.stack(_windows(tokens, starts, T))


def _numpy(tokens, starts, T):
    at = starts.numpy()[:, None] + np.arange(T + 1)
    cut = torch.from_numpy(tokens.numpy()[at])
    return cut[:, :-1], cut[:, 1:]


def _loop(tokens, starts, T):
    idx, targets = torch.empty(len(starts), T, dtype=torch.long), torch.empty(len(starts), T, dtype=torch.long)
    for b, s in enumerate(starts):
        for t in range(T):
            idx[b, t], targets[b, t] = tokens[s + t], tokens[s + t + 1]
    return idx, targets


def _then(change):
    """An answer that makes something else of right windows."""
    return lambda tokens, starts, T: change(*_windows(tokens, starts, T))


def _moved(first, second):
    """Windows that are cut at other places: functions of the start and T."""

    def answer(tokens, starts, T):
        cut = ((slice(*first(s, T)), slice(*second(s, T))) for s in starts.tolist())
        return tuple(torch.stack([tokens[part] for part in parts]) for parts in zip(*cut))

    return answer


def _side_by_side(tokens, starts, T):
    B = len(starts)
    return tokens[: B * T].view(B, T), tokens[1 : B * T + 1].view(B, T)


def _from_first_start(tokens, starts, T):
    B, s = len(starts), starts[0]
    return tokens[s : s + B * T].view(B, T), tokens[s + 1 : s + 1 + B * T].view(B, T)


def _random_starts(tokens, starts, T):
    return _windows(tokens, torch.randint(len(tokens) - T, starts.shape), T)


def _careful(tokens, starts, T):
    return _windows(tokens, starts.clamp(max=len(tokens) - T - 2), T)


def _too_careful(tokens, starts, T):
    if int(starts.max()) + T + 1 >= len(tokens):
        raise ValueError("too close to the end")
    return _windows(tokens, starts, T)


def _squeezed(tokens, starts, T):
    idx, targets = _windows(tokens, starts, T)
    return idx.squeeze(), targets.squeeze()


def _one_row_wrong(tokens, starts, T):
    idx, targets = _windows(tokens, starts, T)
    targets[1] = targets[1].flip(0)
    return idx, targets


def _backwards(tokens, starts, T):
    idx, targets = _windows(tokens, starts, T)
    return idx.flip(1), targets.flip(1)


WINDOWS = [
    ("one_tensor", lambda tokens, starts, T: torch.stack([tokens[s : s + T + 1] for s in starts])),
    ("one_tensor", _then(lambda idx, targets: idx)),
    ("not_two_tensors", _then(lambda idx, targets: (list(idx), list(targets)))),
    ("not_two_tensors", _then(lambda idx, targets: (idx.tolist(), targets.tolist()))),
    ("not_two_tensors", _then(lambda idx, targets: {"idx": idx, "targets": targets})),
    ("not_two_tensors", lambda tokens, starts, T: [(tokens[s : s + T], tokens[s + 1 : s + T + 1]) for s in starts]),
    ("one_target", _then(lambda idx, targets: (idx, targets[:, -1]))),
    ("one_target", _then(lambda idx, targets: (idx, targets[:, -1:]))),
    ("window_short", _then(lambda idx, targets: (idx[:, :-1], idx[:, 1:]))),
    ("window_short", _moved(lambda s, T: (s, s + T - 1), lambda s, T: (s + 1, s + T))),
    ("window_long", _moved(lambda s, T: (s, s + T + 1), lambda s, T: (s + 1, s + T + 2))),
    ("shapes", _moved(lambda s, T: (s, s + T), lambda s, T: (s + 1, s + T))),
    ("shapes", _moved(lambda s, T: (s, s + T + 1), lambda s, T: (s + 1, s + T + 1))),
    ("turned", _then(lambda idx, targets: (idx.T, targets.T))),
    ("turned", lambda tokens, starts, T: tuple(tokens[starts + torch.arange(T)[:, None] + i] for i in (0, 1))),
    ("joined", _then(lambda idx, targets: (idx.flatten(), targets.flatten()))),
    ("joined", lambda tokens, starts, T: [torch.cat([tokens[s + i : s + i + T] for s in starts]) for i in (0, 1)]),
    ("dtype", _then(lambda idx, targets: (idx.float(), targets.float()))),
    ("dtype", _then(lambda idx, targets: (idx, targets.int()))),
    ("swapped", _then(lambda idx, targets: (targets, idx))),
    ("not_shifted", _moved(lambda s, T: (s, s + T), lambda s, T: (s, s + T))),
    ("not_shifted", _then(lambda idx, targets: (idx, idx.clone()))),
    ("shifted_backwards", _moved(lambda s, T: (s, s + T), lambda s, T: (s - 1, s + T - 1))),
    ("shifted_by_two", _moved(lambda s, T: (s, s + T), lambda s, T: (s + 2, s + T + 2))),
    ("next_window", _moved(lambda s, T: (s, s + T), lambda s, T: (s + T, s + 2 * T))),
    ("wrapped_around", _then(lambda idx, targets: (idx, idx.roll(-1, dims=1)))),
    ("wrapped_around", _then(lambda idx, targets: (idx, torch.cat([idx[:, 1:], idx[:, :1]], dim=1)))),
    ("rows_joined", _then(lambda idx, targets: (idx, idx.roll(-1)))),
    ("rows_shifted", _then(lambda idx, targets: (idx, idx.roll(-1, 0)))),
    ("last_target_made_up", _then(lambda idx, targets: (idx, F.pad(idx[:, 1:], (0, 1), value=-100)))),
    ("last_target_made_up", _then(lambda idx, targets: (idx, F.pad(idx[:, 1:], (0, 1))))),
    ("last_target_made_up", _then(lambda idx, targets: (idx, torch.cat([idx[:, 1:], idx[:, -1:]], 1)))),
    ("ids_plus_one", _then(lambda idx, targets: (idx, idx + 1))),
    ("positions", lambda tokens, starts, T: (at := starts[:, None] + torch.arange(T), at + 1)),
    ("positions", lambda tokens, starts, T: (tokens[at := starts[:, None] + torch.arange(T)], at + 1)),
    ("starts_unused", _side_by_side),
    ("starts_unused", _from_first_start),
    ("starts_unused", lambda tokens, starts, T: _windows(tokens, torch.arange(len(starts)), T)),
    ("unsteady", _random_starts),
    ("starts_as_numbers", lambda tokens, starts, T: _windows(tokens, starts * T, T)),
    ("starts_as_numbers", lambda tokens, starts, T: _windows(tokens, starts // T * T, T)),
    ("one_start_for_all", lambda tokens, starts, T: _windows(tokens, starts[:1].repeat(len(starts)), T)),
    ("starts_off", _moved(lambda s, T: (s + 1, s + T + 1), lambda s, T: (s + 2, s + T + 2))),
    ("starts_off", lambda tokens, starts, T: _windows(tokens, starts - 1, T)),
    ("starts_reordered", lambda tokens, starts, T: _windows(tokens, starts.unique(), T)),
    ("not_shifted", lambda tokens, starts, T: (tokens[at := (starts * T)[:, None] + torch.arange(T)], tokens[at])),
    ("id_differs", _one_row_wrong),
    ("id_differs", _backwards),
    ("fails_at_edge", _careful),
    ("fails_at_edge", _too_careful),
    ("fails_at_edge", _squeezed),
    ("raised", lambda tokens, starts, T: (tokens[starts : starts + T], tokens[starts + 1 : starts + T + 1])),
    ("raised", lambda tokens, starts, T: _windows(tokens, starts + len(tokens), T)),
]


@torch.no_grad()
def _validation_loss(model, train_batches, val_batches):
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for idx, targets in val_batches:
        n = (targets != -100).sum().item()
        total, count = total + model(idx, targets)[1].item() * n, count + n
    model.train(was_training)
    return total / count


def _from_logits(model, train_batches, val_batches):
    mode, _ = model.training, model.eval()
    losses = []
    with torch.inference_mode():
        for idx, targets in val_batches:
            logits = model(idx)[0]
            losses.append(F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")[targets != -100])
    model.train(mode)
    return torch.cat(losses).mean()


def _joined(model, train_batches, val_batches):
    mode = model.training
    model.train(False)
    idx, targets = (torch.cat(parts) for parts in zip(*val_batches))
    with torch.no_grad():
        _, loss = model(idx, targets)
    if mode:
        model.train()
    return loss.numpy()


def _measured(
    batches=lambda train, val: val,
    size=lambda targets: (targets != -100).sum().item(),
    mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes),
    ready=lambda model: model.eval(),
    done=lambda model, was_training: model.train(was_training),
    gradients=torch.no_grad,
    each=lambda loss: None,
):
    """An answer that goes wrong in one of its steps."""

    def answer(model, train_batches, val_batches):
        was_training = model.training
        ready(model)
        losses, sizes = [], []
        with gradients():
            for idx, targets in batches(train_batches, val_batches):
                loss = model(idx, targets)[1]
                each(loss)
                losses.append(loss.item())
                sizes.append(size(targets))
        done(model, was_training)
        return mean(losses, sizes)

    return answer


def _training(model, train_batches, val_batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for idx, targets in val_batches:
        loss = model(idx, targets)[1]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _return_in_the_loop(model, train_batches, val_batches):
    model.eval()
    with torch.no_grad():
        for idx, targets in val_batches:
            return model(idx, targets)[1].item()


def _overwritten(model, train_batches, val_batches):
    model.eval()
    with torch.no_grad():
        for idx, targets in val_batches:
            loss = model(idx, targets)[1].item()
    model.train()
    return loss


def _eval_too_late(model, train_batches, val_batches):
    losses = [model(*batch)[1].item() for batch in val_batches]
    model.eval()
    return sum(losses) / len(losses)


VALIDATION = [
    ("weights_changed", _training),
    ("weights_changed", _measured(each=lambda loss: None, done=lambda model, _: model.head.data.zero_())),
    ("dropout_on", _measured(ready=lambda model: None)),
    ("dropout_on", _measured(ready=lambda model: model.train())),
    ("dropout_on", _eval_too_late),
    ("dropout_on", _measured(lambda train, val: train, ready=lambda model: None)),
    ("train_batches", _measured(lambda train, val: train)),
    ("both", _measured(lambda train, val: train + val)),
    ("both", _measured(lambda train, val: [*val, *train])),
    ("first_batch_only", _return_in_the_loop),
    ("first_batch_only", _measured(lambda train, val: val[:1])),
    ("last_batch_only", _overwritten),
    ("last_batch_left_out", _measured(lambda train, val: val[:-1])),
    ("mean_of_means", _measured(mean=lambda losses, sizes: sum(losses) / len(losses))),
    ("mean_of_means", _measured(mean=lambda losses, sizes: np.mean(losses), gradients=contextlib.nullcontext)),
    ("ignored_counted", _measured(size=torch.numel)),
    ("ignored_counted", _measured(size=len)),
    ("summed", _measured(mean=lambda losses, sizes: sum(losses))),
    ("not_divided", _measured(mean=lambda losses, sizes: np.dot(losses, sizes))),
    ("divided_twice", _measured(mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes) / len(sizes))),
    ("perplexity", _measured(mean=lambda losses, sizes: math.exp(np.dot(losses, sizes) / sum(sizes)))),
    ("perplexity", _measured(mean=lambda losses, sizes: np.mean(np.exp(losses)))),
    ("mean_of_means", _measured(mean=lambda losses, sizes: math.exp(np.mean(losses)))),
    ("bits", _measured(mean=lambda losses, sizes: np.dot(losses, sizes) / sum(sizes) / math.log(2))),
    ("sign", _measured(mean=lambda losses, sizes: -np.dot(losses, sizes) / sum(sizes))),
    ("gap", lambda model, train, val: _validation_loss(model, None, val) - _validation_loss(model, None, train)),
    ("train_batches", _measured(lambda train, val: train, mean=lambda losses, sizes: np.mean(losses))),
    ("backward", _measured(gradients=contextlib.nullcontext, each=lambda loss: loss.backward())),
    ("graph_kept", _measured(gradients=contextlib.nullcontext)),
    ("left_in_eval", _measured(done=lambda model, was_training: None)),
    ("left_in_training", _measured(done=lambda model, was_training: model.train())),
    ("pair_returned", lambda model, train, val: model.eval()(*val[0])),
    ("not_one_number", _measured(mean=lambda losses, sizes: losses)),
    ("not_one_number", _measured(mean=lambda losses, sizes: f"{np.mean(losses):.3f}")),
    ("not_one_number", lambda model, train, val: model.eval()(val[0][0])[0]),
    ("value", _measured(mean=lambda losses, sizes: 0.0)),
    ("raised", lambda model, train, val: model(val)),
]

ANSWERS = {
    "pretraining/windows": (_windows, WINDOWS),
    "pretraining/validation_loss": (_validation_loss, VALIDATION),
}
ALSO_RIGHT = {
    "pretraining/windows": [_by_slices, _one_cut, _unfolded, _as_one_tensor, _numpy, _loop],
    "pretraining/validation_loss": [
        _from_logits,
        _joined,
        _measured(),
        lambda model, train_batches, val_batches: evaluate_loss(model, val_batches),
    ],
}
