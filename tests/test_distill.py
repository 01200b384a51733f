import re

import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES, make_model

from minigpt import GPT, Trainer
from minigpt.averaging import WeightAverage
from minigpt.distill import Distillation
from minigpt.optim import make_optimizers

IDX = torch.randint(0, 31, (3, 8), generator=torch.Generator().manual_seed(1))
TARGETS = IDX.roll(-1, 1).clone()
TARGETS[0, 4:] = TARGETS[2, 0] = -100


def pair(small="llama", large="gpt2", **options):
    return Distillation(make_model(FAMILIES[small]), make_model(FAMILIES[large], seed=1), **options).train()


@pytest.mark.parametrize(("alpha", "temperature"), [(0.5, 2.0), (1.0, 1.0), (0.3, 4.0)])
def test_gradients_are_those_of_torchs_divergence(alpha, temperature):
    distillation = pair(alpha=alpha, temperature=temperature)
    distillation(IDX, TARGETS)[1].backward()
    student, teacher = make_model(FAMILIES["llama"]), make_model(FAMILIES["gpt2"], seed=1)
    counted = TARGETS.flatten() != -100
    ours, theirs = (m(IDX)[0].flatten(0, 1)[counted] for m in (student, teacher))
    divergence = torch.nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(ours / temperature, -1), F.softmax(theirs.detach() / temperature, -1)
    )
    hard = F.cross_entropy(ours, TARGETS.flatten()[counted])
    (alpha * temperature**2 * divergence + (1 - alpha) * hard).backward()
    for (name, p), q in zip(distillation.student.named_parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4, msg=name)
    assert all(p.grad is None for p in distillation.teacher.parameters())


def test_what_a_target_that_is_left_out_stands_at_changes_nothing():
    distillation, changed = pair(alpha=0.7), IDX.clone()
    changed[0, 5:] = 3  # nothing before looks at them
    losses = [distillation(idx, TARGETS)[1].item() for idx in (IDX, changed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn_from_it():
    twin = Distillation(make_model(FAMILIES["llama"]), make_model(FAMILIES["llama"]), alpha=1.0).train()
    assert twin(IDX, TARGETS)[1].item() == pytest.approx(0.0, abs=1e-5)


def test_in_evaluation_it_is_the_student():
    distillation = pair().eval()
    logits, loss = distillation(IDX, TARGETS)
    assert torch.equal(logits, distillation.student(IDX)[0])
    assert torch.equal(loss, distillation.student(IDX, TARGETS)[1])
    assert distillation(IDX)[1] is None and distillation.train()(IDX)[1] is None


def test_the_teacher_is_no_part_of_what_is_trained_or_saved():
    distillation = pair()
    assert not distillation.teacher.training
    assert {name.partition(".")[0] for name in distillation.state_dict()} == {"student"}
    assert len(list(distillation.parameters())) == len(list(distillation.student.parameters()))
    distillation.to(torch.float64)
    assert {p.dtype for m in (distillation, distillation.teacher) for p in m.parameters()} == {torch.float64}


def small(tokenizer, seed=0, **changes):
    return make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size, **changes), seed)


def test_without_the_teachers_word_it_is_plain_training(small_data, quick):
    tokenizer, train, val = small_data
    changes = {"dropout": 0.1, "label_smoothing": 0.1}
    alone, taught = small(tokenizer, **changes), small(tokenizer, **changes)
    plain = Trainer(alone, train, val, quick, callbacks=[]).fit()
    history = Trainer(Distillation(taught, small(tokenizer, 1), alpha=0), train, val, quick, callbacks=[]).fit()
    assert history["train_loss"] == plain["train_loss"] and history["val_loss"] == plain["val_loss"]
    assert all(torch.equal(p, q) for p, q in zip(alone.parameters(), taught.parameters()))


