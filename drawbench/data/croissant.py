"""The card of a generated data set in the Croissant format (MLCommons, version 1.0).

Search engines and hubs read it. Its arrays lie in npz files, which Croissant has no word for, so
it describes the files and the parts and says in words what is in them.
"""

import json
from typing import Any

NAME = "croissant.json"
LICENSES = {  # of the originals, by source
    "mnist": "https://creativecommons.org/licenses/by-sa/3.0/",
    "fashion": "https://opensource.org/license/mit",
    "kmnist": "https://creativecommons.org/licenses/by-sa/4.0/",
    "digits": "https://creativecommons.org/licenses/by/4.0/",
}
ARRAYS = (
    "images: uint8 (N, height, width), black is 0; labels: uint8 (N,), or (N, digits) where there "
    "are several; boxes: int16 (N, digits, 4), top, left, height and width of each digit in "
    "pixels; captions: uint8 (N, 12), numbers of words, where there are "
    "such. Read it with numpy.load."
)
_TERMS = (
    *("citeAs", "column", "containedIn", "dataType", "extract", "field", "fileObject", "fileSet"),
    *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path"),
    *("recordSet", "references", "regex", "repeated", "replace", "separator", "source"),
    *("subField", "transform", "samplingRate", "fileProperty", "equivalentProperty"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}


def describe(card: dict[str, Any], side: int, sizes: dict[str, int], date: str) -> str:
    """Return the content of ``croissant.json``.

    Args:
        card: ``card.json`` of the data set.
        side: of the square images, pixels.
        sizes: bytes of each file.
        date: on which they were made, such as 2026-05-31.
    """
    files = [_file(name, digest, sizes[name]) for name, digest in card["sha256"].items()]
    parts = [
        {"parts/name": split, "parts/file": f"{split}.npz", "parts/images": count}
        for split, count in card["counts"].items()
    ]
    fields = {"name": "sc:Text", "file": "sc:Text", "images": "sc:Integer"}
    meaning = {"name": "the part", "file": "its file", "images": "how many images it has"}
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{card['dataset']}-{side}x{side}-{card['source']}-seed{card['seed']}",
        "description": f"{card['rule']}. {card['source_note']} Made by: {card['command']}",
        "version": f"{card['version']}.0.0",
        "license": LICENSES.get(card["source"], "unknown"),
        "citeAs": "K. Gregor, I. Danihelka, A. Graves, D. J. Rezende, D. Wierstra. DRAW: A "
        "Recurrent Neural Network For Image Generation. ICML 2015.",
        "creator": {"@type": "sc:Organization", "name": "drawbench contributors"},
        "datePublished": date,
        "url": "https://arxiv.org/abs/1502.04623",
        "keywords": ["digits", "clutter", "visual attention", card["source"]],
        "isLiveDataset": False,
        "distribution": files,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "parts",
                "name": "parts",
                "description": f"The parts of the data set. In each file: {ARRAYS}",
                "key": {"@id": "parts/name"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"parts/{name}",
                        "name": name,
                        "description": meaning[name],
                        "dataType": kind,
                    }
                    for name, kind in fields.items()
                ],
                "data": parts,
            }
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _file(name: str, digest: str, size: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": ARRAYS,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": "application/zip",
        "sha256": digest,
    }
