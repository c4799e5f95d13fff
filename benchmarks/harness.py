"""lm-evaluation-harness over local rows: its own task files and its own Hugging Face backend.

Only the place the rows come from is replaced (`custom_dataset`); prompts, choices, clean-ups, metrics
and token boundaries are the harness's.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pip_core.evaluation.standard_tasks import STANDARD, WIKITEXT, wikitext_pages

HUB_ROWS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "hub_rows"
NAMES = (*(s.name for s in STANDARD), WIKITEXT)

logging.getLogger("lm_eval").setLevel(logging.ERROR)
datasets.disable_progress_bars()


def harness_tasks(rows: dict[str, list[dict]]) -> dict[str, object]:
    """The harness's task objects, by name, over these rows (of the Hub's schema)."""
    manager, tasks = TaskManager(), {}
    for name, found in rows.items():
        found = datasets.Dataset.from_list(found)
        splits = dict.fromkeys(("train", "validation", "test"), found)
        # There is no public way to change a registered task's rows; the version is pinned for this.
        overrides = {"custom_dataset": lambda splits=splits, **_: splits}
        index = manager.task_index
        tasks[name] = manager._factory.build(index[name], overrides=overrides, registry=index)
    return tasks


def instances(task: object) -> list[list[Instance]]:
    """Per row the requests the harness makes of it."""
    found = []
    for number, row in enumerate(task.eval_docs):
        context = task.fewshot_context(row, 0)
        made = task.construct_requests(row, context, metadata=(task.config.task, number, 1))
        found.append(made if isinstance(made, list) else [made])
    return found


def backend(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int | None, batch: int = 1
) -> HFLM:
    """The harness's Hugging Face backend around a model in memory."""
    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=context, batch_size=batch)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def real_rows(folder: Path, limit: int) -> dict[str, tuple[list[dict], list[dict]]]:
    """Name -> (rows for us, rows for the harness) of what lies in `folder`.

    Files are in the project's own format, as MosaicML's LLM Foundry has them; for the harness each row is
    turned back into the Hub's schema.
    """
    found = {}
    for name, back in (("arc_easy", _arc), ("piqa", _piqa), ("copa", _copa), ("lambada_openai", _lambada)):
        path = folder / f"{name}.jsonl"
        if path.is_file():
            own = read_lines(path)[: limit or None]
            found[name] = own, [back(row) for row in own]
    return found


def real_pages(folder: Path, limit: int) -> list[dict]:
    path = folder / "wikitext2_test.txt"
    pages = wikitext_pages(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [{"page": p} for p in pages[: limit or None]]


def _question(row: dict) -> str:
    return row["query"].removeprefix("Question: ").removesuffix("\n")


def _arc(row: dict) -> dict:
    letters = [chr(ord("A") + n) for n in range(len(row["choices"]))]
    choices = {"text": row["choices"], "label": letters}
    return {"question": _question(row), "choices": choices, "answerKey": letters[row["gold"]]}


def _piqa(row: dict) -> dict:
    first, second = row["choices"]
    return {"goal": _question(row), "sol1": first, "sol2": second, "label": row["gold"]}


def _copa(row: dict) -> dict:
    premise, connector = re.fullmatch(r"(.*?),? (because|therefore)\s*", row["query"], re.DOTALL).groups()
    question = {"because": "cause", "therefore": "effect"}[connector]
    first, second = row["choices"]
    return {
        "premise": f"{premise}.",
        "question": question,
        "choice1": first,
        "choice2": second,
        "label": row["gold"],
    }


def _lambada(row: dict) -> dict:
    return {"text": f"{row['context']} {row['continuation']}"}
