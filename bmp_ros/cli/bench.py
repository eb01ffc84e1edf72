# SPDX-License-Identifier: Apache-2.0
"""Time the loop against the published order of work, on the same networks."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from bmp_ros.cli import bench_node
from bmp_ros.cli.arguments import add_network_arguments, result_file

if TYPE_CHECKING:
    from bmp_ros.benchmark.scripted import Scene
    from bmp_ros.engines.presets import Preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs our schedule and the published one in turn on the same engine objects and prints "
        "the median of every stage and the ratio. People are scripted: every network does all of "
        "its work on real inputs, then its answer is replaced, so that exactly N people are "
        "processed."
    )
    add_network_arguments(parser, preset=None, otherwise="tiny; bmp_d3 with --random-weights")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="untrained networks of the preset's sizes: same time, no download",
    )
    parser.add_argument(
        "--onnxruntime",
        action="store_true",
        help="of --random-weights: export the networks first and run them through onnxruntime",
    )
    parser.add_argument(
        "--int8", action="store_true", help="of --onnxruntime: quantised networks (docs/export.md)"
    )
    parser.add_argument(
        "--published-fp32",
        action="store_true",
        help="of --random-weights: the published order of work runs in PyTorch and fp32, as it "
        "was published, whatever ours runs in; default: both run the same networks",
    )
    parser.add_argument(
        "--canvas",
        metavar="PIXELS",
        help="of the detector, instead of the preset's: a side, or WIDTHxHEIGHT",
    )
    parser.add_argument("--people", type=int, default=5, help="people per frame (%(default)s)")
    parser.add_argument(
        "--later",
        type=int,
        help="of these, how many are found in the second iteration only (1; 0 where a preset "
        "has one iteration)",
    )
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT (%(default)s)")
    parser.add_argument("--frames", type=int, default=5, help="timed frames of each (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="frames before (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument(
        "--threads", type=int, help="CPU threads of networks and OpenCV; default: every core"
    )
    parser.add_argument(
        "--json", type=result_file, metavar="FILE", help="write everything as JSON"
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", title="what else can be timed")
    bench_node.add_arguments(what.add_parser("node", help="bmp_node, from a second process"))


def run(args: argparse.Namespace) -> int:
    if args.what == "node":
        return bench_node.run(args)
    import cv2

    from bmp_ros.benchmark.scripted import crowd
    from bmp_ros.engines.pipeline import detector_size
    from bmp_ros.engines.presets import load_preset

    args.preset = args.preset or ("bmp_d3" if args.random_weights else "tiny")
    width, height = _size(args.size)
    changes: dict[str, Any] = {}
    if args.canvas is not None:
        changes["detector"] = {"input_size": detector_size(args.canvas, "--canvas")}
    preset = load_preset(args.preset, changes)
    if args.later is None:
        args.later = min(1, preset.loop.iterations - 1)
    if not 0 <= args.later < args.people or args.frames < 1 or args.warm_up < 1:
        raise ValueError(
            f"--people {args.people} --later {args.later} --frames {args.frames} --warm-up "
            f"{args.warm_up}: needs 0 <= later < people, and frames and warm-up of at least 1"
        )
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"--threads is {args.threads}, needs at least 1")
    if args.onnxruntime and not args.random_weights:
        raise ValueError(
            "--onnxruntime is for --random-weights; with weights: `bmp export`, then "
            "--preset FOLDER/PRESET.yaml"
        )
    if args.int8 and not args.onnxruntime:
        raise ValueError("--int8 is for --random-weights --onnxruntime")
    if args.published_fp32 and not args.random_weights:
        raise ValueError("--published-fp32 is for --random-weights")
    if args.onnxruntime and (args.compile or args.precision != "fp32"):
        raise ValueError("--onnxruntime goes without --compile and --precision")
    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    if args.threads:
        cv2.setNumThreads(args.threads)
    scene = crowd(args.people, width, height, later=args.later)
    result = _time(args, preset, scene)
    result["preset"] = args.preset
    result["weights"] = "untrained" if args.random_weights else "as in the preset"
    result["precision"] = "int8" if args.int8 else args.precision
    result["published_precision"] = "fp32" if args.published_fp32 else result["precision"]
    _print(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _time(args: argparse.Namespace, preset: Preset, scene: Scene) -> dict[str, Any]:
    from bmp_ros.benchmark.measure import measure
    from bmp_ros.engines import build_loop
    from bmp_ros.engines.onnx.target import available_threads

    engines = preset.engines
    libraries = {choice.declaration.runtime for choice in engines.values()} - {"none"}
    if args.onnxruntime:
        libraries = {"onnxruntime"}
    threads = args.threads or available_threads()
    versions = []
    if "torch" in libraries or args.published_fp32:
        import torch

        if args.threads:
            torch.set_num_threads(args.threads)
        # fp32 means fp32 for both sides: by default PyTorch lets convolutions use TF32.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        versions.append(f"torch {torch.__version__}")
    if "onnxruntime" in libraries:
        import onnxruntime

        versions.append(f"onnxruntime {onnxruntime.__version__}")
    how = {"precision": args.precision, "compile": args.compile}
    if args.onnxruntime:
        from bmp_ros.benchmark.untrained import untrained_exported_loop

        loop = untrained_exported_loop(preset, args.device, threads=threads, int8=args.int8)
    elif args.random_weights:
        from bmp_ros.benchmark.untrained import untrained_loop

        loop = untrained_loop(preset, args.device, **how)
    else:
        with_threads: dict[str, Any] = {
            role: {"threads": threads}
            for role, choice in engines.items()
            if hasattr(choice.settings, "threads")
        }
        if args.canvas is not None:
            size = {"input_size": preset.detector.settings.input_size}
            with_threads["detector"] = {**with_threads.get("detector", {}), **size}
        loop = build_loop(args.preset, args.device, **how, **with_threads)
    published = None
    if args.published_fp32:
        from bmp_ros.benchmark.untrained import untrained_loop

        published = untrained_loop(preset, args.device, "fp32", compile=False)
    result = measure(
        loop, scene, args.frames, args.warm_up, count="torch" in libraries,
        published_loop=published,
    )  # fmt: skip
    return {
        **result,
        "canvas": canvas_of(loop.detector),
        "device": str(getattr(loop.detector, "device", args.device)),
        "backend": ", ".join([f"{threads} CPU threads", *versions]),
    }


def canvas_of(detector: Any) -> str | None:
    """Width and height of a detector's canvas, in words; None where it does not tell."""
    canvas = getattr(detector, "canvas", None)
    return None if canvas is None else f"{canvas[0]}x{canvas[1]}"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"--size is {text!r}, needs WIDTHxHEIGHT in pixels, e.g. 1280x720")
    return int(width), int(height)


