"""Adversarial AutoAugment: its REINFORCE step against sums over all policies, its rewards, and its place in a run."""

import itertools
import shutil

import pytest
import torch

from autodo.augment.adversarial import adversarial_policy
from autodo.augment.adversarial.adversarial_policy import (
    AdversarialPolicy,
    PoliciesInTurn,
    expected_gain,
    standardised,
)
from autodo.augment.adversarial.controller import CHOICES, Controller, sub_policies
from autodo.augment.operations import NAMES
from autodo.config.objective import kinds_with_copies
from autodo.config.policy import AdversarialAutoAugment
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.errors import ConfigError
from autodo.seeds import initial_weights
from autodo.training.trainer import Trainer

TOY = (3, 2, 3, 2)
SHORT = {"training.epochs": 3, "training.warmup_epochs": 1, "dataset.subsample": 200, "policy.copies": 3}


def toy_controller(spread: float = 10) -> Controller:
    """Two operations of three, with two magnitudes each, and clearly different probabilities; float64."""
    with initial_weights(0):
        controller = Controller(TOY).double()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(spread)
    return controller


def all_policies() -> torch.Tensor:
    return torch.tensor(list(itertools.product(*map(range, TOY))))


def policy_of(group: ProcessGroup = SINGLE_PROCESS, **settings) -> AdversarialPolicy:
    return AdversarialPolicy(AdversarialAutoAugment(**settings), seed=0, group=group)


def gradients(value: torch.Tensor, controller: Controller) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, list(controller.parameters()), retain_graph=True))


def test_the_mean_estimate_is_the_gradient_of_the_expected_reward():
    controller, policies = toy_controller(), all_policies()
    rewards = torch.randn(len(policies), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = controller.score(policies).log_probabilities.exp()
    assert p.sum().item() == pytest.approx(1, rel=1e-12)
    assert p.max().item() > 3 / len(p), "not uniform"
    exact = gradients((p * rewards).sum(), controller)
    estimates = [
        gradients(chance * expected_gain(controller, policy[None], reward[None], 0), controller)
        for chance, policy, reward in zip(p.detach(), policies, rewards, strict=True)
    ]
    for of_parameter, wanted in zip(zip(*estimates, strict=True), exact, strict=True):
        torch.testing.assert_close(torch.stack(of_parameter).sum(0), wanted, rtol=1e-9, atol=1e-13)


def test_a_batch_of_policies_is_a_mean_with_their_entropies():
    controller, policies = toy_controller(), all_policies()
    walk = controller.score(policies)
    p = walk.log_probabilities.exp()
    # The mean of the entropies along the way is that of the whole distribution.
    assert (p * walk.entropies).sum().item() == pytest.approx(-(p * walk.log_probabilities).sum().item(), rel=1e-12)
    rewards = torch.linspace(-1, 2, len(policies), dtype=torch.float64)
    each = [expected_gain(controller, policies[[i]], rewards[[i]], 0.3).item() for i in range(len(policies))]
    assert expected_gain(controller, policies, rewards, 0.3).item() == pytest.approx(sum(each) / len(each), rel=1e-12)


def test_policies_are_drawn_with_the_probabilities_that_are_scored():
    controller, policies, draws = toy_controller(), all_policies(), 20_000
    drawn = controller.sample(draws, torch.Generator().manual_seed(0))
    matches = (drawn[:, None] == policies).all(2)
    assert matches.sum(1).eq(1).all()
    p = controller.score(policies).log_probabilities.exp().detach()
    assert (matches.double().mean(0) - p).abs().max() < 5 * 0.5 / draws**0.5


def test_choices_mean_operations_that_are_always_applied():
    assert CHOICES == (15, 10) * 10
    steps = sub_policies([4, 9, 6, 3, 13, 0, 0, 0])
    assert steps == [
        (("Rotate", 1.0, 1.0), ("Invert", 1.0, 3 / 9)),
        (("Sharpness", 1.0, 0.0), ("ShearX", 1.0, 0.5)),  # a shear of magnitude 0 does nothing
    ]


def test_images_are_augmented_by_the_policies_in_turn():
    policies = [[[("Rotate", 1, 1)], [("Invert", 1, 0)]], [[("Color", 1, 1)]] * 2, [[("Equalize", 1, 0)]] * 2]
    operation = PoliciesInTurn(policies).draw(3000, torch.Generator().manual_seed(0)).operation[:, 0].view(-1, 3)
    names = [{NAMES[number] for number in column.tolist()} for column in operation.T]
    assert names == [{"Rotate", "Invert"}, {"Color"}, {"Equalize"}]
    assert (operation[:, 0] == NAMES.index("Invert")).double().mean() == pytest.approx(0.5, abs=0.08)


def test_rewards_have_mean_0_and_variance_1():
    losses = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    rewards = standardised(losses)
    assert rewards.tolist() == pytest.approx(standardised(7 * losses - 3).tolist())
    assert float(rewards.mean()) == pytest.approx(0, abs=1e-12)
    assert float(rewards.var(correction=0)) == pytest.approx(1)
    assert standardised(torch.full((3,), 0.7, dtype=torch.float64)).tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_policy_with_the_higher_loss_becomes_more_likely():
    policy = policy_of(copies=2)
    policy.begin_epoch(0)
    before = policy.controller.score(policy.choices).log_probabilities
    # Three images: the copies of an image are next to one another.
    policy.record(torch.tensor([0.1, 0.9, 0.2, 0.8]), 2)
    policy.record(torch.tensor([0.3, 1.0]), 1)
    assert policy.state_dict()["loss_sums"].tolist() == pytest.approx([0.6, 2.7])
    assert policy.state_dict()["points"] == 3
    policy.end_epoch()
    after = policy.controller.score(policy.choices).log_probabilities
    assert after[1] - before[1] > 0 > after[0] - before[0]
    assert (policy.state_dict()["points"], policy.state_dict()["loss_sums"].tolist()) == (0, [0, 0])


class TwoAlike(ProcessGroup):
    """One of two processes with the same images."""

    rank, size = 0, 2

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor

    def broadcast_object(self, value):
        return value


def test_losses_are_those_of_all_processes():
    single, double = policy_of(copies=2), policy_of(TwoAlike(), copies=2)
    for policy in (single, double):
        policy.begin_epoch(0)
    single.record(torch.tensor([0.5, 0.25, 0.5, 0.25]), 2)
    double.record(torch.tensor([0.5, 0.25]), 2)
    double.record(torch.zeros(0), 0)  # no image of the batch is on this process
    assert torch.equal(single.state_dict()["loss_sums"], double.state_dict()["loss_sums"])


# ----- in a run


def run_of(method: str = "adversarial-autoaugment", **overrides) -> RunConfig:
    return build_run("digits", method, overrides={**SHORT, **overrides})


def start(config: RunConfig, **options) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), **options)


