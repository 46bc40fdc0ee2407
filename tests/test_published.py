"""Published numbers: marked, sourced, and with the digits that were published."""

from decimal import Decimal

from drawbench import published

PAPER = {
    "cluttered-100x100-8-mnist": ("error", 4.18, 3.36, 14.35, 9.41, 8.11),
    "mnist-static": ("bound", 80.97, 87.40, 88.30, 87.72),
}


def test_every_number_names_its_source():
    for entry in published.load()["results"]:
        assert {"protocol", "model"} <= entry.keys() and isinstance(entry["value"], Decimal), entry
        assert entry["metric"] in ("error", "nll", "bound", "iw_bound", "bits"), entry
        assert entry["source"] and "a later source" not in entry["source"], entry
    for entry in published.load()["results"] + published.settings():
        assert entry["mark"] in published.MARKS, entry


def test_the_numbers_of_the_paper_are_complete():
    for protocol, (metric, *values) in PAPER.items():
        assert set(values) == {
            float(entry["value"])
            for entry in published.results(protocol)
            if entry["metric"] == metric and "DRAW, Table" in entry["source"]
        }


def test_a_protocol_has_one_kind_of_metric_and_a_model_one_value():
    for protocol in {entry["protocol"] for entry in published.load()["results"]}:
        entries = published.results(protocol)
        assert len({entry["metric"] == "error" for entry in entries}) == 1
        keys = [(entry["model"], entry.get("glimpses"), entry["metric"]) for entry in entries]
        assert len(keys) == len(set(keys))


def test_dynamic_binarisation_is_not_mixed_with_static():
    assert not [
        entry for entry in published.results("mnist-static") if "dynamic" in str(entry).lower()
    ]
