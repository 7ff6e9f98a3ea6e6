import os
import pickle
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np

from parallax.data.encode import Pieces, encode_pieces
from parallax.data.tokenizer_files import tokenizer_from_json


def main() -> None:
    """What a process of `EncodePool` does: encodes the batches that arrive on stdin until stdin ends.

    A thread reads ahead, so that whoever sends never waits for this process to take its answers. The end of
    stdin, which the parent's death brings about too, ends the process at once, whatever it is doing.
    """
    # Whatever else writes to stdout must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer_json, dtype = pickle.load(sys.stdin.buffer)
    received: SimpleQueue[Pieces] = SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, received), daemon=True).start()
    tokenizer = tokenizer_from_json(tokenizer_json)
    for pieces in _forever(received):
        answer: Any
        try:
            answer = encode_pieces(tokenizer, pieces, np.dtype(dtype))
        except Exception as error:  # raised again where it can be shown
            answer = error
        try:
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:
            os._exit(0)


def _receive(stream: BinaryIO, received: "SimpleQueue[Pieces]") -> None:
    try:
        while True:
            received.put(pickle.load(stream))
    except (EOFError, pickle.UnpicklingError):
        os._exit(0)


def _forever(received: "SimpleQueue[Pieces]") -> Iterator[Pieces]:
    while True:
        yield received.get()
