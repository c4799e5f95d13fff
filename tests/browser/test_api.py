"""The main job for programs: start, follow, result, with `gradio_client`."""

from __future__ import annotations

import zipfile

import pytest
from gradio_client import Client


def test_start_follow_result(api_run):
    first, last = api_run.states[0], api_run.states[-1]
    assert first["run"] == api_run.id
    assert first["state"] in ("waiting", "starting", "running")
    assert last["state"] == "finished"
    assert last["verified"]
    assert last["iterations"] == last["planned"] >= 1
    assert [s["iterations"] for s in api_run.states] == sorted(s["iterations"] for s in api_run.states)
    names = zipfile.ZipFile(api_run.archive).namelist()
    assert any(name.endswith("model.safetensors") for name in names)


def test_a_wrong_recipe_is_told_in_a_sentence(server):
    client = Client(server.url, verbose=False)
    with pytest.raises(Exception, match="cannot be pruned"):
        client.predict({"target": 2.0}, "", api_name="/start")
    with pytest.raises(Exception, match="no such run"):
        client.predict("0" * 24, api_name="/result")
