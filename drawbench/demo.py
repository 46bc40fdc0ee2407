"""A page in the browser: draw a digit and watch a network look for it; watch another one draw.

Needs the extra ``drawbench[demo]`` (Gradio). The page is served from this machine and asks no other
for anything. Hosted as a Space, it is ``build().launch()``.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from drawbench import data, pretrained, tasks
from drawbench.data import digits, scenes, sentences
from drawbench.errors import Problem
from drawbench.evaluation import drawings
from drawbench.figures import window_outlines
from drawbench.figures.style import RED, WINDOW
from drawbench.models.common import as_images

PAD = 280  # side of the drawing pad, pixels
INK = 20  # longest side of a digit in MNIST's 28x28 images, pixels
SIDE = 400  # of the pictures shown, dots
SAMPLES, ROWS = 9, 3  # drawn at a time
GAP = 6  # dots between them
GLIMPSE_SECONDS, STEP_SECONDS = 0.6, 0.15


# -------------------------------------------------------------------------------- what is computed


def as_digit(ink: np.ndarray) -> Tensor:
    """Return strokes as MNIST has them: 20 pixels long, their centre of mass in the middle.

    Args:
        ink: (H, W), 0 where the pad is empty, up to 255 where it is not.

    Returns:
        uint8 (28, 28), white on black.

    Raises:
        Problem: the pad is empty, or full.
    """
    rows, columns = (np.flatnonzero(ink.max(axis)) for axis in (1, 0))
    if not rows.size:
        raise Problem("The pad is empty: draw a digit on it first.")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    width, height = box[2] - box[0], box[3] - box[1]
    if (ink > 127).mean() > 0.6:
        raise Problem("The pad is nearly full: clear it and draw a digit with a thin stroke.")
    scale = INK / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(ink).resize(size, Image.Resampling.BOX, box=box)
    values = np.asarray(small, dtype=float)
    values *= 255 / values.max()
    y, x = (np.average(np.arange(n), weights=values.sum(1 - k)) for k, n in enumerate(values.shape))
    digit = np.zeros((scenes.DIGIT, scenes.DIGIT), np.uint8)
    top = int(np.clip(round(13.5 - y), 0, scenes.DIGIT - size[1]))
    left = int(np.clip(round(13.5 - x), 0, scenes.DIGIT - size[0]))
    digit[top : top + size[1], left : left + size[0]] = np.rint(values)
    return torch.from_numpy(digit)


def in_clutter(digit: Tensor, bank: scenes.Digits, clutter: int, canvas: int, seed: int) -> Tensor:
    """Return a scene with this digit at a random place, uint8 (1, 1, canvas, canvas).

    Args:
        digit: uint8 (28, 28).
        bank: whose digits the pieces of clutter are cut from.
        seed: of the places.
    """
    scene, first = scenes.Scene(canvas=canvas, clutter=clutter), torch.tensor([0])
    parts = (bank.images, bank.labels, scene, first, torch.tensor([seed]), seed, "demo")
    return scenes.render(*parts, pictures=digit[None]).images[:, None]


@torch.no_grad()
def looks(model: Any, scene: Tensor) -> Iterator[tuple[Image.Image, dict[str, float]]]:
    """Yield, for each glimpse at a scene, a picture of it and the probability of each class.

    The picture shows the scene with the windows up to now and, in a corner, what the last one read.
    """
    record = model(as_images(scene))
    height, width = scene.shape[-2:]
    corners = model.glimpse.corners(record.windows, height, width)[0].numpy()
    opinions = record.logits[0].float().softmax(dim=-1)
    for t, opinion in enumerate(opinions):
        picture = _enlarged(scene[0, 0].numpy(), SIDE)
        scale, pen = SIDE / width, ImageDraw.Draw(picture)
        for k in range(t + 1):
            outline = [tuple((point + 0.5) * scale) for point in corners[k]]
            pen.polygon(outline, outline=WINDOW if k == t else "#6b6b6b", width=3 if k == t else 1)
        patch = record.patches[0, t, 0].clamp(0, 1).mul(255).byte().numpy()
        seen = _enlarged(patch, SIDE // 4)
        page = Image.new("RGB", (SIDE + SIDE // 4 + 8, SIDE), "#303030")
        page.paste(picture, (0, 0))
        page.paste(seen, (SIDE + 8, 0))
        yield page, {name: float(p) for name, p in zip(digits.CLASSES, opinion, strict=True)}


def steps(model: Any, seed: int, condition: Tensor | None = None) -> Iterator[Image.Image]:
    """Yield the canvases of some samples after each step, with where the step wrote.

    Args:
        condition: (K, ...) for a generator that takes one: K samples are drawn.
    """
    count = SAMPLES if condition is None else len(condition)
    drawn = drawings.samples(model, count, seed, condition)
    if drawn is None or drawn.frames is None:
        raise Problem("This generator has no steps to watch.")
    outlines = window_outlines(drawn.write_windows, getattr(model, "write_patch", None))
    pitch = SIDE // ROWS
    side = pitch - GAP
    for t in range(drawn.frames.shape[1]):
        page = Image.new("RGB", (SIDE, -(-count // ROWS) * pitch), "white")
        for n, canvas in enumerate(drawn.frames[:, t].mul(255).byte().numpy()):
            picture = _enlarged(canvas[0] if len(canvas) == 1 else canvas.transpose(1, 2, 0), side)
            if outlines is not None and t + 1 < drawn.frames.shape[1]:
                scale = side / canvas.shape[-1]
                for polygon in outlines.at(n, t)[0]:
                    points = [tuple((point + 0.5) * scale) for point in polygon]
                    ImageDraw.Draw(picture).polygon(points, outline=RED, width=2)
            page.paste(picture, (n % ROWS * pitch, n // ROWS * pitch))
        yield page


def _enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """Return a picture (H, W) or (H, W, 3) uint8 with this side, in colour."""
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    return picture.resize((side, side), Image.Resampling.NEAREST)


# ------------------------------------------------------------------------------------- the page


def gradio() -> Any:
    """Import Gradio, which then reports to nobody.

    Raises:
        Problem: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise Problem(
            "the demo needs Gradio; install it with: pip install 'drawbench[demo]'"
        ) from error
    return gradio


