"""What a report states: which runs compare, statistics, findings."""
