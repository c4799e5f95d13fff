"""What every stage of a run is: one class that owns its settings, its cost, its events and its words.

A run is a list of stages (`engine.stages`). Whoever goes through the list, the engine, the plan, the clock,
the model card, the log, the page and the command line, names none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.events import Event
from ..core.recipe import Recipe
from ..core.settings import Settings
from ..reporting.description import Description

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from .context import Context
    from .state import RunState

# Share of a run that what is beside its point may take where nobody asked for it. A run of the demo model is
# over in a minute, and there to show what there is.
LITTLE, LITTLE_OF_DEMO = 0.03, 0.1


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Attributes:
        work: kind of work -> token-blocks, the forward pass of one token through one block of the dense model
            being 1. Kinds are told apart because their speeds are measured apart.
        seconds: of work that does not grow with tokens.
        memory: what needs it -> bytes at its peak, libraries included.
    """

    work: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    memory: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        work = {k: self.work.get(k, 0.0) + other.work.get(k, 0.0) for k in {**self.work, **other.work}}
        return Cost(work, self.seconds + other.seconds, {**self.memory, **other.memory})


class Stage(ABC):
    """One stage of a run.

    Attributes:
        name: key in the registry and in events; `title` is what people read.
        Settings: its part of the recipe.
        Result: the event that says what it came to; None where its events are those of any run.
        after: name of the stage it follows, for a stage that is added to the usual list.
        changes_model: whether it changes the model after the last removal. Such a stage works on the model in
            memory only, so that a run that is resumed, steered or exported again repeats it.
        weights_only: whether it changes nothing but weights of the blocks. It is not repeated where a later
            stage `goes_on`.
        switched_on: settings that switch it on in a run whose removals are made already, where nothing before
            it depends on its settings; empty where something does.
        incidental: whether it is beside the point of a run, and done only where it takes little of it.
        invalidated_by: names of the stages whose undoing makes its result void, so that it runs again.
        needs_whole_model: whether it works only on a model whose weights are all in memory.
        by_one_process: whether one process does it where several share a run; it leaves the model as it is.
        not_shared: whether it cannot be done where several processes share a run.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Settings: ClassVar[type[Settings]] = Settings
    Result: ClassVar[type[Event] | None] = None
    after: ClassVar[str] = ""
    changes_model: ClassVar[bool] = False
    weights_only: ClassVar[bool] = False
    switched_on: ClassVar[Mapping[str, object]] = {}
    incidental: ClassVar[bool] = False
    invalidated_by: ClassVar[tuple[str, ...]] = ("prune",)
    needs_whole_model: ClassVar[bool] = False
    by_one_process: ClassVar[bool] = False
    not_shared: ClassVar[bool] = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def enabled(self) -> bool:
        """Whether the recipe asks for it."""
        return True

    @property
    def idle(self) -> Collection[str]:
        """Settings of its own that make no difference in this recipe: nothing reads them."""
        return ()

    @property
    def hands_over(self) -> bool:
        """Whether blocks are removed with a view to what this stage can give back of them."""
        return False

    def substitution_tokens(self, context: Context) -> int:
        """Calibration tokens on which it is found out what can be given back of a block; 0 for none."""
        return 0

    def check(self, context: Context) -> None:  # noqa: B027 (most stages have nothing to check)
        """What can be said to be wrong before anything is downloaded.

        Raises:
            UserError: in plain words.
        """

    def check_tokenizer(  # noqa: B027 (most stages take any)
        self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> None:
        """What can be said to be wrong as soon as the model is on this machine, before its weights are read.

        Raises:
            UserError: in plain words.
        """

    def contents(self, context: Context) -> Mapping[str, str]:
        """What it reads, by the name of the setting that names it (and more behind a colon), to a digest of
        what that holds; see `identity`."""
        return {}

    def prepare(self, state: RunState) -> None:  # noqa: B027 (or to prepare)
        """What can be said to be wrong, or made ready, as soon as the model is loaded.

        Raises:
            UserError: in plain words.
        """

    def pinned(self, state: RunState) -> Mapping[str, str]:
        """Settings as this machine chose them, once the model is loaded, so that the recipe means the same on
        any machine."""
        return {}

    def estimate(self, context: Context) -> Cost:
        """What it takes from now on; `context` is a `RunState` once the model is loaded."""
        return Cost()

    def needed(self, state: RunState) -> bool:
        """Whether there is anything for it to do. A stage that changes the model is repeated where the model
        is exported or was not measured yet."""
        return not self.changes_model or state.finishing

    def goes_on(self, state: RunState) -> bool:
        """Whether it begins by setting the weights of all blocks to what an earlier attempt of it left, so
        that no stage before it has to change them again. It is asked right before such a stage would. Where
        it failed and is left out of an export, it then runs all the same, and comes to what was left."""
        return False

    @abstractmethod
    def run(self, state: RunState) -> Iterator[Event]:
        """Do the work, and say what happens: `Progress` after every step (a run is stopped between two of
        them), and the result, if it has one. No gradient mode is held across a yield."""

    def observe(self, state: RunState) -> Iterator[Event]:
        """Look at the model as it stands after a removal, and before the first. It is left as it is."""
        return iter(())

    @classmethod
    def describe(cls, result: Any) -> Description:
        """Its `Result` in words."""
        return Description(result.sentence())
