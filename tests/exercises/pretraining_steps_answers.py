"""Answers to notebook 04's exercises about an update: right ones, and wrong ones with their mistake."""

import copy
import math

import torch
import torch.nn.functional as F


def _step(model, optimizer, idx, targets):
    optimizer.zero_grad()
    _, loss = model(idx, targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def _cleared_by_hand(model, optimizer, idx, targets):
    model.train()
    loss = model(idx, targets)[1]
    for parameter in model.parameters():
        parameter.grad = None
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _loss_from_logits(model, optimizer, idx, targets):
    logits, _ = model(idx)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    model.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return loss.detach().numpy()


def _gradients_by_hand(model, optimizer, idx, targets):
    parameters = list(model.parameters())
    _, loss = model(idx, targets)
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())


def _closure(model, optimizer, idx, targets):
    def loss():
        optimizer.zero_grad()
        found = model(idx, targets)[1]
        found.backward()
        return found

    return optimizer.step(loss).item()


def _order(letters, change=lambda loss: loss, before=lambda model: None, after=lambda model, loss: loss.item()):
    """An answer that does things in another order: z clears, f goes forward, b backward, s steps."""

    def answer(model, optimizer, idx, targets):
        before(model)
        for letter in letters:
            if letter == "z":
                optimizer.zero_grad()
            elif letter == "f":
                _, loss = model(idx, targets)
            elif letter == "b":
                change(loss).backward(retain_graph=True)
            elif letter == "c":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            elif letter == "v":
                torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
            else:
                optimizer.step()
        return after(model, loss)

    return answer


def _with(given):
    """An answer that makes its update with something else than the batch."""
    return lambda model, optimizer, idx, targets: _step(model, optimizer, *given(idx, targets))


def _own_sgd(model, optimizer, idx, targets):
    model.zero_grad()
    loss = model(idx, targets)[1]
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss.item()


def _new_optimizer(model, optimizer, idx, targets):
    return _step(model, torch.optim.AdamW(model.parameters(), lr=1e-3), idx, targets)


def _new_sgd(model, optimizer, idx, targets):
    return _step(model, torch.optim.SGD(model.parameters(), lr=0.1), idx, targets)


def _measured_after(model, optimizer, idx, targets):
    _step(model, optimizer, idx, targets)
    return model(idx, targets)[1].item()


def _measured_after_without_gradients(model, optimizer, idx, targets):
    _step(model, optimizer, idx, targets)
    with torch.no_grad():
        return model(idx, targets)[1].item()


def _until_it_falls(model, optimizer, idx, targets):
    for _ in range(2):
        loss = _step(model, optimizer, idx, targets)
    return loss


def _summed(model, optimizer, idx, targets):
    optimizer.zero_grad()
    logits, _ = model(idx)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    loss.backward()
    optimizer.step()
    return loss.item() / targets.numel()


def _larger_rate(model, optimizer, idx, targets):
    for group in optimizer.param_groups:
        group["lr"] = 0.03
    return _step(model, optimizer, idx, targets)


def _no_rate(model, optimizer, idx, targets):
    optimizer.param_groups[0]["lr"] = 0.0  # as a schedule that starts at zero would
    return _step(model, optimizer, idx, targets)


def _momentum_by_hand(velocity):
    def answer(model, optimizer, idx, targets):
        if not velocity or velocity[0].shape != next(model.parameters()).shape or not optimizer.state:
            velocity[:] = [torch.zeros_like(parameter) for parameter in model.parameters()]
            optimizer.state["begun"] = {}
        model.zero_grad()
        loss = model(idx, targets)[1]
        loss.backward()
        with torch.no_grad():
            for parameter, v in zip(model.parameters(), velocity):
                parameter -= 0.1 * v.mul_(0.9).add_(parameter.grad)
        return loss.item()

    return answer


def _in_eval(model, optimizer, idx, targets):
    model.eval()
    loss = _step(model, optimizer, idx, targets)
    model.train()
    return loss


