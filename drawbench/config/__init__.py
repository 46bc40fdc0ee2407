"""The one list of settings.

A configuration is a frozen dataclass of sections (data, model, training), each a frozen dataclass
of plain numbers and words. The same fields make the command line's options, the keys of a recipe
and the content of a run's ``config.json``, so a setting is added by adding one line here. This
module imports nothing heavy: ``--help`` reads it.

Precedence: flag > environment > recipe > default.
"""

import dataclasses
import difflib
import math
import reprlib
import tomllib
import types
import typing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from drawbench.errors import Problem


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its help text and the values it allows; ``low`` and ``high`` are included in
    them.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices}
    )


def allowed_types(field: dataclasses.Field) -> tuple[type, ...]:
    """The types that a field's annotation names: ``int | None`` gives (int, NoneType)."""
    return typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)


def value_type(field: dataclasses.Field) -> type:
    """The type of a field when it is not None."""
    return next(kind for kind in allowed_types(field) if kind is not type(None))


LARGEST_INT = 2**63 - 1  # that torch can count to
DEEPEST = 100  # dots in a line of a recipe
LARGEST_BATCH = 1 << 24  # images at a time

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 120
_brief.maxlevel = 3


def shown(value: Any) -> str:
    """A value as a message shows it: like ``repr``, but of what is too long, too large or nested
    too deep only so much.
    """
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a number of {value.bit_length()} bits"
    try:
        return _brief.repr(value)
    except ValueError:  # of a number inside that has too many digits
        return type(value).__name__


