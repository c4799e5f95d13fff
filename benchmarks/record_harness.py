"""Write down what lm-evaluation-harness asks, for the tests that run without it.

    python -m benchmarks.record_harness

Per row of tests/fixtures/hub_rows the (context, continuation) pairs it makes, or the detokenised document;
and for a small fixed tokenizer, with and without a beginning-of-text token, the tokens it would have a
model read and predict. The file is tests/fixtures/harness.json.
"""

from __future__ import annotations

import json

from tests import tiny, zoo

from .harness import HUB_ROWS, NAMES, Instance, backend, harness_tasks, instances, read_lines

CONTEXT = 12
PAIRS = (
    ("the cat", " sat on the mat"),
    ("the cat ", "sat on the mat"),
    ("the cat  ", " sat"),
    ("the\n", " end"),
    ("", " nothing before"),
    ("", "<s> begun"),
    ("<s>the cat", " sat"),
    ("in the beginning there was a cat in the hat", " and"),
    ("a", " cat in the hat and a cat on the mat then"),
    ("naïve café", " crème"),
    ("t", "he"),
)
DOCUMENTS = (
    "a cat",
    "the cat in the hat sat on the mat",
    "the cat in the hat and then a cat on the mat there",
)


def main() -> None:
    tasks = harness_tasks({name: read_lines(HUB_ROWS / f"{name}.jsonl") for name in NAMES})
    asked = {name: [[i.args for i in group] for group in instances(task)] for name, task in tasks.items()}
    said = {"prompts": asked, "context": CONTEXT, "pairs": {}, "documents": {}}
    for bos in (False, True):
        lm = backend(zoo.build("llama"), tiny.fixed_tokenizer(bos), CONTEXT)
        said["pairs"][str(bos)] = [(*pair, *_read(lm, "loglikelihood", pair)[0]) for pair in PAIRS]
        said["documents"][str(bos)] = [(d, _read(lm, "loglikelihood_rolling", (d,))) for d in DOCUMENTS]
    path = HUB_ROWS.parent / "harness.json"
    path.write_text(json.dumps(said, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(lm, kind: str, arguments: tuple) -> list[tuple[list[int], list[int]]]:
    """Per forward pass the tokens read and the tokens predicted at the last positions."""
    found = []

    def take(requests, **_):
        for _, context, targets in requests:
            # As in the backend's own `_loglikelihood_tokens`.
            found.append(((context + targets)[-(lm.max_length + 1) :][:-1], targets))
        return [(0.0, False)] * len(requests)

    lm._loglikelihood_tokens = take
    request = Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
    getattr(lm, kind)([request], disable_tqdm=True)
    return found


if __name__ == "__main__":
    main()