def _frozen(model, optimizer, idx, targets):
    model.table.requires_grad_(False)
    return _step(model, optimizer, idx, targets)


STEP = [
    ("no_zero_grad", _order("fbs")),
    ("zero_at_end", _order("fbsz")),
    ("zero_before_step", _order("fbzs")),
    ("zero_before_step", _order("zfbzs")),
    ("no_step", _order("zfb")),
    ("no_step", _order("fzb")),
    ("no_backward", _order("zfs")),
    ("no_backward", _order("fs")),
    ("only_the_loss", _order("f")),
    ("only_the_loss", _order("zf")),
    ("step_before_backward", _order("zfsb")),
    ("step_before_backward", _order("fszb")),
    ("step_before_backward", _order("fsb")),
    ("backward_twice", _order("zfbbs")),
    ("backward_twice", _order("zfbfbs")),
    ("two_steps", _order("zfbss")),
    ("two_updates", _until_it_falls),
    ("ascent", _order("zfbs", change=lambda loss: -loss)),
    ("clipped", _order("zfbcs")),
    ("clipped", _order("zfbvs")),
    ("scaled", _order("zfbs", change=lambda loss: loss / 4)),
    ("scaled", _summed),
    ("optimizer_unused", _own_sgd),
    ("optimizer_unused", _new_sgd),
    ("optimizer_unused", _new_optimizer),
    ("swapped", _with(lambda idx, targets: (targets, idx))),
    ("copying", _with(lambda idx, targets: (idx, idx))),
    ("part_of_the_batch", _with(lambda idx, targets: (idx[:1], targets[:1]))),
    ("part_of_the_batch", _with(lambda idx, targets: (idx[:, -1:], targets[:, -1:]))),
    ("shifted_again", _with(lambda idx, targets: (idx[:, :-1], targets[:, 1:]))),
    ("shifted_again", _with(lambda idx, targets: (idx[:, :-1], idx[:, 1:]))),
    ("loss_after_the_step", _measured_after),
    ("loss_after_the_step", _measured_after_without_gradients),
    ("perplexity", _order("zfbs", after=lambda model, loss: math.exp(loss.item()))),
    ("bits", _order("zfbs", after=lambda model, loss: loss.item() / math.log(2))),
    ("loss_scaled", lambda model, optimizer, idx, targets: _step(model, optimizer, idx, targets) * len(idx)),
    ("loss_scaled", lambda model, optimizer, idx, targets: _step(model, optimizer, idx, targets) / idx.numel()),
    ("sign", _order("zfbs", after=lambda model, loss: -loss.item())),
    (
        "ascent",
        lambda *given: _order("zfbs", change=lambda loss: -loss, after=lambda model, loss: -loss.item())(*given),
    ),
    ("no_zero_grad", _order("fbs", after=lambda model, loss: loss.exp().item())),
    ("loss_differs", _order("zfbs", after=lambda model, loss: round(loss.item(), 1))),
    ("weights_differ", _larger_rate),
    ("weights_differ", _frozen),
    ("nothing_moved", _no_rate),
    ("nothing_moved", lambda model, *others: _step(copy.deepcopy(model), *others)),
    ("other_case", _momentum_by_hand([])),
    ("not_finite", _order("zfbs", change=lambda loss: loss / 0)),
    ("eval_mode", _in_eval),
    ("eval_mode", _order("zfbs", before=lambda model: model.eval())),
    ("eval_mode", _order("zfbs", after=lambda model, loss: (model.eval(), loss.item())[1])),
    ("attached", _order("zfbs", after=lambda model, loss: loss)),
    ("pair_returned", lambda model, optimizer, idx, targets: model(idx, targets)),
    ("not_one_number", lambda model, optimizer, idx, targets: model(idx, targets)[0]),
    ("not_one_number", lambda *given: f"{_step(*given):.3f}"),
    ("raised", lambda model, optimizer, idx, targets: model(idx, targets).backward()),
    (
        "raised",
        lambda model, optimizer, idx, targets: _order("zfbs", change=lambda loss: loss.detach())(
            model, optimizer, idx, targets
        ),
    ),
]


