"""Tables of a report, one subject a file: functions from runs to values of `reports.document.Table`."""

from reports.tables.classes import class_tables
from reports.tables.cost import EPOCH_COLUMNS, cost_tables
from reports.tables.differences import difference_tables
from reports.tables.errors import METRICS, OPTIMISTIC, error_tables
from reports.tables.label_repair import label_repair_tables
from reports.tables.ranks import rank_sentences, rank_tables, ranks
from reports.tables.splits import split_tables

__all__ = [
    "EPOCH_COLUMNS",
    "METRICS",
    "OPTIMISTIC",
    "class_tables",
    "cost_tables",
    "difference_tables",
    "error_tables",
    "label_repair_tables",
    "rank_sentences",
    "rank_tables",
    "ranks",
    "split_tables",
]
