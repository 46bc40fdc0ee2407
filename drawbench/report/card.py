"""The card of a shared run: ``README.md`` with the front matter that the Hugging Face hub reads."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from drawbench import config as configs
from drawbench.errors import one_line
from drawbench.records import ERROR, Record
from drawbench.report import without_folders

PIPELINES = {"classify": "image-classification", "generate": "unconditional-image-generation"}
HUB_NAMES = {  # of data sets, by source
    "mnist": "ylecun/mnist",
    "fashion": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "svhn": "ufldl-stanford/svhn",
}
PICTURES = {  # name -> what it shows
    "glimpses.gif": "Where the network looked at test images, glimpse by glimpse",
    "samples.gif": "Samples, drawn step by step",
    "samples.png": "Samples, and below each the training image nearest to it",
}
NO_WEIGHTS = (
    "There are no weights in this folder. Its numbers and the outcome of each test image are enough"
    " for `drawbench compare` and `drawbench tables`; `config.json` trains it again."
)
FILES = {
    "best.safetensors": "the weights, with a SHA-256 of all in it",
    "model.onnx": "the same network as ONNX",
    "config.json": "every setting: `drawbench {task} --recipe config.json` repeats the run",
    "result.json": "all that was measured",
    "metrics.csv": "the learning curve",
    "environment.json": "versions and machine",
    "test.npz": "what the network made of each test image, for `drawbench compare`",
}


def model_card(record: Record, license: str) -> str:
    """Return the card of a run: what it is, how good, on what, made how, and how to use it.

    Args:
        record: the run, in the folder that is shared.
        license: an identifier of the hub, such as ``mit``, or ``unknown``.
    """
    task = record.result["task"]
    present = {name: what for name, what in FILES.items() if (record.folder / name).exists()}
    sections = {
        "": _about(record),
        "Result": _result(record),
        "Data": _data(record),
        "Training": _training(record),
        "Use": _use(record) if "best.safetensors" in present else NO_WEIGHTS,
        "Files": _table({f"`{name}`": what.format(task=task) for name, what in present.items()}),
        "Limits": _limits(record),
        "License": f"{license}." if license != "unknown" else "The author has not stated one.",
        "Citation": "K. Gregor, I. Danihelka, A. Graves, D. J. Rezende, D. Wierstra. *DRAW: A "
        "Recurrent Neural Network For Image Generation.* ICML 2015. "
        "[arXiv 1502.04623](https://arxiv.org/abs/1502.04623).",
    }
    body = "\n\n".join(
        f"## {title}\n\n{text}" if title else text for title, text in sections.items()
    )
    head = "\n".join(_yaml(front_matter(record, license)))
    return f"---\n{head}\n---\n\n# {_plain(record.name)}\n\n{body}\n"


def front_matter(record: Record, license: str) -> dict[str, Any]:
    """Return what the hub indexes; ``model-index`` holds the measured numbers."""
    result = record.result
    task, source = result["task"], result["source"]
    if result["metric"] == ERROR:
        metrics = [
            {"type": "accuracy", "name": "Accuracy", "value": round(1 - result["value"] / 100, 6)},
            {"type": "error_rate", "name": "Test error (%)", "value": result["value"]},
        ]
    else:
        name = "Upper bound of the negative log-likelihood (nats per image)"
        metrics = [{"type": "nll_bound", "name": name, "value": result["value"]}]
        if result.get("iw_bound") is not None:
            name = f"Importance-weighted bound, K = {result['iw_samples']} (nats per image)"
            metrics.append({"type": "iw_bound", "name": name, "value": result["iw_bound"]})
    about = {"type": HUB_NAMES.get(source, source), "name": result["dataset"], "split": "test"}
    entry = {"task": {"type": PIPELINES[task]}, "dataset": about, "metrics": metrics}
    return {
        "license": license,
        "library_name": "drawbench",
        "pipeline_tag": PIPELINES[task],
        "tags": list(dict.fromkeys(["drawbench", "draw", "visual-attention", result["model"]])),
        **({"datasets": [HUB_NAMES[source]]} if source in HUB_NAMES else {}),
        **({"metrics": ["accuracy"]} if result["metric"] == ERROR else {}),
        "model-index": [{"name": record.name, "results": [entry]}],
    }


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Return the lines of a mapping or list as YAML; its scalars are JSON, which YAML contains."""
    lines = []
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in pairs:
        head = f"{indent}-" if key is None else f"{indent}{key}:"
        if not isinstance(item, dict | list):
            lines.append(f"{head} {json.dumps(item)}")
        elif key is None:  # the first line of what is listed goes behind the dash
            first, *rest = _yaml(item, indent + "  ")
            lines += [f"{indent}- {first.lstrip()}", *rest]
        else:
            lines += [head, *_yaml(item, indent + "  ")]
    return lines


def _plain(text: Any) -> str:
    """Return a text of the user's without what Markdown or HTML would take for markup."""
    signs = {ord(sign): f"\\{sign}" for sign in "\\`*_[]|#"} | {ord("<"): "&lt;"}
    return one_line(str(text)).translate(signs)


