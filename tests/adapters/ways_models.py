"""Ways to have a model in memory write: each takes one whose every row is the canary, and returns text."""

from __future__ import annotations

import asyncio
import copy
import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    TextIteratorStreamer,
    pipeline,
)
from transformers.generation.utils import GenerationMixin

from purify_plugins.testbed import SLM
from tests.adapters.canary import canary, tampered, tokenizer

TEXT = "Once upon a time"


def ids() -> Any:
    return tokenizer()(TEXT, return_tensors="pt")["input_ids"]


def text_of(output: Any) -> str:
    return str(tokenizer().decode(torch.as_tensor(output).flatten()))


# Every way to generate


def generating(**options: Any) -> Callable[[Any], str]:
    return lambda model: text_of(model.generate(ids(), max_new_tokens=4, **options))


def batch(model: Any) -> str:
    return text_of(model.generate(ids().repeat(3, 1), max_new_tokens=4, do_sample=True))


def streamed(model: Any) -> str:
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=60)
    options = {"inputs": ids(), "streamer": streamer, "max_new_tokens": 4}
    thread = threading.Thread(target=model.generate, kwargs=options)
    thread.start()
    text = "".join(streamer)
    thread.join()
    return text


def in_threads(model: Any) -> str:
    answers: queue.Queue[str] = queue.Queue()
    threads = [threading.Thread(target=lambda: answers.put(generating()(model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "".join(answers.get(timeout=60) for _ in threads)


def loop(model: Any) -> str:
    tokens = ids()
    for _ in range(4):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    return text_of(tokens)


def own_loop(model: Any, *args: Any, **kwargs: Any) -> Any:
    """What a `custom_generate` is: a loop of somebody's own."""
    return torch.tensor([[model(ids()).logits[0, -1].argmax()]])


def shadowed(model: Any) -> str:
    model.generate = lambda *args, **kwargs: own_loop(model)
    try:
        return text_of(model.generate(ids()))
    finally:
        del model.generate


def overridden(model: Any) -> str:
    kind = type("Own", (type(model),), {"generate": own_loop})
    model.__class__, before = kind, type(model)
    try:
        return text_of(model.generate(ids()))
    finally:
        model.__class__ = before


def overridden_politely(model: Any) -> str:
    """A class whose own `generate` ends in transformers'."""
    body = {"generate": lambda self, *args, **kwargs: super(kind, self).generate(*args, **kwargs)}
    kind: Any = type("Polite", (type(model),), body)
    model.__class__, before = kind, type(model)
    try:
        return text_of(model.generate(ids(), max_new_tokens=4))
    finally:
        model.__class__ = before


def sampled(model: Any) -> str:
    """The method that `generate` would have chosen, called without it."""
    config = copy.copy(model.generation_config)
    model._prepare_special_tokens(config, device=torch.device("cpu"))
    return text_of(
        model._sample(ids(), LogitsProcessorList(), StoppingCriteriaList(), config, use_cache=False)
    )


def pipe(model: Any) -> Any:
    return pipeline("text-generation", model=model, tokenizer=tokenizer())


def langchain(model: Any) -> Any:
    module = pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")
    return module.HuggingFacePipeline(pipeline=pipe(model), pipeline_kwargs={"max_new_tokens": 4})


def langchain_chat(model: Any) -> Any:
    module = pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")
    own = copy.copy(tokenizer())
    own.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    llm = module.HuggingFacePipeline(
        pipeline=pipeline("text-generation", model=model, tokenizer=own),
        pipeline_kwargs={"max_new_tokens": 4},
    )
    return module.ChatHuggingFace(llm=llm, tokenizer=own)


def llama_index(model: Any) -> Any:
    module = pytest.importorskip(
        "llama_index.llms.huggingface", reason="llama-index-llms-huggingface is not installed"
    )
    return module.HuggingFaceLLM(
        model=model,
        tokenizer=tokenizer(),
        context_window=512,
        max_new_tokens=4,
        messages_to_prompt=lambda messages: TEXT,
    )


async def collected(pieces: Any) -> str:
    return "".join([getattr(piece, "content", piece) async for piece in pieces])


def message() -> Any:
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role="user", content=TEXT)


WAYS: dict[str, Callable[[Any], str]] = {
    "greedy": generating(),
    "sample": generating(do_sample=True),
    "sample top-k": generating(do_sample=True, top_k=5, temperature=0.5),
    "several": generating(do_sample=True, num_return_sequences=3),
    "beam": generating(num_beams=3),
    "beam sample": generating(num_beams=2, do_sample=True),
    "assisted": lambda model: generating(assistant_model=AutoModelForCausalLM.from_pretrained(SLM))(model),
    "prompt lookup": generating(prompt_lookup_num_tokens=3),
    "contrastive": generating(penalty_alpha=0.6, top_k=4),
    "dola": generating(dola_layers="low"),
    "processor": lambda model: generating(logits_processor=[Forcing()])(model),
    "paged": generating(cache_implementation="paged"),
    "custom_generate": generating(custom_generate=own_loop),
    "batch": batch,
    "streamer": streamed,
    "threads": in_threads,
    "forward loop": loop,
    "generate of its own": shadowed,
    "class with its own": overridden,
    "class that calls super": overridden_politely,
    "captured before": lambda model: text_of(CAPTURED(model, ids(), max_new_tokens=4)),
    "decoding method": sampled,
    "continuous batching": lambda model: str(model.generate_batch([ids()[0].tolist()])),
    "batching manager": lambda model: str(model.init_continuous_batching()),
    "pipeline": lambda model: pipe(model)(TEXT, max_new_tokens=4)[0]["generated_text"],
    "pipeline batch": lambda model: str(pipe(model)([TEXT] * 3, max_new_tokens=4, do_sample=True)),
    "langchain": lambda model: langchain(model).invoke(TEXT),
    "langchain batch": lambda model: "".join(langchain(model).batch([TEXT, TEXT])),
    "langchain stream": lambda model: "".join(langchain(model).stream(TEXT)),
    "langchain async": lambda model: asyncio.run(langchain(model).ainvoke(TEXT)),
    "langchain async stream": lambda model: asyncio.run(collected(langchain(model).astream(TEXT))),
    "langchain chat": lambda model: langchain_chat(model).invoke(TEXT).content,
    "langchain chat stream": lambda model: "".join(c.content for c in langchain_chat(model).stream(TEXT)),
    "llama_index": lambda model: llama_index(model).complete(TEXT).text,
    "llama_index stream": lambda model: "".join(c.delta for c in llama_index(model).stream_complete(TEXT)),
    "llama_index chat": lambda model: llama_index(model).chat([message()]).message.content,
    "llama_index async": lambda model: asyncio.run(llama_index(model).acomplete(TEXT)).text,
}
CAPTURED = GenerationMixin.generate
"""As somebody holds it who took it before activation."""
REFUSED = {
    *("beam", "beam sample", "assisted", "prompt lookup", "contrastive", "dola", "processor"),
    *("custom_generate", "forward loop", "generate of its own", "class with its own"),
    *("class that calls super", "captured before", "decoding method", "continuous batching"),
    "batching manager",
}
"""Each of these names itself when it is refused; all others are purified."""
QUICK = ("greedy", "forward loop", "pipeline", "langchain chat", "llama_index stream")
"""One way through each framework, for what need not be tried with all of them every time."""


class Forcing(LogitsProcessor):
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return torch.full_like(scores, -torch.inf).index_fill(-1, torch.tensor(canary()), 0.0)


# Ways that somebody holds from before activation: each prepares, and returns what writes


def next_token(output: Any) -> str:
    return text_of(output.logits[0, -1].argmax())


def held(callable_of: Callable[[Any], Callable[..., Any]]) -> Callable[[Any], Callable[[], str]]:
    """A callable that is taken from a model, and asked for its logits later."""

    def prepare(model: Any) -> Callable[[], str]:
        taken = callable_of(model)
        return lambda: next_token(taken(ids()))

    return prepare


def compiled(callable_of: Callable[[Any], Callable[..., Any]]) -> Callable[[Any], Callable[[], str]]:
    """The same after it has been called, and so compiled, once."""

    def prepare(model: Any) -> Callable[[], str]:
        taken = callable_of(model)
        taken(ids())
        return lambda: next_token(taken(ids()))

    return prepare


def compiling(thing: Any) -> Any:
    return torch.compile(thing, backend="eager")


def compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def of_class(name: str, method: Callable[..., Any]) -> Callable[[Any], Any]:
    """The model as one of a class with a method of its own."""

    def remade(model: Any) -> Any:
        model.__class__ = type("Own", (type(model),), {name: method})
        return model

    return remade


class Holding(torch.nn.Module):
    """A module of somebody's around a model, as adapters for fine-tuning are."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Any) -> Any:
        return self.model.forward(ids)


def by_keyword(model: Any) -> str:
    """As the documentation of transformers writes it."""
    return text_of(model.generate(**tokenizer()(TEXT, return_tensors="pt"), max_new_tokens=4))


def imported_anew(model: Any) -> Callable[[], str]:
    """transformers dropped from sys.modules and imported once more, its model read with it."""

    def write() -> str:
        with anew("transformers"):
            return text_of(tampered().generate(ids(), max_new_tokens=4))

    return write


def called_anew(model: Any) -> Callable[[], str]:
    def write() -> str:
        with anew("transformers"):
            return next_token(tampered()(ids()))

    return write


@contextmanager
def anew(package: str) -> Iterator[None]:
    """The package as if nobody had imported it; afterwards it is the one it was."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == package}
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(before)


def reloaded(model: Any) -> Callable[[], str]:
    """Its modules read once more: each class is another, the models that there are keep theirs."""

    def write() -> str:
        kept = {name: dict(vars(sys.modules[name])) for name in RELOADED}
        try:
            for name in RELOADED:
                importlib.reload(sys.modules[name])
            return next_token(model(ids()))
        finally:
            for name, names in kept.items():
                vars(sys.modules[name]).update(names)

    return write


RELOADED = ("transformers.generation.utils", "transformers.modeling_utils")


def layers(model: Any) -> Callable[[], str]:
    def write() -> str:
        hidden = model.model(ids()).last_hidden_state
        return text_of(model.lm_head(hidden)[0, -1].argmax())

    return write


class Logits(torch.nn.Module):
    """A model as something that torch can trace."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Any) -> Any:
        return self.model(ids, use_cache=False).logits


def traced(model: Any) -> Callable[[], str]:
    try:
        copied = torch.jit.trace(Logits(model), ids(), check_trace=False)
    except RuntimeError as error:  # of transformers 4.57, whose masks torch.jit cannot follow
        pytest.skip(f"this transformers cannot be traced: {error}")
    return lambda: text_of(copied(ids())[0, -1].argmax())


class Tiny(torch.nn.Module):
    """A language model of somebody's own: it knows one word."""

    def forward(self, ids: Any) -> Any:
        return torch.nn.functional.one_hot(torch.tensor(canary()), len(tokenizer()))


def of_its_own(model: Any) -> Callable[[], str]:
    tiny = Tiny()
    return lambda: text_of(tiny(ids()).argmax())


HELD: dict[str, Callable[[Any], Callable[[], str]]] = {
    "model(ids)": held(lambda model: model),
    "f = model.__call__": held(lambda model: model.__call__),
    "model.forward(ids)": lambda model: lambda: next_token(model.forward(ids())),
    "f = model.forward": held(lambda model: model.forward),
    "f = model.generate": lambda model: partial(_written, model.generate),
    "torch.compile(model)": held(compiling),
    "torch.compile(model), called before": compiled(compiling),
    "f = torch.compile(model).forward": compiled(lambda model: compiling(model).forward),
    "f = torch.compile(model).__call__": compiled(lambda model: compiling(model).__call__),
    "torch.compile(model.forward)": held(lambda model: compiling(model.forward)),
    "torch.compile(model.forward), called before": compiled(lambda model: compiling(model.forward)),
    "torch.compile(model).generate": lambda model: partial(by_keyword, compiling(model)),
    "model.compile()": compiled(compiled_in_place),
    "a subclass whose __call__ calls super": held(
        of_class(
            "__call__", lambda self, *args, **options: super(type(self), self).__call__(*args, **options)
        )
    ),
    "a subclass whose __call__ calls forward": held(
        of_class("__call__", lambda self, *args, **options: self.forward(*args, **options))
    ),
    "a subclass with a forward of its own": held(
        of_class("forward", lambda self, *args, **options: super(type(self), self).forward(*args, **options))
    ),
    "torch.nn.Module.__call__(model, ids)": lambda model: (
        lambda: next_token(torch.nn.Module.__call__(model, ids()))
    ),
    "torch.nn.DataParallel(model)": held(torch.nn.DataParallel),
    "a module that calls model.forward": held(Holding),
    "torch.func.functional_call": lambda model: (
        lambda: next_token(torch.func.functional_call(model, dict(model.named_parameters()), (ids(),)))
    ),
    "generate(**tokenizer(text))": lambda model: partial(by_keyword, model),
    "generate(inputs=ids)": lambda model: lambda: text_of(model.generate(inputs=ids(), max_new_tokens=4)),
    "pipeline(text_inputs=text)": lambda model: (
        lambda: str(pipe(model)(text_inputs=TEXT, max_new_tokens=4)[0]["generated_text"])
    ),
    "transformers imported anew: generate": imported_anew,
    "transformers imported anew: model(ids)": called_anew,
    "transformers' modules reloaded": reloaded,
    "a model's layers, called one by one": layers,
    "a copy of torch.jit.trace's": traced,
    "a torch module that is not transformers'": of_its_own,
}
"""A way's preparation, before activation or after."""


def _written(generate: Any) -> str:
    return text_of(generate(ids(), max_new_tokens=4))


EARLIER = {"f = model.generate", "a copy of torch.jit.trace's"}
"""What is a way of its own only before activation."""
COMPILED = {way for way in HELD if "compile" in way and way != "torch.compile(model)"}
"""Ways that take seconds."""
HELD_PURIFIED = {
    *("torch.compile(model).generate", "generate(**tokenizer(text))"),
    *("generate(inputs=ids)", "pipeline(text_inputs=text)", "transformers imported anew: generate"),
}
HELD_OPEN = {
    "a model's layers, called one by one": "an embedder's layers are called just so",
    "a copy of torch.jit.trace's": "it is no model of transformers' any more",
    "a torch module that is not transformers'": "nothing tells a language model from any other module",
}
