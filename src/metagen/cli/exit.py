"""Exit codes, and the one line that an error prints."""

import logging
import os
import sys
import traceback
from collections.abc import Callable

from metagen.console import PrintableRecord, printable
from metagen.errors import MetagenError
from metagen.training import signals


def exit_code(job: Callable[[], int]) -> int:
    """Return the exit code of ``job``; an error goes to stderr in one line."""
    logging.setLogRecordFactory(PrintableRecord)
    try:
        return job()
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except signals.Stopped as stop:
        return fail("interrupted", stop.code)
    except BrokenPipeError:
        # The reader of a pipe left: nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return report(error)


def report(error: Exception) -> int:
    """Print an error in one line and return its exit code; a fault of ours keeps its trace."""
    debug = bool(os.environ.get("METAGEN_DEBUG"))
    if isinstance(error, MetagenError) and not (debug and error.__cause__):
        return fail(str(error), error.code)
    from metagen.config.error_lines import explain

    line = explain(error)
    if line is None or debug:
        sys.stderr.write(printable("".join(traceback.format_exception(error)), keep="\n"))
        return 1 if line is None else line.code
    return fail(line.text, line.code)


def fail(text: str, code: int) -> int:
    """Print an error in one line and return its exit code."""
    sys.stderr.write(f"metagen: error: {printable(' '.join(text.split()))}\n")
    return code
