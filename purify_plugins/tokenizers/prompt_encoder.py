"""Prompts -> token ids, for a model in this process or on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from purify_plugins.errors import PromptError
from purify_plugins.tokenizers.loading import is_panic
from purify_plugins.types import Chat, Prompt, Vocabulary


class PromptEncoder:
    """A transformers tokenizer for every kind of prompt; `name` is the model's, for errors."""

    def __init__(self, tokenizer: Any, name: str, vocabulary: Vocabulary) -> None:
        self.tokenizer, self.name, self.vocabulary = tokenizer, name, vocabulary

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids, a chat rendered with the model's own template. Raises PromptError."""
        if isinstance(prompt, tuple):
            return self._known(prompt)
        if isinstance(prompt, str):
            return self.tokenised(prompt) if prompt else ()
        if not prompt.messages:
            return ()
        if self.tokenizer.chat_template is None:
            return self.tokenised(transcript(prompt))
        with self._encoding():
            return tuple(self.tokenizer(self._rendered(prompt), add_special_tokens=False)["input_ids"])

    def some_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """`tokens`, of which there must be one at least: a model reads something. Raises PromptError."""
        if not (tokens := self.tokens(prompt)):
            raise PromptError("the prompt is empty; give at least one token of text")
        return tokens

    def text(self, prompt: Prompt) -> str:
        """The text of this prompt for a server that adds the special tokens itself.

        A chat is rendered here, without the BOS token of its template if the tokenizer adds one. Raises
        PromptError.
        """
        if isinstance(prompt, str):
            return self._unopened(prompt)
        if isinstance(prompt, Chat):
            if self.tokenizer.chat_template is None:
                return transcript(prompt) if prompt.messages else ""
            return self._unopened(self._rendered(prompt))
        return self._unopened(self.spelled(self._known(prompt)))

    def spelled(self, tokens: tuple[int, ...]) -> str:
        """Token ids as text, control tokens by their names."""
        text: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def tokenised(self, text: str) -> tuple[int, ...]:
        """The ids of a text with the tokenizer's special tokens; a BOS in the text is not doubled."""
        with self._encoding():
            tokens = tuple(self.tokenizer(text, verbose=False)["input_ids"])  # the limit is checked elsewhere
        first = self.tokenizer.bos_token_id
        return tokens[1:] if first is not None and tokens[:2] == (first, first) else tokens

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        try:
            yield
        except TypeError as error:  # raised by tokenizers for half a surrogate pair
            raise PromptError("the prompt is not valid Unicode; replace its lone surrogates") from error
        except BaseException as error:
            if not is_panic(error):
                raise
            raise PromptError(
                f"the tokenizer of {self.name!r} cannot read this prompt; shorten it"
            ) from error

    def _unopened(self, text: str) -> str:
        first = self.tokenizer.bos_token
        adds = bool(first) and self.tokenised("a")[:1] == (self.tokenizer.bos_token_id,)
        return text.removeprefix(first) if adds else text

    def _known(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        if unknown_ids := sorted(set(tokens) - set(range(len(self.vocabulary)))):
            raise PromptError(f"the prompt holds token {unknown_ids[0]}, which {self.name!r} does not have")
        return tokens

    def _rendered(self, chat: Chat) -> str:
        """The chat rendered with the model's own template, in a sandbox that limits its work."""
        from purify_plugins.tokenizers.chat_template import render

        tools = [dict(tool) for tool in chat.tools] or None
        try:
            template = self.tokenizer.get_chat_template(None, tools)
            return render(template, chat.messages, tools, self.tokenizer.special_tokens_map)
        except Exception as error:  # a template is an untrusted program and can raise anything
            raise PromptError(
                f"the chat template of {self.name!r} refused these messages ({type(error).__name__}); "
                "send other roles, or in another order"
            ) from error


def transcript(chat: Chat) -> str:
    """A plain rendering for a model without a chat template: one message a paragraph."""
    lines = [f"{str(message['role']).capitalize()}: {_text(message)}" for message in chat.messages]
    return "\n\n".join([*lines, "Assistant:"])


def _text(message: Mapping[str, Any]) -> str:
    """A message's text, whole or joined from parts; empty for one that only calls tools."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        content = "".join(str(part["text"] if isinstance(part, Mapping) else part) for part in content)
    return content or ""
