"""The small bilingual world that the demo learns: committed data and the generator that wrote it.

`python -m allam.sample.build` writes `allam/sample/data` again from the tables (`facts`), the templates (`templates_en`,
`templates_ar`) and the hand-written `paragraphs/`; `data/EXPECTED.json` holds the exact counts that a pipeline must arrive at.
"""

from pathlib import Path


def root() -> Path:
    """The folder of the committed data files."""
    return Path(__file__).parent / "data"
