"""Packed documents and other masks in the chunked path and in decoding, against the definition."""

import pytest
import torch
from plla_cases import Case, inputs

from parallax.attention.plla.api import parallax_func
from parallax.attention.plla.chunked import chunked_plla
from parallax.attention.plla.chunks import chunks_of
from parallax.attention.plla.decode import decode_row
from parallax.attention.plla.reference import parallax_reference
from parallax.model.documents import document_mask

LONG = Case(4, 2, 200, 200, 8)


def documents(case: Case, length: int) -> torch.Tensor:
    """(2, 1, T, T) of documents that begin at other places in the two rows."""
    starts = torch.arange(case.queries) // length
    return document_mask(torch.stack((starts, (torch.arange(case.queries) + length // 2) // length)))


def drawn(case: Case) -> torch.Tensor:
    """(1, 1, T, S): no triangle, every query sees its own key at least."""
    mask = torch.rand(1, 1, case.queries, case.keys, generator=torch.Generator().manual_seed(1)) < 0.3
    return mask | torch.eye(case.queries, case.keys, dtype=torch.bool).roll(case.keys - case.queries, 1)


def reference(
    q: torch.Tensor, r: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    return parallax_reference(*(t.transpose(1, 2) for t in (q, r, k, v)), mask=mask).transpose(1, 2)


@pytest.mark.parametrize(
    ("case", "mask"),
    [(LONG, documents(LONG, 37)), (LONG, drawn(LONG)), (Case(2, 1, 30, 77, 8), drawn(Case(2, 1, 30, 77, 8)))],
    ids=["documents", "drawn", "drawn, fewer queries"],
)
def test_output_and_every_gradient_under_a_mask_are_the_references(case: Case, mask: torch.Tensor) -> None:
    ours, theirs = ([t.requires_grad_() for t in inputs(case)] for _ in range(2))
    grad = torch.randn(2, case.heads, case.queries, case.width, dtype=torch.float64)
    found, expected = chunked_plla(*ours, case.width**-0.5, mask=mask), reference(*theirs, mask)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    found.backward(grad)
    expected.backward(grad)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-10)


def test_documents_are_as_if_each_were_alone() -> None:
    q, r, k, v = inputs(LONG)
    found = chunked_plla(q, r, k, v, 0.3, mask=documents(LONG, 50)[:1])
    for start in range(0, LONG.queries, 50):
        part = slice(start, start + 50)
        alone = chunked_plla(*(t[:, :, part] for t in (q, r, k, v)), 0.3)
        torch.testing.assert_close(found[:, :, part], alone, rtol=1e-11, atol=1e-12)


def test_a_query_that_sees_nothing_gives_zero_and_no_gradient() -> None:
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool).tril()
    mask[..., 7, :] = False
    tensors = [t.requires_grad_() for t in inputs(Case(2, 2, 20, 20, 8))]
    output = chunked_plla(*tensors, 0.3, mask=mask)
    output.sum().backward()
    assert (output[:, :, 7] == 0).all()
    for tensor in tensors:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    for asked in tensors[:2]:
        assert asked.grad is not None
        assert (asked.grad[:, :, 7] == 0).all()


def test_only_keys_of_a_chunks_documents_are_multiplied() -> None:
    q, _, k, _ = inputs(Case(1, 1, 1024, 1024, 4))
    packed = document_mask((torch.arange(1024) // 64)[None])
    sizes = [part.keys.stop - part.keys.start for part in chunks_of(q, k[:, 0], 0, packed)]
    assert max(sizes) == 64


@pytest.mark.parametrize("window", [0, 100])
def test_scores_at_a_time_grow_with_the_length_at_most(window: int) -> None:
    def most(length: int) -> int:
        q, k = torch.empty(8, 2, length, 4), torch.empty(8, length, 4)
        parts = list(chunks_of(q, k, window, None))
        asked = torch.zeros(8, length, dtype=torch.int64)
        for part in parts:
            asked[part.heads, part.queries] += 1
        assert (asked == 1).all()
        of_queries = ((p.queries.stop - p.queries.start) * (p.keys.stop - p.keys.start) for p in parts)
        return max(size * (p.heads.stop - p.heads.start) for size, p in zip(of_queries, parts, strict=True))

    assert most(16_384) <= 2 * most(8_192)
    if window:
        assert most(16_384) == most(8_192)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_decoding_under_a_mask_gives_the_references_row(dtype: torch.dtype) -> None:
    case = Case(4, 2, 1, 90, 16)
    exact, mask = inputs(case, key_mean=16.0), drawn(case)
    mask[..., -1:] = True
    exact = [t.to(dtype).double() for t in exact]
    found = decode_row(*(t.to(dtype) for t in exact), mask, case.width**-0.5)
    limit = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]
    expected = reference(*exact, mask)
    assert (found - expected).abs().max() <= limit * expected.abs().max()


def test_the_librarys_function_takes_a_mask_and_names_one_that_does_not_fit() -> None:
    q, r, k, v = inputs(LONG)
    mask = documents(LONG, 37)
    found = parallax_func(q, r, k, v, mask=mask)
    torch.testing.assert_close(found, reference(q, r, k, v, mask), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(parallax_func(q, r, k, v, mask=mask, backend="eager"), found)
    with pytest.raises(ValueError, match="window=3 and a mask"):
        parallax_func(q, r, k, v, mask=mask, window=3)
    for wrong in (mask.float(), mask[0], mask[..., :-1]):
        with pytest.raises(ValueError, match=r"expected bool, \(2 or 1, 1, 200, 200\)"):
            parallax_func(q, r, k, v, mask=wrong)
