"""Expansion of a grid's YAML into its runs. Imports neither torch nor ray, so that planning is quick."""

import difflib
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from autodo import plugins
from autodo.config.dataset import OWN_DATA, DistortionConfig, check_readable
from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.recipes import build_run, used_plugins
from autodo.config.run import RunConfig, SplitName, check_oversplit
from autodo.config.shipped import (
    canonical_method,
    check_known,
    dataset_preset,
    grid_names,
    method_preset,
    preset_of_device,
    shipped_file,
)
from autodo.config.validation import Frozen, check_name, load_yaml, parse_model
from autodo.errors import ConfigError
from orchestration.grid.keep import Keep
from orchestration.grid.resources import ResourcesConfig

_SUFFIXES = (".yaml", ".yml")
# Axes of a grid and their fields; an override of an axis would silently collapse it.
_AXES = {
    "seed": "seeds",
    "split": "splits",
    "distortion": "distortions",
    "dataset.name": "datasets",
    "method.name": "methods",
}
_NO_AXES = ("distortion.minority",)
# The report tells runs apart by their method and recipe, and a launch pins files per dataset and method.
_NO_VARIANTS = ("distortion.minority", "dataset.path", "dataset.content", "policy.path", "policy.content")
FIRST_PROTOCOL = 1
"""Protocol of stored grids that name none, because they are older than the key."""


def _known_dataset(name: str) -> str:
    check_known(name, "dataset")
    return name


def _known_method(name: str) -> str:
    name = canonical_method(name)
    method_preset(name)
    return name


def _known_distortion(text: str) -> str:
    try:
        return str(DistortionConfig.parse(text))
    except ConfigError as error:
        raise ConfigError("; ".join(str(error).splitlines())) from None


def _seed_list(seeds: Any) -> Any:
    if isinstance(seeds, list | tuple):
        return seeds
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f"is a count of at least 1 or a list of seeds, not {seeds!r}")
    return tuple(range(seeds))


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("is empty: a grid without it has no runs")
    return values


def _check_axes(overrides: Mapping[str, Any], where: str = "") -> None:
    for key in overrides:
        for axis, field in _AXES.items():
            if key not in _NO_AXES and (key == axis or key.startswith(f"{axis}.")):
                raise ConfigError(f"{where}{key}: is spanned by the grid; change its {field} instead")


def _check_variant_keys(variants: Mapping[str, Mapping[str, Any]]) -> None:
    for name, overrides in variants.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", name):
            raise ConfigError(f"{name!r}: a name has letters, digits, and after the first of these any of . _ = + -")
        _check_axes(overrides, f"{name}: ")
        for key in overrides:
            if key in _NO_VARIANTS:
                raise ConfigError(f"{name}: {key}: must be the same for all variants; give it in set")


