"""``drawbench doctor``."""

from pathlib import Path

import click

from drawbench.cli import options

MARKS = {"verified": "ok", "unverified": "??", "missing": "--", "damaged": "!!"}


@click.command(epilog="\b\nExample:\n  drawbench doctor --sources ~/data\n")
@options.SOURCES
@options.common
def command(sources: Path | None, as_json: bool) -> None:
    """Versions, devices, data found; what is missing and how to get it. Downloads nothing."""
    import importlib.metadata
    import os
    import platform

    import torch

    from drawbench.cli import console
    from drawbench.data import sources as origins
    from drawbench.fast import native

    packages = (
        "drawbench",
        "torch",
        "torchvision",
        "scikit-learn",
        "pandas",
        "matplotlib",
        "numpy",
        "safetensors",
    )
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    root = origins.sources_root(sources)
    findings = origins.survey(root)
    text = ["Versions", *(f"  {name:<14}{version}" for name, version in versions.items()), ""]
    text += [
        "Devices",
        f"  cpu           {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
    ]
    text += [f"  cuda:{index}        {name}" for index, name in enumerate(devices)] or [
        "  cuda          none found: the CPU trains"
    ]
    fast = native.kernels() is not None
    text += [
        f"  kernels       {'compiled for this machine' if fast else 'none: no C compiler found (set CC); training is slower without'}"
    ]
    text += ["", f"Data in {root} (--sources DIR or DRAWBENCH_SOURCES changes this)"]
    for finding in findings:
        text.append(
            f"  {MARKS[finding.state]}  {finding.name:<18}{finding.state:<12}{finding.where}"
        )
        if finding.advice:
            text.append(f"      {finding.advice}")
    data = [vars(finding) for finding in findings]
    result = {
        "versions": versions,
        "cores": os.cpu_count(),
        "cuda": devices,
        "kernels": fast,
        "sources": str(root),
        "data": data,
    }
    console.emit(result, "\n".join(text), as_json)