def test_the_trainer_brings_the_student_nearer_to_its_teacher_and_goes_on_where_it_was(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    teacher = small(tokenizer, 1)
    before = [p.clone() for p in teacher.parameters()]
    config = quick.replace(max_steps=40, activation_checkpointing=True)
    idx, targets = next(val.windows(4, 1))

    def distance(student):
        return Distillation(student, teacher, alpha=1.0).train()(idx, targets)[1].item()

    student, average = small(tokenizer), WeightAverage()
    start = distance(student)
    distillation = Distillation(student, teacher, alpha=1.0)
    Trainer(distillation, train, val, config, callbacks=[average], folder=tmp_path).fit()
    assert distance(student) < 0.7 * start and not student.activation_checkpointing
    assert all(torch.equal(p, q) for p, q in zip(before, teacher.parameters()))
    other = small(tokenizer, 5)
    Trainer(Distillation(other, teacher, alpha=1.0), train, val, config, callbacks=[], folder=tmp_path).fit(resume=True)
    assert all(torch.equal(p, q) for p, q in zip(student.parameters(), other.parameters()))


def test_muon_moves_the_same_matrices_as_without_a_teacher(quick):
    shape = FAMILIES["llama"].replace(tie_embedding=False)
    config, counts = quick.replace(optimizer="muon"), []
    for model in (GPT(shape), Distillation(GPT(shape), GPT(shape))):
        groups = [group for optimizer in make_optimizers(model, config) for group in optimizer.param_groups]
        counts.append([len(group["params"]) for group in groups])
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"vocab_size": 40}, {}, "the student has vocab_size=31, the teacher 40"),
        ({"context_length": 4}, {}, "the student has context_length=8, the teacher 4"),
        ({}, {"alpha": 1.5}, "alpha=1.5 is no weight"),
        ({}, {"temperature": 0}, "temperature=0 must be above 0"),
    ],
)
def test_a_pair_that_cannot_work_is_refused(change, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Distillation(make_model(FAMILIES["llama"]), make_model(FAMILIES["llama"].replace(**change)), **options)


def test_nobody_teaches_himself():
    model = make_model(FAMILIES["llama"])
    with pytest.raises(ValueError, match="are one model"):
        Distillation(model, model)


def test_what_the_blocks_give_is_compared_by_its_share_of_the_teachers():
    distillation = Distillation(*(make_model(FAMILIES["llama"], seed) for seed in (0, 1)), features=0.7).train()
    plain = Distillation(distillation.student, distillation.teacher).train()
    given = []
    for model in (distillation.student, distillation.teacher):
        x, each = model.token_embedding(IDX), []
        for block in model.blocks:
            x = block(x, rotary=(model.cos[:8], model.sin[:8]))
            each.append(x[TARGETS != -100])
        given.append(each)
    shares = [(ours - theirs).norm() ** 2 / theirs.norm() ** 2 for ours, theirs in zip(*given)]
    expected = plain(IDX, TARGETS)[1] + 0.7 * sum(shares) / len(shares)
    found = distillation(IDX, TARGETS)[1]
    assert sum(shares) > 0.1 and found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(loss, list(distillation.student.parameters())) for loss in (found, expected))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not any(
        module._forward_hooks for model in (distillation.student, distillation.teacher) for module in model.blocks
    )
    distillation.activation_checkpointing = True
    again = distillation(IDX, TARGETS)[1]
    for one, other in zip(torch.autograd.grad(again, list(distillation.student.parameters())), ours):
        torch.testing.assert_close(one, other)


def test_features_ask_for_blocks_that_are_alike():
    other = make_model(FAMILIES["llama"].replace(n_layer=1))
    with pytest.raises(ValueError, match=r"the student has n_layer, n_embd = \(1, 16\), the teacher \(2, 16\)"):
        Distillation(other, make_model(FAMILIES["llama"]), features=1.0)
    with pytest.raises(ValueError, match=r"features=-1 is no weight"):
        pair(features=-1)
