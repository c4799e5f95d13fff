"""Datasets by their Hub id, from a Hub of our own; each Hub in a process that knows no other."""

from __future__ import annotations

import gzip
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pip_core.core.errors import UserError
from pip_core.data.corpora import POOL_CHARACTERS
from pip_core.data.hub_datasets import HubSet

from .. import hub as hubs
from .. import tiny
from ..processes import cli, run_code

# Calls one function after the other and tells what came of each, one line of JSON.
DRIVER = """
import json, os, sys, time
from pip_core.data import hub_datasets as sources, corpora as texts
from pip_core.core.environment import prepare_environment, quiet_libraries
from pip_core.core.errors import UserError
prepare_environment()
quiet_libraries()
if "NO_WAITING" in os.environ:
    # Whoever tries again waits in between.
    time.sleep = lambda seconds: os._exit(9)
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        found = getattr(sources if hasattr(sources, name) else texts, name)(*arguments)
        found = [vars(f) for f in found] if name == "calibration_texts" else found
        print(json.dumps({"found": found}))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
"""
CARD = """---
configs:
- config_name: one
  data_files:
  - {split: train, path: one/train*}
  - {split: test, path: one/test*}
- config_name: two
  data_files: two.parquet
---
"""
ARTICLES = [
    ["", " = First article = \n", "", " It begins . \n", " = = A section = = \n", " It ends . \n"],
    ["", " = Second = \n", "", " x = y = z \n"],
]