def build(
    classifier: str | Path = "glimpse-8",
    generator: str | Path = "draw-mnist",
    captioned: str | Path | None = None,
    sources: Path | None = None,
) -> Any:
    """Build the page.

    Args:
        classifier: a run, or the name of a pretrained model, that classifies cluttered digits.
        generator: a run, or the name of a pretrained model, that draws.
        captioned: a run on captions, for a box to type one; by default a pretrained model that was
            trained on captions, if there is one.
        sources: folder of original files; without MNIST there, clutter is cut from the embedded
            digits.

    Returns:
        ``gradio.Blocks``; call its ``launch``.

    Raises:
        Problem: Gradio is missing, or a run is of another kind.
    """
    gr = gradio()
    looking, drawing = tasks.load_run(classifier), tasks.load_run(generator)
    if not hasattr(looking.model, "glimpse") or looking.config.data.dataset != "cluttered":
        raise Problem(f"{classifier} is no network that glimpses at cluttered digits")
    if drawing.config.task != "generate":
        raise Problem(f"{generator} is a run of {drawing.config.task!r}, not of a generator")
    source = digits.load("auto", data.sources_root(sources), False, lambda _: None)
    bank = source.splits["test"]
    canvas, blank = looking.config.data.canvas, np.zeros((PAD, PAD, 3), np.uint8)
    captioned = captioned or next(filter(_takes_captions, pretrained.models()), None)
    if captioned and not _takes_captions(captioned):
        raise Problem(f"{captioned} was not trained on captions")
    writing = tasks.load_run(captioned).model if captioned else None

    def paced(frames: Iterator[Any], seconds: float, blank: tuple) -> Iterator[Any]:
        """Yield outputs, of which the last are what is said and the next seed, at a pace that can
        be followed; a problem is said.
        """
        try:
            for frame in frames:
                yield frame
                time.sleep(seconds)
        except Problem as problem:
            yield (*blank, str(problem), gr.skip())

    def on_look(pad: dict[str, Any] | None, clutter: float, seed: int) -> Iterator[Any]:
        def shown() -> Iterator[Any]:
            scene = in_clutter(as_digit(_ink(pad)), bank, round(clutter), canvas, seed)
            for t, (picture, opinion) in enumerate(looks(looking.model, scene), start=1):
                yield picture, opinion, f"Glimpse {t}: {_verdict(opinion)}", seed + 1

        yield from paced(shown(), GLIMPSE_SECONDS, (None, None))

    def painted(model: Any, seed: int, condition: Tensor | None = None) -> Iterator[Any]:
        for t, picture in enumerate(steps(model, seed, condition), start=1):
            yield picture, f"Step {t}", seed + 1

    def on_draw(seed: int) -> Iterator[Any]:
        yield from paced(painted(drawing.model, seed), STEP_SECONDS, (None,))

    def on_caption(text: str, seed: int) -> Iterator[Any]:
        def frames() -> Iterator[Any]:
            yield from painted(writing, seed, sentences.parse(text).expand(SAMPLES, -1))

        yield from paced(frames(), STEP_SECONDS, (None,))

    # A click while pictures are still coming is not lost: it counts when they are done.
    heeded = {"show_progress": "hidden", "trigger_mode": "always_last"}
    runs = [run for run in (classifier, generator, captioned) if run]
    with gr.Blocks(title="drawbench", analytics_enabled=False) as page:
        gr.Markdown("# drawbench\nVisual attention you can watch: DRAW (Gregor et al. 2015).")
        with gr.Tab("Watch it look"):
            gr.Markdown(
                f"Draw a digit. It is put somewhere on a {canvas}x{canvas} canvas among clutter, "
                "and the network has a few small glimpses to find and name it."
            )
            with gr.Row():
                with gr.Column(min_width=300):
                    pad = gr.Sketchpad(
                        **{"label": "Your digit", "elem_id": "pad", "type": "numpy"},
                        **{"canvas_size": (PAD, PAD), "height": PAD + 130, "image_mode": "RGBA"},
                        **{"sources": (), "transforms": (), "layers": False, "fixed_canvas": True},
                        value={"background": blank, "layers": [], "composite": blank},
                        brush=gr.Brush(default_size=11, colors=["#ffffff"], color_mode="fixed"),
                    )
                    clutter = gr.Slider(0, 32, value=8, step=1, label="Pieces of clutter")
                    look = gr.Button("Look", variant="primary", elem_id="look")
                with gr.Column(min_width=300):
                    kind = {"type": "pil", "format": "png", "interactive": False, "buttons": []}
                    kind["show_label"] = False  # it would cover a corner of the picture
                    view = gr.Image(label="Where it looks, what it reads", elem_id="view", **kind)
                    said = gr.Markdown(elem_id="said")
                    opinion = gr.Label(label="Its opinion", num_top_classes=4, elem_id="opinion")
            look_seed = gr.State(0)
            asked = [pad, clutter, look_seed]
            look.click(on_look, asked, [view, opinion, said, look_seed], **heeded)
        with gr.Tab("Watch it draw"):
            gr.Markdown(
                "Nine samples, drawn step by step from noise. "
                "The rectangle is where the next strokes go."
            )
            with gr.Row():
                with gr.Column(min_width=300):
                    draw = gr.Button("Draw", variant="primary", elem_id="draw")
                    if captioned:
                        example = sentences.text(sentences.ALL.words[sentences.EXAMPLE])
                        caption = gr.Textbox(example, label="Caption", elem_id="caption")
                        write = gr.Button("Draw this caption", elem_id="write")
                with gr.Column(min_width=300):
                    picture = gr.Image(label="Canvas", elem_id="canvas", **kind)
                    told = gr.Markdown(elem_id="told")
            seed = gr.State(0)
            drawn = [picture, told, seed]
            draw.click(on_draw, [seed], drawn, **heeded)
            if captioned:
                asked = [caption, seed]
                heard = [caption.submit, write.click]
                gr.on(heard, on_caption, asked, drawn, **heeded)
        gr.Markdown(
            f"The networks are {', '.join(f'`{Path(run).name}`' for run in runs)}. They were "
            "trained on MNIST and know nothing but its digits. What you draw stays on this machine."
        )
    return page


def _takes_captions(run: str | Path) -> bool:
    """Whether a run draws what a caption says."""
    return tasks.open_run(Path(run)).config.data.dataset == "captions"


def _ink(pad: dict[str, Any] | None) -> np.ndarray:
    """Return how opaque the strokes on the pad are, uint8 (H, W)."""
    layers = [np.asarray(layer) for layer in (pad or {}).get("layers") or [] if layer is not None]
    inks = [layer[..., 3] for layer in layers if layer.ndim == 3 and layer.shape[-1] == 4]
    return np.max(inks, axis=0) if inks else np.zeros((PAD, PAD), np.uint8)


def _verdict(opinion: dict[str, float]) -> str:
    """Return an opinion in words."""
    best = max(opinion, key=lambda name: opinion[name])
    return f"a **{best}**, {100 * opinion[best]:.0f}% sure"


def launch(page: Any, port: int | None = None, block: bool = True) -> str:
    """Serve the page to this machine alone; return its address.

    Args:
        port: by default the first free one from 7860.
        block: until Ctrl-C.
    """
    gr = gradio()
    plain = ["system-ui", "sans-serif"]  # fonts of this machine: the theme's come from the network
    _, address, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=not block,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(font=plain, font_mono=["monospace"]),
    )
    return address