def _print(result: dict[str, Any]) -> None:
    machine, picture = result["machine"], result["input"]
    # Only torch tells a GPU's name.
    gpu = machine.get("gpu", "a GPU")
    where = gpu if result["device"].startswith("cuda") else machine["processor"]
    print(
        f"{result['preset']} ({result['weights']}), {result['precision']} on {where}, "
        f"{result['backend']}"
    )
    print(
        f"{picture['width']}x{picture['height']}, {picture['people'][0]} people "
        f"({picture['found_in_second_iteration']} of them found in the second iteration), median "
        f"of {result['frames']} frames, input sha256 {picture['sha256'][:12]}"
    )
    if result["published_precision"] != result["precision"]:
        print("the published order of work in PyTorch, fp32")
    if result["canvas"]:
        print(f"largest canvas of the detector {result['canvas']}")
    ours, published = result["ours"], result["published"]
    print(f"\n{'stage':<18}{'ours ms':>10}{'published ms':>14}{'ratio':>8}")
    for stage, own in ours["median_ms"].items():
        other = published["median_ms"].get(stage, 0.0)
        ratio = f"{other / own:.2f}" if own > 0 else "-"
        print(f"{stage:<18}{own:>10.1f}{other:>14.1f}{ratio:>8}")
    ratio = f"{result['ratio']:.2f} times as fast as the published order of work"
    if "arithmetic_bound" not in result:
        print(f"\n{ratio}")
        return
    print(f"{'networks, GFLOP':<18}{ours['gflop']:>10.0f}{published['gflop']:>14.0f}", end="")
    print(f"{result['arithmetic_bound']:>8.2f}")
    print(f"\n{ratio}; saved arithmetic alone would give {result['arithmetic_bound']:.2f}")
