"""What goes into a model of one's own (floor 2).

`conv` (pseudo-3D), `resample`, `feed_forward`, `multihead` (attention to tokens), `attention`
(over space, frames and a context), `timestep` (its embedding), `resnet`.
"""
