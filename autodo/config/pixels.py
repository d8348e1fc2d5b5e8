"""Settings that need pixels, which datasets of features do not have."""

from collections.abc import Mapping
from typing import Any

LINEAR = "linear"
"""The task model of features."""


def needs_pixels(settings: Mapping[str, Any]) -> str | None:
    """The setting of a method that changes or reads pixels, with its value; None if it has none.

    Args:
        settings: sections of a run's configuration, or of a preset, by name.
    """
    sections = {name: settings.get(name) or {} for name in ("policy", "points", "objective")}
    if sections["policy"]:
        return f"policy.kind {sections['policy'].get('kind')!r}"
    if "augment" in (sections["points"].get("learn") or ()):
        return "'augment' in points.learn"
    if sections["objective"].get("kind") == "cutmix":
        return "objective.kind 'cutmix'"
    return None


def check_features(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the settings of a run on features need pixels, or another model than a linear one.

    Args:
        settings: all sections of the run.
    """
    cause = _augments(settings["augmentation"]) or needs_pixels(settings)
    if cause is not None:
        raise ValueError(
            f"{cause} needs pixels, and the dataset 'features' has none: methods without an augmentation policy, "
            "learned strengths (points.learn: [augment]) and CutMix are possible"
        )
    model = settings["model"]["name"]
    if model != LINEAR:
        raise ValueError(
            f"model.name {model!r} needs pixels, and the dataset 'features' has none: {LINEAR!r} is possible"
        )


def computes_features_once(settings: Mapping[str, Any]) -> bool:
    """Whether the features of a frozen encoder are computed before the first epoch.

    They are if nothing augments the images, or if `model.cached_views` asks for it.

    Args:
        settings: all sections of a run.
    Raises:
        ValueError: if `model.cached_views` asks for it, and the method cannot train on features.
    """
    model, objective = settings["model"], settings.get("objective") or {}
    if model["freeze"] != "encoder" or model["name"] == LINEAR:
        return False
    # Mixup mixes images, and a plug-in may do anything with them.
    mixes = objective.get("kind") in ("mixup", "cutmix") or objective.get("code") is not None
    cause = f"objective.kind {objective.get('kind')!r}" if mixes else None
    if cause is None and "augment" in ((settings.get("points") or {}).get("learn") or ()):
        cause = "'augment' in points.learn"
    if cause is None and (settings.get("policy") or {}).get("kind") == "adversarial":
        cause = "policy.kind 'adversarial'"
    if model["cached_views"] is None:
        return cause is None and needs_pixels(settings) is None and _augments(settings["augmentation"]) is None
    if cause is not None:
        raise ValueError(f"{cause} changes images in every step: set model.cached_views=null")
    return True


def _augments(augmentation: Mapping[str, Any]) -> str | None:
    """The setting, with its value, by which images are augmented; None if there is none."""
    neutral = {"crop_padding": 0, "flip": False, "erase_probability": 0, "resized_crop": None}
    changed = next((name for name, value in neutral.items() if augmentation[name] != value), None)
    return None if changed is None else f"augmentation.{changed} ({augmentation[changed]})"
