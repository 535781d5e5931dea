"""Losses between a student and its teacher, against their formulas written out."""

from __future__ import annotations

import torch

from hrseg.distillation import InClassOrder, channel_wise_loss, kl_loss
from hrseg.task import Task

STUDENT, TEACHER = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * (torch.tensor(a).log() - torch.tensor(b).log()).item() for a, b in zip(p, q, strict=True))


def test_channel_wise_loss_compares_where_in_the_image_each_class_is():
    expected = []
    for student, teacher in zip(STUDENT.flatten(2).flatten(0, 1), TEACHER.flatten(2).flatten(0, 1), strict=True):
        p, q = ((each / 3).exp() / (each / 3).exp().sum() for each in (teacher, student))
        expected.append(9 * divergence(p.tolist(), q.tolist()))
    found = channel_wise_loss(STUDENT, TEACHER, temperature=3)
    torch.testing.assert_close(found.item(), sum(expected) / len(expected), rtol=1e-5, atol=0)


def test_kl_compares_the_classes_of_each_pixel():
    students, teachers = (each.permute(0, 2, 3, 1).reshape(-1, 3) / 2 for each in (STUDENT, TEACHER))
    pairs = zip(teachers.softmax(1).tolist(), students.softmax(1).tolist(), strict=True)
    expected = [4 * divergence(p, q) for p, q in pairs]
    found = kl_loss(STUDENT, TEACHER, temperature=2)
    torch.testing.assert_close(found.item(), sum(expected) / len(expected), rtol=1e-5, atol=0)


def test_kl_compares_each_label_where_labels_may_overlap():
    pairs = zip(TEACHER.sigmoid().flatten().tolist(), STUDENT.sigmoid().flatten().tolist(), strict=True)
    expected = [divergence([p, 1 - p], [q, 1 - q]) for p, q in pairs]
    found = kl_loss(STUDENT, TEACHER, task=Task.MULTILABEL)
    torch.testing.assert_close(found.item(), sum(expected) / len(expected), rtol=1e-5, atol=0)


def test_both_are_zero_for_equal_logits_and_leave_the_teacher_alone():
    for loss in (channel_wise_loss, kl_loss):
        student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
        assert loss(STUDENT, STUDENT).abs() < 1e-6
        loss(student, teacher).backward()
        assert teacher.grad is None and student.grad.abs().sum() > 0


def test_classes_are_put_into_the_students_order():
    model = InClassOrder(torch.nn.Identity(), [2, 0, 1])
    assert torch.equal(model(STUDENT), STUDENT[:, [2, 0, 1]])
