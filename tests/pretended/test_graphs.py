"""The loss module as an engine of a GPU compiles and calls it: one graph, causal attention, sizes that stay."""

import pytest

LAYERS = 2  # of the network in graphs.py, each with one call of attention
CAUSAL = [True, False]  # is causal, has a mask


def test_training_and_scoring_are_a_graph_each_whose_attention_is_causal_without_a_mask(pretended):
    made = pretended.run("compile_as_engine", history=["whole", "score", "whole", "score"], dtype="bfloat16")
    assert (made["graphs"], made["breaks"]) == (2, 0)
    assert made["attention"] == [CAUSAL] * LAYERS * 2


@pytest.mark.parametrize(
    "history",
    [["short", "whole"], ["whole", "whole exchanged", "short", "short exchanged", "whole"]],
    ids=" then ".join,
)
def test_no_history_changes_the_graph_that_a_batch_runs(pretended, history):
    # a run that is resumed within an epoch has another history than one left alone, and must compute the same
    made = pretended.run("compile_as_engine", history=history, dtype="float32")
    different = {tuple(call) for call in made["calls"]}
    assert (made["graphs"], made["breaks"], made["symbolic"]) == (len(different), 0, 0)
    assert made["attention"] == [CAUSAL] * LAYERS * len(different)
