"""Networks of torchvision, timm and a person's own, as encoder and head."""

import copy

import pytest
import torch
from torch import nn

from autodo.bilevel.frozen import frozen_copy
from autodo.distributed.batch_norm import share_statistics
from autodo.errors import ConfigError
from autodo.models import assemble, build, given, names
from tests.autodo.models import own_networks

OWN = "tests.autodo.models.own_networks"


def split(name: str, channels: int = 1, size: int = 16, classes: int = 5, **settings):
    return build(name, in_channels=channels, image_size=size, classes=classes, **settings)


def test_names_of_libraries_are_those_of_their_registries() -> None:
    from torchvision import models

    assert names.library_names("torchvision") == set(models.list_models(module=models))
    timm = pytest.importorskip("timm")
    assert names.library_names("timm") == set(timm.list_models())


@pytest.mark.parametrize(
    ("name", "head", "features"),
    [
        ("torchvision:resnet18", "fc", 512),
        ("torchvision:mobilenet_v3_small", "classifier.3", 1024),
        ("torchvision:densenet121", "classifier", 1024),
        ("timm:test_convnext", "head.fc", 64),
        ("timm:test_resnet", "fc", 96),
    ],
)
def test_the_final_linear_layer_of_a_library_network_is_the_head(name: str, head: str, features: int) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    encoder, linear = split(name, size=32)
    assert (encoder.settings["head"], encoder.features, linear.in_features) == (head, features, features)
    assert linear.out_features == 5
    assert encoder.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, features)


@pytest.mark.parametrize("head", [None, "5"])
def test_encoder_and_head_compute_what_the_network_does(head: str | None) -> None:
    network = own_networks.make(3, 5)
    name, code = given.register(network)
    encoder, linear = split(name, channels=3, code=code, head=head)
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(linear(encoder(images)), network(images))
    torch.testing.assert_close(linear(encoder.eval()(images)), network.eval()(images))
    again, _ = assemble(encoder.settings, in_channels=3, image_size=16, classes=5)
    assert again.state_dict().keys() == encoder.state_dict().keys()


def test_finding_the_head_changes_neither_the_network_nor_the_random_numbers() -> None:
    network = own_networks.make(1, 5)
    name, code = given.register(network)
    before = torch.random.get_rng_state()
    encoder, linear = split(name, code=code)
    assert torch.equal(torch.random.get_rng_state(), before)
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in encoder.network.state_dict().items())
    assert torch.equal(linear.weight, state["5.weight"]), "it has as many classes as the data"


