"""Export of a classifier to a file that runs without AutoDO, checked against it."""

import copy
import importlib.util
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from autodo.config.validation import check_name
from autodo.errors import ConfigError, DataError
from autodo.io.atomic import atomic_path
from autodo.io.storage import StrPath
from autodo.results.model_card import model_card, to_json, write_cards

if TYPE_CHECKING:
    from autodo.results.classifier import Classifier

TOLERANCE = 1e-5
"""Largest difference of a probability between an exported file and the classifier."""
_CARD = "card.json"
_CHECKED_BATCHES = (1, 5)
"""Numbers of images, neither of which is that of the export."""

Network = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """A format: the ending of its files, how one is made with a card in it, how it is run, and the packages needed."""

    suffix: str
    export: Callable[[nn.Module, Tensor, str], bytes]
    load: Callable[[bytes], Network]
    packages: tuple[str, ...] = ()


class Exported(NamedTuple):
    """An exported file, its model card, and the largest difference of a probability to the classifier's."""

    file: Path
    cards: tuple[Path, Path]
    difference: float


class _Probabilities(nn.Module):
    """The classifier without checks. Shape: images [B, C, S, S] uint8, or features [B, D] float -> [B, classes]."""

    def __init__(self, classifier: "Classifier") -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.classifier.head(self.classifier.features(images)).softmax(1)
        return probabilities


def export(classifier: "Classifier", path: StrPath, format: str) -> Exported:
    """Write the classifier as a file of `FORMATS`, and its model card beside it.

    The file takes images [B, C, S, S] uint8 of any B (or features [B, D] float32), normalises them and gives
    probabilities [B, classes]. The card, which is also in the file, says how an image is prepared. The file is run on
    random images before it is written.

    Args:
        format: `torch-export`, `onnx` or `torchscript`.
    Raises:
        ConfigError: if the format is unknown, a package that it needs is missing, or the file cannot be written.
        DataError: if the network cannot be exported, or the exported one differs by more than TOLERANCE.
    """
    check_name(format, list(FORMATS), "format")
    chosen = FORMATS[format]
    missing = [name for name in chosen.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format {format}: needs {', '.join(missing)}: pip install 'autodo[{format}]'")
    # Exporters take weights in torch's usual order only.
    network = _Probabilities(copy.deepcopy(classifier).cpu().eval()).to(memory_format=torch.contiguous_format)
    card = model_card(classifier)
    images = [_random_inputs(count, classifier) for count in (2, *_CHECKED_BATCHES)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of parts of torch that torch itself will replace
        try:
            content = chosen.export(network, images[0], to_json(card))
            loaded = chosen.load(content)
            difference = max(float((loaded(batch) - network(batch)).abs().max()) for batch in images)
        except Exception as error:  # exporters raise exceptions of many kinds for what they do not support
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{classifier.model}: cannot be exported as {format}: {reason}") from error
    if not difference <= TOLERANCE:
        raise DataError(f"{classifier.model}: exported as {format}, its probabilities differ by {difference:.2g}")
    file = Path(os.fspath(path)).expanduser()
    try:
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
        cards = write_cards(card, file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    return Exported(file, cards, difference)


def _random_inputs(count: int, classifier: "Classifier") -> Tensor:
    generator, size, channels = np.random.default_rng(count), classifier.image_size, classifier.mean.shape[1]
    if size is None:
        mean, std = classifier.mean.flatten().cpu(), classifier.std.flatten().cpu()
        return mean + std * torch.from_numpy(generator.standard_normal((count, channels), np.float32))
    return torch.from_numpy(generator.integers(0, 256, (count, channels, size, size), np.uint8))


def _dynamic_batch() -> dict[str, Any]:
    return {"images": {0: torch.export.Dim("batch")}}


def _to_torch_export(network: nn.Module, images: Tensor, card: str) -> bytes:
    program = torch.export.export(network, (images,), dynamic_shapes=_dynamic_batch())
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={_CARD: card})
    return content.getvalue()


def _of_torch_export(content: bytes) -> Network:
    return torch.export.load(io.BytesIO(content)).module()


def _to_torchscript(network: nn.Module, images: Tensor, card: str) -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, images), content, _extra_files={_CARD: card})
    return content.getvalue()


def _of_torchscript(content: bytes) -> Network:
    loaded: Network = torch.jit.load(io.BytesIO(content))
    return loaded


def _to_onnx(network: nn.Module, images: Tensor, card: str) -> bytes:
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        dynamic_shapes=_dynamic_batch(),
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = _CARD, card
    content: bytes = model.SerializeToString()
    return content


def _of_onnx(content: bytes) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMATS = {
    "torch-export": Format(".pt2", _to_torch_export, _of_torch_export),
    "onnx": Format(".onnx", _to_onnx, _of_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torchscript": Format(".torchscript", _to_torchscript, _of_torchscript),
}
