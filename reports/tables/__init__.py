"""Tables of a report, one subject a file: functions from runs to values of `reports.document.Table`."""
