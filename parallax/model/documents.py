import torch
from torch import Tensor


def document_ids(tokens: Tensor, eos_id: int) -> Tensor:
    """(B, T) numbers of the documents that packed tokens belong to, from 0 at each row's start.

    EOS counts as the first token of the document that follows it, id = cumsum(tokens == eos): a document is
    then read in training from EOS on, exactly as it is written when generation starts from EOS. The token
    before predicts EOS, and so the end of its own document.
    """
    return (tokens == eos_id).cumsum(1)


def document_mask(documents: Tensor) -> Tensor:
    """(B, 1, T, T) boolean: query i sees key j when j <= i and both are of one document.

    Positions do not begin anew with a document: rotary attention depends on differences of positions only.
    """
    length = documents.shape[1]
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
