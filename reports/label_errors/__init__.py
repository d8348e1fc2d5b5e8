"""Train labels that are probably wrong: rankings of the points of a run. Start at `inspection.inspect_run`."""
