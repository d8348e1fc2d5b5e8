"""OHL-Auto-Aug, a distribution over pairs of operations that is learned from networks trained side by side.

`candidates` has the operations and their values, `distribution` the probabilities and their REINFORCE step, `ohl` the
driver, and `trajectory` the worker, which trains one of the networks.
"""
