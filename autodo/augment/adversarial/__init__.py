"""Adversarial AutoAugment: policies that are drawn anew for every epoch, by a network that learns within the run.

`controller` is that network; `adversarial_policy` draws from it, collects its rewards and trains it.
"""
