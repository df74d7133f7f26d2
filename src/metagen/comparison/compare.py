"""Several runs set against each other: the job behind ``metagen compare``."""

from collections.abc import Sequence
from pathlib import Path

from metagen.comparison.comparison import Options, comparison
from metagen.comparison.text import markdown_of, terminal_of
from metagen.files import write_text


def compare(
    folders: Sequence[Path],
    options: Options | None = None,
    markdown: Path | None = None,
    out: Path | None = None,
) -> str:
    """Return the tables of the finished runs below ``folders``, and say which were left out.

    Args:
        folders: searched for runs.
        options: what to show.
        markdown: also write the tables here.
        out: also write comparison.{csv,md,html}, differences.csv, runs.csv and pictures in this folder.

    Raises:
        MetagenError: there is no finished run, none can be compared, or an option names what is not there.
    """
    options = options or Options()
    found = comparison(folders, options)
    if markdown:
        write_text(markdown, markdown_of(found))
    written = ""
    if out:
        from metagen.comparison.page import write

        written = "\n\n" + write(found, options, out)
    return terminal_of(found) + written