class _Checked:
    """Checks types and ranges as soon as a section is made, wherever the values came from."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))

    def _check(self, field: dataclasses.Field, value: Any) -> None:
        allowed = allowed_types(field)
        if type(value) is int and abs(value) > LARGEST_INT:
            raise Problem(
                f"{field.name} must be a number below 2^63, got one of {value.bit_length()} bits"
            )
        if type(value) is int and float in allowed:
            value = float(value)
            object.__setattr__(self, field.name, value)
        if (
            type(value) not in allowed
        ):  # not isinstance: True is an int to Python, but not to a user
            expected = " or ".join(
                "nothing" if kind is type(None) else kind.__name__ for kind in allowed
            )
            raise Problem(f"{field.name} must be {expected}, got {shown(value)}")
        if value is None:
            return
        low, high, choices = (field.metadata.get(name) for name in ("low", "high", "choices"))
        if choices and value not in choices:
            raise Problem(
                f"{field.name} must be one of {', '.join(choices)}, got {shown(value)}{_nearest(str(value), choices)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise Problem(f"{field.name} must be a number, got {value}")
        if low is not None and value < low:
            raise Problem(f"{field.name} must be at least {low}, got {value}")
        if high is not None and value > high:
            raise Problem(f"{field.name} must be at most {high}, got {value}")


SOURCES = ("auto", "mnist", "fashion", "kmnist", "digits")


@dataclass(frozen=True)
class SceneData(_Checked):
    """A generated data set of digits on a canvas."""

    dataset: str = setting(
        "cluttered", "Which generated data set.", choices=("cluttered", "mnist2")
    )
    source: str = setting(
        "auto",
        "Where the digits come from; auto: MNIST, else the embedded digits.",
        choices=SOURCES,
    )
    canvas: int = setting(100, "Side of the square image, pixels.", low=28, high=4096)
    digits: int = setting(1, "Whole digits per image.", low=1, high=64)
    clutter: int = setting(8, "Distractor pieces per image.", low=0, high=4096)
    clutter_size: int = setting(8, "Side of a distractor piece, pixels.", low=1, high=28)
    data_seed: int = setting(
        0, "Seed of the generated files; all models compared use the same one.", low=0
    )


GLIMPSING = ("draw", "affine", "random", "fixed", "ram")  # look several times
CLASSIFIERS = (*GLIMPSING, "stn", "fc", "conv2", "conv6")


@dataclass(frozen=True)
class ClassifierModel(_Checked):
    """A network that names the digit."""

    model: str = setting(
        "draw",
        "Which classifier: draw, the paper's glimpse LSTM; the same with affine, random or fixed glimpses; ram, hard attention; stn, a "
        "spatial transformer; fc, conv2, conv6, which look at the whole image.",
        choices=CLASSIFIERS,
    )
    glimpses: int = setting(8, "Looks at the image before the answer.", low=1, high=1024)
    patch: int = setting(12, "Side of a glimpse, in filters.", low=1, high=512)
    hidden: int = setting(256, "LSTM units, or units of fully connected layers.", low=1, high=65536)
    window_map: str = setting(
        "bounded",
        "How the LSTM state sets the window: squashed smoothly, or the paper's bare linear map.",
        choices=("bounded", "linear"),
    )
    window_clip: float | None = setting(
        10.0, "Largest gradient that one image sends back through one window.", low=1e-9
    )
    scales: int = setting(
        4, "Of ram: pieces of a glimpse, each twice as wide as the one before.", low=1, high=8
    )
    deviation: float = setting(
        0.15,
        "Of ram: standard deviation of the places drawn in training, image halves.",
        low=1e-6,
        high=10.0,
    )
    reinforce: float = setting(0.1, "Of ram: weight of REINFORCE in the loss.", low=0.0)


LENGTHS = ("steps", "epochs", "time_budget")  # of a training; it has one


@dataclass(frozen=True)
class Training(_Checked):
    """How a model is trained, whatever it is."""

    steps: int | None = setting(None, "Updates to train.", low=1)
    epochs: float | None = setting(None, "Passes over the training digits.", low=1e-6, high=1e9)
    time_budget: float | None = setting(
        None, "Minutes to train; a short measurement turns them into steps.", low=0.01, high=1e9
    )
    start: str | None = setting(
        None,
        "Run folder whose best weights are the first ones, for training on; a new schedule begins.",
    )
    batch: int = setting(128, "Images per update.", low=1, high=LARGEST_BATCH)
    learning_rate: float = setting(
        1e-3, "Highest rate of Adam; a cosine takes it to zero.", low=0.0
    )
    warmup: int = setting(300, "Updates over which the rate rises to its highest.", low=0)
    weight_decay: float = setting(
        0.0, "Decay of weight matrices, times the rate (AdamW).", low=0.0, high=100.0
    )
    clip: float = setting(1.0, "Largest gradient norm of an update.", low=1e-9)
    average: float = setting(
        0.999,
        "Decay of the running average of weights that is measured; 0: none.",
        low=0.0,
        high=0.999999,
    )
    precision: str = setting(
        "float32",
        "Type of the matrix products in training; measuring is float32. tf32: on a GPU only.",
        choices=("float32", "tf32", "bfloat16"),
    )
    graph: bool = setting(
        False,
        "Record the model's work on a GPU once and play it back at every update (CUDA graphs).",
    )
    evaluate_every: int | None = setting(
        None, "Updates between validations (a fortieth of the training; if short, a tenth).", low=1
    )
    save_every: int = setting(500, "Updates between checkpoints.", low=1)
    seed: int = setting(0, "Seed of weights, order, clutter and noise.", low=0)
    processes: int = setting(
        1, "Processes on this machine that share the images of each update.", low=1, high=1024
    )
    threads: int | None = setting(
        None,
        "CPU threads of each process (all cores, shared among them, if not given).",
        low=1,
        high=1024,
    )
    device: str = setting(
        "auto", "Where to train; auto takes a GPU if there is one.", choices=("auto", "cpu", "cuda")
    )

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise Problem(
                f"give one length, not several: {' and '.join('--' + name.replace('_', '-') for name in given)}"
            )


@dataclass(frozen=True)
class ClassifyTraining(Training):
    """Training, and what only a classifier has."""

    fixed_train: bool = setting(
        False, "Train on the stored images of train.npz, not on fresh clutter."
    )
    distortion: float = setting(
        0.0,
        "Strength of the random distortion of training digits; the papers use none.",
        low=0.0,
        high=3.0,
    )
    intermediate: float = setting(
        0.0, "Weight of the loss of the answers before the last glimpse.", low=0.0
    )


PICTURES = ("mnist", "mnist2", "svhn", "cifar10", "folder")
PIXELS = ("auto", "static", "fixed", "dynamic", "threshold", "intensity")


@dataclass(frozen=True)
class PictureData(_Checked):
    """A data set for a model that draws."""

    dataset: str = setting(
        "mnist", "What to draw; folder: your own images, see --images.", choices=PICTURES
    )
    pixels: str = setting(
        "auto",
        "How grey becomes black and white; static: the published binarised MNIST; fixed: drawn once by seed; dynamic: drawn anew at each "
        "presentation; intensity: left as it is.",
        choices=PIXELS,
    )
    source: str = setting(
        "auto", "Where digits come from; auto: MNIST, else the embedded digits.", choices=SOURCES
    )
    images: str | None = setting(None, "Folder of images, with --dataset folder.")
    size: int = setting(
        32, "Side that the images of a folder are brought to, pixels.", low=2, high=1024
    )
    broken: str = setting(
        "stop", "What to do about a file of a folder that cannot be used.", choices=("stop", "skip")
    )
    data_seed: int = setting(
        0, "Seed of all that is drawn once; all models compared use the same one.", low=0
    )


GENERATORS = ("draw", "vae")
ATTENTION = ("both", "read", "write", "none")


@dataclass(frozen=True)
class GeneratorModel(_Checked):
    """A network that draws."""

    model: str = setting(
        "draw", "Which generator; vae is the plain variational autoencoder.", choices=GENERATORS
    )
    glimpses: int = setting(64, "Steps of reading and writing; a vae has 1.", low=1, high=4096)
    hidden: int = setting(256, "LSTM units of the encoder, and of the decoder.", low=1, high=65536)
    latent: int = setting(100, "Latents in a step.", low=1, high=65536)
    attention: str = setting(
        "both",
        "Where it uses windows: to read and write, to do one of them, or not at all (a recurrent VAE).",
        choices=ATTENTION,
    )
    read_patch: int = setting(2, "Side of the patch that is read, in filters.", low=1, high=512)
    write_patch: int = setting(5, "Side of the patch that is written, in filters.", low=1, high=512)
    window_map: str = setting(
        "linear",
        "How the decoder's state sets a window: the paper's bare linear map, or squashed smoothly.",
        choices=("linear", "bounded"),
    )
    window_clip: float | None = setting(
        None, "Largest gradient that one image sends back through one window.", low=1e-9
    )


@dataclass(frozen=True)
class GenerateTraining(Training):
    """Training, and what only a generator has."""

    batch: int = setting(100, "Images per update.", low=1, high=LARGEST_BATCH)
    clip: float = setting(5.0, "Largest gradient norm of an update.", low=1e-9)
    save_every: int = setting(200, "Updates between checkpoints.", low=1)
    checkpoint_steps: int | None = setting(
        None,
        "Steps of the model kept in memory at a time, the others computed again: less memory, a third more time (all kept).",
        low=1,
    )
    validation_images: int | None = setting(
        None, "Validation images measured during training, evenly spaced (all if not given).", low=1
    )
    bound_samples: int = setting(1, "Samples for each test image in the bound at the end.", low=1)
    iw_samples: int | None = setting(
        None,
        "Samples of the importance-weighted bound at the end (not measured if not given).",
        low=1,
    )
    iw_images: int | None = setting(
        None,
        "Test images of the importance-weighted bound, evenly spaced (all if not given).",
        low=1,
    )


@dataclass(frozen=True)
class OwnModel(_Checked):
    """A network that somebody brings along."""

    model: str = setting("", "Where it comes from: module:factory.")
    weights: str | None = setting(None, "File of its weights.")
    weights_sha256: str | None = setting(None, "What was in that file.")


@dataclass(frozen=True)
class Evaluate:
    """What ``drawbench evaluate --model`` measured."""

    task: ClassVar[str] = "evaluate"
    data: SceneData = SceneData()
    model: OwnModel = OwnModel()


@dataclass(frozen=True)
class MakeData:
    """Settings of ``drawbench make-data``."""

    task: ClassVar[str] = "make-data"
    data: SceneData = SceneData()


@dataclass(frozen=True)
class Classify:
    """Settings of ``drawbench classify``."""

    task: ClassVar[str] = "classify"
    data: SceneData = SceneData()
    model: ClassifierModel = ClassifierModel()
    training: ClassifyTraining = ClassifyTraining()


@dataclass(frozen=True)
class Generate:
    """Settings of ``drawbench generate``."""

    task: ClassVar[str] = "generate"
    data: PictureData = PictureData()
    model: GeneratorModel = GeneratorModel()
    training: GenerateTraining = GenerateTraining()


TASKS = {kind.task: kind for kind in (MakeData, Classify, Generate, Evaluate)}


def sections(kind: type) -> dict[str, type]:
    """The sections of a configuration class, by name."""
    return {field.name: typing.cast(type, field.type) for field in dataclasses.fields(kind)}


def settings(kind: type) -> dict[str, dataclasses.Field]:
    """Every setting of a configuration class by its name, which is unique across its sections."""
    return {
        field.name: field
        for section in sections(kind).values()
        for field in dataclasses.fields(section)
    }


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionaries with the task's name, for ``config.json``."""
    return {"task": config.task, **dataclasses.asdict(config)}


