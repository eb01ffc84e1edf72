# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: help, exit codes, one verb at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bmp_ros import __version__
from bmp_ros.cli import main as dispatcher
from bmp_ros.cli.main import TRACEBACK

CHECKOUT = Path(__file__).resolve().parents[2]

VERB = '''"""Do a thing with a number.

More about it.
"""
{imports}

def add_arguments(parser):
    parser.add_argument("--number", type=int, default=1, help="which number")


def run(args):
    if args.number == 13:
        raise ValueError("13 is unlucky:\\n  take another\\n")
    if args.number == 2:
        open("there/is no such.file")
    if args.number == 3:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    if args.number == 4:
        raise KeyboardInterrupt
    if args.number == 8:  # as an import of a module in C that Ctrl-C interrupts
        import os, signal
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed")
    if args.number == 5:
        raise FloatingPointError("12 is infinite")
    if args.number == 6:
        raise MemoryError
    if args.number == 7:
        raise MemoryError("for 3 GiB")
    print("number", args.number)
    return args.number
'''


@pytest.fixture
def bmp(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs the dispatcher with two verbs: `infer` works, `demo` lacks a package."""
    (tmp_path / "infer.py").write_text(VERB.format(imports=""))
    (tmp_path / "demo.py").write_text(VERB.format(imports="import a_package_that_is_missing\n"))
    code = (
        "import sys, bmp_ros.cli as cli, bmp_ros.cli.main as m\n"
        f"cli.__path__.insert(0, {str(tmp_path)!r})\n"
        f"m.__file__ = {str(tmp_path / 'main.py')!r}\n"
        "sys.exit(m.main())"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=CHECKOUT, capture_output=True, text=True
        )

    return run


def test_help_lists_the_verbs_there_are_without_importing_them(bmp) -> None:  # type: ignore[no-untyped-def]
    for arguments in ([], ["--help"]):
        done = bmp(*arguments)
        assert done.returncode == 0 and done.stderr == ""
        assert "infer" in done.stdout and "Do a thing with a number." in done.stdout
        assert "demo" in done.stdout, "its missing package does not matter here"
        assert "evaluate" not in done.stdout, "there is no such module"


def test_exit_code_is_the_verbs(bmp) -> None:  # type: ignore[no-untyped-def]
    done = bmp("infer", "--number", "0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "number 0\n", "")
    assert bmp("infer").returncode == 1


def test_failure_is_told_without_a_traceback(bmp) -> None:  # type: ignore[no-untyped-def]
    done = bmp("infer", "--number", "13")
    assert done.returncode == 1
    assert done.stderr == "bmp infer: 13 is unlucky:\n  take another\n", "lines stay lines"
    for arguments in (["infer", "--number", "13", TRACEBACK], [TRACEBACK, "infer", "--number=13"]):
        assert "Traceback" in bmp(*arguments).stderr


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        ("2", 1, "there/is no such.file: No such file or directory"),
        (
            "3", 1,
            "this needs torch: `pip install -r requirements/torch.txt` (No module named 'torch')",
        ),
        ("4", 130, "interrupted"),
    ],
)  # fmt: skip
def test_what_python_raises_is_told_in_words(bmp, number: str, code: int, line: str) -> None:  # type: ignore[no-untyped-def]
    done = bmp("infer", "--number", number)
    assert (done.returncode, done.stderr) == (code, f"bmp infer: {line}\n")


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("5", "12 is infinite"), ("6", "there is no memory left"),
        ("7", "there is not enough memory (for 3 GiB)"),
    ],
)  # fmt: skip
def test_what_numbers_and_memory_lead_to_is_told_in_words(bmp, number: str, line: str) -> None:  # type: ignore[no-untyped-def]
    """A training that diverges, and images for which there is no room."""
    done = bmp("infer", "--number", number)
    assert (done.returncode, done.stderr) == (1, f"bmp infer: {line}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["models", "path"], ["--version"], ["models", "list"]])
def test_output_that_cannot_be_written_is_a_failure(arguments: list[str]) -> None:
    """Whoever writes it into a file on a full disk would take it for done; as a pipe does not."""
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "bmp_ros", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1 and "ignored" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            command, cwd=CHECKOUT, stdout=closed, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_nothing_of_the_current_folder_is_run(tmp_path: Path) -> None:
    """Which may be somebody's data, or exercises called torch.py; a checkout is found all the
    same."""
    for name in ("argparse", "numpy", "torch", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run')")
    (tmp_path / "bmp_ros").symlink_to(CHECKOUT / "bmp_ros")
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONPATH"}
    for module in ("bmp_ros", "bmp_ros.training"):
        done = subprocess.run(
            [sys.executable, "-m", module, *(["models", "path"] if module == "bmp_ros" else []),
             *(["-h"] if module != "bmp_ros" else [])],
            cwd=tmp_path, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [(0,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """What libraries print goes nowhere then, and not into the file that is opened next."""
    (tmp_path / "infer.py").write_text(
        '"""Write."""\nimport os, sys\ndef add_arguments(parser): pass\ndef run(args):\n'
        "    file = open('results', 'w')\n    file.write(str(sys.stdin.isatty()))\n"
        "    for number in (1, 2):\n        os.write(number, b'of a library')\n    return 0\n"
    )
    code = (
        "import os, sys\n"
        "import bmp_ros.cli as cli, bmp_ros.cli.main as m\n"
        f"cli.__path__.insert(0, {str(tmp_path)!r})\n"
        "sys.exit(m.main())"
    )
    closing = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["bash", "-c", f'cd "$1" && exec "$2" -c "$3" infer {closing}', "-", tmp_path,
         sys.executable, code],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results").read_text() == "False"


def test_ctrl_c_in_an_import_is_an_interruption(bmp) -> None:  # type: ignore[no-untyped-def]
    done = bmp("infer", "--number", "8")
    assert (done.returncode, done.stderr) == (130, "bmp infer: interrupted\n")


def test_requirements_bring_the_packages_that_errors_name() -> None:
    distributions = {"PIL": "pillow", "hydra": "hydra-core"}
    for package, file in dispatcher.REQUIREMENTS.items():
        lines = (CHECKOUT / "requirements" / f"{file}.txt").read_text().splitlines()
        assert any(
            line.startswith(f"{distributions.get(package, package)}==") for line in lines
        ), f"requirements/{file}.txt does not bring {package}"


def test_missing_package_of_one_verb(bmp) -> None:  # type: ignore[no-untyped-def]
    done = bmp("demo")
    assert done.returncode == 1
    assert done.stderr == "bmp demo: No module named 'a_package_that_is_missing'\n"


@pytest.mark.parametrize("arguments", [["fly"], ["infer", "--number", "x"], ["infer", "--fast"]])
def test_wrong_usage(bmp, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
    done = bmp(*arguments)
    assert done.returncode == 2
    assert "usage: bmp" in done.stderr


def test_every_verb_explains_itself() -> None:
    for verb, line in dispatcher.verbs().items():
        assert line, f"bmp_ros/cli/{verb}.py needs a docstring, whose first line is its help"


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bmp_ros", "--version"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"bmp_ros {__version__}")
