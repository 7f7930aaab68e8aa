"""The front door: ``python -m a2lite answer | course | student | train | sizes | plan | doctor``.

Each command is imported only when it is called, so that ``doctor`` still speaks where torch does not import.
A mistake of the user's ends in one line and exit code 2; ``A2LITE_DEBUG=1`` shows the traceback instead.
"""

from __future__ import annotations

import importlib
import os
import sys

import a2lite

COMMANDS = {
    "answer": ("a2lite.realtime", "a spoken question in; text, speech and a talking face out"),
    "course": ("a2lite.course.runner", "run every notebook headless and write runs/<profile>/index.html"),
    "student": ("a2lite.course.student", "copy the course without its answers"),
    "train": ("a2lite.launch", "train the motion tokenizer or A2-LLM, alone or in several processes"),
    "sizes": ("a2lite.sizes", "how many parameters the models of a profile have"),
    "plan": ("a2lite.plan", "memory, hours and cost of training, before it starts"),
    "doctor": ("a2lite.doctor", "check this machine, one line and one remedy per thing"),
}


def usage() -> str:
    lines = [f"  {name:8} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: python -m a2lite COMMAND ...  (COMMAND --help says more)", *lines])


def main(argv: list[str] | None = None) -> int:
    """Run one command with its arguments; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"a2lite {a2lite.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"a2lite: no command {argv[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]) or 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("A2LITE_DEBUG") == "1":
            raise
        print("a2lite:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\na2lite: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
