#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fuzz: mutated inputs for every decoder that needs no network; exit code 0 when all held.

  scripts/with_ros python benchmarks/fuzz.py                     # 100 000 per decoder, hours
  scripts/with_ros python benchmarks/fuzz.py picture --count 500
  scripts/with_ros python benchmarks/fuzz.py picture --only 17   # one case, with its traceback
  scripts/with_ros python benchmarks/fuzz.py node --count 1000   # through a node, over DDS

A case is its number: seed, decoder and number decide every byte. Each decoder runs in a process of
its own with 8 GiB of address space, so that a crash of native code, a hang or a claim of memory is
seen, named and does not end the rest. Asked for: only the exceptions that the decoder's docstring
names, no crash, no case of more than 20 s, and memory that does not grow after the first tenth.
"""

from __future__ import annotations

import argparse
import math
import mmap
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]
COUNT, VIDEOS, NODE_MESSAGES = 100_000, 1000, 1000
MAX_GROWTH_MB, HANG_S, ADDRESS_SPACE = 20.0, 20.0, 8 << 30
LOOK_S = 0.05
WARM_UP = 0.1
"""Share of the cases after which memory must not grow."""


def resident_mb() -> float:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def dice_of(seed: int, name: str, number: int) -> random.Random:
    """All that is random about one case."""
    return random.Random(f"{seed} {name} {number}")


def targets() -> dict[str, Any]:
    """What makes each decoder's target."""
    from fuzz_files import OF_FILES
    from fuzz_messages import OF_MESSAGES

    return OF_MESSAGES | OF_FILES


def child(
    name: str, seed: int, start: int, stop: int, place: Path, until: float, only: bool
) -> int:
    """Run the cases of one decoder. place: where the number at work is written. until: when to
    stop, on the machine's clock."""
    target = targets()[name]()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    warnings.simplefilter("ignore")
    accepted, faults = 0, Counter[str]()
    settled, begun = 0.0, time.time()
    warm_s = begun + WARM_UP * (until - begun)
    with place.open("r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        for number in range(start, stop):
            if time.time() > until:
                break
            shared[:8] = struct.pack("<q", number)
            warm = number - start >= WARM_UP * (stop - start) or time.time() > warm_s
            if warm and not settled:
                settled = resident_mb()
            case = target.make(dice_of(seed, name, number))
            try:
                target.feed(case)
                accepted += 1
            except target.allowed:
                pass
            except Exception as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__} in {Path(at.filename).name}:{at.name}"
                faults[kind] += 1
                if faults[kind] == 1:
                    text = " ".join(str(error).split())[:160]
                    print(f"FAULT {name} {number}: {kind}: {text}", flush=True)
                    if only:
                        traceback.print_exc()
        else:
            number = stop
        shared[8:16] = struct.pack("<q", 1)
    growth = resident_mb() - settled
    for kind, times in faults.items():
        print(f"FAULTS {name}: {times} x {kind}")
    print(f"RESULT {number - start} {accepted} {growth:.1f}", flush=True)
    return 1 if faults else 0


class Report:
    """What came of one decoder. crashes: numbers of the cases at which its process ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ran = 0
        self.accepted = 0
        self.growth_mb = 0.0
        self.crashes: list[int] = []


def watch(process: subprocess.Popen[bytes], place: Path) -> str:
    """Wait for a child; kill it where a case takes too long. Returns why, if so."""
    last, looks = -1, 0
    while process.poll() is None:
        time.sleep(LOOK_S)
        (now,) = struct.unpack("<q", place.read_bytes()[:8])
        # Looks are counted, not seconds: the machine may have stood still for some.
        last, looks = now, looks + 1 if now == last else 0
        if looks * LOOK_S > HANG_S + (60.0 if now < 0 else 0.0):
            process.kill()
            process.wait()
            return f"took more than {HANG_S:g} s"
    return ""


def run_target(name: str, seed: int, count: int, until: float, report: Report) -> None:
    """All cases of one decoder, in a new process after each that ended one."""
    start = 0
    while start < count:
        with tempfile.TemporaryDirectory(prefix="bmp-fuzz-") as folder:
            place, output = Path(folder) / "place", Path(folder) / "output"
            place.write_bytes(struct.pack("<qq", -1, 0))
            command = [sys.executable, __file__, name, "--seed", str(seed), "--place", str(place)]
            command += ["--range", str(start), str(count), str(until)]
            with output.open("wb") as sink, (Path(folder) / "noise").open("wb") as noise:
                process = subprocess.Popen(
                    command, stdout=sink, stderr=noise, env=os.environ | {"TMPDIR": folder}
                )
                why = watch(process, place)
            at, done = struct.unpack("<qq", place.read_bytes())
            for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("RESULT "):
                    ran, accepted, growth = line.split()[1:]
                    report.ran += int(ran)
                    report.accepted += int(accepted)
                    report.growth_mb = max(report.growth_mb, float(growth))
                else:
                    report.lines.append(line)
            if done:
                return
            noise_text = (Path(folder) / "noise").read_text(encoding="utf-8", errors="replace")
            why = why or f"ended the process with {process.returncode}"
            report.lines.append(f"CRASH {name} {at}: {why}: {noise_text[-300:]}")
            report.crashes.append(at)
            report.ran += max(0, at + 1 - start)
            if at < 0 or len(report.crashes) > 20:
                report.lines.append(f"{name} is given up")
                return
            start = at + 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--count", type=int, help=f"cases, default {COUNT}, videos {VIDEOS}")
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most, per decoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone, in this process")
    parser.add_argument("--range", type=float, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.range is not None:
        start, stop, until = args.range
        name = args.targets[0]
        return child(name, args.seed, int(start), int(stop), args.place, until, False)
    if args.only is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(16))
            file.flush()
            name, number = args.targets[0], args.only
            return child(name, args.seed, number, number + 1, Path(file.name), math.inf, True)
    wrong = False
    for name in args.targets or [*targets(), "node"]:
        usual = {"video": VIDEOS, "node": NODE_MESSAGES}.get(name, COUNT)
        count = usual if args.count is None else args.count
        begun, begun_s, report = time.monotonic(), time.time(), Report()
        if name == "node":
            from fuzz_node import fuzz_node

            report.accepted, report.growth_mb, report.lines = fuzz_node(args.seed, count)
            report.ran = count
        else:
            until = begun_s + 60 * args.minutes
            run_target(name, args.seed, count, until, report)
        if report.growth_mb > MAX_GROWTH_MB:
            report.lines.append(f"memory grew by {report.growth_mb:.1f} MB")
        came = "results came" if name == "node" else "were valid all the same"
        print(
            f"{name}: {report.ran} inputs, {report.accepted} {came}, "
            f"{time.monotonic() - begun:.0f} s, memory {report.growth_mb:+.1f} MB",
            *report.lines, sep="\n  ", flush=True,
        )  # fmt: skip
        wrong = wrong or bool(report.lines)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