def test_a_function_gets_the_arguments_that_it_takes() -> None:
    assert split(f"{OWN}:make")[0].network[0].in_channels == 1
    encoder, linear = split(f"{OWN}:for_colours")
    assert (encoder.channels, linear.out_features) == (3, 5)
    gray = torch.randn(2, 1, 16, 16)
    encoder.eval()
    assert torch.equal(encoder(gray), encoder(gray.expand(-1, 3, -1, -1)))
    encoder, linear = split(f"{OWN}:backbone", head="append")
    assert (encoder.features, linear.in_features, linear.out_features) == (8, 8, 5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet50", {}, "unknown model 'resnet50'; did you mean 'torchvision:resnet50'"),
        ("torchvision:resnet5", {}, "torchvision has no classification network 'resnet5'; did you mean 'resnet50'"),
        ("torchvision:resnet18", {"head": "fx"}, "model.head 'fx' is no linear layer of it; .*its last ones: fc;"),
        ("torchvision:squeezenet1_0", {}, r"come from its layer classifier.3 \(AdaptiveAvgPool2d\).*model.head=append"),
        ("torchvision:inception_v3", {}, "cannot take images of 3 x 64 x 64 .*model.input_size, such as 224"),
        ("small-cnn", {"head": "fc"}, "model.head 'fc': is for networks that are not built in"),
        ("nets/make.py:make", {}, r"is not an import path PACKAGE.MODULE:FUNCTION, such as my_pkg.nets:make"),
        ("no_such_package.nets:make", {}, "no_such_package.nets cannot be imported: ModuleNotFoundError"),
        (f"{OWN}:mak", {}, "own_networks.py has no 'mak'"),
        (f"{OWN}:torch", {}, "is a module, not a function that returns an nn.Module"),
        (f"{OWN}:needs_depth", {}, "needs depth, and can have only in_channels, image_size, classes, by name"),
        (f"{OWN}:fails", {}, "fails: RuntimeError: no such layer"),
        (f"{OWN}:no_module", {}, "returns a str, not an nn.Module"),
        (f"{OWN}:WithTuples", {}, "returns a tuple in train mode, not one tensor of logits"),
        (f"{OWN}:with_softmax", {}, r"its outputs come from its layer 1 \(Softmax\), not from a linear layer"),
        (f"{OWN}:with_activation", {}, r"its outputs come from its layer 1 \(ReLU\), not from a linear layer"),
        (f"{OWN}:Scaled", {}, "its outputs come from a calculation after its last layer"),
        (f"{OWN}:Scaled", {"head": "network.5"}, "model.head 'network.5': the network does not return the outputs"),
        (
            f"{OWN}:Twice",
            {},
            "its head network.5 cannot be taken off: .*perhaps because it uses the layer more than once",
        ),
        (f"{OWN}:AsksItsHead", {}, r"cannot be taken off: .* \(AttributeError: .*no attribute 'weight'\)"),
        (
            f"{OWN}:DropsLogits",
            {},
            "in train mode it does not return the outputs of its head network.5, but changes them",
        ),
        (f"{OWN}:Bare", {}, "its outputs come from a calculation of its own, not from a linear layer"),
        (f"{OWN}:with_nan", {}, "its outputs in eval mode are NaN or infinite"),
        ("timm:test_resnet.none", {}, r"timm:test_resnet.none: Invalid pretrained tag \(none\)"),
        ("module:Net", {}, "was given in Python, and not to this process"),
    ],
)
def test_networks_that_cannot_be_used(name: str, settings: dict[str, str], message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=message) as error:
        split(name, size=64 if name.startswith("torchvision") else 16, **settings)
    assert "\n" not in str(error.value)


def test_lazy_layers_need_their_weights() -> None:
    with pytest.raises(ConfigError, match="module:Sequential: has lazy layers without weights; call it on some images"):
        given.register(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))


def test_images_of_more_channels_than_the_network_takes() -> None:
    name, code = given.register(own_networks.make(1, 2))
    with pytest.raises(ConfigError, match="cannot take images of 3 x 16 x 16"):
        split(name, channels=3, code=code)


def test_fingerprint_of_a_given_network_depends_on_its_weights_and_structure() -> None:
    network = own_networks.make(1, 2)
    first = given.register(network)
    assert first == given.register(network) == given.register(nn.DataParallel(network))
    assert first.name == "module:Sequential"
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1
    moved = given.register(network)
    network[2] = nn.CELU()
    assert len({first.fingerprint, moved.fingerprint, given.register(network).fingerprint}) == 3
    assert given.register(network, "v1").fingerprint == "v1"
    kept = given.copy_of(*first)
    assert kept is not given.copy_of(*first)


def test_an_opaque_network_is_frozen_without_looking_into_it() -> None:
    """Its layers may be subclasses of batch norm with more in them, or be reached past their parent."""
    encoder, _ = split(f"{OWN}:make")
    images = torch.randn(3, 1, 16, 16)
    encoder(images)
    frozen = frozen_copy(encoder)
    assert torch.equal(frozen(images), encoder.eval()(images))
    assert frozen.network is encoder.network


def test_batch_norms_that_cannot_be_computed_over_several_workers_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match=r"workers: the network has the batch norm BatchNorm1d.*set workers: 1"):
        share_statistics(network, lambda tensor: tensor)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_with_an_activation_is_computed_over_several_workers(train: bool) -> None:
    timm = pytest.importorskip("timm")
    norm = timm.layers.BatchNormAct2d(3)
    with torch.no_grad():
        norm.bias.uniform_(-1, 1)
    shared = share_statistics(copy.deepcopy(norm), lambda tensor: tensor).train(train)
    images = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(shared(images), norm.train(train)(images))
    assert shared.state_dict().keys() == norm.state_dict().keys()