def _counted(batch):
    return (batch[1] != -100).sum().item()


def _accumulate(model, optimizer, micro_batches):
    total = sum((targets != -100).sum().item() for _, targets in micro_batches)
    optimizer.zero_grad()
    mean = 0.0
    for idx, targets in micro_batches:
        share = (targets != -100).sum().item() / total
        loss = model(idx, targets)[1] * share
        loss.backward()
        mean += loss.item()
    optimizer.step()
    return mean


def _summed_losses(model, optimizer, micro_batches):
    optimizer.zero_grad()
    total = sum(_counted(batch) for batch in micro_batches)
    found = torch.zeros(())
    for idx, targets in micro_batches:
        logits, _ = model(idx)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / total
        loss.backward()
        found += loss.detach()
    optimizer.step()
    return found


def _divided_at_the_end(model, optimizer, micro_batches):
    model.zero_grad()
    total, found = 0, 0.0
    for batch in micro_batches:
        loss = model(*batch)[1] * _counted(batch)
        loss.backward()
        total, found = total + _counted(batch), found + loss.item()
    for parameter in model.parameters():
        parameter.grad /= total
    optimizer.step()
    return found / total


def _joined(model, optimizer, micro_batches):
    idx, targets = (torch.cat(parts) for parts in zip(*micro_batches))
    return _step(model, optimizer, idx, targets)


def _all_graphs(model, optimizer, micro_batches):
    total = sum(map(_counted, micro_batches))
    optimizer.zero_grad()
    loss = sum(model(*batch)[1] * _counted(batch) / total for batch in micro_batches)
    loss.backward()
    optimizer.step()
    return loss.item()


def _one_backward(model, optimizer, micro_batches):
    optimizer.zero_grad()
    loss = sum(model(*batch)[1] for batch in micro_batches) / len(micro_batches)
    loss.backward()
    optimizer.step()
    return loss.item()


def _one_backward_of_the_sum(model, optimizer, micro_batches):
    optimizer.zero_grad()
    loss = 0
    for batch in micro_batches:
        loss = loss + model(*batch)[1]
    loss.backward()
    optimizer.step()
    return loss.item() / len(micro_batches)


def _running_sum(model, optimizer, micro_batches):
    total = sum(map(_counted, micro_batches))
    optimizer.zero_grad()
    loss = 0
    for batch in micro_batches:
        loss = loss + model(*batch)[1] * _counted(batch) / total
        loss.backward(retain_graph=True)
    optimizer.step()
    return loss.item()


def _clipped(model, optimizer, micro_batches):
    total, mean = sum(map(_counted, micro_batches)), 0.0
    optimizer.zero_grad()
    for batch in micro_batches:
        loss = model(*batch)[1] * _counted(batch) / total
        loss.backward()
        mean += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return mean


def _last_share(model, optimizer, micro_batches):
    total = sum(map(_counted, micro_batches))
    optimizer.zero_grad()
    for batch in micro_batches:
        loss = model(*batch)[1] * _counted(batch) / total
        loss.backward()
    optimizer.step()
    return loss.item()


def _losses_first(model, optimizer, micro_batches):
    total = sum(map(_counted, micro_batches))
    optimizer.zero_grad()
    losses = [model(*batch)[1] * _counted(batch) / total for batch in micro_batches]
    for loss in losses:
        loss.backward()
    optimizer.step()
    return sum(losses).item()


def _steps_between(model, optimizer, micro_batches):
    optimizer.zero_grad()
    losses = [model(*batch)[1] for batch in micro_batches]
    for loss in losses:
        loss.backward()
        optimizer.step()
    return sum(losses).item() / len(losses)