DatasetName = Annotated[str, AfterValidator(_known_dataset)]
MethodName = Annotated[str, AfterValidator(_known_method)]
DistortionName = Annotated[str, AfterValidator(_known_distortion)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
NotEmpty = AfterValidator(_not_empty)


class PluginPin(Frozen):
    """A plug-in as it was at a launch."""

    source: str
    """Name of its file or package."""
    code: str


class _PinnedPlugins(BaseModel):
    """Plug-ins of a stored grid, whether they are loaded or not."""

    plugins: dict[str, PluginPin] = {}


class GridConfig(BaseModel):
    """A set of runs: every combination of datasets, distortions, methods, variants, splits and seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    datasets: Annotated[tuple[DatasetName, ...], NotEmpty]
    distortions: Annotated[tuple[DistortionName, ...], NotEmpty]
    """IR-NR: `100-0.1` is imbalance ratio 100 and noise ratio 0.1, as in the paper. `exp` may stand before IR, and
    `pair`, `confusion` or `instance` before NR, such as `exp100-pair0.2`."""
    methods: Annotated[tuple[MethodName, ...], NotEmpty]
    splits: Annotated[tuple[SplitName, ...], NotEmpty] = ("paper",)
    """Data of val, and whether it is trained on: see RunConfig.split; `test-as-val` is optimistic, `oversplit` needs
    distortion 1-0.0."""
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seed_list), NotEmpty]
    """A count n, which means 0..n-1, or a list."""
    set: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Overrides of every run by dotted key, such as `training.epochs: 5`. In a file, `preset: cpu` adds those of the
    dataset's preset, with lower priority; `auto` is `gpu` or `cpu` by the GPUs of its resources."""
    variants: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]
    """Overrides by name, on top of `set`, such as `{E10: {outer.start_share: 0.05}, E50: {outer.start_share: 0.25}}`.
    Each method has runs for each variant, or one for all if it reads none of their settings. Tables and figures call
    them `autodo-aws E10`."""
    policies: Annotated[dict[str, str], Field(default_factory=dict)]
    """Content id of the policy file of each `<dataset> <method>`, as a launch has found it."""
    plugins: dict[str, PluginPin] = {}
    """Plug-in of each `<kind> <name>` that its runs need, as a launch has found it."""
    protocol: Annotated[int, Field(ge=1, le=PROTOCOL)] = PROTOCOL
    """Version of the defaults and presets of its runs: 1 for the first one (see `autodo/config/defaults.py`)."""
    resources: ResourcesConfig = ResourcesConfig()
    keep: tuple[Keep, ...] = ()
    """Things that every run leaves in the store besides its tables."""
    store: str | None = None

    @field_validator("set")
    @classmethod
    def _axes_stay(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        _check_axes(overrides)
        return overrides

    @field_validator("variants")
    @classmethod
    def _variants_stay(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        _check_variant_keys(variants)
        return variants

    @model_validator(mode="after")
    def _oversplit_is_clean(self) -> Self:
        if "oversplit" in self.splits:
            for text in self.distortions:
                check_oversplit(DistortionConfig.parse(text))
        return self

    @property
    def store_path(self) -> str:
        """Path or URI of the results, unless the command line gives another."""
        return self.store or f"outputs/{self.name}"

    def override(self, overrides: Mapping[str, Any]) -> Self:
        """Copy of this grid with `overrides` on top of its own `set`.

        Raises:
            ConfigError: naming the override that does not fit, and why.
        """
        if not overrides:
            return self
        try:
            _check_axes(overrides)
        except ConfigError as error:
            raise ConfigError(f"--set {error}") from None
        for name, own in self.variants.items():
            for key in overrides.keys() & own.keys():
                raise ConfigError(f"--set {key}: is set by the variant {name} of the grid; change it there")
        grid = self.model_copy(update={"set": {**self.set, **overrides}})
        _check_overrides(grid, "--set", grid.splits)
        for name in grid.variants:
            _check_overrides(grid, f"--set, variant {name}", grid.splits, name)
        return grid


class GridText(NamedTuple):
    """Texts about a shipped grid."""

    summary: str
    cost: str
    """Cost of all its runs."""


def grid_text(name: str) -> GridText:
    """Summary and cost of a shipped grid, from its comment: the command, a line of summary, and `Cost: …`."""
    check_name(name, grid_names(), "grid")
    lines = shipped_file("grids", name).read_text().splitlines()
    comment = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    cost = next((line.removeprefix("Cost:").strip() for line in comment if line.startswith("Cost:")), "")
    return GridText(comment[1].rstrip("."), cost.rstrip("."))


def load_grid(name_or_path: str) -> GridConfig:
    """Load and check the grid of a shipped name or of a YAML file.

    Raises:
        ConfigError: one line per problem: the file, the key, the value and what is allowed.
    """
    path = Path(name_or_path)
    if name_or_path in grid_names():
        path, where = shipped_file("grids", name_or_path), f"configs/grids/{name_or_path}.yaml"
    elif path.is_file():
        where = str(path)
    else:
        is_file = path.suffix in _SUFFIXES or len(path.parts) > 1
        message = f"{path}: no such file" if is_file else f"unknown grid {name_or_path!r}"
        raise ConfigError(f"{message}{_near_grids(path)}; known: {', '.join(grid_names())}; or the path of a YAML file")
    grid = _with_preset(load_yaml(path), where)
    _check_overrides(grid, f"{where}: set", ["paper"])
    _check_overrides(grid, f"{where}: splits", grid.splits)
    for name in grid.variants:
        _check_overrides(grid, f"{where}: variants.{name}", grid.splits, name)
    _check_variants_differ(grid, where)
    return grid


def _with_preset(tree: dict[str, Any], where: str) -> GridConfig:
    """Grid of a file; its `preset` becomes a part of its `set`, so that a store has the settings of each run.

    Raises:
        ConfigError: if the grid has other datasets than one with this preset.
    """
    preset = tree.pop("preset", None)
    grid = parse_model(GridConfig, tree, where)
    if preset is None:
        return grid
    if len(grid.datasets) > 1:
        raise ConfigError(f"{where}: preset: needs a grid of one dataset; this one has {', '.join(grid.datasets)}")
    if preset == "auto":
        preset = preset_of_device(grid.datasets[0], "cuda" if grid.resources.gpus else "cpu")
    try:
        overrides = dataset_preset(grid.datasets[0], preset)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return grid.model_copy(update={"set": {**overrides, **grid.set}})


def _near_grids(path: Path) -> str:
    """`; did you mean 'x'?`, from the shipped grids and the YAML files in the folder of the path."""
    meant = path.stem if path.suffix in _SUFFIXES else path.name
    files = sorted(file for suffix in _SUFFIXES for file in path.parent.glob(f"*{suffix}"))
    names = {name: name for name in grid_names()} | {str(file): file.stem for file in files}
    near = difflib.get_close_matches(meant, names.values(), n=2, cutoff=0.7)
    found = [repr(name) for name, stem in names.items() if stem in near]
    return f"; did you mean {' or '.join(found[:2])}?" if found else ""


def pin_content(grid: GridConfig) -> GridConfig:
    """Copy of a grid of a person's own data that has, in its `set`, the content id of this data as it is now.

    Its runs have other ids when the data changes. The store keeps the pinned grid, so that its runs are known without
    the data. Other grids are returned as they are.

    Raises:
        DataError: if the data cannot be listed or read.
    """
    own = next((name for name in OWN_DATA if name in grid.datasets), None)
    if own is None:
        return grid
    from autodo import data

    # dataset.path, which they need, fits no other dataset: it is the only one.
    dataset = build_run(own, grid.methods[0], overrides=cell_overrides(grid, own, grid.methods[0])).dataset
    return grid.override({"dataset.content": data.pin_content(dataset).content})


def pin_networks(grid: GridConfig) -> GridConfig:
    """Copy of a grid that has the fingerprints of pretrained weights and own networks as they are now.

    They are part of its `set` and of those variants that have another network.

    Raises:
        ConfigError: if there is no such module, or there are no such weights. DataError: if a file cannot be read.
    """
    pins = _network_pins(grid)
    variants = {
        name: {**overrides, **_network_pins(grid, name, pins)}
        if any(key.startswith("model.") for key in overrides)
        else overrides
        for name, overrides in grid.variants.items()
    }
    return grid.model_copy(update={"set": {**grid.set, **pins}, "variants": variants})


def _network_pins(grid: GridConfig, variant: str = "", others: Collection[str] = ()) -> dict[str, str | None]:
    """Overrides with the fingerprints that all datasets share.

    Args:
        others: keys that have a value even if it is None.
    """
    method = grid.methods[0]
    overrides = {dataset: cell_overrides(grid, dataset, method, variant) for dataset in grid.datasets}
    networks = dict.fromkeys(build_run(dataset, method, overrides=given).model for dataset, given in overrides.items())
    pinned = [network.pinned() for network in networks]
    found = [{"model.code": one.code, "model.weights_content": one.weights_content} for one in pinned]
    shared = {key: value for key, value in found[0].items() if all(pins[key] == value for pins in found)}
    return {key: value for key, value in shared.items() if value is not None or key in others}


def pin_plugins(grid: GridConfig) -> GridConfig:
    """Copy of a grid that names the plug-ins of its runs, as they are in this process."""
    used = [loaded for run in expand(grid) for loaded in used_plugins(run)]
    pins = {f"{one.plugin.kind} {one.plugin.name}": PluginPin(source=one.source, code=one.code) for one in used}
    return grid.model_copy(update={"plugins": dict(sorted(pins.items()))})


def check_pinned_plugins(tree: Mapping[str, Any], where: str) -> None:
    """Check that the plug-ins of a stored grid are loaded, and as they were at its launch.

    Args:
        tree: content of its file.
    Raises:
        ConfigError: naming the plug-in, and what to do.
    """
    pins = parse_model(_PinnedPlugins, tree, where).plugins
    found = {key: plugins.find(*key.split(" ", 1)) for key in pins if " " in key}
    missing = sorted({pins[key].source for key, loaded in found.items() if loaded is None})
    if missing:
        raise ConfigError(
            f"{where}: its runs need {' and '.join(missing)}, not loaded here: give files with --plugin, or install "
            "packages"
        )
    for key, loaded in found.items():
        if loaded is not None and loaded.code != pins[key].code:
            raise ConfigError(
                f"{where}: {loaded.source} has changed since the launch ({key} had the code {pins[key].code}, now it "
                f"has {loaded.code}): take the old one (of a file, the store's folder plugins has a copy), or launch "
                "the grid again for new runs"
            )


def cell_overrides(grid: GridConfig, dataset: str, method: str, variant: str = "") -> dict[str, Any]:
    """Overrides of the runs of one dataset, method and variant; without a variant, what all variants share.

    `{dataset}` and `{method}` in `policy.path` stand for their names, so that each may have a file of its own.
    """
    overrides = {**grid.set, **grid.variants.get(variant, {})}
    path = overrides.get("policy.path")
    content = grid.policies.get(f"{dataset} {method}")
    if isinstance(path, str):
        overrides["policy.path"] = path.replace("{dataset}", dataset).replace("{method}", method)
    elif content is not None:
        overrides["policy.content"] = content
    return overrides


def expand(grid: GridConfig) -> list[RunConfig]:
    """Runs of a grid without duplicates; seeds vary slowest, so that every cell soon has one result."""
    return [run for run, _ in _expanded(grid).values()]


def variant_names(grid: GridConfig) -> dict[str, str]:
    """Variant of each run by run id; runs whose method reads none of the variants' settings are left out.

    A run that several variants share has the names of all, such as `E50/default`.
    """
    return {run_id: variant for run_id, (_, variant) in _expanded(grid).items() if variant} if grid.variants else {}


def _expanded(grid: GridConfig) -> dict[str, tuple[RunConfig, str]]:
    """Runs of a grid, each with the name of its variant, by run id."""
    minority = {**defaults_before(grid.protocol), **grid.set}.get("distortion.minority")
    distortions = [DistortionConfig.parse(text, minority) for text in grid.distortions]
    # Distortion and seed are checked by GridConfig and independent of the rest, so that each (dataset, method, split,
    # variant) is validated once and copied: 10,000 runs in less than a second.
    templates = {
        (dataset, method, split): _templates(grid, dataset, method, split)
        for dataset, method, split in itertools.product(grid.datasets, grid.methods, grid.splits)
    }
    for (dataset, *_), of_cell in templates.items():
        for template, distortion in itertools.product(of_cell.values(), distortions):
            _check_pixels(dataset, template, distortion)
    axes = itertools.product(grid.seeds, grid.datasets, grid.splits, distortions, grid.methods)
    runs = (
        (template.model_copy(update={"distortion": distortion, "seed": seed}), variant)
        for seed, dataset, split, distortion, method in axes
        for variant, template in templates[dataset, method, split].items()
    )
    return {run.run_id: (run, variant) for run, variant in runs}


def _check_pixels(dataset: str, template: RunConfig, distortion: DistortionConfig) -> None:
    try:
        check_readable(template.dataset, distortion)
    except ValueError as error:
        raise ConfigError(f"{dataset} x {distortion}: {error}") from None


def _templates(grid: GridConfig, dataset: str, method: str, split: SplitName) -> dict[str, RunConfig]:
    """Different runs of one seed and distortion by the name of their variant; `""` if no variant changes the method."""

    def build(variant: str = "") -> RunConfig:
        overrides = cell_overrides(grid, dataset, method, variant)
        return build_run(dataset, method, split=split, overrides=overrides, protocol=grid.protocol)

    without = build()
    built = {variant: build(variant) for variant in grid.variants}
    if all(run == without for run in built.values()):
        return {"": without}
    names: dict[str, list[str]] = {}
    for variant, run in built.items():
        names.setdefault(run.run_id, []).append(variant)
    return {"/".join(same): built[same[0]] for same in names.values()}


def _check_variants_differ(grid: GridConfig, where: str) -> None:
    """Raise ConfigError if two variants have the same runs for every method, so that one of them is a slip."""
    for one, other in itertools.combinations(grid.variants, 2):
        if all(
            build_run(dataset, method, overrides=cell_overrides(grid, dataset, method, one))
            == build_run(dataset, method, overrides=cell_overrides(grid, dataset, method, other))
            for dataset, method in itertools.product(grid.datasets, grid.methods)
        ):
            raise ConfigError(f"{where}: variants.{other}: has the same runs as {one}, for all methods of the grid")


def _check_overrides(grid: GridConfig, where: str, splits: Sequence[SplitName], variant: str = "") -> None:
    problems: list[str] = []
    for dataset, method, split in itertools.product(grid.datasets, grid.methods, splits):
        try:
            build_run(dataset, method, split=split, overrides=cell_overrides(grid, dataset, method, variant))
        except ConfigError as error:
            problems += str(error).splitlines()
    if problems:
        raise ConfigError("\n".join(f"{where}: {line}" for line in _without_repeats(problems)))


def _without_repeats(problems: Sequence[str]) -> list[str]:
    # A wrong key is wrong for every dataset and method: say it once, with the first of them.
    first: dict[str, str] = {}
    for line in problems:
        first.setdefault(line.partition(": ")[2] or line, line)
    return list(first.values())