def from_dict(values: dict[str, Any]) -> Any:
    """The configuration that :func:`to_dict` wrote, checked.

    Raises: Problem: an unknown task, section or key (the nearest is suggested), or a wrong type or
        value.
    """
    if not isinstance(values, dict):
        raise Problem(f"a configuration must be a table of sections, got {type(values).__name__}")
    task = values.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise Problem(f"unknown task {shown(task)}; known are {', '.join(TASKS)}")
    kind = TASKS[task]
    return merge(kind, {name: section for name, section in values.items() if name != "task"}, {})


def merge(kind: type, recipe: dict[str, Any], given: dict[str, Any]) -> Any:
    """A configuration from defaults, a recipe's sections over them, and given settings (flat, by
    name) over those.

    Raises:
        Problem: an unknown section or key, or a wrong type or value.
    """
    known = sections(kind)
    for name, section in recipe.items():
        if name not in known:
            raise Problem(f"unknown section {shown(name)}{_nearest(name, known)}")
        if not isinstance(section, dict):
            raise Problem(f"{name} must be a section with keys, got {shown(section)}")
    for name in given:
        if name not in settings(kind):
            raise Problem(f"unknown setting {name!r}{_nearest(name, settings(kind))}")
    built = {}
    for name, section in known.items():
        fields = {field.name for field in dataclasses.fields(section)}
        values = dict(recipe.get(name, {}))
        for key in values:
            if key not in fields:
                raise Problem(
                    f"unknown key {shown(key)} in section [{name}]{_nearest(key, fields)}"
                )
        values.update({key: value for key, value in given.items() if key in fields})
        built[name] = section(**values)
    return kind(**built)