def _mean(losses, micro_batches):
    return sum(loss * _counted(batch) for loss, batch in zip(losses, micro_batches)) / sum(map(_counted, micro_batches))


def _collect(
    share=lambda batch, batches: _counted(batch) / sum(map(_counted, batches)),
    loop="fb",
    before="z",
    end="s",
    mean=_mean,
    take=lambda batches: batches,
    model_first=lambda model: None,
):
    """An answer that goes wrong in one of its steps; the letters are those of `_order`."""

    def answer(model, optimizer, micro_batches):
        model_first(model)
        losses, loss = [], None

        def do(letters, batch=None):
            nonlocal loss
            for letter in letters:
                if letter == "z":
                    optimizer.zero_grad()
                elif letter == "f":
                    loss = model(*batch)[1]
                    losses.append(loss.item())
                    loss = loss * share(batch, micro_batches)
                elif letter == "b":
                    loss.backward()
                else:
                    optimizer.step()

        do(before)
        for batch in take(micro_batches):
            do(loop, batch)
        do(end)
        return mean(losses, micro_batches)

    return answer


def _plain(losses, micro_batches):
    return sum(losses) / len(losses)


def _by_number(batch, batches):
    return 1 / len(batches)


def _by_windows(batch, batches):
    return len(batch[0]) / sum(len(idx) for idx, _ in batches)


def _by_positions(batch, batches):
    return batch[1].numel() / sum(targets.numel() for _, targets in batches)


def _textbook(model, optimizer, micro_batches):
    optimizer.zero_grad()
    total = 0.0
    for idx, targets in micro_batches:
        loss = model(idx, targets)[1] / len(micro_batches)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _return_in_the_loop(model, optimizer, micro_batches):
    optimizer.zero_grad()
    for idx, targets in micro_batches:
        loss = model(idx, targets)[1]
        loss.backward()
        optimizer.step()
        return loss.item()


def _counting_along(model, optimizer, micro_batches):
    optimizer.zero_grad()
    seen, found = 0, 0.0
    for batch in micro_batches:
        seen += _counted(batch)
        loss = model(*batch)[1] * _counted(batch) / seen
        loss.backward()
        found += loss.item()
    optimizer.step()
    return found


def _divided_again(model, optimizer, micro_batches):
    total = sum(map(_counted, micro_batches))
    optimizer.zero_grad()
    found = 0.0
    for batch in micro_batches:
        loss = model(*batch)[1] * _counted(batch) / total
        loss.backward()
        found += loss.item()
    for parameter in model.parameters():
        parameter.grad /= len(micro_batches)
    optimizer.step()
    return found


def _attached(model, optimizer, micro_batches):
    total, found = sum(map(_counted, micro_batches)), 0.0
    optimizer.zero_grad()
    for batch in micro_batches:
        loss = model(*batch)[1] * _counted(batch) / total
        loss.backward()
        found = found + loss
    optimizer.step()
    return found


def _three_at_most(model, optimizer, micro_batches):
    return _accumulate(model, optimizer, micro_batches[:3])


