"""Changed data, and settings of other programs that happen to lie about."""

import os
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import RESUME, RUN, TASKS, Place, Reference, command

COUNT = 12
MATPLOTLIBRC = """
font.size: 30
savefig.dpi: 20
savefig.bbox: tight
figure.autolayout: True
lines.linewidth: 9
image.cmap: hot
axes.facecolor: black
text.usetex: True
backend: TkAgg
"""
#: What a launcher or a batch system leaves in the environment of a shell.
LEFTOVERS = (
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"},
    {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
    {"WORLD_SIZE": "none"},
)


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = TASKS[case.number % 2]
    harms = (launcher_variables, matplotlibrc, changed_images)
    harm = harms[(case.number // 2) % len(harms)]
    tally.about = f"{case.repeat} ({task}, {harm.__doc__.strip().rstrip('.')})"
    tally.tried += 1
    harm(case, place, command(task), references[task], tally)


def launcher_variables(case, place, words, reference, tally) -> None:
    """The environment holds a launcher's variables."""
    variables = LEFTOVERS[(case.number // 6) % len(LEFTOVERS)]
    tally.about += f" {variables}"
    ended = place.call(words, before=lambda: os.environ.update(variables))
    if ended.status == 0:
        checks.compare(tally, place, ended, reference)
    else:
        checks.explained(tally, ended)


def matplotlibrc(case, place, words, reference, tally) -> None:
    """The folder holds somebody's matplotlibrc."""
    (place.folder / "matplotlibrc").write_text(MATPLOTLIBRC)
    ended = place.call(words, cold=True)  # matplotlib reads its settings when it is imported
    checks.no_traceback(tally, ended)
    if tally.check(ended.status == 0, f"exit status {ended.status}: {ended.err[-600:]}"):
        tally.resumed += 1
        different = checks.differences(place.run, reference.folder / RUN)
        if not place.pictures:  # the reference drew blanks
            different = [name for name in different if not name.startswith("figures/")]
        if tally.check(not different, f"differs in {', '.join(different)}"):
            tally.identical += 1


def changed_images(case, place, words, reference, tally) -> None:
    """An image is changed, added or removed between two parts of a training."""
    chance, images = case.chance(), place.folder / "images"
    _write_images(images)
    words = command("generate", dataset="folder", images=images, steps=40, evaluate_every=10)
    words = [word for word in words if not word.startswith("--source=")]
    undisturbed = Place(place.folder.with_name(f"{place.folder.name}-whole"), place.pictures)
    if not checks.succeeded(tally, undisturbed.call(words)):
        return
    expected = Reference(undisturbed.folder, 0, 0, [])
    process = place.start(words)
    process.wait_for(lambda: (place.run / "last.safetensors").exists())
    process.send(9)
    process.ended()
    victim, how = chance.choice(sorted(images.rglob("*.png"))), chance.randrange(3)
    content = victim.read_bytes()
    extra = victim.with_name("zzz.png")
    if how == 0:
        _write_image(victim, 99)
    elif how == 1:
        victim.unlink()
    else:
        _write_image(extra, 98)
    before = checks.saved_step(place.run)
    checks.explained(tally, place.call(RESUME))
    checks.intact(tally, place, before)
    extra.unlink(missing_ok=True)
    victim.write_bytes(content)
    checks.finish(tally, place, words, expected)


def _write_images(folder: Path) -> None:
    for number in range(60):
        path = folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_image(path, number)


def _write_image(path: Path, number: int) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGB").save(path)
