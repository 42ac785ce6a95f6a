"""The training script in several processes, which are killed, stopped and joined anew.

Each start of two processes takes ten seconds: `pytest tests/processes`.
"""
