from torch.utils.flop_counter import FlopCounterMode

from drawbench import bench, config
from drawbench.config import Classify


def test_contenders_take_turns():
    calls = []
    seconds = bench.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_a_row_gives_the_median_and_the_ratio_round_by_round():
    row = bench._row("step", 100, [1.0, 2.0, 4.0], [3.0, 2.0, 4.0])
    assert (row["images/s"], row["slowest"], row["fastest"], row["times plain"]) == (50, 25, 100, 1.0)


def test_the_floor_has_the_operations_of_a_step_and_no_more():
    """By hand, per image and glimpse: two products with the image, two with the inner patch and one axis, three with the weights."""
    settings = config.replace(Classify(), canvas=30, patch=5, hidden=16, glimpses=2, batch=4)
    step = bench.matrix_products(settings)
    with FlopCounterMode(display=False) as counter:
        step()
    image = 2 * (5 * 30 * 30) + 3 * (5 * 5 * 30)
    weights = 3 * (25 + 16) * 64
    assert counter.get_total_flops() == 2 * 2 * 4 * (image + weights)
