"""Checkpoints: the states to go on from and the best weights, also made anew with a right hash by
somebody who means ill.
"""

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from drawbench import config, runs
from drawbench.tasks import classify, generate
from drawbench.training import Quiet, Trainer

from .damage import DAMAGES, HUGE, NODES, Payload, altered, as_json, hurt
from .engine import Kind, check_sentence, payload_marker
from .idx import put_badly

SMALL = {"glimpses": 2, "hidden": 3, "steps": 40, "evaluate_every": 10}
CONFIGS = {
    "classify": config.merge(config.Classify, {}, SMALL | {"patch": 2, "canvas": 28}),
    "generate": config.merge(config.Generate, {}, SMALL | {"latent": 2, "pixels": "fixed"}),
}


class Case(NamedTuple):
    task: str
    file: str
    how: str
    with_what: object


TENSORS = [
    "missing",
    "extra",
    "renamed",
    "nan",
    "shape",
    "empty",
    "scalar",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "bool",
    "complex64",
    "uint8",
]
HEADERS = [
    b"{}",
    b"[]",
    b"{",
    b"null",
    b"[" * 3000,
    b'{"__metadata__":{"format":7}}',
    b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
    b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"X","shape":[4],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}',
    b'{"a":{"dtype":"U8","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}}',
    b'{"__metadata__":{"format":"drawbench checkpoint 1"}}',
]
LENGTHS = [0, 7, 8, (1 << 63) - 1, (1 << 64) - 1, 100_000_001, 1 << 40]
TASK, FILE = st.sampled_from(list(CONFIGS)), st.sampled_from([runs.BEST, runs.LAST])
CASES = st.one_of(
    st.builds(Case, TASK, FILE, st.just("bytes"), DAMAGES),
    st.builds(Case, TASK, FILE, st.just("facts"), NODES),
    st.builds(Case, TASK, FILE, st.just("facts"), NODES),
    st.builds(
        Case,
        TASK,
        FILE,
        st.just("facts text"),
        st.sampled_from(["", "{", "[]", "7", "null", "[" * 5000, '"\\ud800"'])
        | st.text(max_size=5),
    ),
    st.builds(
        Case, TASK, FILE, st.just("tensor"), st.tuples(st.integers(0, 60), st.sampled_from(TENSORS))
    ),
    st.builds(Case, TASK, FILE, st.just("config"), NODES),
    st.builds(
        Case,
        TASK,
        FILE,
        st.just("header"),
        st.tuples(
            st.sampled_from([None, *LENGTHS]), st.sampled_from(HEADERS) | st.binary(max_size=9)
        ),
    ),
    st.builds(
        Case,
        TASK,
        FILE,
        st.sampled_from(["pickle", "missing", "folder", "loop", "pipe", "endless"]),
        st.none(),
    ),
)


def task_of(settings: Any) -> Any:
    """As much of a task as taking up a state needs."""
    model = (
        classify.build(settings)
        if settings.task == "classify"
        else generate.build(settings, (1, 6, 5))
    )
    return SimpleNamespace(model=model, about={"size": [1, 6, 5]}, selected_by="validation_error")


def prepare(kept: Path, patch) -> dict[str, dict[str, tuple[dict, dict, bytes]]]:
    """By task and file: tensors, facts and bytes of a checkpoint after two updates."""
    made: dict[str, dict] = {}
    for name, settings in CONFIGS.items():
        run = runs.Run.create(kept / name, settings)
        trainer = Trainer(task_of(settings), run, Quiet())
        for parameter in trainer.task.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        trainer.optimizer.step()
        trainer.step, trainer.count, trainer.sums, trainer.best = 12, 2, {"loss": 3.5}, 7.5
        trainer.rows = [
            {"step": 10, "images_seen": 1280, "train_loss": 2.0, "validation_error": 7.5}
        ]
        trainer.save()
        run.save_best(
            trainer.average.state_dict(),
            {"step": 10, "validation": {"validation_error": 7.5}, **trainer.task.about},
        )
        files = (runs.BEST, runs.LAST)
        made[name] = {
            file: (*runs.load_checkpoint(run.folder / file), (run.folder / file).read_bytes())
            for file in files
        }
    return made


