"""Load: from a model reference to a model in memory, and what will be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from ...checkpoints.load import DTYPES, load, refuse_unusable
from ...checkpoints.reference import local_folder
from ...core.device import number_name
from ...core.errors import OtherWeights, UserError
from ...core.events import Event, Loading, Started, Warned
from ...core.process_group import current
from ...core.recipe import DEMO, DISPATCHED, RESIDENT, STREAMED
from ...core.settings import AUTO, Settings, choice, setting, text
from ...data.corpora import pinned
from ...structure.shape import Shape
from ..context import Context
from ..identity import model_digest, settings_of, weights_changed
from ..stage import Cost, Stage
from ..state import RunState

# Loading and starting up, roughly.
SECONDS = 5.0


class LoadSettings(Settings):
    """The model, and how it is computed."""

    measures = frozenset({"model", "dtype", "weights"})
    of_model = frozenset({"weights"})

    model: str = text(
        DEMO,
        "model reference: demo, smollm2-135m, a local folder, a GGUF file or a Hub id",
        "Model",
        "From the list, a Hugging Face id, or a folder",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = choice(
        "auto", DTYPES, "number format to compute in", "Number format", "Used for computing"
    )
    placement: Literal["auto", "resident", "dispatched", "streamed"] = choice(
        AUTO,
        (AUTO, RESIDENT, DISPATCHED, STREAMED),
        "where the model's weights are: resident, in the memory of one device; dispatched, over all "
        "accelerators, memory and disk, with as many blocks as fit on the devices that compute; or streamed, "
        "every block read from disk when it is used; auto takes the first of these that fits",
        "Where the weights are",
        "On one device, over several and the disk, or read from disk; auto takes the first that fits",
        called={RESIDENT: "in memory", DISPATCHED: "over devices and disk", STREAMED: "read from disk"},
    )
    weights: str = setting(
        "",
        "checksum that the model's weights must have (a run writes it down); empty takes any",
        "the checksum that an earlier run wrote down, or nothing",
    )


class Load(Stage):
    """Load the model, let every stage make ready, and say what will be removed."""

    name = "load"
    title = "Load"
    Settings = LoadSettings
    Result = Started
    invalidated_by = ()

    def check(self, context: Context) -> None:
        refuse_unusable(context.recipe.model)
        context.past.check(context.recipe, context.anatomy, context.budget)
        if current().size > 1 and (stage := next((s for s in context.stages if s.not_shared), None)):
            raise UserError(
                f"'{stage.title}' is not done by several processes together. Leave it out here, and do it "
                "afterwards in one process."
            )
        if current().size > context.recipe.windows:
            raise UserError(
                f"{current().size} processes cannot share {context.recipe.windows} calibration windows. "
                "Start fewer processes, or ask for more windows."
            )
        if context.placement != RESIDENT and context.offloads and (why := context.not_streamed):
            settings = "" if context.sizes.expert_weights else ", or other settings"
            raise UserError(
                f"The blocks of this run cannot be brought in one by one, streamed or dispatched: {why}. "
                f"Choose the placement 'resident', which holds the whole model in memory{settings}."
            )

    def estimate(self, context: Context) -> Cost:
        return Cost(seconds=SECONDS, memory={"weights": context.sizes.held})

    def run(self, state: RunState) -> Iterator[Event]:
        recipe, past = state.recipe, state.past
        if state.placement_words:
            yield Loading(state.placement_words)
        try:
            state.loaded = yield from load(
                recipe.model,
                recipe.dtype,
                past.dtype,
                recipe.weights,
                state.placement,
                state.check_tokenizer,
                state.resident_blocks,
            )
        except OtherWeights:
            # Of a run it is not the recipe that is wrong; a model found elsewhere is named otherwise.
            if not past.started or local_folder(recipe.model) is None:
                raise
            raise weights_changed(recipe.model) from None
        state.settle_model()
        state.shape = Shape.dense(state.anatomy)
        for stage in state.stages:
            stage.prepare(state)
        state.started = _started(state, len(past.removals))
        past.check_same_model(state.started)
        past.check_same_contents(recipe, dict(state.started.contents))
        state.recipe = recipe.replace(**dict(state.started.pinned))
        yield state.started
        yield from map(Warned, state.loaded.notes)


def _started(state: RunState, resumed: int) -> Started:
    recipe, anatomy, budget = state.recipe, state.anatomy, state.budget
    source, model = state.loaded.source, state.loaded.model
    return Started(
        model=source.name,
        origin=source.origin,
        model_type=anatomy.model_type,
        blocks=len(anatomy.blocks),
        parameters=anatomy.parameters,
        method=recipe.method,
        units=recipe.units,
        target=recipe.target,
        goal=budget.description,
        planned=budget.iterations,
        planned_share=budget.share,
        dtype=number_name(model.dtype),
        device=str(model.device),
        resumed=resumed,
        pinned=tuple(_pinned(state).items()),
        settings=settings_of(recipe),
        contents=tuple({**state.contents, "model": model_digest(source.folder)}.items()),
    )


def _pinned(state: RunState) -> Mapping[str, str]:
    """Settings as this machine chose them, so that the recipe means the same on any machine."""
    recipe = state.recipe
    source = state.loaded.source
    of_stages = {name: value for stage in state.stages for name, value in stage.pinned(state).items()}
    return {
        **of_stages,
        "model": source.reference or recipe.model,
        "weights": source.weights_sha256,
        "dtype": number_name(state.loaded.model.dtype),
        "calibration": state.calibration_text.name,
        "heldout": pinned(recipe.heldout),
    }