ACCUMULATE = [
    ("summed", _collect(lambda batch, batches: 1)),
    ("summed", _collect(lambda batch, batches: 1, mean=_plain)),
    ("summed", _collect(lambda batch, batches: 1, mean=lambda losses, batches: sum(losses))),
    ("by_batches", _textbook),
    ("by_batches", _one_backward),
    ("by_batches", _collect(_by_number, mean=lambda losses, batches: sum(losses) / len(losses) ** 2)),
    ("summed", _one_backward_of_the_sum),
    ("running_sum", _running_sum),
    ("clipped", _clipped),
    ("by_batches", _collect(_by_number)),
    ("by_batches", _collect(_by_number, mean=lambda losses, batches: sum(losses))),
    ("ignored_counted", _collect(_by_windows)),
    ("ignored_counted", _collect(_by_positions, mean=_plain)),
    ("not_divided", _collect(lambda batch, batches: _counted(batch))),
    ("first_size_for_all", _collect(lambda batch, batches: _counted(batch) / _counted(batches[0]) / len(batches))),
    ("divided_twice", _divided_again),
    ("divided_twice", _collect(lambda batch, batches: 1 / len(batches) ** 2, mean=_plain)),
    ("running_total", _counting_along),
    ("turned_over", _collect(lambda batch, batches: 1 / _counted(batch))),
    ("zero_inside", _collect(loop="zfb", before="")),
    ("zero_inside", _collect(loop="fzb", before="")),
    ("zero_inside", _collect(loop="zfb", before="z")),
    ("step_inside", _collect(loop="zfbs", before="", end="")),
    ("step_inside", _collect(loop="fbs", end="")),
    ("step_inside", _collect(loop="fbsz", end="", before="")),
    ("step_inside", _collect(lambda batch, batches: 1, loop="zfbs", before="", end="", mean=_plain)),
    ("zero_inside", _collect(_by_number, loop="zfb", before="", mean=_plain)),
    ("step_before_backward", _steps_between),
    ("last_only", _collect(loop="f", end="bs")),
    ("last_only", _collect(lambda batch, batches: 1, loop="f", end="bs", mean=lambda losses, batches: losses[-1])),
    ("last_only", _collect(_by_number, loop="f", before="", end="zbs")),
    ("first_only", _return_in_the_loop),
    ("first_only", _collect(take=lambda batches: batches[:1], end="", mean=lambda losses, batches: losses[0])),
    ("no_zero_grad", _collect(before="")),
    ("zero_at_end", _collect(before="", end="sz")),
    ("zero_before_step", _collect(before="", end="zs")),
    ("no_step", _collect(end="")),
    ("no_step", _collect(before="", end="z")),
    ("no_backward", _collect(loop="f")),
    ("only_the_loss", _collect(loop="f", before="", end="")),
    ("joined", _joined),
    ("graphs_kept", _all_graphs),
    ("graphs_kept", _losses_first),
    ("loss_divided_twice", _collect(mean=lambda losses, batches: _mean(losses, batches) / len(batches))),
    ("loss_of_the_last", _last_share),
    ("loss_of_the_last", _collect(mean=lambda losses, batches: losses[-1])),
    ("loss_summed", _collect(mean=lambda losses, batches: sum(losses))),
    ("loss_by_batches", _collect(mean=_plain)),
    ("loss_ignored_counted", _collect(mean=lambda ls, bs: sum(loss * _by_windows(b, bs) for loss, b in zip(ls, bs)))),
    ("loss_not_divided", _collect(mean=lambda losses, bs: sum(loss * _counted(b) for loss, b in zip(losses, bs)))),
    ("loss_differs", _collect(mean=lambda losses, batches: max(losses) - min(losses))),
    ("attached", _attached),
    ("eval_mode", _collect(model_first=lambda model: model.eval())),
    (
        "optimizer_unused",
        lambda model, optimizer, batches: _accumulate(model, torch.optim.AdamW(model.parameters()), batches),
    ),
    ("other_case", _three_at_most),
    ("weights_differ", lambda model, optimizer, batches: _accumulate(model, optimizer, batches[1:])),
    ("not_one_number", _collect(mean=lambda losses, batches: losses)),
    ("not_one_number", _collect(mean=lambda losses, batches: None if not losses else str(losses))),
    ("raised", lambda model, optimizer, batches: _step(model, optimizer, *batches)),
]

ANSWERS = {
    "pretraining/training_step": (_step, STEP),
    "pretraining/accumulate": (_accumulate, ACCUMULATE),
}
ALSO_RIGHT = {
    "pretraining/training_step": [_cleared_by_hand, _loss_from_logits, _gradients_by_hand, _closure],
    "pretraining/accumulate": [_summed_losses, _divided_at_the_end, _collect()],
}
