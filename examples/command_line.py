"""The command line that the scripts share: their parser, its types, and the options of all."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

import torch
from diffusion import SCHEDULE
from errors import DataError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and each option's default if it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose help shows the defaults, and whose errors are one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=HelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Print `message` and leave with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def sampling_step_count(text: str) -> int:
    """As many denoising steps as the schedule has, at most."""
    number, most = positive(text), SCHEDULE["num_train_timesteps"]
    if number > most:
        raise argparse.ArgumentTypeError(f"{number} must be at most {most}")
    return number


def device(text: str) -> str:
    """A device that torch can use here."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"`{text}` cannot be used: {reason}") from error
    return text


def add_shared_options(
    parser: Parser,
    *,
    out: str,
    clips: int,
    clips_help: str,
    sampling_steps: int = 40,
    sampling_steps_help: str = "denoising steps of a sample",
) -> None:
    """Add the options that every script has."""
    add = parser.add_argument
    add("--out", type=Path, default=Path(out), help="folder for the results")
    add("--lr", type=float, default=2e-3, help="highest learning rate")
    add("--clips", type=positive, default=clips, help=clips_help)
    add(
        "--sampling-steps",
        type=sampling_step_count,
        default=sampling_steps,
        metavar="STEPS",
        help=sampling_steps_help,
    )
    add("--seed", type=int, default=0, help="of all that is random")
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", type=device, default=usual, help="where torch computes")


def make_folder(path: Path) -> None:
    """Make the folder that results go to, before anything is computed for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be a folder: {error.strerror}") from error
