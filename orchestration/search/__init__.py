"""Policy searches in a store: in this process (`task_runner`), or on actors of Ray before a launch (`find_policies`)."""