@dataclass(frozen=True)
class Session:
    """A machine that asks a Hub."""

    home: Path

    def ask(self, calls: list[list], url: str, **environment: str) -> list[dict]:
        settings = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(self.home / "hf"),
            "PIP_STUDIO_CACHE": str(self.home / "ours"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
        }
        lines = "".join(json.dumps(c) + "\n" for c in calls)
        done = run_code(DRIVER, given=lines, **{**settings, **environment})
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def repos(tmp_path_factory) -> dict[str, Path | str]:
    root = tmp_path_factory.mktemp("datasets")

    def repo(name: str, files: dict[str, bytes | str | dict | list]) -> Path:
        for path, content in files.items():
            file = root / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                parquet.write_table(pa.table(content), file)
            elif isinstance(content, list):
                file.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in content).encode()))
            else:
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root / name

    secret = root / "secret.txt"
    secret.write_text("the machine's own\n")
    tasks = {"q": [f"question {n}" for n in range(40)], "gold": list(range(40)), "picture": [b"\x89"] * 40}
    return {
        "org/tasks": repo(
            "tasks",
            {
                "README.md": CARD,
                "one/train-0.parquet": tasks,
                "one/test-0.parquet": {"q": ["only one"], "gold": [0]},
                "two.parquet": {"a": ["x"], "b": ["y"]},
            },
        ),
        "Salesforce/wikitext": repo(
            "wikitext",
            {
                "README.md": CARD.replace("one", "wikitext-2-raw-v1"),
                "wikitext-2-raw-v1/train-0.parquet": {"text": [*ARTICLES[0], *ARTICLES[1]]},
                "wikitext-2-raw-v1/test-0.parquet": {"text": [*ARTICLES[1], *ARTICLES[1]]},
                "two.parquet": {"text": ["x"]},
            },
        ),
        # Three times as much as is ever wanted of it.
        "org/large": repo(
            "large",
            {
                f"train-{part}.jsonl.gz": [
                    {"body": f"{part}/{n} " + "word " * 4000, "id": n}
                    for n in range(POOL_CHARACTERS // 20_000)
                ]
                for part in range(3)
            },
        ),
        "org/odd": repo(
            "odd",
            {
                "train.parquet": {
                    "messages": [
                        [{"role": "user", "content": "Hi."}, {"role": "bot", "content": "Yes?"}],
                        [],
                    ],
                    "number": [1, 2],
                    "tags": [["a", "b"], ["c"]],
                }
            },
        ),
        "org/script": repo("script", {"script.py": "raise SystemExit(9)\n"}),
        "org/nothing": repo("nothing", {"README.md": "# Nothing\n"}),
        "org/rowless": repo("rowless", {"train.jsonl.gz": []}),
        "org/pictures": repo("pictures", {"train/1.png": b"\x89PNG"}),
        "org/thief": repo(
            "thief",
            {
                "README.md": f"---\nconfigs:\n- config_name: x\n  data_files: '{secret}'\n---\n",
                "a.txt": "a\n",
            },
        ),
        "org/gated": hubs.GATED,
    }


CALLS = {
    "tasks": ["hub_rows", "org/tasks", "one", "train", None],
    "three": ["hub_rows", "org/tasks", "one", "train", "main", 3],
    "by commit": ["hub_rows", "org/tasks", "one", "test", hubs.SHA],
    "two": ["hub_rows", "org/tasks", "two", "train"],
    "revision": ["hub_revision", "org/tasks"],
    "large": ["documents", "hub:org/large"],
    "large again": ["documents", "hub:org/large:train#body"],
    "messages": ["documents", "hub:org/odd"],
    "tags": ["documents", "hub:org/odd:train#tags"],
    "wikitext2": ["documents", "wikitext2"],
    "mix": ["calibration_texts", "mix:wikitext2=1,code=3"],
    "pinned": ["pinned", "wikitext2"],
    "pinned mix": ["pinned", "mix:code=3,hub:org/tasks/one:test#q=1"],
    "pinned file": ["pinned", "a/file.txt"],
}
WRONG = {
    "no config": (
        ["hub_rows", "org/tasks", "three", "train"],
        "has no configuration 'three'; name one of one, two",
    ),
    "which config": (
        ["documents", "hub:org/tasks"],
        "has several configurations; name one of one, two: hub:OWNER",
    ),
    "no split": (["hub_rows", "org/tasks", "one", "dev"], "has no split 'dev'; it has train, test."),
    "no revision": (["hub_rows", "org/tasks", "one", "train", "v9"], "has no revision 'v9'"),
    "no column": (["documents", "hub:org/tasks/one#text"], "has no column 'text'; it has q, gold, picture."),
    "no text": (["documents", "hub:org/odd#number"], "holds no text in its column 'number', but int values"),
    "gated": (["hub_rows", "org/gated", None, "train"], "'org/gated' is gated: accept its terms on the Hub"),
    "missing": (
        ["hub_rows", "org/missing", None, "train"],
        "The Hub has no dataset 'org/missing', or it is private",
    ),
    "script": (["hub_rows", "org/script", None, "train"], "is a loading script, and no code"),
    "nothing": (["hub_rows", "org/nothing", None, "train"], "holds no data files that could be read"),
    "rowless": (["hub_rows", "org/rowless", None, "train"], "holds no rows in its split 'train'"),
    "pictures": (["hub_rows", "org/pictures", None, "train"], "is not plain data"),
    "thief": (["documents", "hub:org/thief"], "could not be read: Data files don't belong to org/thief"),
    "no id": (
        ["hub_rows", "wikitext", None, "train"],
        "is not the name of a dataset on the Hub: that is OWNER/NAME",
    ),
    "no form": (["documents", "hub:wikitext"], "write hub:OWNER/NAME[/CONFIG][:SPLIT][@REVISION][#FIELD]"),
}


@pytest.fixture(scope="module")
def online(repos, tmp_path_factory) -> tuple[dict[str, dict], hubs.Hub, Session]:
    session = Session(tmp_path_factory.mktemp("machine"))
    calls = {**CALLS, **{k: call for k, (call, _) in WRONG.items()}}
    with hubs.Hub(repos).open() as hub:
        found = session.ask(list(calls.values()), hub.url)
    return dict(zip(calls, found, strict=True)), hub, session


def test_rows(online):
    found = online[0]
    assert [r["q"] for r in found["tasks"]["found"]] == [f"question {n}" for n in range(40)]
    assert found["tasks"]["found"][7] == {"q": "question 7", "gold": 7, "picture": None}
    assert found["three"]["found"] == found["tasks"]["found"][:3]
    assert [r["q"] for r in found["by commit"]["found"]] == ["only one"]
    assert found["two"]["found"] == [{"a": "x", "b": "y"}]


def test_revision_is_looked_up_once_and_told(online):
    found, hub, _ = online
    assert found["revision"]["found"] == hubs.SHA
    assert found["pinned"]["found"] == f"wikitext2@{hubs.SHA}"
    assert found["pinned mix"]["found"] == f"mix:code=0.75,hub:org/tasks/one:test@{hubs.SHA}#q=0.25"
    assert found["pinned file"]["found"] == "a/file.txt"
    assert hub.requests.count("GET /api/datasets/org/tasks") == 1


def test_files_are_asked_for_at_the_commit(online):
    fetched = [r for r in online[1].requests if "/resolve/" in r]
    assert fetched
    assert all(f"/resolve/{hubs.SHA}/" in r for r in fetched)


def test_of_a_large_dataset_only_the_beginning_is_fetched(online):
    found, hub, _ = online
    texts = found["large"]["found"]
    assert POOL_CHARACTERS <= sum(map(len, texts)) < POOL_CHARACTERS + 40_000
    assert texts[0].startswith("0/0 word")
    assert found["large again"]["found"] == texts
    fetched = hub.fetched("datasets/org/large")
    assert "train-0.jsonl.gz" in fetched
    assert "train-2.jsonl.gz" not in fetched


def test_lines_become_articles(online):
    """Joined again they are what the field measures perplexity on: all rows, blank lines between them."""
    articles = online[0]["wikitext2"]["found"]
    assert [a.split(" = \n")[0].strip() for a in articles] == ["= First article", "= Second"]
    assert "\n\n".join(articles) == "\n\n".join([*ARTICLES[0], *ARTICLES[1]])


def test_columns_of_lists(online):
    assert online[0]["messages"]["found"] == ["Hi.\nYes?"]
    assert online[0]["tags"]["found"] == ["a\nb", "c"]


def test_a_mix_has_its_shares(online):
    domains = online[0]["mix"]["found"]
    assert [(d["name"], d["share"]) for d in domains] == [("wikitext2", 0.25), ("code", 0.75)]
    assert domains[0]["duplicates"] == 0
    assert domains[0]["documents"] == online[0]["wikitext2"]["found"]


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(online, case):
    error = online[0][case]["error"]
    assert WRONG[case][1] in error
    assert "\n" not in error


def test_no_code_and_no_other_file(online):
    assert "the machine's own" not in json.dumps(online[0])


@pytest.mark.parametrize("setting", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["no answer", "offline"])
def test_without_a_hub(online, setting):
    """What was fetched before is there, and the rest is refused at once."""
    before, _, session = online
    calls = {
        **{k: CALLS[k] for k in ("tasks", "three", "large", "wikitext2", "mix", "pinned", "revision")},
        "other": ["hub_rows", "org/other", None, "train"],
        "c4": ["documents", "c4"],
        "split": ["hub_rows", "Salesforce/wikitext", "wikitext-2-raw-v1", "test"],
        "shipped": ["documents", "code"],
    }
    # Nobody listens on port 9.
    found = session.ask(list(calls.values()), "http://127.0.0.1:9", NO_WAITING="1", **setting)
    found = dict(zip(calls, found, strict=True))
    for known in ("tasks", "three", "large", "wikitext2", "mix", "pinned", "revision"):
        assert found[known] == before[known], known
    for unknown in ("other", "c4", "split"):
        assert found[unknown]["error"].startswith("The Hub does not answer, and the dataset '")
        assert "\n" not in found[unknown]["error"]
    assert len(found["shipped"]["found"]) > 3


def test_a_longer_beginning_is_fetched_when_it_is_wanted(repos, tmp_path):
    session = Session(tmp_path)
    with hubs.Hub(repos).open() as hub:
        calls = [["hub_rows", "org/tasks", "one", "train", None, n] for n in (2, 5, 3, 40, 41)]
        found = session.ask(calls, hub.url)
        first = [r for r in hub.requests if "one/train-0.parquet" in r]
    assert [len(f["found"]) for f in found] == [2, 5, 3, 40, 40]
    assert found[1]["found"][:2] == found[0]["found"]
    assert first


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("hub:a/b", HubSet("a/b")),
        ("hub:a/b/c", HubSet("a/b", "c")),
        ("hub:a/b:test", HubSet("a/b", split="test")),
        ("hub:a/b@v1", HubSet("a/b", revision="v1")),
        ("hub:a/b#f g", HubSet("a/b", field="f g")),
        ("hub:a-1/b.c/d:e@refs/convert/parquet#f", HubSet("a-1/b.c", "d", "e", "refs/convert/parquet", "f")),
    ],
)
def test_references(written, read):
    assert HubSet.parse(written) == read
    assert HubSet.parse(str(read)) == read


