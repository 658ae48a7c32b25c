"""Status texts of live answers that have none of the baseline beside them."""

from typing import Any

from penumbra.serve.cli.latency_views import latency_text


def floor(slice_name: str, time: str, pairs: int, latest: float | None) -> dict[str, Any]:
    wanted = {"slice": slice_name, "time": time, "pairs": pairs, "wanted_pairs": 250}
    return {**wanted, "latest": latest}


def test_a_slice_without_a_floor_says_how_far_it_is() -> None:
    signal = {
        "without_counterpart": {"json": 52, "sort": 3},
        "floors": [floor("json", "first", 41, None), floor("json", "whole", 0, None)],
    }
    assert latency_text(signal).plain == (
        "  no counterpart, not judged: json 52 (floor not known: first 41, whole 0 of 250 pairs),"
        " sort 3"
    )


def test_answers_without_a_shadow_one_say_so() -> None:
    signal = {"without_counterpart": {"json": 52}, "floors": [floor("json", "first", 0, 4.1)]}
    assert latency_text(signal).plain == (
        "  no counterpart, not judged: json 52 (no shadow answer beside them)"
    )


def test_answers_that_were_judged_name_the_ratio_from_which_they_are_late() -> None:
    floors = [floor("json", "first", 3, 4.125), floor("json", "whole", 7, None)]
    signal = {"beside_shadow": {"json": 260}, "floors": floors}
    assert latency_text(signal).plain == (
        "  judged beside shadow answers: json 260 (late: first over 4.1 times)"
    )


def test_an_older_control_process_tells_the_counts_alone() -> None:
    assert latency_text({"without_counterpart": {"json": 2}}).plain == (
        "  no counterpart, not judged: json 2"
    )
    assert latency_text({}).plain == ""
