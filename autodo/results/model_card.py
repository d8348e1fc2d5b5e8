"""The model card of a classifier: what it takes and gives, its data and errors, and where it comes from."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.io.atomic import atomic_path
from autodo.io.storage import StrPath
from autodo.text import printable

if TYPE_CHECKING:
    from autodo.config.run import RunConfig
    from autodo.results.classifier import Classifier

FORMAT = 1
_OPTIMISTIC = {
    "union": "The network was also trained on the validation images, so their error is too low.",
    "oversplit": "The network was also trained on the validation images, so their error is too low.",
    "test-as-val": "The test images were also the validation images, so both errors are too low.",
}
_ROWS = 100
_SUFFIXES = (".pt", ".pth", ".pt2", ".onnx", ".torchscript", ".ts", ".bin")
"""Classes in a table of the Markdown; the JSON has all."""


def run_record(
    config: "RunConfig", row: Mapping[str, Any], val_error: float, images_per_class: Mapping[str, int]
) -> dict[str, Any]:
    """The run that a classifier comes from, for its card: values of JSON, without the folders of images and weights.

    Args:
        row: of the results table.
        val_error: at the epoch of the classifier.
        images_per_class: train images of each class, by their labels.
    """
    settings = config.model_dump(mode="json", exclude={"dataset": {"path"}})
    if settings["model"].get("weights"):
        settings["model"]["weights"] = Path(settings["model"]["weights"]).name
    accuracies = zip(row["class_names"], row["per_class_accuracy"], strict=True)
    return {
        "id": row["run_id"],
        "method": row["method"],
        "seed": row["seed"],
        "data": {
            "name": row["dataset"],
            "fingerprint": config.dataset.content,
            "distortion": str(config.distortion),
            "split": row["split"],
            "train_images": row["train_points"],
            "val_images": row["val_points"],
            "test_images": row["test_points"],
            "known_wrong_train_labels": row["wrong_labels"],
            "train_images_per_class": dict(images_per_class),
        },
        "errors": {
            "test": row["error_best_val"],
            "val": val_error,
            "val_is_trained_on": config.trains_on_val or config.split == "oversplit",
            "minority": row["minority_error"],
            "majority": row["majority_error"],
            "test_accuracy_per_class": dict(accuracies),
            "note": _OPTIMISTIC.get(row["split"]),
        },
        "provenance": {
            "epoch": row["best_val_epoch"] + 1,
            "epochs": row["epochs"],
            "seconds": row["seconds"],
            "device": row["device"],
            "finished_at": row["finished_at"].isoformat(timespec="seconds"),
            "git_sha": row["git_sha"],
            "versions": dict(row["versions"]),
        },
        "config": settings,
    }


def model_card(classifier: "Classifier") -> dict[str, Any]:
    """The card as values of JSON; `run` is None for a classifier of unknown origin."""
    inputs = _features(classifier) if classifier.image_size is None else _images(classifier)
    value = "feature" if classifier.image_size is None else "image / 255"
    return {
        "format": FORMAT,
        "network": classifier.model,
        "parameters": sum(parameter.numel() for parameter in classifier.parameters()),
        "classes": list(classifier.class_names),
        "input": {
            **inputs,
            "normalisation": {
                "within": f"the network: ({value} - mean) / std",
                "mean": classifier.mean.flatten().tolist(),
                "std": classifier.std.flatten().tolist(),
            },
        },
        "output": {
            "shape": ["batch", len(classifier.class_names)],
            "type": "float32",
            "meaning": "class probabilities",
        },
        "run": None if classifier.run is None else dict(classifier.run),
    }


def _images(classifier: "Classifier") -> dict[str, Any]:
    inputs = classifier.inputs
    return {
        "shape": ["batch", inputs.channels, inputs.image_size, inputs.image_size],
        "type": "uint8",
        "channels": "gray" if inputs.channels == 1 else "RGB",
        "preparation": [
            "rotate it upright by its EXIF orientation",
            f"resize its shorter side to {inputs.resize or inputs.image_size} pixels (bilinear, antialiased)",
            f"cut out the {inputs.image_size} x {inputs.image_size} pixels in the middle",
            "make it gray" if inputs.channels == 1 else "make it RGB, without transparency",
        ],
    }


def _features(classifier: "Classifier") -> dict[str, Any]:
    return {
        "shape": ["batch", classifier.mean.shape[1]],
        "type": "float32",
        "channels": "features",
        "preparation": ["compute its features as those of the train points were computed"],
    }


def to_json(card: Mapping[str, Any]) -> str:
    """The card as JSON text."""
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def to_markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown; text of the data cannot become markup."""
    run, inputs = card["run"], card["input"]
    of, what = ("features", "a point") if inputs["channels"] == "features" else ("images", "an image")
    parts = [f"# {_text(card['network'] if run is None else run['id'])}", f"A classifier of {of}, trained by AutoDO."]
    network = {
        "network": card["network"],
        "parameters": f"{card['parameters']:,}",
        "input": f"[{', '.join(map(str, inputs['shape']))}] {inputs['type']}, {inputs['channels']}",
        "output": f"[batch, {len(card['classes'])}] float32, class probabilities",
        "classes": _listed(card["classes"]),
    }
    parts += [_table(network)]
    steps = "\n".join(f"{i}. {step[0].upper()}{step[1:]}." for i, step in enumerate(inputs["preparation"], 1))
    done = "" if of == "features" else " `autodo predict` does all of this."
    parts += [f"## Preparation of {what}", f"{steps}\n\nThe network normalises it.{done}"]
    if run is not None:
        parts += _of_run(run)
    return "\n\n".join(parts) + "\n"


