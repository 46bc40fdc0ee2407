"""The campaign's profile, and the table of its outcome."""

from hypothesis import HealthCheck, Phase, settings

from .limits import TALLIES

LOOSE = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile(
    "fuzz", derandomize=True, phases=[Phase.explicit, Phase.generate], **LOOSE
)
settings.register_profile("campaign", **LOOSE)


def pytest_terminal_summary(terminalreporter) -> None:
    if not TALLIES:
        return
    terminalreporter.section("fuzzing")
    terminalreporter.line(
        f"{'what is read':<24}{'cases':>8}{'refused':>9}{'accepted':>9}{'MiB':>7}"
    )
    for kind, tally in TALLIES.items():
        counts = f"{tally.cases:>8,}{tally.refused:>9,}{tally.cases - tally.refused:>9,}"
        terminalreporter.line(f"{kind:<24}{counts}{tally.peak >> 20:>7,}")
