"""Distillation: what a teacher gives, live, as stored labels, and as the mean over symmetries."""

import pytest
import torch
from torch import nn

from compress.data.cache import collect
from compress.data.images import find_images
from compress.labels import label
from compress.methods import make_method
from compress.models import build
from compress.teachers import SelfEnsemble, TeacherSpec, load_teacher


def test_cached_labels_are_the_teachers_rounded_outputs_and_are_computed_once(
    teacher_file, photographs, tmp_path, monkeypatch
):
    monkeypatch.setenv("POCKETSR_CACHE", str(tmp_path))
    collection = collect(find_images(photographs), 2, 16)
    teacher = load_teacher(TeacherSpec(file=teacher_file), 2)
    calls = []
    teacher.network.register_forward_hook(lambda *_: calls.append(1))
    labels = label(collection, teacher)
    assert len(calls) == 3
    again = label(collection, teacher)
    assert len(calls) == 3
    for pair, made, cached in zip(collection.pairs, labels, again, strict=True):
        lr = torch.tensor(pair.lr).permute(2, 0, 1)[None] / 255
        output = teacher.network(lr)[0].permute(1, 2, 0) * 255
        assert (torch.tensor(made) - output).abs().max() < 0.5001
        assert (made == cached).all()


def test_distillation_on_labels_equals_distillation_on_the_live_teacher(teacher_file, photographs):
    torch.manual_seed(0)
    teacher = load_teacher(TeacherSpec(file=teacher_file), 2)
    method = make_method("distillation", {"truth": 0.3, "teacher": 0.7}, teacher.network).train()
    assert not teacher.network.training
    collection = collect(find_images(photographs), 2, 16)
    made, pair = label(collection, teacher)[0], collection.pairs[0]
    lr, hr, cached = (torch.tensor(x).permute(2, 0, 1)[None] / 255 for x in (pair.lr, pair.hr, made))
    student = build("anchor", {"scale": 2, "channels": 8, "blocks": 1, "branches": True}).train()
    live, stored = method(student, {"lr": lr, "hr": hr}), method(student, {"lr": lr, "hr": hr, "label": cached})
    assert live["teacher"].item() == pytest.approx(stored["teacher"].item(), abs=0.7 * 0.5 / 255)
    assert live["truth"].item() == stored["truth"].item()
    with torch.no_grad():
        expected = 0.7 * (student(lr) - teacher.network(lr)).abs().mean()
    assert live["teacher"].item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = [torch.autograd.grad(sum(terms.values()), list(student.parameters())) for terms in (live, stored)]
    flat = [torch.cat([g.flatten() for g in one]) for one in gradients]
    assert nn.functional.cosine_similarity(*flat, dim=0) > 0.99
    sum(method(student, {"lr": lr, "hr": hr}).values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_the_self_ensemble_is_the_mean_over_the_symmetries_and_commutes_with_them(teacher_file):
    plain = load_teacher(TeacherSpec(file=teacher_file), 2)
    ensemble = load_teacher(TeacherSpec(file=teacher_file, self_ensemble=True), 2)
    assert isinstance(ensemble.network, SelfEnsemble)
    assert ensemble.key != plain.key
    lr = torch.rand(1, 3, 10, 14)
    with torch.no_grad():
        whole = ensemble.network(lr)
        assert (ensemble.network(lr.rot90(1, (2, 3)).flip(3)) - whole.rot90(1, (2, 3)).flip(3)).abs().max() < 1e-6
        assert (plain.network(lr.flip(3)) - plain.network(lr).flip(3)).abs().max() > 1e-4
