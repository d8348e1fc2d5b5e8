"""Adversarial AutoAugment: a small network draws new policies for every epoch, and learns within the run.

`controller` is that network; `adversarial_policy` draws from it, collects its rewards and trains it.
"""
