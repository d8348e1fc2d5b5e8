"""Run ids of the shipped grids, which stores rely on."""

import hashlib

from autodo.config.shipped import grid_names
from orchestration.grid.grid import expand, load_grid

# Number of runs, and a hash of their run and search ids.
IDS = {
    "fashion-mnist": (16, "36867d45bba152ea"),
    "fashion-mnist-capacity": (48, "b8c76f7ed2d38ae9"),
    "fashion-mnist-label-errors": (32, "c1e92457c7c37fd1"),
    "fashion-mnist-memorising": (350, "96861d04b58a51a9"),
    "fashion-mnist-memorising-searches": (20, "96b53ee433150182"),
    "fashion-mnist-methods": (232, "34f43f8f1ef58547"),
    "fashion-mnist-rivals": (24, "d9c60c163e8e0a23"),
    "fashion-mnist-searches": (16, "cdd7ce61369d2183"),
    "fashion-mnist-small": (16, "138180cdbfc2d9ff"),
    "fashion-mnist-strengths": (18, "a6a29a8255058639"),
    "outer-start": (10, "08453b85c32f08ef"),
    "paper-cifar10": (96, "88019e47476d5e94"),
    "paper-cifar10-published": (32, "36cf14cb17ff706c"),
    "paper-cifar100": (96, "044d3337e745492d"),
    "paper-cifar100-published": (32, "f520279aa808533b"),
    "paper-figure6": (2, "082e4f1bb15caa9d"),
    "paper-figure6-published": (1, "f0908cf6a4802d24"),
    "paper-figure7": (20, "3d3c60990dc04b04"),
    "paper-imagenet": (6, "b758bf0270b0be28"),
    "paper-imagenet-published": (4, "1829646940baa86c"),
    "paper-svhn": (96, "a5fdd7b84425d6db"),
    "paper-svhn-published": (32, "70143027b3fbd69e"),
    "paper-table5": (24, "a34f4aaf634d4d4f"),
    "paper-table6": (48, "fc74002541fdbc0b"),
    "paper-table6-published": (24, "69823dd1d12c2230"),
    "quickstart": (16, "f2049a7d38e88050"),
    "recommended-memorising": (520, "9029769c2e684e3c"),
    "recommended-screening-memorising": (170, "a9764a09364e09b0"),
    "recommended-screening-short": (170, "8880d945a5a568a5"),
    "recommended-short": (520, "c00e3373e4274d37"),
    "recommended-small-val": (50, "c83c5a470abf4a48"),
    "recommended-wide": (24, "a12bd7e778872f57"),
}


def test_the_ids_of_all_shipped_grids_are_stable() -> None:
    found = {}
    for name in grid_names():
        runs = expand(load_grid(name))
        ids = "\n".join(f"{run.run_id} {run.search_id}" for run in runs)
        found[name] = (len(runs), hashlib.sha256(ids.encode()).hexdigest()[:16])
    assert found == IDS
