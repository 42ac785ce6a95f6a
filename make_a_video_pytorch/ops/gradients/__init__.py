"""Gradients written by hand, where those of torch cost much time or memory on a CPU.

Each function, of `convolution`, `norm` and `attention`, gives what the operations in its docstring
give, and takes these as they are where `by_hand` says no.
"""
