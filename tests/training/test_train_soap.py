"""SOAP: Adam in the eigenbasis of the gradients' second moments."""

import copy

import pytest
import torch
from torch import nn

from invertible_rescaling import iirn_x2
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.optimizer_state import optimizer_tensors, restore_optimizer
from invertible_rescaling.training.optimizers import fixed_bases, make_optimizer, refresh_if_due, set_rate
from invertible_rescaling.training.soap import SOAP, _turned, is_kernel


def gradients(shape, count, seed=0):
    """Gradients whose modes are correlated, as those of an image's kernels are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in shape]
    noise = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return torch.einsum("nabcd,ia,jb,kc,ld->nijkl", noise, *mixing)


def run(parameter, sequence, **options):
    parameter = nn.Parameter(parameter.clone())
    optimizer = SOAP([parameter], lr=1e-2, **options)
    for step, gradient in enumerate(sequence, start=1):
        parameter.grad = gradient.clone()
        optimizer.step()
        refresh_if_due(optimizer, step)
    return parameter.detach()


def dense_reference(parameter, sequence, lr=1e-2, beta=0.95, eps=1e-8):
    """The same with one dense matrix for the rotation of all modes, written from the paper's algorithm."""
    x, shape = parameter.flatten().clone(), (*parameter.shape[:2], parameter.shape[2] * parameter.shape[3])
    moments = [torch.zeros(n, n, dtype=x.dtype) for n in shape]
    bases, m, v, taken = None, torch.zeros_like(x), torch.zeros_like(x), 0
    for step, gradient in enumerate(sequence, start=1):
        g = gradient.reshape(shape)
        for mode, moment in enumerate(moments):
            unfolded = g.movedim(mode, 0).flatten(1)
            moment.mul_(beta).add_((1 - beta) * unfolded @ unfolded.T)
        if bases is None:
            bases = [torch.linalg.eigh(moment / (1 - beta))[1] for moment in moments]
        else:
            taken += 1
            rotation = torch.kron(torch.kron(bases[0], bases[1]), bases[2])
            m = beta * m + (1 - beta) * g.flatten()
            v = beta * v + (1 - beta) * (rotation.T @ g.flatten()) ** 2
            corrected = rotation.T @ m / (1 - beta**taken)
            x -= lr * rotation @ (corrected / ((v / (1 - beta**taken)).sqrt() + eps))
        if step % 10 == 2:
            bases = [torch.linalg.qr(moment @ basis)[0] for moment, basis in zip(moments, bases, strict=True)]
    return x.view_as(parameter)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-8, 0.0])