@pytest.mark.parametrize(
    "written", ["hub:", "hub:a", "hub:/a", "hub:a/b/c/d", "hub:a/b:", "hub:a b/c", "hub:a/b@"]
)
def test_no_reference(written):
    with pytest.raises(UserError, match="not a dataset"):
        HubSet.parse(written)


def test_a_run_calibrates_on_the_hub_and_goes_on_without(repos, tmp_path, llama_folder, tasks):
    """What a run was begun with, it can be made again with: by the same commit, with no network."""
    settings = {"HF_HOME": str(tmp_path / "hf"), "PIP_STUDIO_CACHE": str(tmp_path / "ours")}
    recipe = tiny.recipe_for(llama_folder, tasks, calibration="mix:hub:org/tasks/one#q=1,code=2")
    (tmp_path / "recipe.json").write_text(recipe.to_json())

    def prune(out: str, url: str) -> subprocess.CompletedProcess:
        arguments = ("--recipe", tmp_path / "recipe.json", "--out", tmp_path / out)
        return cli("prune", *arguments, HF_ENDPOINT=url, HF_HUB_OFFLINE="0", HF_TOKEN="", **settings)

    nowhere = "http://127.0.0.1:9"
    refused = prune("refused", nowhere)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: The Hub does not answer, and the dataset 'org/tasks' is not")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "refused").exists()
    with hubs.Hub(repos).open() as hub:
        first = prune("first", hub.url)
    again = prune("again", nowhere)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    removed = [
        [line for line in (tmp_path / out / "events.jsonl").read_text().splitlines() if '"Removed"' in line]
        for out in ("first", "again")
    ]
    scores = [[{**json.loads(line), "at": 0} for line in lines] for lines in removed]
    assert scores[0] == scores[1] != []
