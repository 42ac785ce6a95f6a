"""The space-time U-Net (floor 3).

`unet` itself, its `conditions` (timestep, vector, frames per second, pictures), its `growth`.
"""