def write_cards(card: Mapping[str, Any], path: StrPath) -> tuple[Path, Path]:
    """Write the card beside the file of a classifier, `model.card.json` and `model.card.md` beside `model.pt`."""
    path = Path(path)
    stem = path.stem if path.suffix in _SUFFIXES else path.name  # the name net.v1 ends in no format
    files = path.with_name(f"{stem}.card.json"), path.with_name(f"{stem}.card.md")
    for file, text in zip(files, (to_json(card), to_markdown(card)), strict=True):
        with atomic_path(file) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return files


def _of_run(run: Mapping[str, Any]) -> list[str]:
    data, errors, provenance = run["data"], run["errors"], run["provenance"]
    shown = {
        "dataset": data["name"],
        "fingerprint": data["fingerprint"] or "–",
        "distortion": data["distortion"],
        "split": data["split"],
        "images": f"train {data['train_images']:,}, val {data['val_images']:,}, test {data['test_images']:,}",
        "train labels known to be wrong": f"{data['known_wrong_train_labels']:,}",
    }
    trained = " (of images that were trained on)" if errors.get("val_is_trained_on") else ""
    measured = {
        "test error": _percent(errors["test"]) or "not measured: there were no test images",
        f"validation error{trained}": _percent(errors["val"]),
        "test error of the minority classes": _percent(errors["minority"]),
        "test error of the others": _percent(errors["majority"]),
    }
    counts, accuracies = data["train_images_per_class"], errors["test_accuracy_per_class"]
    rows = [(name, f"{counts[name]:,}", _percent(accuracies[name])) for name in accuracies]
    more = [f"{len(rows) - _ROWS:,} more classes are in the JSON."] if len(rows) > _ROWS else []
    origin = {
        "run": run["id"],
        "method": run["method"],
        "seed": run["seed"],
        "epoch": f"{provenance['epoch']} of {provenance['epochs']}",
        "training": f"{provenance['seconds']:,.0f} s on {provenance['device']}",
        "finished": provenance["finished_at"],
        "commit": provenance["git_sha"] or "–",
        "versions": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
    }
    return [
        "## Data",
        _table(shown),
        "## Errors",
        _table({name: value for name, value in measured.items() if value is not None}),
        *([errors["note"]] if errors["note"] else []),
        _rows(("class", "train images", "test accuracy"), rows[:_ROWS]),
        *more,
        "## Provenance",
        _table(origin),
        "All settings are in the JSON, under `config`.",
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}%"


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _ROWS:,} more" if len(names) > _ROWS else ""
    return f"{len(names):,}: {', '.join(names[:_ROWS])}{more}"


def _table(values: Mapping[str, Any]) -> str:
    return _rows(("", ""), values.items())


def _rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_text("–" if cell is None else cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", printable(str(value)))
