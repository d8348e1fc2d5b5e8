"""Pretrained weights: files, names, the images that they expect, and what of the network stands still."""

import functools
import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from autodo.augment.pipeline import Pipeline
from autodo.config.run import AugmentationConfig
from autodo.errors import ConfigError, DataError
from autodo.models import assemble, build
from autodo.models.adopted import libraries
from autodo.models.adopted.weights import IMAGENET, state_content
from autodo.models.given import register
from autodo.models.weight_names import WEIGHTS_VARIABLE, pinned
from autodo.results.classifier import Classifier
from tests.autodo.models import own_networks

OWN = "tests.autodo.models.own_networks"
SMALL = "torchvision:shufflenet_v2_x0_5"
FILE = "shufflenetv2_x0.5-f707e7126e.pth"
"""Of the default weights of that network."""


def split(name: str, channels: int = 1, size: int = 32, classes: int = 5, **settings):
    encoder, head = build(name, in_channels=channels, image_size=size, classes=classes, **settings)
    return encoder.eval(), head


def trained(name: str, classes: int = 1000) -> nn.Module:
    """A network whose statistics are not the initial ones."""
    network = libraries.make(*name.split(":"), classes, 224)
    with torch.no_grad():
        for value in network.buffers():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return network.eval()


@functools.cache
def reference() -> nn.Module:
    torch.manual_seed(0)
    return trained(SMALL)


def viewed(images: torch.Tensor, encoder) -> torch.Tensor:
    """Network inputs of uint8 images."""
    pipeline = Pipeline(AugmentationConfig(), *encoder.normalisation)
    return pipeline.test_view(images)


