"""Realised imbalance and noise of distortions: counts of the classes, share of wrong labels, matrix of the noise.

    python -m benchmarks.distortions fashion-mnist exp100-pair0.2 10-instance0.4 [--seeds 3] [--matrix]

The first table has a row for each distortion; shares are means over seeds, in percent. With --matrix a table for each
follows, of the first seed: from which class (row) to which (column) how many percent of its labels went.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import DataSplits, load, prepare
from autodo.data.images.image_set import Dataset

_WIDTH = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("distortions", nargs="+", metavar="IR-NR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--matrix", action="store_true")
    given = parser.parse_args()
    dataset = load(build_run(given.dataset, "baseline").dataset)
    console = Console(width=_WIDTH)
    drawn = {
        text: [distorted(dataset, given.dataset, text, seed) for seed in range(given.seeds)]
        for text in given.distortions
    }
    console.print(rates_table(drawn))
    for text, splits in drawn.items():
        if given.matrix:
            console.print(matrix_table(text, splits[0]))


def distorted(dataset: Dataset, name: str, distortion: str, seed: int) -> DataSplits:
    """The splits of a run on the dataset, which is called `name` in recipes."""
    return prepare(dataset, build_run(name, "baseline", distortion=DistortionConfig.parse(distortion), seed=seed))


def rates_table(drawn: dict[str, list[DataSplits]]) -> Table:
    """A row for each distortion, with the mean over its seeds."""
    table = Table("distortion", "train images", "largest / smallest class", "wrong labels, %", "of a class, %")
    for text, splits in drawn.items():
        counts = np.array([np.bincount(s.train.clean_labels) for s in splits])
        matrices = 100 * np.array([noise_matrix(s) for s in splits])
        wrong = 100 * np.array([(s.train.labels != s.train.clean_labels).mean() for s in splits])
        of_class = 100 - np.diagonal(matrices, axis1=1, axis2=2)
        table.add_row(
            text,
            f"{counts.sum(1).mean():,.0f}",
            f"{(counts.max(1) / counts.min(1)).mean():.1f}",
            f"{wrong.mean():.2f}",
            f"{of_class.min():.1f} to {of_class.max():.1f}",
        )
    return table


def matrix_table(distortion: str, splits: DataSplits) -> Table:
    """Percent of each class's labels that became each other class."""
    table = Table(distortion, *splits.class_names)
    for name, row in zip(splits.class_names, 100 * noise_matrix(splits), strict=True):
        table.add_row(name, *(f"{share:.1f}" if share else "" for share in row))
    return table


def noise_matrix(splits: DataSplits) -> np.ndarray:
    """Share of the clean class's points with each label. Shape: [C, C], rows with sum 1."""
    classes = len(splits.class_names)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (splits.train.clean_labels, splits.train.labels), 1)
    return counts / counts.sum(1, keepdims=True)


if __name__ == "__main__":
    main()