def test_copies_that_nothing_changes_are_one_image(monkeypatch):
    """One step on three equal copies of all images is a step of the baseline."""
    nothing = [(("Invert", 0.0, 0.0),)]
    monkeypatch.setattr(adversarial_policy, "sub_policies", lambda choices: nothing)
    one_step = {"training.batch_size": 1000, "training.epochs": 1, "training.warmup_epochs": 0}
    overrides = {**one_step, "augmentation.crop_padding": 0}
    copies, baseline = (start(run_of(method, **overrides)) for method in ("adversarial-autoaugment", "baseline"))
    (row,), (plain,) = list(copies), list(baseline)
    assert row["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-5)
    torch.testing.assert_close(copies.model.head.weight, baseline.model.head.weight, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_is_bit_for_bit_the_same_and_needs_its_controller(tmp_path):
    whole, path = start(run_of()), tmp_path / "first.pt"
    first = [parameter.clone() for parameter in whole.online_policy.controller.parameters()]
    list(whole)
    next(iter(start(run_of(), checkpoint=path)))
    for keeps in (False, True):
        shutil.copy(path, tmp_path / "checkpoint.pt")
        again = start(run_of(), checkpoint=tmp_path / "checkpoint.pt")
        assert again.state.epoch == 1
        if not keeps:
            again.online_policy.load_state_dict(policy_of(copies=3).state_dict())
        list(again)
        same = [torch.equal(a, b) for a, b in zip(parameters(whole), parameters(again), strict=True)]
        assert all(same) == keeps
    moved = [torch.equal(a, b) for a, b in zip(first, whole.online_policy.controller.parameters(), strict=True)]
    assert not any(moved), "every epoch trains the controller"


def parameters(training: Trainer) -> list[torch.Tensor]:
    modules = (training.model.encoder, training.model.head, training.online_policy.controller)
    return [parameter for module in modules for parameter in module.parameters()]


def test_it_combines_with_losses_of_single_images_and_a_last_phase():
    assert kinds_with_copies() == ["label-smoothing", "class-balanced", "ldam-drw", "logit-adjustment", "gce"]
    for other in ("ldam-drw", "finetune-head-on-val"):
        rows = list(start(run_of(f"adversarial-autoaugment+{other}")))
        assert all(row["train_loss"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("adversarial-autoaugment+elr", {}, "which objective 'elr' cannot; it combines with: label-smoothing, class-"),
        ("adversarial-autoaugment+mixup", {}, "which objective 'mixup' cannot"),
        ("adversarial-autoaugment+autodo-aw", {}, "policy"),
        ("adversarial-autoaugment", {"policy.copies": 1}, r"policy\.copies.*greater than or equal to 2, not 1"),
        ("adversarial-autoaugment", {"policy.copys": 1}, r"policy\.copys: unknown key; did you mean 'copies'"),
    ],
)
def test_an_error_is_one_line(method, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_run("digits", method, overrides=overrides)
    assert "\n" not in str(caught.value)
