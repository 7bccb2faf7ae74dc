r"""Time the command line on many small pictures, beside a plain loop over the API.

    python tools/throughput.py --images ../shared/data/train --count 1000 --side 128

Pictures are cut out of the photographs in a folder, or out of those that scikit-image ships. Each way
shrinks all of them: the loop reads, shrinks and writes one after the other, with one thread and with
torch's own number of them; the command line does with one job and with as many as there are cores. Memory
is the most that the processes had to themselves together, at a quarter of the pictures and at the end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from invertible_rescaling import RescalingError, iirn_x4
from invertible_rescaling.images import find_images, from_uint8, read_image, write_image
from invertible_rescaling.training.data import photograph


def main(argv: Sequence[str] | None = None) -> int:
    """Time all ways and print a table; return 0, or 2 after an error."""
    options = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as place:
            cut(options.images, options.count, options.side, Path(place, "in"))
            print(f"{options.count} pictures of {options.side}x{options.side}; {os.cpu_count()} cores")
            print("| way | seconds | pictures a second | MB at a quarter | MB at the end |")
            print("|---|---|---|---|---|")
            for threads in dict.fromkeys((1, torch.get_num_threads())):
                seconds = loop(Path(place, "in"), Path(place, f"loop{threads}"), threads)
                report(f"loop over the API, threads: {threads}", options.count, seconds)
            for jobs in dict.fromkeys((1, os.cpu_count() or 1)):
                seconds, early, late = command(
                    Path(place, "in"), Path(place, f"jobs{jobs}"), jobs, options.count
                )
                report(f"downscale --jobs {jobs}", options.count, seconds, f"{early:.0f}", f"{late:.0f}")
    except (RescalingError, OSError) as error:
        print(f"throughput.py: {error}", file=sys.stderr)
        return 2
    return 0


def report(way: str, count: int, seconds: float, early: str = "", late: str = "") -> None:
    """Print a row."""
    print(f"| {way} | {seconds:.1f} | {count / seconds:.1f} | {early} | {late} |", flush=True)


def cut(folder: Path | None, count: int, side: int, place: Path) -> None:
    """Write ``count`` squares out of photographs."""
    place.mkdir()
    names = ("astronaut", "chelsea", "coffee")
    images = [photograph(name) for name in names] if folder is None else map(read_image, find_images(folder))
    made = 0
    for image in images:
        for top in range(0, image.shape[1] - side + 1, side):
            for left in range(0, image.shape[2] - side + 1, side):
                if made == count:
                    return
                write_image(place / f"{made:06d}.png", image[:, top : top + side, left : left + side])
                made += 1
    if made < count:
        raise OSError(
            f"only {made} squares of {side} pixels are in these photographs; ask for fewer or smaller"
        )


def loop(folder: Path, place: Path, threads: int) -> float:
    """Seconds of reading, shrinking and writing one after the other."""
    place.mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    begun = time.perf_counter()
    model = iirn_x4(weights="DEFAULT").eval()
    for path in find_images(folder):
        lr = model.downscale(from_uint8(read_image(path)).unsqueeze(0))
        write_image(place / path.name, lr[0])
    torch.set_num_threads(before)
    return time.perf_counter() - begun


def command(folder: Path, place: Path, jobs: int, count: int) -> tuple[float, float, float]:
    """Seconds of the command, start and all, and MB of its processes at a quarter and at the end."""
    begun, early, late = time.perf_counter(), 0.0, 0.0
    arguments = ("-m", "invertible_rescaling.cli", "downscale", str(folder), str(place), "--jobs", str(jobs))
    with subprocess.Popen([sys.executable, *arguments, "--quiet"], start_new_session=True) as process:
        while process.poll() is None:
            made = len(os.listdir(place)) if place.is_dir() else 0
            memory = own_memory(process.pid) / 1e6
            if made < count / 4:
                early = max(early, memory)
            late = max(late, memory)
            time.sleep(0.2)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise OSError(f"the command ended with code {process.returncode}")
    return seconds, early, late


def own_memory(group: int) -> int:
    """Bytes that the processes of a group have to themselves; 0 where there is no /proc."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[2]) == group:
                resident, shared = map(int, (status.parent / "statm").read_text().split()[1:3])
                total += (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):  # it has ended
            continue
    return total


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="throughput.py", description="Time downscale on many small pictures."
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs; scikit-image's by default")
    parser.add_argument("--count", type=int, default=1000, help="of the pictures (default: 1000)")
    parser.add_argument("--side", type=int, default=128, help="in pixels (default: 128)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
