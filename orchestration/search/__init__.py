"""Policy searches in a store: in this process (`task_runner`), or on Ray before a launch (`find_policies`)."""
