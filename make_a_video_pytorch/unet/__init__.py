"""The space-time U-Net (floor 3).

`conditions` (timestep, vector, frames per second, pictures), `growth` (a larger U-Net with the
same outputs), `stages` (what travels along from one to the next), `unet` itself, `control` (a
ControlNet for it).
"""
