"""GPUs that are only pretended, so that a machine without any proves the paths of GPUs.

devices.cpp   what a torch built without CUDA lacks of two devices; library.py builds and loads it
tensors.py    numbers on the CPU that say they lie on a GPU, and what is done with them
cuda.py       the questions that torch.cuda answers: devices, streams, graphs, copies between devices
server.py     the process in which all this is so; it forks for every case, of cases.py and the files beside it
"""
