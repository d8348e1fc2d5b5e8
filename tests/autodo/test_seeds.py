import torch

from autodo.seeds import derive, numpy_generator, torch_generator


def test_streams_are_named_and_repeatable():
    assert derive(0, "split") == derive(0, "split")
    assert (
        len({derive(0, "split"), derive(1, "split"), derive(0, "noise"), derive(0, "inner", 1), derive(0, "inner", 2)})
        == 5
    )
    assert numpy_generator(3, "noise").integers(10**9) == numpy_generator(3, "noise").integers(10**9)
    assert torch.equal(
        torch.rand(4, generator=torch_generator(3, "a")), torch.rand(4, generator=torch_generator(3, "a"))
    )


def test_names_are_separated():
    assert derive(1, "1", "2") != derive(1, "12")
    assert derive(11, "x") != derive(1, "1x")
