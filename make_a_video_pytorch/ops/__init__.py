"""What the modules are made of (floor 1).

`checks` of arguments, `parameters` (temporal or spatial), `layout` (in memory), `decision` (which
samples and frames are temporal), `gradients` by hand, `norm`, `positions`, `attention_kernels`
(which one), `attend` (in blocks and chunks), `torch_internals`.
"""