def replace(config: Any, **changes: Any) -> Any:
    """The same configuration with some settings changed, by name, whatever their section."""
    return merge(type(config), dataclasses.asdict(config), changes)


def recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("drawbench.config") / "recipes"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """The sections of a recipe: the name of one in the package, or the path of a TOML file.

    Raises:
        Problem: there is no such recipe, or it is not TOML.
    """
    if name in recipes():
        text = (resources.files("drawbench.config") / "recipes" / f"{name}.toml").read_text(
            encoding="utf-8"
        )
    else:
        path = Path(name)
        if not path.is_file():
            raise Problem(
                f"there is no recipe {name!r}{_nearest(name, recipes())}; give a TOML file or one of {', '.join(recipes())}"
            )
        if path.stat().st_size > 1 << 17:
            raise Problem(f"recipe {name} is over 128 kB: a recipe is a short TOML file")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(f"recipe {name} cannot be read: {error}") from error
    if any(
        line.count(".") > DEEPEST for line in text.splitlines()
    ):  # tomllib's time grows with the square of a key's parts
        raise Problem(
            f"recipe {name} has a line with more than {DEEPEST} dots: its keys are in sections, and no deeper"
        )
    try:
        return tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # tomllib's own are ValueErrors, and so is a number of too many digits
        raise Problem(f"recipe {name} is not valid TOML: {error}") from error


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    """``; did you mean ...?`` where a known word is close."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
