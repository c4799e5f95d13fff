"""Sample: the model answers one prompt after every removal, so that people see what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import field_validator
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...checkpoints.load import config_of, context_of, tokenizer_at_hand
from ...core import events as ev
from ...core.errors import UserError
from ...core.figures import percent
from ...core.recipe import DEMO
from ...core.sample import Sampled
from ...core.settings import AUTO, Settings, text
from ...inspection.answer import as_prompt, write
from ..context import CHARACTERS_PER_TOKEN, Context
from ..stage import LITTLE, Cost, Stage
from ..state import RunState

OFF = "off"
# Tokens of an answer.
TOKENS = 24
# Of a turn of a conversation, beside what is said.
TEMPLATE_TOKENS = 24
# Characters of a prompt.
LONGEST = 2000
# What is asked where the recipe does not say: the model that knows only stories is told one, one that takes
# turns is asked a question, and any other goes on with a beginning.
STORY = "One windy morning Ada, Ben and Clara met under the old oak. Ada had a red kite."
QUESTION = "Why is the sky blue? Answer in one sentence."
BEGINNING = "The sky is blue because"


class SampleSettings(Settings):
    """What the model is asked on the way."""

    sample: str = text(
        AUTO,
        "prompt that the model answers after every removal, so that one sees what becomes of it; auto asks "
        f"something that suits the model, where that takes under {percent(LITTLE, 0)} of the run; {OFF} asks "
        "nothing",
        "Sample prompt",
        f"The model answers it after every removal; {OFF} asks nothing",
    )

    @field_validator("sample")
    @classmethod
    def _not_long(cls, sample: str) -> str:
        if len(sample) > LONGEST:
            raise ValueError(
                f"Sample prompt: enter a prompt of at most {LONGEST:,} characters, not {len(sample):,}."
            )
        return sample


class Sample(Stage):
    """Let the model answer a prompt as it stands."""

    name = "sample"
    title = "Sample"
    by_one_process = True
    Settings = SampleSettings
    incidental = True

    def __init__(self, recipe) -> None:
        super().__init__(recipe)
        self.prompt = ""
        self.known: set[tuple[int, bool]] = set()

    @property
    def enabled(self) -> bool:
        return self.recipe.sample != OFF

    @property
    def _asked_for(self) -> bool:
        return self.recipe.sample != AUTO

    def check(self, context: Context) -> None:
        if not self._asked_for:
            return
        config = config_of(self.recipe.model)
        most = len(self.recipe.sample.encode()) + TEMPLATE_TOKENS + TOKENS  # a token is a byte or more
        if most > context_of(config) and (tokenizer := tokenizer_at_hand(self.recipe.model)):
            check_fits(tokenizer, config, self.recipe.sample)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if self._asked_for:
            check_fits(tokenizer, config, self.recipe.sample)

    def prepare(self, state: RunState) -> None:
        if self._asked_for:
            prompt = self.recipe.sample
        elif self.recipe.model == DEMO:
            prompt = STORY
        else:
            prompt = QUESTION if state.loaded.tokenizer.chat_template else BEGINNING
        if not self._worth(state):
            return
        try:
            check_fits(state.loaded.tokenizer, state.loaded.model.config, prompt)
        except UserError:
            if self._asked_for:
                raise
            return  # chat says it, to whoever wants to talk with the model
        self.prompt = prompt
        past = [e for e in ev.effective_events(state.history) if isinstance(e, Sampled)]
        self.known = {(e.iteration, e.final) for e in past if e.prompt == prompt}

    def estimate(self, context: Context) -> Cost:
        if not self._worth(context):
            return Cost()
        past = {e.iteration for e in ev.effective_events(context.history) if isinstance(e, Sampled)}
        given = {iteration for iteration, _ in self.known}  # by this run, too
        return Cost({"answering": self._work(context, past | given)})

    def _worth(self, context: Context) -> bool:
        return self._asked_for or context.is_little(self._work(context, set()))

    def _work(self, context: Context, past: set[int]) -> float:
        """Token-blocks of all answers that are to be given: everything is read again for every token."""
        asked = self.recipe.sample if self._asked_for else STORY
        read = len(asked) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS
        each = TOKENS * (read + TOKENS / 2)
        left = [i for i in range(context.planned + 1) if i not in past]
        return each * (sum(map(context.depth, left)) + context.depth(context.planned) * context.changing)

    def observe(self, state: RunState) -> Iterator[ev.Event]:
        yield from self._ask(state, False)

    def run(self, state: RunState) -> Iterator[ev.Event]:
        if state.changed and state.removals:
            yield from self._ask(state, True)

    def _ask(self, state: RunState, final: bool) -> Iterator[ev.Event]:
        at = len(state.removals), final
        if not self.prompt or at in self.known:
            return
        # A model that has lost tokens reads it otherwise.
        ids: torch.Tensor = as_prompt(state.loaded.tokenizer, self.prompt)
        work = TOKENS * (ids.shape[1] + TOKENS / 2) * state.depth_left
        reply = yield from state.follow(write(state.loaded, ids, TOKENS), "answering", TOKENS, work)
        self.known.add(at)
        yield Sampled(at[0], self.prompt, reply.text, reply.tokens, final, reply.ended)


def check_fits(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, prompt: str) -> None:
    """Check that a model reads a prompt and has room for its answer.

    Raises:
        UserError: it has not, or nothing is left of the prompt, or the chat template does not take it.
    """
    read, most = as_prompt(tokenizer, prompt).shape[1], context_of(config)
    if not 0 < read <= most - TOKENS:
        raise UserError(
            f"Sample prompt: the prompt has {read:,} tokens, and the model reads at most {most:,}, {TOKENS} "
            f"of its answer among them. Enter {'a shorter' if read else 'another'} one.",
            "sample",
        )
