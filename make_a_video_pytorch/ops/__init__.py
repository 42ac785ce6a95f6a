"""What the modules are made of (floor 1).

`checks` of arguments, `parameters` (temporal or spatial), `layout` (image or video, in memory),
`gradients` by hand, `norm`, `positions`, `attend` (attention kernels), `torch_internals`.
"""
