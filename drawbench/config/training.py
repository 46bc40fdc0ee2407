"""Settings of a training run."""

from dataclasses import dataclass

from drawbench.config.fields import Problem, Section, setting

LENGTHS = ("steps", "epochs", "time_budget")  # a training run has one of them
MAX_BATCH = 1 << 24
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Training(Section):
    """How any model is trained."""

    steps: int | None = setting(None, "Updates to train.", low=1)
    epochs: float | None = setting(None, "Passes over the training images.", above=0, high=1e9)
    time_budget: float | None = setting(
        None, "Minutes to train; a short measurement turns them into steps.", above=0, high=1e9
    )
    start: str | None = setting(
        None,
        "Run folder to take the initial weights from (its best), whose LSTMs may have fewer units "
        "(not those of ram); a new schedule begins.",
        note="initialized from {}",
    )
    plateau: float | None = setting(
        None,
        "Train at the peak rate until the mean of five validations has not improved for this share "
        "of the updates made, then let the rate fall to zero; the length is the upper limit.",
        note="until no gain in {} of the training",
        above=0,
        high=0.9,
    )
    batch: int = setting(128, "Images per update.", low=1, high=MAX_BATCH)
    learning_rate: float = setting(
        1e-3, "Peak learning rate of Adam; a cosine takes it to zero, or see --plateau.", above=0
    )
    warmup: int = setting(300, "Updates over which the learning rate rises to its peak.", low=0)
    weight_decay: float = setting(
        0.0,
        "Decay of weights, times the learning rate (AdamW); not of biases and LSTM start states.",
        note="weight decay {}",
        low=0.0,
        high=100.0,
    )
    clip: float = setting(1.0, "Largest gradient norm of an update.", above=0)
    ema_decay: float = setting(
        0.999,
        "Decay of the moving average of the weights, which is what gets measured; 0: no average.",
        low=0.0,
        high=0.999999,
    )
    precision: str = setting(
        "float32",
        "Type of matrix products in training (measuring uses float32); tf32 needs a GPU.",
        choices=("float32", "tf32", "bfloat16"),
    )
    graph: bool | None = setting(
        None,
        "Replay updates on a GPU as CUDA graphs (if not given, where the model is known to allow "
        "it: every built-in one but random).",
        role="machine",
    )
    evaluate_every: int | None = setting(
        None,
        "Updates between validations (if not given, a fortieth of the training, or a tenth if it "
        "is short).",
        role="report",
        low=1,
    )
    figures: bool = setting(
        True, "Draw the figures at the end; drawbench plot draws them later too.", role="report"
    )
    checkpoint_every: int = setting(500, "Updates between checkpoints.", role="machine", low=1)
    seed: int = setting(0, "Seed of the training: weights, order, fresh clutter, noise.", low=0)
    processes: int = setting(
        1,
        "Processes on this machine that share the images of each update.",
        role="machine",
        low=1,
        high=1024,
    )
    threads: int | None = setting(
        None,
        "CPU threads per process (if not given, all cores, shared out).",
        role="machine",
        low=1,
        high=1024,
    )
    device: str = setting(
        "auto",
        "Where to train; auto takes a CUDA GPU if there is one. On mps, an Apple GPU, data are "
        "made and models measured on the CPU, since it has no float64.",
        role="machine",
        choices=DEVICES,
    )

    def __post_init__(self):
        super().__post_init__()
        lengths = ["--" + name.replace("_", "-") for name in LENGTHS if getattr(self, name)]
        if len(lengths) > 1:
            raise Problem(f"give one length, not {' and '.join(lengths)}")


@dataclass(frozen=True)
class ClassifyTraining(Training):
    """How a classifier is trained."""

    intermediate: float = setting(
        0.0,
        "Weight of the loss of the answers before the last glimpse.",
        note="loss at earlier glimpses ({})",
        low=0.0,
    )


@dataclass(frozen=True)
class GenerateTraining(Training):
    """How a generator is trained and measured."""

    batch: int = setting(100, "Images per update.", low=1, high=MAX_BATCH)
    clip: float = setting(5.0, "Largest gradient norm of an update.", above=0)
    checkpoint_every: int = setting(200, "Updates between checkpoints.", role="machine", low=1)
    checkpoint_steps: int | None = setting(
        None,
        "Steps of the model kept in memory at a time, the others recomputed: less memory, a third "
        "more time (if not given, all).",
        role="machine",
        low=1,
    )
    validation_images: int | None = setting(
        None,
        "Validation images measured during training, evenly spaced (if not given, all).",
        role="report",
        low=1,
    )
    bound_samples: int = setting(
        1, "Samples per test image of the bound at the end.", role="report", low=1
    )
    iw_samples: int | None = setting(
        None,
        "Samples of the importance-weighted bound at the end (if not given, not measured).",
        role="report",
        low=1,
    )
    iw_images: int | None = setting(
        None,
        "Test images of the importance-weighted bound, evenly spaced (if not given, all).",
        role="report",
        low=1,
    )