@pytest.mark.parametrize("form", ["state.pth", "state.safetensors", "checkpoint.pt"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_of_a_library_network_gives_its_features(form: str, channels: int, tmp_path: Path) -> None:
    """For the images that ImageNet's networks expect: three channels, each normalised by itself, of their size."""
    network, path = reference(), tmp_path / form
    if form == "state.safetensors":
        save_file(network.state_dict(), path)
    elif form == "state.pth":
        torch.save(network.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    encoder, head = split(SMALL, channels, weights=str(path), input_size=64)
    assert head.out_features == 5

    images = torch.randint(0, 256, (3, channels, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    pixels = F.interpolate((images / 255 - mean) / std, (64, 64), mode="bilinear", antialias=True)
    layers = [network.conv1, network.maxpool, network.stage2, network.stage3, network.stage4, network.conv5]
    torch.testing.assert_close(
        encoder(viewed(images, encoder)), nn.Sequential(*layers)(pixels).mean((2, 3)), rtol=1e-4, atol=1e-4
    )
    assert split(SMALL, channels, weights=str(path))[0].size == 224, "the size follows the weights"
    own = split(SMALL, channels, weights=str(path), normalisation="data", input_size=32)[0]
    assert own.normalisation is None


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 96), ("vit_b_32", 64)])
def test_networks_with_inputs_of_their_own_have_the_features_of_torchvision(name, size, tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    options = {"image_size": size} if name.startswith("vit") else {"transform_input": True, "init_weights": False}
    network = torchvision.models.get_model(name, weights=None, num_classes=9, **options).eval()
    torch.save(network.state_dict(), tmp_path / "state.pth")
    weights = {"weights": str(tmp_path / "state.pth"), "input_size": size}
    encoder, head = split(f"torchvision:{name}", 3, size, 9, **weights)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    last = network.heads[0] if name.startswith("vit") else network.fc
    with torch.no_grad():
        head.load_state_dict(last.state_dict())
        expected = network((images / 255 - mean) / std)
        torch.testing.assert_close(head(encoder(viewed(images, encoder))), expected, rtol=1e-3, atol=1e-4)
    again, _ = assemble(encoder.settings, in_channels=3, image_size=size, classes=9)
    again.load_state_dict(encoder.state_dict())


def test_the_prefix_of_a_wrapper_is_found_by_the_names_of_the_network(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = own_networks.make(1, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.module(images)

    network = Wrapped()
    given = register(network)
    for prefix in ("", "module.", "_orig_mod.module.", "model."):
        state = {f"{prefix}{key}": value + 1 for key, value in network.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "state.pt")
        encoder, _ = split(given.name, code=given.fingerprint, weights=str(tmp_path / "state.pt"))
        assert torch.equal(encoder.network.module[0].weight, network.module[0].weight + 1)


def test_weights_of_a_classifier_bring_its_normalisation_and_size(tmp_path: Path) -> None:
    encoder, head = split("small-cnn", size=28, classes=7)
    encoder.train()(torch.randn(9, 1, 28, 28))
    mean, std = torch.tensor([0.3]), torch.tensor([0.2])
    Classifier("small-cnn", encoder, head, mean, std, 28, tuple("abcdefg")).save(tmp_path / "model.pt")
    mine, linear = split("small-cnn", size=8, weights=str(tmp_path / "model.pt"))
    assert linear.out_features == 5
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    resized = F.interpolate((images / 255 - 0.3) / 0.2, (28, 28), mode="bilinear", antialias=True)
    torch.testing.assert_close(mine(viewed(images, mine)), encoder.eval()(resized))

    again, _ = assemble(mine.settings, in_channels=1, image_size=8, classes=5)
    again.load_state_dict(mine.state_dict())
    assert torch.equal(again.eval()(resized), mine(resized))


def test_normalisation_of_an_encoder_for_gray_images_becomes_one_of_colours(tmp_path: Path) -> None:
    torch.save(own_networks.for_colours().state_dict(), tmp_path / "state.pt")
    gray, head = split(f"{OWN}:for_colours", weights=str(tmp_path / "state.pt"), normalisation="imagenet")
    Classifier("net", gray, head, *gray.normalisation, 32, tuple("abcde")).save(tmp_path / "model.pt")
    colour, _ = split(f"{OWN}:for_colours", channels=3, weights=str(tmp_path / "model.pt"))
    torch.testing.assert_close(torch.stack(colour.normalisation), torch.tensor(IMAGENET))
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    same = images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(gray(viewed(images, gray)), colour(viewed(same, colour)))


@pytest.mark.parametrize(
    ("network", "file"),
    [
        (SMALL, FILE),
        ("timm:test_resnet", "test_resnet.r160_in1k.safetensors"),
    ],
)
def test_named_weights_come_from_a_folder(network: str, file: str, tmp_path, monkeypatch, caplog) -> None:
    if network.startswith("timm"):
        pytest.importorskip("timm")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    save = save_file if file.endswith("safetensors") else torch.save
    source = trained(network)
    save(source.state_dict(), tmp_path / file)
    encoder, _ = split(network, weights="DEFAULT", input_size=32)
    assert ("has another hash than its name" in caplog.text) == (save is not save_file)
    loaded = encoder.network.state_dict()
    assert loaded.keys() < source.state_dict().keys()
    assert all(torch.equal(loaded[key], source.state_dict()[key]) for key in loaded)
    settings = dict.fromkeys(("code", "weights_content")) | {"name": network, "weights": "DEFAULT"}
    before = pinned(settings)
    if save is save_file:
        assert before["weights_content"] == state_content(source.state_dict())
    else:
        digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        assert before["weights_content"] == f"{FILE.removesuffix('.pth')}-is-{digest[:16]}"
        (tmp_path / file).rename(tmp_path / "away")
        assert pinned(settings)["weights_content"] == FILE.removesuffix(".pth"), "as torchvision will download it"
    with torch.no_grad():
        next(source.parameters()).add_(1)
    save(source.state_dict(), tmp_path / file)
    with pytest.raises(DataError, match="these weights are not those that the run was planned with"):
        split(**{**before, "input_size": 32})


def test_named_weights_that_are_not_there_are_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match=rf"{FILE} of {SMALL} cannot be loaded: OSError: no route; .*--weights-dir"):
        split(SMALL, weights="DEFAULT")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("small-cnn", "DEFAULT", "names are for networks of torchvision and timm; small-cnn needs a file"),
        (SMALL, "IMAGENET1K_V3", "has no such weights; did you mean 'IMAGENET1K_V1'.*known: IMAGENET1K_V1, DEFAULT"),
        (SMALL, "gone.pth", "gone.pth: cannot be read: No such file"),
        (SMALL, "text.pth", "text.pth: torch cannot read it"),
        (SMALL, "text.safetensors", "text.safetensors: is not a safetensors file"),
        (SMALL, "module.pt", "module.pt: holds more than weights"),
        (SMALL, "list.pt", "list.pt: has no weights"),
        (SMALL, "other.pt", r"other.pt: are not those of this network: \d+ of \d+ tensors are missing, such as conv1"),
        (f"{OWN}:make", "wide.pt", r"1 have other shapes, such as 0.weight: \(8, 1, 5, 5\), not \(8, 1, 3, 3\)"),
        (
            f"{OWN}:make",
            "nan.pt",
            r"are not those of this network: 1 of \d+ tensors hold NaN or infinity, such as 0.we",
        ),
        (f"{OWN}:for_colours", "gray.pt", r"0.weight: \(8, 1, 3, 3\), not \(8, 3, 3, 3\)"),
    ],
)
def test_weights_that_cannot_be_used(name: str, weights: str, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("some text")
    Path("text.safetensors").write_text("some text")
    torch.save(own_networks.make(1, 2), "module.pt")
    torch.save([1, 2], "list.pt")
    torch.save(own_networks.make(1, 2).state_dict(), "other.pt")
    torch.save(own_networks.make(1, 2).state_dict(), "gray.pt")
    torch.save(own_networks.make(1, 2).state_dict() | {"0.weight": torch.zeros(8, 1, 5, 5)}, "wide.pt")
    torch.save(own_networks.make(1, 2).state_dict() | {"0.weight": torch.full((8, 1, 3, 3), torch.nan)}, "nan.pt")
    with pytest.raises((ConfigError, DataError), match=message) as error:
        split(name, weights=weights)
    assert "\n" not in str(error.value)


def test_a_run_is_tied_to_its_weights_and_the_source_of_its_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "from tests.autodo.models.own_networks import make\n"
    Path("my_networks_here.py").write_text(source)
    torch.save(own_networks.make(1, 2).state_dict(), "state.pt")
    settings = {"name": "my_networks_here:make", "weights": "state.pt", "weights_content": None, "code": None}
    tied = pinned(settings)
    assert tied["code"].startswith("source-")
    assert pinned(tied) == tied
    assert pinned({**settings, "code": "v2"})["code"] == "v2"
    split(**tied)
    Path("my_networks_here.py").write_text(source + "# another\n")
    with pytest.raises(
        DataError, match=r"my_networks_here\.py has changed since this run was planned \(model.code was"
    ):
        split(**tied)
    torch.save(own_networks.make(1, 2).state_dict(), "state.pt")
    with pytest.raises(DataError, match=r"these weights are not those that the run was planned with \(model.weights_c"):
        split(**{**tied, "code": "v2"})
    with pytest.raises(ConfigError, match="there is no module no_such_networks"):
        pinned({**settings, "name": "no_such_networks:make"})


@pytest.mark.parametrize("freeze", ["none", "encoder", "bn"])
def test_what_is_frozen_does_not_move(freeze: str) -> None:
    encoder, head = split(f"{OWN}:make", freeze=freeze)
    network = nn.Sequential(encoder, head).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(6, 1, 32, 32)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(images).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    of_norm = {f"0.network.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    of_norm.add("0.network.1.num_batches_tracked")
    of_head = {"1.weight", "1.bias"}
    expected = {
        "none": {"0.network.0.weight", *of_norm, *of_head},
        "bn": {"0.network.0.weight", *of_head},
        "encoder": of_head,
    }
    assert moved == expected[freeze]


def test_what_a_network_cannot_do_is_one_line() -> None:
    for name, size, settings, message in (
        ("torchvision:vit_b_32", 40, {}, "torchvision:vit_b_32: needs images whose side is a multiple of 32, not 40 p"),
        ("torchvision:vit_b_32", 32, {"freeze": "bn"}, "model.freeze 'bn': the network has no batch norm"),
        ("small-cnn", 3, {}, "small-cnn needs images of at least 4 x 4 pixels, not 3 x 3"),
        ("wrn-16-2", 7, {}, "a wide ResNet needs images of at least 8 x 8 pixels, not 7 x 7; small-cnn takes smaller"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}"):
            split(name, size=size, **settings)
    with pytest.raises(ConfigError, match=r"^__main__:make: other processes cannot import from the program that runs"):
        pinned({"name": "__main__:make", "weights": None, "code": None})
