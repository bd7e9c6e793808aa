"""The `rws` command: arguments in, a line or a table out. The work is done by the library; see `commands`.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 an error (its message, no traceback),
2 wrong usage, 130 interrupted. Handlers import what they need when they run, so `rws info` needs no torch.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

from rws_hub import commands
from rws_hub.errors import RWSError
from rws_hub.parser import build_parser
from rws_hub.show import printable

# Whatever comes out of the Hub client speaks for itself; a traceback would only bury it.
_CLIENT = "huggingface_hub"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show must not undo what was done
            stream.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    try:
        commands.run(arguments)
        if sys.stdout is not None:  # closed, as for a daemon
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not isinstance(error, (RWSError, OSError)) and not _is_of_client(error):
            raise
        print(printable(f"error: {_sentence(error)}"), file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(printable(f"note: {note}"), file=sys.stderr)
        return 1
    return 0


def _is_of_client(error: Exception) -> bool:
    """Whether an error came through the Hub client, which raises those of its transports as they are."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] == _CLIENT for name in frames)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error) or type(error).__name__
    # The client lets its transport's errors through, and those do not say what they are about.
    bare = type(error).__module__.partition(".")[0] not in ("builtins", "huggingface_hub", "rws_hub")
    return f"the Hub could not be reached ({text})" if bare else text


if __name__ == "__main__":
    sys.exit(main())
