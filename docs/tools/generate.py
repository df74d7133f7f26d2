"""Write every generated page and picture of the guide: ``python docs/tools/generate.py [FOLDER]``."""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1]


def generate(out: Path) -> None:
    """Write the results, the configuration, the error messages and the reference to ``out``."""
    from tools import configuration, errors, reference, results

    (out / "reference").mkdir(parents=True, exist_ok=True)
    pages = reference.pages()
    for old in {*(out / "reference").glob("*.md")} - {out / "reference" / f"{name}.md" for name in pages}:
        old.unlink()
    written = {
        "results": results.page(out),
        "configuration": configuration.page(),
        "errors": errors.page(),
        **{f"reference/{name}": text for name, text in pages.items()},
    }
    for name, text in written.items():
        path = out / f"{name}.md"
        # A page that did not change need not be read again.
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS))
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "generated")
