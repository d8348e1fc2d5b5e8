"""Policy searches in a store: in this process (`task_runner`), or before a launch on actors of Ray (`find_policies`)."""
