"""Several runs set against each other: the job behind ``metagen compare``."""

from collections.abc import Sequence
from pathlib import Path

from metagen.comparison.comparison import Options, comparison
from metagen.comparison.in_words import markdown_of, terminal_of
from metagen.errors import MetagenError
from metagen.files import check_new_file, check_new_folder, new_folder, write_text

TABLES = ("comparison.csv", "comparison.md", "differences.csv", "runs.csv")
FILES = (*TABLES, "comparison.html", "adaptation.png", "differences.png")
"""What ``--out`` writes."""


def compare(
    folders: Sequence[Path],
    options: Options | None = None,
    markdown: Path | None = None,
    out: Path | None = None,
    force: bool = False,
) -> str:
    """Return the tables of the finished runs below ``folders``, and say which were left out.

    Args:
        folders: searched for runs.
        options: what to show.
        markdown: also write the tables here.
        out: also write comparison.{csv,md,html}, differences.csv, runs.csv and pictures in this folder.
        force: whether ``markdown`` and the files in ``out`` may be written over.

    Raises:
        MetagenError: there is no finished run, none can be compared, an option names what is not there, or
            what is to be written is.
    """
    if markdown:
        check_new_file("--markdown", markdown, force)
    if out:
        check_new_folder("--out", out, force)
    if out and markdown and markdown.resolve() in [(out / name).resolve() for name in ("", *FILES)]:
        raise MetagenError(f"--markdown {markdown} is written by --out {out} already: name another file")
    options = options or Options()
    found = comparison(folders, options)
    written = ""
    if out:
        from metagen.comparison.page import write

        with new_folder(out, FILES) as folder:
            write(found, options, folder)
        written = f"\n\npage    {out / 'comparison.html'}\ntables  {out}: {', '.join(TABLES)}"
    if markdown:
        write_text(markdown, markdown_of(found))
    return terminal_of(found) + written
