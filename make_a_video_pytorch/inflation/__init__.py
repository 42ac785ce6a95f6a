"""Any image model as a video model (floor 3).

`foreign` (what is known of other libraries), `folding` (videos among arguments), `clip` (which
video), `temporal` (what runs after a module), `motion` (all of that, and its file), `inflated` (the
model), `inflate`.
"""