def _code(text: Any) -> str:
    return f"`{one_line(str(text)).replace('`', '')}`"


def _table(rows: dict[str, str], head: tuple[str, str] = ("file", "what it holds")) -> str:
    return "\n".join(
        [f"| {head[0]} | {head[1]} |", "|---|---|"] + [f"| {a} | {b} |" for a, b in rows.items()]
    )


def _about(record: Record) -> str:
    result, settings = record.result, record.settings
    kinds = configs.CLASSIFIERS if result["task"] == "classify" else configs.GENERATORS
    kind = kinds.get(result["model"])
    text = f"A model of the author's own, {_code(result['model'])}."
    if kind is not None:
        text = (kind.__doc__ or "").splitlines()[0]
    looks = result.get("glimpses")
    if result["task"] == "classify":
        text += f" It classifies an image{f' from {looks} glimpses' if looks else ''}."
    else:
        text += f" It draws images{f' in {looks} steps' if looks else ''}."
    text += " Trained and measured with drawbench."
    if settings.get("attention") == "none":
        text += " Without attention: it reads the whole image and writes the whole canvas."
    found = next((name for name in PICTURES if record.picture(name)), None)
    return text + (f"\n\n![{PICTURES[found]}](figures/{found})" if found else "")


def _result(record: Record) -> str:
    result = record.result
    error = result["metric"] == ERROR
    unit = "%" if error else " nats"
    rows = {
        "test error" if error else "upper bound of the negative log-likelihood": (
            f"**{result['value']:.2f}{unit}** (95% interval {result['low']:.2f} to "
            f"{result['high']:.2f})"
        ),
        "test images": f"{int(result['n']):,}, each counted once",
    }
    for name, title, form in (
        ("kl", "KL term of the bound", "{:.2f} nats"),
        ("entropy_floor", "least possible cross-entropy of these grey pixels", "{:.2f} nats"),
        ("iw_bound", f"importance-weighted bound, K = {result.get('iw_samples')}", "{:.2f} nats"),
        ("majority_error", "error of the most frequent class", "{:.1f}%"),
        ("parameters", "parameters", "{:,}"),
        ("pixels_read", "numbers read of an image", "{:,}"),
        ("multiply_adds", "multiply-adds for an image", "{:,}"),
    ):
        if result.get(name) is not None:
            rows[title] = form.format(result[name])
    if result.get("weights"):
        rows["weights"] = f"{_plain(result['weights'])}; the numbers are those of these weights"
    return _table(rows, ("measured", "value"))


def _data(record: Record) -> str:
    result = record.result
    text = f"{_code(result['dataset'])}, from the source {_code(result['source'])}."
    if result.get("pixels"):
        text += f" {_plain(result['pixels'])}."
    if result["source"] == "digits":
        text += (
            " These are scikit-learn's embedded digits, enlarged: no number here is comparable "
            "with one on MNIST."
        )
    return text + (
        " The weights were selected on validation images; the test images were read once, at the"
        " end."
    )


def _training(record: Record) -> str:
    result, environment = record.result, record.environment
    rows = {"command": _code(without_folders(str(result.get("command") or "not recorded")))}
    for name, title, form in (
        ("seed", "seed", "{}"),
        ("steps", "updates", "{:,}"),
        ("images_seen", "images seen", "{:,}"),
        ("start", "initialized from", "{}"),
    ):
        if result.get(name) is not None:
            value = Path(result[name]).name if name == "start" else result[name]
            rows[title] = _plain(form.format(value))
    if result.get("train_seconds") is not None:
        rows["time"] = f"{result['train_seconds'] / 60:.0f} minutes"
    for name in ("processor", "device", "torch", "commit"):
        if environment.get(name):
            rows[name] = _plain(environment[name])
    return _table(rows, ("setting", "value"))


def _use(record: Record) -> str:
    plain = record.name if re.fullmatch(r"[\w.+ -]+", record.name) else "RUN"
    name = shlex.quote(plain)
    what = f"drawbench generate --from {name} --seed 3"
    if record.result["task"] == "classify":
        what = f"drawbench predict {name} picture.png"
    trust = ', ["MODULE"]' if ":" in record.result["model"] else ""
    return (
        f"```\npip install drawbench\n{what}\ndrawbench evaluate {name}\n```\n\n"
        "```python\nfrom drawbench import load_run\n\n"
        f"run = load_run({json.dumps(plain)}{trust})\nrun.model  # a torch.nn.Module\n```"
    )


def _limits(record: Record) -> str:
    if record.result["task"] == "classify":
        return (
            "It answers with one of its classes whatever it is shown, and its probabilities "
            "have not been calibrated. It was measured on images like those of its training only; "
            "`drawbench evaluate` measures it under other conditions."
        )
    return (
        "It draws what its training images look like and nothing else. The bound is an upper "
        "bound, comparable only between models of the same data and the same rule of pixels."
    )
