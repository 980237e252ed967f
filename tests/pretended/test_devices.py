"""The pretended devices themselves: what is on another one is refused, and graphs belong to their stream's device."""

from collections import Counter


def test_tensors_of_two_devices_are_not_added(pretended):
    answer = pretended.ask("add_across")
    words = "aten.add.Tensor: Expected all tensors to be on the same device, found cuda:0, cuda:1"
    assert answer["problem"][:2] == ["RuntimeError", words]


def test_gradients_are_those_of_the_cpu_and_looks_are_counted(pretended):
    # d(sum of x · w)/dw = the sums of the columns of x = [5, 7, 9]; read back as three numbers in one look
    done = pretended.run("differentiate")
    assert done["gradient"] == [5.0, 7.0, 9.0]
    assert done["device"] == "cuda:1"
    assert Counter(done["looks"]).total() == 1


def test_a_graph_computes_again_in_its_own_memory(pretended):
    # 1, doubled by each of three replays; nothing runs while it is recorded
    assert pretended.run("replay_doubling", current=1) == [1.0, 2.0, 4.0, 8.0]


def test_a_graph_recorded_on_another_device_is_empty(pretended):
    # as on true GPUs: torch.cuda.graph takes a stream of the current device, and an operation elsewhere runs at once
    answer = pretended.ask("replay_doubling", current=0)
    assert answer["value"] == [2.0, 2.0, 2.0, 2.0]
    assert "UserWarning: The CUDA Graph is empty." in answer["said"]


def test_a_number_read_while_a_graph_is_recorded_is_refused(pretended):
    answer = pretended.ask("read_while_recording")
    words = "aten._local_scalar_dense.default: operation not permitted when stream is capturing"
    assert answer["problem"][:2] == ["RuntimeError", words]


def test_memory_that_runs_out_is_told_in_cuda_s_words(pretended):
    answer = pretended.ask("allocate", room=1 << 20)
    assert answer["problem"][:2] == ["OutOfMemoryError", "CUDA out of memory. Tried to allocate 4.00 MiB."]
