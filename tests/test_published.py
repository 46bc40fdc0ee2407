"""Published numbers: marked, sourced, and with the digits that were published."""

from decimal import Decimal

from drawbench import published

PAPER = {
    "cluttered-100x100-8-mnist": ("error", 4.18, 3.36, 14.35, 9.41, 8.11),
    "mnist-static": ("bound", 80.97, 87.40, 88.30, 87.72),
}


def test_every_number_says_where_it_was_seen():
    for entry in published.load()["results"]:
        assert (
            entry["mark"] in published.MARKS
            and entry["source"]
            and isinstance(entry["value"], Decimal)
        ), entry


def test_the_papers_tables_are_there():
    for protocol, (metric, *values) in PAPER.items():
        seen = {
            float(entry["value"])
            for entry in published.results(protocol)
            if entry["metric"] == metric and "DRAW, Table" in entry["source"]
        }
        assert seen == set(values)


def test_a_protocol_has_one_kind_of_metric_and_a_model_one_value_of_it():
    for protocol in {entry["protocol"] for entry in published.load()["results"]}:
        entries = published.results(protocol)
        assert len({entry["metric"] == "error" for entry in entries}) == 1
        keys = [
            (entry["model"], entry.get("glimpses"), entry.get("clutter"), entry["metric"])
            for entry in entries
        ]
        assert len(keys) == len(set(keys))


def test_no_dynamic_binarisation_stands_with_the_static():
    assert not [
        entry for entry in published.results("mnist-static") if "dynamic" in str(entry).lower()
    ]