def test_what_a_gpu_turns_bases_by_is_qr_up_to_signs(spread) -> None:
    """Also where eigenvalues are far apart or some are 0, as for a filter that nothing reaches."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(3, 20, 20, generator=generator, dtype=torch.float64))[0]
    values = torch.linspace(1, 2, 20, dtype=torch.float64)
    values[10:] *= spread
    statistics = basis @ torch.diag(values) @ basis.mT
    statistics[1] = statistics[1].float()  # as it comes, with float32's rounding
    near = torch.linalg.qr(basis + 1e-3 * torch.randn(basis.shape, generator=generator, dtype=basis.dtype))[0]
    turned = _turned(statistics, near)
    eye = torch.eye(20, dtype=torch.float64).expand(3, 20, 20)
    torch.testing.assert_close(turned.mT @ turned, eye, atol=1e-12, rtol=0)
    if spread >= 1e-3:  # below, the order of rounding decides what either of them finds
        wanted = torch.linalg.qr(statistics @ near)[0]
        signs = (turned * wanted).sum(1, keepdim=True).sign()
        torch.testing.assert_close(turned * signs, wanted, atol=1e-6, rtol=0)


def test_a_basis_without_statistics_stays() -> None:
    basis = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    statistics = torch.stack((torch.full((4, 4), torch.nan, dtype=torch.float64), 2 * basis[0]))
    assert torch.equal(_turned(statistics, basis).abs(), basis)


def test_soap_equals_a_dense_reference() -> None:
    start, sequence = torch.zeros(3, 4, 3, 3, dtype=torch.float64), gradients((3, 4, 3, 3), 25)
    found = run(start, sequence)
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, dense_reference(start, sequence), rtol=1e-9, atol=1e-12)


def test_turning_the_taps_of_all_gradients_turns_what_it_does() -> None:
    """The property that Adam lacks: the path does not depend on the basis that a kernel is written in."""
    start, sequence = torch.zeros(3, 4, 3, 3, dtype=torch.float64), gradients((3, 4, 3, 3), 25)
    turn = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))[0]

    def turned(x):
        return (x.flatten(-2) @ turn).view(x.shape)

    torch.testing.assert_close(
        run(start, turned(sequence)), turned(run(start, sequence)), rtol=1e-6, atol=1e-9
    )
    adams = []
    for given in (sequence, turned(sequence)):
        parameter = nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([parameter], lr=1e-2)
        for gradient in given:
            parameter.grad = gradient
            optimizer.step()
        adams.append(parameter.detach())
    assert (adams[1] - turned(adams[0])).abs().max() > 1e-2


def test_kernels_of_a_shape_go_together_and_change_nothing_for_each_other() -> None:
    sequences = [gradients((3, 4, 3, 3), 15, seed) for seed in (0, 1)]
    together = [nn.Parameter(torch.zeros(3, 4, 3, 3, dtype=torch.float64)) for _ in sequences]
    optimizer = SOAP(together, lr=1e-2)
    for step in range(15):
        for parameter, sequence in zip(together, sequences, strict=True):
            parameter.grad = sequence[step]
        optimizer.step()
        refresh_if_due(optimizer, step + 1)
    for parameter, sequence in zip(together, sequences, strict=True):
        torch.testing.assert_close(parameter.detach(), run(torch.zeros_like(parameter), sequence))


def test_what_is_no_kernel_goes_by_adam() -> None:
    ours, theirs = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    mine = SOAP([ours], lr=1e-2, betas=(0.9, 0.99))
    adam = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.99))
    for step in range(20):
        ours.grad = theirs.grad = torch.sin(torch.arange(7.0) + step)
        mine.step()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["soap", "adam-dct"])
def test_a_step_that_is_not_finite_changes_nothing(name) -> None:
    def steps(bad: bool):
        torch.manual_seed(0)
        model = randomize(iirn_x2(blocks=1), 0.5)
        optimizer = make_optimizer(model, TrainingConfig(optimizer=name, lr=1e-3), on_gpu=False)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            if bad:
                for parameter in model.parameters():
                    parameter.grad = torch.full_like(parameter, float("nan"))
                optimizer.found_inf = torch.ones(1)
                optimizer.step()
                optimizer.found_inf = None
        return [*model.parameters(), *optimizer_tensors(optimizer).values()]

    for with_bad, without in zip(steps(True), steps(False), strict=True):
        torch.testing.assert_close(with_bad, without, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["soap", "adam-dct", "adam"])
def test_its_state_resumes_to_the_last_bit(name) -> None:
    def step(model, optimizer, count):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(count))
        set_rate(optimizer, 1e-3)
        optimizer.step()
        refresh_if_due(optimizer, count)

    options = TrainingConfig(optimizer=name, lr=1e-3)
    whole = randomize(iirn_x2(blocks=2), 0.5).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(whole, options, on_gpu=False)
    for count in range(1, 15):
        step(whole, optimizer, count)
    cut, saved = copy.deepcopy(whole), {k: t.clone() for k, t in optimizer_tensors(optimizer).items()}
    resumed = make_optimizer(cut, options, on_gpu=False)
    restore_optimizer(resumed, saved)
    for count in range(15, 25):
        step(whole, optimizer, count)
        step(cut, resumed, count)
    for ours, theirs in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_fixed_basis_is_orthonormal_and_parts_luma_from_chroma() -> None:
    model = iirn_x2(blocks=1)
    bases = fixed_bases(model)
    assert set(map(id, bases)) == {id(p) for p in model.parameters() if is_kernel(p)}
    for kernel, modes in bases.items():
        for size, basis in zip((*kernel.shape[:2], 9), modes, strict=True):
            torch.testing.assert_close(basis.T @ basis, torch.eye(size))
    outs, ins, taps = bases[model.flow[1].phi.last.weight]
    grey = torch.ones(3) / 3**0.5
    torch.testing.assert_close((outs.T @ grey).abs(), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close((ins.T[:3, :3] @ grey).abs(), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    assert torch.equal(ins[9:, 9:], torch.eye(ins.shape[0] - 9))  # features have no colours
    torch.testing.assert_close(taps[:, 0].abs(), torch.full((9,), 1 / 3))


def test_biases_and_attention_learn_at_a_third_of_the_rate() -> None:
    optimizer = make_optimizer(iirn_x2(blocks=1), TrainingConfig(optimizer="soap", lr=3e-3), on_gpu=False)
    set_rate(optimizer, 3e-3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3e-3, 1e-3])
