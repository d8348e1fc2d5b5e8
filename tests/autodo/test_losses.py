import pytest
import torch

from autodo.config.bilevel import LossName
from autodo.losses import LOSSES
from autodo.testing.oracles import plain_loss

CLASSES = 7


def logits_and_targets(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, CLASSES, generator=generator, dtype=torch.float64)
    log_q = (2 * torch.randn(6, CLASSES, generator=generator, dtype=torch.float64)).log_softmax(1)
    return logits, log_q


def test_every_configured_name_has_a_loss():
    assert set(LOSSES) == set(LossName.__args__)


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_definition(name):
    logits, log_q = logits_and_targets()
    expected = plain_loss(name, logits, log_q.exp())
    torch.testing.assert_close(LOSSES[name].value(logits.log_softmax(1), log_q), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_residual_is_the_gradient_in_the_logits(name):
    logits, log_q = logits_and_targets()
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain_loss(name, leaf, log_q.exp()).sum(), leaf)
    torch.testing.assert_close(LOSSES[name].residual(logits.log_softmax(1), log_q), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_hessian_product_is_the_second_derivative(name):
    logits, log_q = logits_and_targets()
    tangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(plain_loss(name, leaf, log_q.exp()).sum(), leaf, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * tangent).sum(), leaf)
    product = LOSSES[name].hessian_product(logits.log_softmax(1), log_q, tangent)
    torch.testing.assert_close(product, expected, rtol=1e-10, atol=1e-11)


def test_cross_entropy_of_hard_labels():
    logits, _ = logits_and_targets()
    labels = torch.arange(6) % CLASSES
    log_q = torch.nn.functional.one_hot(labels, CLASSES).double().log()
    value = LOSSES["cross-entropy"].value(logits.log_softmax(1), log_q)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
