"""``drawbench doctor``."""

import contextlib
from pathlib import Path

import click

from drawbench.cli import options

MARKS = {"verified": "ok", "unverified": "??", "missing": "--", "damaged": "!!"}
PACKAGES = (
    *("drawbench", "torch", "torchvision", "scikit-learn", "pandas", "matplotlib", "numpy"),
    *("safetensors", "filelock"),
)
FOR_DEVELOPERS = ("docs", "test")  # extras
TESTED_SYSTEMS = ("Linux",)
NO_BFLOAT16 = "not in this CPU, so --precision bfloat16 computes in float32 here"
NO_GPU_KERNELS = "none, so DRAW trains slower there: they need Triton and a C compiler"


def _extras() -> dict[str, dict[str, str]]:
    """Return, of each extra for users, the packages and their versions."""
    import importlib.metadata
    import re

    from drawbench import files

    extras: dict[str, dict[str, str]] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run in place
        for line in importlib.metadata.requires("drawbench") or ():
            found = re.match(r"([\w.-]+).*extra == ['\"](\w+)", line)
            if found and found[2] not in FOR_DEVELOPERS:
                extras.setdefault(found[2], {})[found[1]] = files.version_of(found[1])
    return extras


@click.command(epilog="\b\nExample:\n  drawbench doctor --sources ~/data\n")
@options.SOURCES
@options.common
def command(sources: Path | None, as_json: bool) -> None:
    """Versions, extras, devices, digits; what is missing and how to get it. Downloads nothing."""
    import os
    import platform

    import torch

    from drawbench import data, fast, files
    from drawbench.cli import console
    from drawbench.data import digits
    from drawbench.fast import native

    versions = {"python": platform.python_version()}
    versions |= {name: files.version_of(name) for name in PACKAGES}
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    why = native.why_no_kernels()
    gpu = bool(devices) and native.gpu_kernels(torch.float32, torch.device("cuda")) is not None
    root = data.sources_root(sources)
    findings = digits.survey(root)
    tested = platform.system() in TESTED_SYSTEMS
    advice = "" if tested else " (untested: drawbench is tested on Linux)"
    extras = _extras()
    lines = ["Versions", *(f"  {name:<14}{version}" for name, version in versions.items())]
    lines += ["", "Extras (pip install 'drawbench[NAME]', in a checkout '.[NAME]')"]
    for name, packages in extras.items():
        listed = ", ".join(f"{package} {version}" for package, version in packages.items())
        lines.append(f"  {name:<14}{listed}")
    lines += [
        "",
        "Machine",
        f"  system        {platform.platform()}{advice}",
        f"  cpu           {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        *(f"  cuda:{index}        {name}" for index, name in enumerate(devices)),
        *([] if devices else ["  cuda          none found: training uses the CPU"]),
        f"  kernels       {f'none, so training is slower: {why}' if why else 'compiled'}",
        f"  bfloat16      {'in the CPU' if fast.multiplies_bfloat16() else NO_BFLOAT16}",
        *([f"  gpu kernels   {'compiled' if gpu else NO_GPU_KERNELS}"] if devices else []),
        "",
        f"Data in {root} (change with --sources DIR or DRAWBENCH_SOURCES)",
    ]
    for finding in findings:
        mark = MARKS[finding.state]
        lines.append(f"  {mark}  {finding.name:<18}{finding.state:<12}{finding.where}")
        if finding.advice:
            lines.append(f"      {finding.advice}")
    result = {
        "versions": versions,
        "extras": extras,
        "system": platform.platform(),
        "tested": tested,
        "cores": os.cpu_count(),
        "cuda": devices,
        "kernels": not why,
        "why_no_kernels": why,
        "bfloat16": fast.multiplies_bfloat16(),
        "gpu_kernels": gpu,
        "sources": str(root),
        "data": [vars(finding) for finding in findings],
    }
    console.emit(result, "\n".join(lines), as_json)
