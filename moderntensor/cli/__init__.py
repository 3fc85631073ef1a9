"""The ``moderntensor`` command. `main` is its entry point."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: those of the process); returns the exit code.

    0: done. 1: it failed, with one line on stderr saying why. 2: the arguments are wrong.
    130: interrupted. SIGTERM ends the process with 143, once it has cleaned up; `node` takes it,
    like SIGINT, for the wish that it is, and ends with 0.
    """
    for stream in (sys.stdout, sys.stderr):
        # Not every terminal has every character; what it has not is no reason to end.
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # wherever it comes, while modules are imported too
        return 130


def _run(arguments: Sequence[str]) -> int:
    import typer  # noqa: PLC0415 - `import moderntensor.cli` stays light

    from ..errors import ModernTensorError  # noqa: PLC0415
    from .app import app  # noqa: PLC0415
    from .hints import hint_for  # noqa: PLC0415

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)  # by itself it would leave temporary files
    try:
        # The name however it was started: completion and usage have it.
        code = app(list(arguments), prog_name="moderntensor", standalone_mode=False)
    except typer.TyperException as error:
        return _usage_error(error)
    except typer.Abort:
        return 130
    except BrokenPipeError:
        # The reader went away (``| head``): nobody is left to tell. Keep the interpreter from
        # flushing into the closed pipe once more at exit.
        sys.stdout = None
        return 1
    except (ModernTensorError, OSError) as error:
        return _fail((str(error) or type(error).__name__) + hint_for(error))
    except UnicodeEncodeError as error:
        # Bytes of an argument that are no text.
        text = error.object[error.start : error.end][:20]
        return _fail(f"{text!a} cannot be written in {error.encoding}")
    return code if isinstance(code, int) else 0


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _fail(text: str) -> int:
    print(f"moderntensor: error: {' '.join(text.split())}", file=sys.stderr)
    return 1


def _usage_error(error: Exception) -> int:
    describe = getattr(error, "format_message", None)
    text = describe() if describe else str(error)
    if text:
        print(f"moderntensor: error: {' '.join(text.split())} (see --help)", file=sys.stderr)
    return int(getattr(error, "exit_code", 2))