def attempt(made: dict[str, dict[str, tuple[dict, dict, bytes]]], folder: Path, case: Case) -> None:
    settings, place, what = CONFIGS[case.task], folder / "run", case.with_what
    place.mkdir()
    written = config.to_dict(settings)
    (place / "config.json").write_bytes(
        as_json(altered(written, what) if case.how == "config" else written)
    )  # type: ignore[arg-type]
    for file, (tensors, facts, content) in made[case.task].items():
        path = place / file
        if file != case.file or case.how == "config":
            path.write_bytes(content)
        elif case.how in ("facts", "facts text"):
            text = as_json(altered(facts, what)).decode() if case.how == "facts" else str(what)  # type: ignore[arg-type]
            path.write_bytes(signed(tensors, text))
        elif case.how == "tensor":
            path.write_bytes(signed(with_tensor(tensors, *what), json.dumps(facts)))  # type: ignore[misc]
        elif case.how == "header":
            length, header = what  # type: ignore[misc]
            path.write_bytes(
                struct.pack("<Q", len(header) if length is None else length)
                + header
                + b"\x01\x02\x03\x04"
            )
        elif case.how == "pickle":
            torch.save(Payload(str(payload_marker(folder))), path)
        elif case.how == "bytes":
            path.write_bytes(hurt(content, what))  # type: ignore[arg-type]
        else:
            put_badly(path, case.how, None, content)
    run = runs.Run.open(place)
    said: list[str] = []
    if case.file == runs.LAST:
        if run.config.task != settings.task or run.config.training.steps is None:
            return
        reporter = Quiet()
        reporter.say = said.append  # type: ignore[method-assign]
        trainer = Trainer(task_of(settings), runs.Run(place, run.config), reporter)
        trainer.restore()
        for sentence in said:
            check_sentence(sentence)
        assert 0 <= trainer.step <= trainer.total
        for state in trainer.optimizer.state.values():
            assert all(torch.is_tensor(value) for value in state.values())
        if trainer.step:
            for parameter in trainer.task.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            trainer.optimizer.step()
    elif run.config.task in ("classify", "generate"):
        model = (classify if run.config.task == "classify" else generate).load_model(run)
        if case.how == "bytes":  # what is accepted is what was saved
            saved = made[case.task][case.file][0]
            assert all(
                torch.equal(value, saved[name]) for name, value in model.state_dict().items()
            )


def signed(tensors: dict, text: str) -> bytes:
    """A checkpoint with a right hash, whatever it says of itself."""
    text = text.replace(HUGE, "7" * 5000)
    metadata = {"format": runs.FORMAT, "facts": text, "sha256": runs._digest(tensors, text)}
    return runs.safetensors_save(tensors, metadata=metadata)


def with_tensor(tensors: dict, where: int, how: str) -> dict:
    """The same tensors but for one."""
    changed = dict(tensors)
    name = sorted(changed)[where % len(changed)]
    tensor = changed.pop(name)
    if how == "renamed":
        changed["module." + name] = tensor
    elif how == "extra":
        changed |= {
            name: tensor,
            "": torch.ones(2),
            "adam.x": torch.ones(1),
            "a.b.c.": torch.ones(0),
        }
    elif how == "nan":
        changed[name] = torch.full_like(tensor, float("nan"))
    elif how == "shape":
        changed[name] = torch.zeros(*tensor.shape, 2)
    elif how == "empty":
        changed[name] = torch.zeros(0)
    elif how == "scalar":
        changed[name] = torch.tensor(1.0)
    elif how != "missing":
        changed[name] = tensor.to(getattr(torch, how))
    return changed


KIND = Kind("checkpoints", 12, CASES, prepare, attempt)
