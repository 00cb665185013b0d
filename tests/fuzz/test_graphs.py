"""A short run of the fuzzing of process graphs."""

from tests.fuzz import graphs


def test_random_graphs_end_in_results_or_errors_of_the_user() -> None:
    report = graphs.run(120, seed=3)
    assert report.passed, str(report)
    assert report.cases == 120
    assert report.refused < 120
