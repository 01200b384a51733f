"""Answers to notebook 07's exercise about training a pruned model: right ones, and wrong ones with their mistake."""

import torch
import torch.nn.functional as F


def _train_step(model, batch, optimizer, masks):
    idx, targets = batch
    optimizer.zero_grad()
    _, loss = model(idx, targets)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.mul_(masks[name])
    return loss.item()


def _by_data(model, batch, optimizer, masks):
    model.zero_grad()
    loss = model(*batch)[1]
    loss.backward()
    optimizer.step()
    for name, mask in masks.items():
        parameter = model.get_parameter(name)
        parameter.data = parameter.data * mask
    return loss


@torch.no_grad()
def _filled(model, batch, optimizer, masks):
    optimizer.zero_grad()
    with torch.enable_grad():
        loss = F.cross_entropy(model(batch[0])[0].flatten(0, 1), batch[1].flatten())
        loss.backward()
    optimizer.step()
    named = dict(model.named_parameters())
    for name, mask in masks.items():
        named[name].masked_fill_(~mask, 0.0)
    return float(loss)


def _gradients_too(model, batch, optimizer, masks):
    optimizer.zero_grad()
    loss = model(*batch)[1]
    loss.backward()
    named = dict(model.named_parameters())
    for name, mask in masks.items():
        named[name].grad *= mask
    optimizer.step()
    for name, mask in masks.items():
        named[name].data[~mask] = 0
    return loss.detach().numpy()


def _momentum_too(model, batch, optimizer, masks):
    """Also clears the optimizer's memory of what was pruned."""
    loss = _train_step(model, batch, optimizer, masks)
    for name, mask in masks.items():
        for value in optimizer.state[model.get_parameter(name)].values():
            if isinstance(value, torch.Tensor) and value.shape == mask.shape:
                value.mul_(mask)
    return loss


def _loaded(model, batch, optimizer, masks):
    optimizer.zero_grad()
    loss = model(*batch)[1]
    loss.backward()
    optimizer.step()
    model.load_state_dict({name: weight * masks.get(name, 1) for name, weight in model.state_dict().items()})
    return loss.item()


def _named(model, masks):
    return [(model.get_parameter(name), mask) for name, mask in masks.items()]


def _order(letters, pairs=_named, mask_weight=lambda p, mask: p.data.mul_(mask), give=lambda model, loss: loss.item()):
    """An answer that does things in another order: z clears, f forward, b backward, s steps, m masks, g the gradients."""

    def answer(model, batch, optimizer, masks):
        for letter in letters:
            if letter == "z":
                optimizer.zero_grad()
            elif letter == "f":
                _, loss = model(*batch)
            elif letter == "b":
                loss.backward()
            elif letter == "s":
                optimizer.step()
            else:
                for parameter, mask in pairs(model, masks):
                    if letter == "g":
                        parameter.grad.mul_(mask)
                    else:
                        mask_weight(parameter, mask)
        return give(model, loss)

    return answer


def _rebound(model, batch, optimizer, masks):
    optimizer.zero_grad()
    loss = model(*batch)[1]
    loss.backward()
    optimizer.step()
    for name, param in model.named_parameters():
        if name in masks:
            param = param * masks[name]
    return loss.item()


def _copied(model, batch, optimizer, masks):
    loss = _order("zfbs")(model, batch, optimizer, masks)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    for name in masks:
        weights[name] *= masks[name]
    return loss


def _new_parameter(model, batch, optimizer, masks):
    loss = _order("zfbs")(model, batch, optimizer, masks)
    for name, mask in masks.items():
        setattr(model, name, torch.nn.Parameter(getattr(model, name).data * mask))
    return loss


def _leaf(parameter, mask):
    parameter *= mask


def _own_sgd(model, batch, optimizer, masks):
    model.zero_grad()
    loss = model(*batch)[1]
    loss.backward()
    for parameter in model.parameters():
        parameter.data -= 0.1 * parameter.grad
    for parameter, mask in _named(model, masks):
        parameter.data *= mask
    return loss.item()


def _one_more_lost(parameter, mask):
    parameter.data.mul_(mask)
    parameter.data[0] = 0


def _one_back(parameter, mask):
    parameter.data.mul_(mask)
    parameter.data[0] += 1.0


def _for_these_names(model, masks):
    return [(getattr(model, name), masks[name]) for name in ("table", "head") if name in masks]


STEP = [
    ("pair_returned", lambda model, batch, optimizer, masks: model(*batch)),
    ("not_one_number", lambda model, batch, optimizer, masks: model(*batch)[0]),
    ("not_one_number", lambda *given: f"{_train_step(*given):.2f}"),
    ("not_masked", _order("zfbs")),
    ("new_tensor", _rebound),
    ("new_tensor", _copied),
    ("new_tensor", _order("zfbsm", mask_weight=lambda p, mask: p.masked_fill(~mask, 0.0))),
    ("parameter_replaced", _new_parameter),
    ("guarded", _order("zfbsm", mask_weight=_leaf)),
    ("guarded", _order("zfbsm", mask_weight=lambda p, mask: p.mul_(mask))),
    ("mask_before", _order("mzfbs")),
    ("mask_before", _order("zmfbs")),
    ("mask_before", _order("zfbms")),
    ("gradients_only", _order("zfbgs")),
    ("new_tensor", _order("zfbsg")),
    ("gradients_only", _order("mzfbgs")),
    ("mask_inverted", _order("zfbsm", mask_weight=lambda p, mask: p.data.mul_(~mask))),
    ("mask_inverted", _order("zfbsm", mask_weight=lambda p, mask: p.data.masked_fill_(mask, 0))),
    ("by_position", _order("zfbsm", lambda model, masks: zip(model.parameters(), masks.values()))),
    ("first_only", _order("zfbsm", lambda model, masks: _named(model, masks)[:1])),
    ("first_only", _order("zfbsm", lambda model, masks: _named(model, masks)[-1:])),
    ("no_zero_grad", _order("fbsm")),
    ("zero_at_end", _order("fbszm")),
    ("zero_at_end", _order("fbsmz")),
    ("nothing_moved", _order("zfsm")),
    ("nothing_moved", _order("zfbm")),
    ("nothing_moved", _order("fbzsm")),
    ("nothing_moved", _order("f")),
    ("two_steps", _order("zfbssm")),
    ("two_steps", _order("zfbsmzfbsm")),
    ("not_finite", _order("zfbsm", mask_weight=lambda p, mask: p.data.div_(mask))),
    ("loss_differs", _order("zfbsm", give=lambda model, loss: -loss.item())),
    ("loss_differs", lambda *given: (_train_step(*given), given[0](*given[1])[1].item())[1]),
    ("pruned_moved", _order("zfbsm", mask_weight=_one_back)),
    ("kept_lost", _order("zfbsm", mask_weight=_one_more_lost)),
    ("weights_differ", _own_sgd),
    ("other_case", _order("zfbsm", _for_these_names)),
    ("raised", lambda model, batch, optimizer, masks: model(batch)),
]

ANSWERS = {"compression/prune_step": (_train_step, STEP)}
ALSO_RIGHT = {
    "compression/prune_step": [
        _by_data,
        _filled,
        _gradients_too,
        _momentum_too,
        _loaded,
        _order("mzfbsm"),
        _order("zfbsm"),
    ]
}
