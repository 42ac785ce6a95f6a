"""What the modules are made of (floor 1).

`checks` of arguments, `parameters` (temporal or spatial), `layout` (in memory), `decision` (which
samples and frames are temporal), `gradients` by hand, `norm`, `positions`, `attend` (attention
kernels), `torch_internals`.
"""
