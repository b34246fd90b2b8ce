"""Makes `tests/golden/token_ids.json`: the ids that transformers gives of a Llama folder's texts.

It builds Llama's tokenizer anew from the vocabulary, where everybody else takes `tokenizer.json` as
it is; see `streamtok.text.tokenizer`. The folder is that of `tests/shapes.py`:

    python scripts/golden/token_ids.py tests/golden/token_ids.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from shapes import ENDS, TEXTS_WITH_SPECIALS, llama_folder


def main() -> None:
    found: dict[str, dict[str, list[int]]] = {}
    for form in ("normalising", "metaspace"):
        with TemporaryDirectory() as folder:
            llama_folder(Path(folder), form)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            found[form] = {
                text: tokenizer(text, add_special_tokens=False).input_ids
                for text in TEXTS_WITH_SPECIALS
            }
    found["ends"] = {}
    for flags in ENDS:
        with TemporaryDirectory() as folder:
            llama_folder(Path(folder), "metaspace", **flags)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            found["ends"][json.dumps(flags)] = tokenizer("ab").input_ids
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
