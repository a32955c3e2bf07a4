import pytest
import torch

from modicum.losses import DINO, BarlowTwins, ISogCLR, SogCLR, VICReg
from modicum.losses.precision import full_precision


def pair(n=12, d=5, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=g, dtype=torch.float64)
    return a.to(dtype), (a + 0.3 * torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)


LOSSES = {
    "barlow": lambda a, b, where: BarlowTwins()(a, b),
    "vicreg": lambda a, b, where: VICReg()(a, b),
    "dino": lambda a, b, where: DINO(a.shape[1])([a, b], [a, b]),
    "sogclr": lambda a, b, where: SogCLR(50)(a, b, where),
    "isogclr": lambda a, b, where: ISogCLR(50)(a, b, where),
}


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLossOfTwoViews:
    def test_the_order_of_images_and_of_views_does_not_matter(self, name):
        a, b = pair(dtype=torch.float64)
        where, order = torch.arange(10, 22), torch.randperm(12, generator=torch.Generator().manual_seed(1))
        value = LOSSES[name](a, b, where)
        torch.testing.assert_close(LOSSES[name](a[order], b[order], where[order]), value)
        torch.testing.assert_close(LOSSES[name](b, a, where), value)

    def test_autocast_and_16_bits_cost_no_more_than_the_rounding_of_the_inputs(self, name):
        a, b = (x.bfloat16() for x in pair())
        value = LOSSES[name](a.float(), b.float(), torch.arange(12))
        with torch.autocast("cpu", torch.bfloat16):
            for x, y in ((a, b), (a.float(), b.float())):
                assert torch.equal(LOSSES[name](x, y, torch.arange(12)), value)
        assert value.dtype == torch.float32

    def test_inputs_are_not_written_to(self, name):
        a, b = pair()
        before = a.clone(), b.clone()
        LOSSES[name](a, b, torch.arange(12))
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])

    def test_gradients_are_right(self, name):
        if "sogclr" in name:
            pytest.skip("a surrogate: its gradient is tested against the objective's")
        a, b = (x.requires_grad_() for x in pair(4, 6, torch.float64))
        if name == "dino":
            told = [x.detach().clone() for x in (a, b)]
            assert torch.autograd.gradcheck(lambda x, y: DINO(6)([x, y], told), (a, b))
        else:
            assert torch.autograd.gradcheck(lambda x, y: LOSSES[name](x, y, torch.arange(4)), (a, b))


def test_64_bits_stay():
    with full_precision(torch.ones(1, dtype=torch.float64)) as (x,):
        assert x.dtype == torch.float64
    with full_precision(torch.ones(1, dtype=torch.float16)) as (x,):
        assert x.dtype == torch.float32
