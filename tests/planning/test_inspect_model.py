"""What is said of a model before any weight of it is here."""

from __future__ import annotations

import json

import pytest

from pip_core.budget.budget import budget_of
from pip_core.cli.main import main
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import EXPERTS, KINDS
from pip_core.planning.inspect_model import exports_plainly, inspect_model, report
from pip_core.structure.anatomy import anatomy_of

from .. import zoo


@pytest.fixture(params=["llama", "gpt2", "mixtral", "olmo"])
def config_only(request, tmp_path):
    """A folder with a config and weights that are none: whoever reads them fails."""
    config = zoo.CONFIGS[request.param]()
    config.architectures = [type(zoo.build(request.param)).__name__]
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    return request.param, str(tmp_path)


def kinds_shown(name: str) -> list[str]:
    return [kind for kind in KINDS if kind != EXPERTS or name == "mixtral"]


def test_inspection(config_only):
    name, folder = config_only
    found = inspect_model(Recipe(model=folder, target=0.2))
    model = zoo.build(name)
    assert found.parameters == sum(found.parts.values()) == sum(p.numel() for p in model.parameters())
    assert found.blocks == model.config.num_hidden_layers
    assert found.listed == (name != "olmo")
    assert [c.kind for c in found.choices] == kinds_shown(name)
    assert found.fits
    assert found.memory["scoring"] > found.memory["weights"] == 4 * found.parameters
    assert found.seconds > 0
    choices = {c.kind: c for c in found.choices}
    assert choices["blocks"].plain
    assert choices["mlp"].plain is False
    assert ("experts" in choices["channels"].goal) == (name == "mixtral")
    if name == "mixtral":
        assert choices["experts"].plain
        assert choices["experts"].goal.startswith("experts and tokens")
    assert choices["heads"].plain == (name != "gpt2")
    assert choices["heads"].goal.startswith("its config cannot state") == (name == "gpt2")


def test_report(config_only):
    name, folder = config_only
    text = report(inspect_model(Recipe(model=folder, target=0.2)))
    assert ("recognised by its structure" in text) == (name == "olmo")
    assert "To remove 20 % of the parameters:" in text
    assert "an ordinary checkpoint" in text
    assert "it fits" in text
    assert len(text.splitlines()) == 3 + len(kinds_shown(name)) + 3


def test_command(config_only, capsys):
    name, folder = config_only
    assert main(["inspect", "--model", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == folder
    assert len(found["choices"]) == len(kinds_shown(name))
    assert main(["inspect", "--model", folder + "/nowhere"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_shape_that_the_config_cannot_say_is_known_before(tmp_path):
    config = zoo.CONFIGS["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    assert not exports_plainly(str(tmp_path), "blocks")
    blocks = inspect_model(Recipe(model=str(tmp_path))).choices[0]
    assert (blocks.possible, blocks.plain) == (False, False)
    assert exports_plainly(str(tmp_path), "channels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "cannot be shared among 3 key-value heads"),
        ({"num_hidden_layers": 1}, "a single block"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised (gptq)"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantised (awq)"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "quantised"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "text-generating decoder"),
    ],
)
def test_models_that_cannot_be_pruned(tmp_path, changes, message):
    values = {**zoo.CONFIGS["llama"]().to_dict(), "architectures": ["LlamaForCausalLM"], **changes}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError) as refused:
        inspect_model(Recipe(model=str(tmp_path)))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_numbers_of_heads_that_a_config_cannot_state_are_known_before():
    """Llama's config wants the number of heads to divide the width: 32 features, 8 heads in 4 groups."""
    anatomy = anatomy_of(zoo.CONFIGS["llama"]())
    assert anatomy.group_counts == {1, 2}
    one = sum(b.widths["heads"].cost for b in anatomy.blocks) / anatomy.parameters
    goal = budget_of(Recipe(target=1.6 * one, units=("heads",)), anatomy)
    assert goal.width_units == {"heads": 2}
    with pytest.raises(UserError, match="too little"):
        budget_of(Recipe(target=0.7 * one, units=("heads",)), anatomy)
    assert anatomy_of(zoo.CONFIGS["gemma2"]()).group_counts >= {1, 2}
