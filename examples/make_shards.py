"""Write the videos of a folder into tar files, for `examples/train.py --data 'shards/*.tar'`.

    python examples/make_shards.py clips/ shards/

Each video goes in as it is, with its caption, and with what is known of it, so that nothing has to
be found out when it is read. webdataset reads such files too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from pathlib import Path

from command_line import Parser, make_folder, positive
from errors import DataError
from folder import videos_in
from index import Indexed, indexed, refuse
from tars import INDEX, webdataset
from tqdm import tqdm

MIB = 2**20


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("data", type=Path, help="a folder of videos at any depth")
    add("out", type=Path, help="the folder for the shards")
    add("--shard-size", type=positive, default=512, metavar="MIB", help="most of a shard")
    add("--strict-data", action="store_true", help="end at the first file that cannot be used")
    return parser


def write_shards(files: list[Indexed], out: Path, most: int) -> dict[str, int]:
    """Write the files into shards of at most so many bytes; how many each has, by its name."""
    library = webdataset()
    counts: dict[str, int] = {}
    waiting = deque(enumerate(files))
    with tqdm(total=len(files), desc="shards", unit="file") as bar:
        while waiting:
            name, size, count = f"clips-{len(counts):06d}.tar", 0, 0
            temporary = out / f".{name}"  # a shard has its name when it is complete
            with temporary.open("wb") as whole, library.TarWriter(whole) as shard:
                while waiting:
                    number, file = waiting[0]
                    if count and size + file.item.path.stat().st_size > most:
                        break
                    content = file.item.path.read_bytes()
                    shard.write(sample_of(number, file, content))
                    waiting.popleft()
                    size, count = size + len(content), count + 1
                    bar.update()
            temporary.rename(out / name)
            counts[name] = count
    (out / INDEX).write_text(json.dumps(counts, indent=2), encoding="utf-8")
    return counts


def sample_of(number: int, file: Indexed, content: bytes) -> dict[str, object]:
    """A video as webdataset writes it."""
    known = {"name": file.item.name, "facts": list(file.facts)}
    sample = {"__key__": f"{number:08d}", "json": json.dumps(known).encode()}
    sample[file.item.path.suffix[1:].lower()] = content
    if file.item.text:
        sample["txt"] = file.item.text.encode()
    return sample


def files_for(args: argparse.Namespace) -> list[Indexed]:
    """The videos that go into shards."""
    files = indexed(videos_in(args.data), args.data, ".clips.json", args.strict_data, args.out)
    for file in files:
        if file.item.pictures:
            problem = f"{file.item.path} is a folder of pictures, which shards do not hold"
            refuse(problem, args.strict_data)
    files = [file for file in files if not file.item.pictures]
    if not files:
        raise DataError(f"nothing in {args.data} can be used")
    return files


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    try:
        webdataset()
        make_folder(args.out)
        if any(not path.name.startswith(".") for path in args.out.glob("*.tar")):
            raise DataError(f"{args.out} holds shards: give another folder")
        counts = write_shards(files_for(args), args.out, args.shard_size * MIB)
    except (DataError, OSError) as error:  # no space is left, or a file has gone
        command.error(str(error))
    print(f"wrote {sum(counts.values())} videos into {len(counts)} shards in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
