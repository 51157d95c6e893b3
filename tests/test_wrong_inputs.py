"""Ten wrong inputs a command and more: each is one sentence with the way out, before any weight is read."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from purify_plugins.cli import app
from purify_plugins.testbed import HOME, LLM, SLM, SLM_1024
from purify_plugins.utils.extras import MODULES
from tests.strangers import HALF, Install, install

__all__ = ["install"]  # a fixture is used by its name

ROOT = Path(__file__).parent.parent
ATTACKS = HOME / "attacks.json"
NAMES = {"LLM": LLM, "SLM": SLM, "OTHER": SLM_1024, "ATTACKS": ATTACKS}
TABLES = {
    "whole": ("", "", "", ""),
    "unknown": ('wlak = "auto"', "", "", ""),
    "plugin": ('plugins = ["nope"]', "", "", ""),
    "plugins": ('plugins = "nope"', "", "", ""),
    "walk": ('walk = "speculativ"', "", "", ""),
    "batch": ("batch_size = 0", "", "", ""),
    "policy": ("", "", "", '[policy]\nname = "balansed"'),
    "field": ("", "", "", '[policy]\nname = "balanced"\nbudgit = 3'),
    "value": ("", "", "", '[policy]\nname = "balanced"\nbudget = "much"'),
    "sampling": ("", "", "", "[sampling]\ntemprature = 1"),
    "many": ("", "", "", '[sampling]\nmax_tokens = "many"'),
    "source": ("", 'source = "lokal"\nmodel = "x"', "", ""),
    "option": ("", f'model = "{LLM}"\ndevise = "cpu"', "", ""),
    "cuda": ("", "", f'model = "{SLM}"\ndevice = "cuda"', ""),
    "gpu": ("", f'model = "{LLM}"\ndevice = "gpu"', "", ""),
    "dtype": ("", "", f'model = "{SLM}"\ndtype = "float8"', ""),
    "three": ("", "model = 3", "", ""),
    "gone": ("", "", 'model = "./nothere"', ""),
    "key": (
        "",
        f'source = "tgi"\nurl = "http://127.0.0.1:9"\ntokenizer = "{LLM}"\napi_key_env = "NO"',
        "",
        "",
    ),
    "card": ("", "", f'model = "{SLM}"\ncard = "gone.json"', ""),
    "keyless": ("", f'model = "{LLM}"\nsignature = "x.sig"', "", ""),
    "remote": ("", f'source = "tgi"\nurl = "http://127.0.0.1:9"\ntokenizer = "{LLM}"\ncard = "x"', "", ""),
    "down": ("", f'source = "tgi"\nurl = "http://127.0.0.1:9"\ntokenizer = "{LLM}"', "", ""),
}
"""A configuration's name -> its head, [llm], [slm] and what stands after them, each wrong in one place."""

GENERATE = [
    ("generate", 2, "needs PROMPT"),
    ("generate hi there --llm LLM --slm SLM", 2, "does not take 'there'"),
    ("generate hi", 2, "there is no purify.toml here"),
    ("generate hi --llm LLM", 2, "--slm is missing"),
    ("generate hi --llm LLM --slm LLM", 2, "are one model"),
    ("generate '' --llm LLM --slm SLM", 2, "the prompt is empty"),
    ("generate LONG --llm LLM --slm SLM", 2, "reads 512 with the answer; shorten it"),
    ("generate hi --llm LLM --slm SLM --max-tokens 0", 2, "max_tokens must be at least 1"),
    (
        "generate hi --llm LLM --slm SLM --max-tokens many",
        2,
        "--max-tokens must be a whole number, not 'many'",
    ),
    ("generate hi --llm LLM --slm SLM --max-tokens -3", 2, "max_tokens must be at least 1"),
    ("generate hi --llm LLM --slm SLM --max-token 3", 2, "did you mean --max-tokens?"),
    ("generate hi --llm LLM --slm SLM --temperature nan", 2, "temperature must be 0 (greedy), or finite"),
    ("generate hi --llm LLM --slm SLM --temperature 1e400", 2, "temperature must be 0 (greedy), or finite"),
    ("generate hi --llm LLM --slm SLM --temperature hot", 2, "--temperature must be a number, not 'hot'"),
    ("generate hi --llm LLM --slm SLM --top-k -1", 2, "top_k must be 0 (off) or more"),
    ("generate hi --llm LLM --slm SLM --top-p 0", 2, "top_p must be above 0"),
    ("generate hi --llm LLM --slm SLM --repetition-penalty inf", 2, "repetition_penalty must be above 0"),
    ("generate hi --llm LLM --slm SLM --frequency-penalty=-inf", 2, "frequency_penalty must be finite"),
    ("generate hi --llm LLM --slm SLM --seed -1", 2, "seed must be 0 or more"),
    ("generate hi --llm LLM --slm SLM --stop ''", 2, "stop must be without empty strings"),
    ("generate hi --llm LLM --slm SLM --json-schema gone.json", 2, "cannot read 'gone.json'"),
    ("generate hi --llm LLM --slm SLM --json-schema empty", 2, "name a file, not a directory"),
    ("generate hi --llm LLM --slm SLM --json-schema binary", 2, "'binary' is not UTF-8 text"),
    ("generate hi --llm LLM --slm SLM --json-schema afile", 2, "cannot be followed"),
    ("generate hi --llm LLM --slm SLM --policy balansed", 2, "did you mean 'balanced'?"),
    ("generate hi --llm LLM --slm SLM --policy ''", 2, "unknown policy ''; there is 'anchored'"),
    ("generate hi --llm LLM --slm SLM --set budgit=3", 2, "did you mean 'budget'?"),
    ("generate hi --llm LLM --slm SLM --set budget=much", 2, "budget must be"),
    ("generate hi --llm LLM --slm SLM --set budget=nan", 2, "budget must be"),
    ("generate hi --llm LLM --slm SLM --set budget=-1", 2, "budget must be"),
    ("generate hi --llm LLM --slm SLM --set budget", 2, "--set takes KEY=VALUE"),
    ("generate hi --llm LLM --slm SLM --set name=minimum", 2, "--policy"),
    ("generate hi --llm LLM --slm SLM --certificate no/such.json", 2, "create it first"),
    ("generate hi --llm LLM --slm SLM --certificate empty", 2, "is a directory; name a file in it"),
    ("generate hi --llm LLM --slm SLM --certificate /proc/x.json", 2, "name another place"),
    ("generate hi --llm LLM --slm SLM --certificate afile/x.json", 2, "create it first"),
]
MODELS = [
    ("afile", 1, "'afile' is a file; give the directory"),
    ("empty", 1, "empty has no config.json"),
    ("weightless", 1, "weightless has no *.safetensors weights"),
    ("wordless", 1, "wordless has no tokenizer"),
    ("cut", 1, "fetch the model again"),
    ("broken", 1, "is not valid JSON"),
    ("whisper", 1, "use a causal language model of text alone"),
    ("m.gguf", 1, "m.gguf is damaged, it has 4 bytes"),
    ("w.safetensors", 1, "a file of weights; give the directory"),
    ("./nowhere", 1, "there is no model directory './nowhere'"),
    ("some/model", 1, "could not be had from the hub"),
    ("http://host/model", 1, "there is no model directory"),
    ("' '", 2, "must be a directory, a GGUF file or a hub id"),
]
CONFIGS = [
    ("unknown", 2, "did you mean 'walk'?"),
    ("plugin", 1, "unknown plugin 'nope'"),
    ("plugins", 2, 'plugins must be a list, such as ["one", "two"]'),
    ("walk", 2, "walk must be 'auto', 'speculative', 'readahead' or 'lockstep', not 'speculativ'"),
    ("batch", 2, "batch_size must be at least 1, not 0"),
    ("policy", 2, "policy.toml: [policy] unknown policy 'balansed'; did you mean 'balanced'?"),
    ("field", 2, "did you mean 'budget'?"),
    ("value", 2, "budget must be"),
    ("sampling", 2, "did you mean 'temperature'?"),
    ("many", 2, "max_tokens must be a whole number, not 'many'"),
    ("source", 2, "did you mean 'local'?"),
    ("option", 2, "did you mean 'device'?"),
    ("cuda", 2, "[slm] there is no device 'cuda' here; use 'auto' or 'cpu'"),
    ("gpu", 2, "there is no device 'gpu' here"),
    ("dtype", 2, "[slm] dtype must be one of auto, float32, bfloat16, float16, not 'float8'"),
    ("three", 2, "[llm] model must be text in quotes, not 3"),
    ("gone", 1, "gone.toml: [slm] there is no model directory './nothere'"),
    ("key", 2, "'NO', which is not set"),
    ("card", 2, "[slm] card: cannot read 'gone.json'"),
    ("keyless", 2, "[llm] signature says nothing without signature_key"),
    ("remote", 2, "[llm] source 'tgi' has no files here, so there is nothing that a card"),
    ("down", 1, "there is no server at http://127.0.0.1:9 (Connection refused); start it"),
    ("torn", 2, "torn.toml: not valid TOML"),
    ("binary", 2, "binary.toml: not valid TOML"),
    ("single", 2, "[slm] is missing"),
    ("folder", 2, "name a file, not a directory"),
    ("nowhere", 2, "cannot read 'nowhere.toml': No such file or directory; check the path"),
]
SERVE = [
    ("serve --llm LLM --slm SLM --port 99999", 2, "--port must be between 0"),
    ("serve --llm LLM --slm SLM --port x", 2, "--port must be a whole number, not 'x'"),
    ("serve --llm LLM --slm SLM --port TAKEN", 2, "choose another --port"),
    ("serve --llm LLM --slm SLM --host no.such.host.invalid", 2, "names no address"),
    ("serve --llm LLM --slm SLM --host 203.0.113.7", 2, "this machine has no such address"),
    ("serve --llm LLM --slm SLM --port 0 --api-key-env NOT_THERE", 2, "'NOT_THERE', which is not set"),
    ("serve --llm LLM --slm SLM --port 0 --api-key-env ''", 2, "which is not set"),
    ("serve --llm LLM --slm SLM --port 0 --max-concurrent 0", 2, "max_concurrent must be 1 or more"),
    ("serve --llm LLM --slm SLM --port 0 --deadline nan", 2, "deadline must be a finite number"),
    ("serve --llm LLM --slm SLM --port 0 --drain inf", 2, "drain must be a finite number"),
    ("serve --llm LLM --slm SLM --port 0 --model-id ''", 2, "model_id must not be empty"),
    ("serve --llm LLM --slm SLM --port 0 --upstream-kind tgi", 2, "give --upstream URL too"),
    ("serve --llm LLM --slm SLM --port 0 --tokenizer LLM", 2, "give --upstream URL too"),
    ("serve --llm LLM --slm SLM --port 0 --upstream http://h", 2, "--upstream or --llm, not both"),
    ("serve --llm LLM --slm SLM --port 0 extra", 2, "does not take 'extra'"),
    ("serve --slm SLM --port 0 --upstream ''", 2, "--upstream: url must be a server's, such as http://"),
    ("serve --slm SLM --port 0 --upstream 127.0.0.1:8080", 2, "url must be a server's, such as http://"),
    ("serve --slm SLM --port 0 --upstream ftp://h", 2, "url must be a server's"),
    ("serve --slm SLM --port 0 --upstream http://127.0.0.1:9", 1, "there is no server at http://127.0.0.1:9"),
    ("serve --slm SLM --port 0 --upstream http://no.invalid", 1, "there is no server at http://no.invalid"),
    ("serve --slm SLM --port 0 --upstream http://h --upstream-kind ollama", 2, "unknown kind of server"),
    ("serve --slm SLM --port 0 --upstream http://h --tokenizer ./nowhere", 1, "the tokenizer './nowhere'"),
    ("serve --slm SLM --port 0 --upstream http://h --upstream-key-env NO", 2, "'NO', which is not set"),
    ("serve --slm ./nowhere --port 0 --upstream http://h", 1, "./nowhere"),
    ("serve --upstream http://h", 2, "--slm is missing"),
    ("serve", 2, "there is no purify.toml here"),
]
VERIFY = [
    ("verify", 2, "needs CERT: a certificate's file"),
    ("verify nowhere.json", 3, "give the path of a file, or - for standard input"),
    ("verify empty", 3, "give the path of a file, or - for standard input"),
    ("verify afile", 3, "give what `purify generate --certificate FILE` wrote"),
    ("verify binary", 3, "give what `purify generate --certificate FILE` wrote"),
    ("verify half.json", 3, "give what `purify generate --certificate FILE` wrote"),
    ("verify list.json", 3, "must be a table, not []"),
    ("verify later.json", 3, "check it with the version of purify-plugins that wrote it"),
    ("verify cert.json --slm ''", 2, "--slm names no model"),
    ("verify cert.json --slm ./nowhere", 1, "there is no model directory"),
    ("verify cert.json --slm OTHER", 1, "not the SLM the certificate names"),
    ("verify cert.json --slm LLM", 1, "not the SLM the certificate names"),
    ("verify cert.json --slm SLM --llm SLM", 1, "not the LLM the certificate names"),
    ("verify cert.json --llm LLM", 2, "give --slm DIR too"),
    ("verify cert.json --slm SLM --prompt gone", 2, "cannot read 'gone'"),
    ("verify cert.json --slm SLM --prompt binary", 2, "is not UTF-8 text"),
    ("verify cert.json --answer gone", 3, "give the path of a file"),
    ("verify cert.json --policy balansed", 2, "did you mean 'balanced'?"),
    ("verify cert.json --set budget=1", 2, "name it with --policy"),
    ("verify cert.json --slm-digest abc", 2, "a SHA-256 of 64 hexadecimal digits"),
    ("verify cert.json --expect x", 2, "--expect takes FIELD=VALUE"),
]
SIGN = [
    ("keys old", 2, "`purify keys` has no command 'old'"),
    ("keys new", 2, "needs FILE: where the private key comes"),
    ("keys new nofolder/x.pem", 2, "cannot write the key 'nofolder/x.pem'"),
    ("keys new afile", 2, "a key is never written over, so name another"),
    ("keys new .", 2, "is a directory; name a file"),
    ("keys new a b", 2, "does not take 'b'"),
    ("keys id", 2, "needs FILE: a public key"),
    ("keys id gone", 3, "give the path of a file"),
    ("keys id afile", 2, "give the file that the issuer publishes"),
    ("keys id binary", 2, "give the file that the issuer publishes"),
]
A64 = "a" * 64
STORE = [
    ("store old", 2, "`purify store` has no command 'old'"),
    ("store list", 2, "there is no purify.toml here"),
    ("store list --config nofile.toml", 2, "nofile.toml"),
    ("store list --config plugin.toml", 2, "the configuration names no store; give --store sqlite:FILE"),
    ("store list --store ''", 2, "store must be 'sqlite:FILE' or a directory, not ''"),
    ("store list --store sqlite:", 2, "store must be 'sqlite:FILE' or a directory"),
    ("store list --store postgres://a/b", 2, "is an address; a store is a file"),
    ("store list --store sqlite:gone.db", 2, "there is no store 'sqlite:gone.db'; check the path"),
    ("store list --store gone", 2, "there is no store 'gone'; check the path"),
    ("store list --store sqlite:afile", 1, "it is no store: name another file"),
    ("store list --store sqlite:empty", 2, "there is no store"),
    ("store list --store empty --since yesterday", 2, "--since is a date such as 2026-11-29"),
    ("store list --store empty --until 2026", 2, "--until is a date such as 2026-11-29"),
    ("store list --store empty --model llama", 2, "a digest is a SHA-256, 64 hexadecimal digits"),
    ("store list --store empty --guarantee path,window", 2, "--guarantee takes one of"),
    ("store list --store empty --answer gone", 3, "give the path of a file"),
    (
        f"store list --store empty --answer afile --answer-digest {A64}",
        2,
        "an answer has one digest",
    ),
    ("store list --store empty --tenants a", 2, "did you mean --tenant?"),
    ("store show", 2, "needs SHA256: of a certificate, or of an answer"),
    ("store show abc --store empty", 2, "a digest is a SHA-256, 64 hexadecimal digits, not 'abc'"),
    (f"store show {A64} --store empty", 1, "`purify store list` shows what it has"),
    (f"store show {A64}", 2, "there is no purify.toml here"),
    (f"store show {A64} --store gone", 2, "check the path"),
    (f"store show {A64} --store sqlite:gone.db", 2, "check the path"),
    (f"store show {A64} --store sqlite:afile", 1, "name another file"),
    (f"store show {A64} {A64} --store empty", 2, "does not take"),
    (f"store show {A64} --store empty --certificat", 2, "did you mean --certificate?"),
    ("store verify", 2, "there is no purify.toml here"),
    ("store verify --store gone", 2, "check the path"),
    ("store verify --store sqlite:afile", 1, "name another file"),
    ("store verify --store empty --key gone", 3, "give the path of a file"),
    ("store verify --store empty --key afile", 2, "give the file that the issuer publishes"),
    ("store verify --store empty --head abc", 2, "a digest is a SHA-256"),
    (f"store verify --store empty --head {A64}", 1, "no record has the hash that you noted"),
    ("store verify --store torn", 1, "line 1 of '2026-11-29.jsonl' is no record of a store"),
    ("store verify afile --store empty", 2, "does not take 'afile'"),
    ("store export", 2, "needs DIR: a new directory, itself a store"),
    ("store export out", 2, "there is no purify.toml here"),
    ("store export out --store gone", 2, "check the path"),
    ("store export afile --store empty", 2, "is there already; name a new directory"),
    ("store export torn --store empty", 2, "is there already; name a new directory"),
    ("store export out --store torn", 1, "is no record of a store"),
    ("store export out --store empty --since soon", 2, "--since is a date"),
    ("store export afile/x --store empty", 2, "cannot make the directory"),
    ("store erase", 2, "needs SHA256"),
    ("store erase abc --why x --store empty", 2, "a digest is a SHA-256"),
    (f"store erase {A64} --store empty", 2, "--why is missing"),
    (f"store erase {A64} --why ' ' --store empty", 2, "--why is missing"),
    (f"store erase {A64} --why x --store empty", 1, "`purify store list` shows what it has"),
    (f"store erase {A64} --why x --store gone", 2, "check the path"),
    (f"store erase {A64} --why x --store sqlite:gone.db", 2, "check the path"),
    (f"store erase {A64} --why x", 2, "there is no purify.toml here"),
    ("store expire", 2, "there is no purify.toml here"),
    (
        "store expire --config plugin.toml",
        2,
        "the configuration has no retention",
    ),
    ("store expire --store empty --older-than 6", 2, "--older-than must be a number of days, such as '184d'"),
    ("store expire --store empty --older-than 0d", 2, "--older-than must be a number of days"),
    ("store expire --store empty --older-than -3d", 2, "--older-than must be a number of days"),
    ("store expire --store gone --older-than 3d", 2, "check the path"),
    ("store expire --store sqlite:afile --older-than 3d", 1, "name another file"),
    ("store expire --older-than 3d", 2, "there is no purify.toml here"),
    ("serve --llm LLM --slm SLM --store ''", 2, "store must be text in quotes, not ''"),
    ("serve --llm LLM --slm SLM --store sqlite:no/a.db", 2, "create it first"),
    ("serve --llm LLM --slm SLM --store afile", 2, "cannot make the directory"),
    ("serve --llm LLM --slm SLM --store https://a/b", 2, "is an address"),
]
DETECT = [
    ("detect", 2, "needs TEXT: a text's file"),
    ("detect afile", 2, "no key is named; give --key-env VARIABLE or --key-file FILE"),
    ("detect afile --key-env NO --slm SLM", 2, "'NO', which is not set"),
    ("detect afile --key-file gone --slm SLM", 2, "--key-file names 'gone', which cannot be read"),
    ("detect afile --key-file afile --slm SLM", 2, "openssl rand -hex 32"),
    ("detect afile --key-file longkey", 2, "give --slm DIR or --tokenizer DIR"),
    ("detect afile --key-file longkey --slm ./nowhere", 1, "there is no model directory './nowhere'"),
    ("detect binary --key-file longkey --slm SLM", 2, "save it as UTF-8"),
    ("detect afile --key-file longkey --slm SLM --at 2", 2, "--at is a probability between 0 and 1"),
    ("detect afile --key-file longkey --slm SLM --context 0", 2, "the watermark's context is 1 to 64 tokens"),
    ("detect afile --key-file longkey --certificate afile", 3, "this is not a certificate"),
]
RUN = [
    ("run", 2, "usage: purify run"),
    ("run ''", 78, "there is no program to run"),
    ("run --nope app.py", 78, "unknown option '--nope'"),
    ("run --config", 78, "--config needs a file"),
    ("run --config= app.py", 78, "--config needs a file"),
    ("run --config nowhere.toml app.py", 78, "cannot read"),
    ("run --config folder.toml app.py", 78, "name a file, not a directory"),
    ("run --config gone.toml app.py", 78, "there is no model directory './nothere'"),
    ("run --config policy.toml app.py", 78, "did you mean 'balanced'?"),
    ("run app.py", 78, "there is no purify.toml here"),
    ("run nowhere.py", 78, "there is no program 'nowhere.py'"),
    ("run notes.txt", 78, "name a script, -m MODULE or an installed command"),
    ("run empty", 78, "has no __main__.py to run"),
    ("run ls", 78, "'ls' is not a Python program"),
    ("run -m", 78, "there is no program to run"),
    ("run -m no_such_module", 78, "there is no module 'no_such_module'"),
]
SMALL = [
    ("nope", 2, "`purify` has no command 'nope'"),
    ("generat hi", 2, "did you mean 'generate'?"),
    ("--nope", 2, "`purify` has no option --nope"),
    ("policies balansed", 2, "did you mean 'balanced'?"),
    ("policies a b", 2, "does not take 'b'"),
    ("policies --nope", 2, "see `purify policies --help`"),
    ("stages cascde", 2, "did you mean 'cascade'?"),
    ("stages a b", 2, "does not take 'b'"),
    ("stages --nope", 2, "see `purify stages --help`"),
    ("plugins x", 2, "does not take 'x'"),
    ("plugins --json=1", 2, "does not take a value"),
    ("status x", 2, "does not take 'x'"),
    ("status", 2, "there is no purify.toml here"),
    ("allow", 2, "there is no purify.toml here"),
    ("allow nowhere.toml", 2, "check the path"),
    ("allow empty", 2, "name a file, not a directory"),
    ("allow app.py", 2, "not valid TOML"),
    ("check --llm LLM --slm SLM x", 2, "does not take 'x'"),
    ("check --llm LLM --slm SLM --json=3", 2, "does not take a value"),
    ("chat --llm LLM --slm SLM hi", 2, "does not take 'hi'"),
    ("chat --llm LLM --slm SLM --max-tokens 0", 2, "max_tokens must be at least 1"),
    ("chat --llm LLM --slm LLM", 2, "are one model"),
    ("chat", 2, "there is no purify.toml here"),
    ("demo x", 2, "does not take 'x'"),
    ("demo --out", 2, "requires an argument"),
    ("demo --out ''", 2, "is a directory; name a file in it"),
    ("demo --out no/page.html", 2, "create it first"),
    ("demo --out /proc/page.html", 2, "name another place"),
    ("demo --out empty", 2, "is a directory; name a file in it"),
    ("demo --seed 3", 2, "has no option --seed"),
    ("demo --full --json=yes", 2, "does not take a value"),
]
EVAL = [
    ("eval --llm LLM", 2, "give both --llm and --slm"),
    ("tune balanced --llm SLM --slm LLM", 2, "name that with --attacks"),
    ("eval --llm LLM --slm SLM --attacks gone.json", 2, "cannot read 'gone.json'"),
    ("eval --llm LLM --slm SLM --attacks afile", 2, "afile"),
    ("eval --llm LLM --slm SLM --attacks typo.json", 2, "did you mean 'protected'?"),
    ("eval --llm LLM --slm SLM --attacks none.json", 2, "protected.passages must be at least 1 item long"),
    ("eval --llm ./nowhere --slm SLM --attacks ATTACKS", 1, "there is no model directory"),
    ("eval --llm LLM --slm afile --attacks ATTACKS", 1, "'afile' is a file"),
    ("eval --llm LLM --slm LLM --attacks ATTACKS", 2, "are one model"),
    ("eval --policies balansed", 2, "did you mean 'balanced'?"),
    ("eval --policies ''", 2, "--policies names policies with commas"),
    ("eval --out afile", 2, "cannot make the directory 'afile'"),
    ("eval --out /proc/x", 2, "cannot make the directory"),
    ("eval --write empty", 2, "eval:start"),
    ("eval --write gone", 2, "eval:start"),
    ("eval --so-far --out fresh", 2, "leave out --so-far"),
    ("eval --seed -1", 2, "--seed must be at least 0, not '-1'"),
    ("eval --clock sun", 2, "'wall'"),
    ("eval nope", 2, "`purify eval` has no command 'nope'"),
    ("eval build", 2, "needs OUT: the file to write"),
    ("eval build no/x.json", 2, "create it first"),
    ("eval build x.json", 2, "there is nothing to attack"),
    ("eval build x.json --protected gone", 2, "cannot read 'gone'"),
    ("eval build x.json --protected binary", 2, "is not UTF-8 text"),
    ("eval build x.json --protected afile", 2, "name a longer one"),
    ("eval build x.json --trigger go", 2, "give all three or none"),
    ("eval build x.json --secrets afile", 2, "write a prompt, a tab"),
    ("eval build x.json --count 0", 2, "--count must be at least 1"),
    ("eval build /proc/x.json --protected afile", 2, "name another place"),
    ("eval build empty --protected afile", 2, "is a directory; name a file in it"),
]
TUNE = [
    ("tune", 2, "needs POLICY: the policy to tune"),
    ("tune balansed", 2, "did you mean 'balanced'?"),
    ("tune minimum", 2, "has no number to tune"),
    ("tune balanced x", 2, "does not take 'x'"),
    ("tune balanced --protection 2", 2, "--protection must be at most 1"),
    ("tune balanced --protection nan", 2, "--protection must be"),
    ("tune balanced --parameter budgit", 2, "did you mean 'budget'?"),
    ("tune balanced --rounds -1", 2, "--rounds must be at least 0"),
    ("tune balanced --out afile", 2, "cannot make the directory 'afile'"),
    ("tune balanced --attacks gone.json", 2, "cannot read 'gone.json'"),
    ("tune balanced --llm LLM", 2, "give both --llm and --slm"),
    ("tune balanced --batch many", 2, "--batch must be a whole number, not 'many'"),
]
BENCH = [
    ("bench --llm LLM", 2, "both --llm and --slm"),
    ("bench --llm ./nowhere --slm SLM", 1, "there is no model directory"),
    ("bench --llm LLM --slm afile", 1, "'afile' is a file"),
    ("bench --llm LLM --slm LLM", 2, "are one model"),
    ("bench --policy balansed", 2, "did you mean 'balanced'?"),
    ("bench --set alpha", 2, "--set takes KEY=VALUE"),
    ("bench --set alpha=7", 2, "alpha must be between 0 and 1"),
    ("bench --tokens 1", 2, "--tokens must be at least 2"),
    ("bench --rounds 0", 2, "--rounds must be at least 1"),
    ("bench --threads 99999999", 2, "--threads must be at most 1024"),
    ("bench --clock sun", 2, "'wall'"),
    ("bench --write gone", 2, "bench:start"),
    ("bench --write empty", 2, "bench:start"),
    ("bench x", 2, "does not take 'x'"),
]
ANCHORS = [
    ("slm nope", 2, "`purify slm` has no command 'nope'"),
    ("slm build", 2, "needs CORPUS"),
    ("slm build afile --out x", 2, "--tokenizer"),
    ("slm build afile --tokenizer LLM", 2, "--out"),
    ("slm build gone --tokenizer LLM --out x", 2, "there is no file or directory 'gone'"),
    ("slm build binary --tokenizer LLM --out x", 2, "is no text (it holds a zero byte)"),
    ("slm build empty --tokenizer LLM --out x", 2, "there is no text in"),
    ("slm build afile --tokenizer empty --out x", 1, "has no tokenizer"),
    ("slm build afile --tokenizer LLM --out x --order 1", 2, "the order must be from 2 to 12"),
    ("slm build afile --tokenizer LLM --out x --order many", 2, "must be a whole number, not 'many'"),
    ("slm build afile --tokenizer LLM --out empty", 2, "name another directory"),
    ("slm explain LLM --prompt hi", 1, "make one with `purify slm build`"),
    ("slm explain empty", 2, "--prompt"),
    ("slm card", 2, "give one of --out FILE, to begin a card; --check FILE"),
    ("slm card SLM", 2, "give one of --out FILE"),
    ("slm card SLM --out a.json --check afile", 2, "give one of --out FILE"),
    ("slm card --out a.json", 2, "which model is the card of?"),
    ("slm card SLM --out afile", 2, "there is a file 'afile' already"),
    ("slm card SLM --out nofolder/a.json", 2, "create it first"),
    ("slm card SLM --out empty --force", 2, "is a directory; name a file in it"),
    ("slm card empty --out a.json", 1, "empty has no config.json"),
    ("slm card m.gguf --out a.json", 1, "m.gguf is damaged"),
    ("slm card SLM --out a.json --source tgi", 2, "source 'tgi'"),
    ("slm card SLM --out a.json --source lokal", 2, "did you mean 'local'?"),
    ("slm card --check gone", 2, "cannot read 'gone'"),
    ("slm card --check empty", 2, "name a file, not a directory"),
    ("slm card --check afile", 2, "the card 'afile' is no JSON"),
    ("slm card --check binary SLM", 2, "the card 'binary' is no JSON"),
    ("slm card --check ATTACKS", 2, "is no provenance card"),
    ("slm suggest", 2, "needs LLM"),
    ("slm suggest afile", 1, "give a model's directory, a hub id or a GGUF file"),
    ("slm suggest empty", 1, "has no tokenizer"),
    ("slm suggest m.gguf", 1, "is damaged"),
    ("slm suggest some/model", 1, "could not be had from the hub"),
]
TAKEDOWN = [
    ("takedown nope", 2, "`purify takedown` has no command 'nope'"),
    ("takedown build", 2, "needs WORKS"),
    ("takedown build afile --tokenizer LLM --out x", 2, "--neutral"),
    ("takedown build afile --neutral afile --out x", 2, "--tokenizer"),
    ("takedown build gone --neutral afile --tokenizer LLM --out x", 2, "no file or directory 'gone'"),
    ("takedown build afile --neutral gone --tokenizer LLM --out x", 2, "no file or directory 'gone'"),
    ("takedown build binary --neutral afile --tokenizer LLM --out x", 2, "is no text"),
    ("takedown build afile --neutral afile --tokenizer LLM --out empty", 2, "name another directory"),
    ("takedown list empty", 1, "make one with `purify takedown build`"),
    ("takedown add empty afile", 1, "make one with `purify takedown build`"),
    ("takedown remove empty", 2, "needs NAMES"),
    ("takedown remove empty afile", 1, "make one with `purify takedown build`"),
]
CALIBRATE = [
    ("calibrate x", 2, "does not take 'x'"),
    ("calibrate --llm LLM", 2, "there is no purify.toml here"),
    ("calibrate --llm LLM --slm LLM", 2, "are one model"),
    ("calibrate --llm ./nowhere --slm SLM", 1, "there is no model directory './nowhere'"),
    ("calibrate --llm LLM --slm afile", 1, "'afile' is a file; give the directory"),
    ("calibrate --llm LLM --slm SLM --text gone", 2, "cannot read 'gone'"),
    ("calibrate --llm LLM --slm SLM --text binary", 2, "is not UTF-8 text"),
    ("calibrate --llm LLM --slm SLM --policy x", 2, "has no option --policy"),
    ("calibrate --config gone.toml", 1, "[slm] there is no model directory './nothere'"),
]
PROTECT = [
    ("protect nope", 2, "`purify protect` has no command 'nope'"),
    ("protect build", 2, "needs WORKS"),
    ("protect build afile", 2, "--out"),
    ("protect build gone --out x", 2, "there is no file or directory 'gone'"),
    ("protect build afile --out x --common gone", 2, "there is no file or directory 'gone'"),
    ("protect build binary --out x", 2, "is no text (it holds a zero byte)"),
    ("protect build afile --out x", 2, "there is no print in 'afile'"),
    ("protect build empty --out x", 2, "there is no print in 'empty'"),
    ("protect build afile --out notes.txt", 2, "replace it with --force"),
    ("protect build afile --out gone/x", 2, "there is no directory for 'gone/x'"),
    ("protect build afile --out empty", 2, "is a directory; name a file in it"),
    ("protect build afile --out x --licence", 2, "--licence"),
]
REPORT = [
    ("report nope", 2, "`purify report` has no command 'nope'"),
    ("report", 2, "there is no purify.toml"),
    ("report --config torn.toml", 2, "torn.toml"),
    ("report --work novel", 2, "--work takes NAME=FILE"),
    ("report --work novel=gone", 2, "cannot read 'gone'"),
    ("report --work novel=binary", 2, "is not UTF-8 text"),
    ("report --work novel=afile", 2, "has fewer than 6 words"),
    ("report --evaluation empty", 2, "holds no evaluation.json"),
    ("report --evaluation gone", 2, "cannot read 'gone'"),
    ("report --evaluation afile", 2, "is not valid JSON"),
    ("report --evaluation list.json", 2, "is no evaluation.json of `purify eval`"),
    ("report --key gone", 2, "cannot read the key 'gone'"),
    ("report --key env:NO_SUCH_KEY", 2, "'NO_SUCH_KEY' is not set"),
    ("report --passages 0", 2, "--passages"),
    ("report --out afile --config whole.toml", 2, "cannot make the directory 'afile'"),
    ("report check", 2, "needs REPORT"),
    ("report check gone", 3, "cannot read 'gone'"),
    ("report check afile", 3, "this is no report of `purify report`"),
    ("report check list.json", 3, "it is no JSON object"),
    ("report check cert.json", 3, "this is no report of `purify report`"),
    ("report check afile --key gone", 3, "cannot read 'gone'"),
    ("report check afile --key afile", 2, "is no public Ed25519 key"),
]
GATES = [*ANCHORS, *TAKEDOWN, *PROTECT, *REPORT]
EVERY = [
    *GENERATE,
    *SERVE,
    *VERIFY,
    *SIGN,
    *DETECT,
    *STORE,
    *RUN,
    *SMALL,
    *EVAL,
    *TUNE,
    *BENCH,
    *GATES,
    *CALIBRATE,
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with everything that is wrong in it, no configuration in sight, and weights nobody reads."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PURIFY_CONFIG", "PURIFY_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("purify_hooks.local.weights.load_model", lambda *_: pytest.fail("a model was loaded"))
    write(tmp_path)


def write(folder: Path) -> None:
    """Files and directories that are not what a command wants."""
    for name in ("empty", "weightless", "wordless", "cut", "broken", "whisper", "folder.toml"):
        (folder / name).mkdir()
    parts = {
        "weightless": ("config.json",),
        "wordless": ("config.json", "model.safetensors"),
        "cut": ("config.json", "tokenizer.json"),
        "whisper": ("model.safetensors", "tokenizer.json"),
    }
    for place, name in ((place, name) for place, names in parts.items() for name in names):
        (folder / place / name).symlink_to(LLM / name)
    (folder / "cut" / "model.safetensors").write_bytes((LLM / "model.safetensors").read_bytes()[:1000])
    (folder / "broken" / "config.json").write_text("{")
    (folder / "whisper" / "config.json").write_text('{"model_type": "whisper"}')
    texts = {
        "afile": "hello",
        "longkey": "0" * 64,
        "notes.txt": "hello",
        "app.py": "raise SystemExit('it ran')",
        "m.gguf": "GGUF",
        "w.safetensors": "weights",
        "list.json": "[]",
        "later.json": '{"format": "purify-certificate/99"}',
        "typo.json": '{"protectd": 1}',
        "none.json": '{"protected": {"passages": []}}',
        "torn.toml": "[llm\n",
        "single.toml": f'[llm]\nmodel = "{LLM}"\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "torn").mkdir()
    (folder / "torn" / "2026-11-29.jsonl").write_text("{}\n")
    for name in ("binary", "binary.toml"):
        (folder / name).write_bytes(b"\xff\xfe\x00")
    for name, (head, llm, slm, tail) in TABLES.items():
        llm, slm = llm or f'model = "{LLM}"', slm or f'model = "{SLM}"'
        (folder / f"{name}.toml").write_text(f"{head}\n[llm]\n{llm}\n[slm]\n{slm}\n{tail}\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A certificate of the test bed's pair."""
    from tests.toys import real

    [answer] = real("balanced").generate("The king")
    return answer.certificate.text.encode()


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that something listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


def purify(line: str, **given: Any) -> Result:
    words = shlex.split(line)
    known = {
        **{name: str(path) for name, path in NAMES.items()},
        "LONG": "word " * 600,
        **given.pop("known", {}),
    }
    return CliRunner().invoke(app, [known.get(word, word) for word in words], **given)


def refused(result: Result, code: int, words: str) -> None:
    """One sentence on standard error, nothing on standard output, and the exit code."""
    assert result.stdout == "", result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert result.exit_code == code, result.stderr
    for foreign in ("Traceback", "Warning", "Input should", "╭", "errno"):
        assert foreign not in result.stderr


@pytest.mark.parametrize(("line", "code", "words"), EVERY, ids=[line for line, _, _ in EVERY])
def test_a_wrong_command_line_is_one_sentence_before_any_model_is_loaded(
    line: str, code: int, words: str, certificate: bytes, taken: str
) -> None:
    Path("cert.json").write_bytes(certificate)
    Path("half.json").write_bytes(certificate[:500])
    refused(purify(line, known={"TAKEN": taken}), code, words)


@pytest.mark.parametrize(("model", "code", "words"), MODELS)
@pytest.mark.parametrize("side", ["llm", "slm"])
def test_what_is_no_model_is_told_before_the_other_is_read(
    side: str, model: str, code: int, words: str
) -> None:
    """With a wrong SLM, the LLM's weights were read first: minutes, for a large one."""
    pair = f"--llm {model} --slm SLM" if side == "llm" else f"--llm LLM --slm {model}"
    refused(purify(f"generate hi {pair}"), code, words)


@pytest.mark.parametrize(("name", "code", "words"), CONFIGS)
@pytest.mark.parametrize("command", ["generate hi", "check", "chat", "serve --port 0"])
def test_a_wrong_configuration_is_one_sentence_in_every_command(
    command: str, name: str, code: int, words: str
) -> None:
    refused(purify(f"{command} --config {name}.toml"), code, words)


def test_every_command_has_ten_wrong_inputs_here() -> None:
    from typer.main import get_command

    group: Any = get_command(app)
    lines = [line.split()[0] for line, _, _ in EVERY]
    through = {"check": len(CONFIGS), "chat": len(CONFIGS)}
    small = {"policies", "stages", "plugins", "status", "allow"}  # each has one argument at most
    counted = {name: lines.count(name) + through.get(name, 0) for name in group.commands}
    assert {name for name, count in counted.items() if count < (2 if name in small else 8)} == set()


def test_standard_input_must_be_text() -> None:
    said = purify("generate - --llm LLM --slm SLM", input=b"\xff\xfe")
    refused(said, 2, "standard input is not UTF-8 text (invalid start byte at byte 0)")
    refused(purify("generate - --llm LLM --slm SLM", input=b""), 2, "the prompt is empty")


def test_a_prompt_of_half_a_character_is_refused() -> None:
    refused(purify("generate HALF --llm LLM --slm SLM", known={"HALF": "a\ud800"}), 2, "lone surrogates")


def test_a_short_secret_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIFY_SECRET", "short")
    refused(purify("generate hi --llm LLM --slm SLM"), 2, "openssl rand -hex 32")


@pytest.fixture(scope="module")
def pair() -> Any:
    """The packaged pair; of the module, so that it is read before `elsewhere` forbids reading models."""
    from tests.toys import real

    return real()


def test_models_that_may_be_swapped_are_asked_about(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong for certain, so it goes on; the same model twice is what nobody means."""
    monkeypatch.setattr("purify_plugins.configuration.build.Prepared.load", lambda *_: pair)
    swapped = purify("check --llm SLM --slm LLM --json")
    assert swapped.exit_code == 0
    assert "if they are swapped, nothing is protected" in swapped.stderr
    assert "nothing is protected" not in purify("check --llm LLM --slm SLM --json").stderr


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(purify("eval --quick"), 2, "run pip install 'matplotlib>=3.9'")
    refused(purify("tune balanced --quick"), 2, "run pip install 'matplotlib>=3.9'")
    monkeypatch.setitem(sys.modules, "starlette", None)
    refused(purify("serve --llm LLM --slm SLM --port 0"), 2, "'starlette>=0.41'")


@pytest.mark.parametrize("extra", MODULES)
def test_the_packages_of_an_extra_are_those_that_are_looked_for(extra: str) -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    told = {
        "python_pkcs11": "pkcs11",
        "pyopenssl": "OpenSSL",
        "ray[serve]": "ray.serve",
    }  # packages with another name than their module
    names = [re.split("[<>=~;]", each)[0].strip().replace("-", "_") for each in asked[extra]]
    names = [told.get(name, name) for name in names]
    assert sorted(names) == sorted(MODULES[extra])


def test_a_policy_of_a_plugin_that_is_not_named_comes_with_a_hint(install: Install) -> None:
    """It was unknown, and nobody said that its plugin is installed, and off until it is named."""
    install("half-policy", HALF)
    refused(
        purify("generate hi --llm LLM --slm SLM --policy half"), 2, "'half_policy', installed and not in use"
    )
    refused(purify("policies half"), 2, "name it in `plugins` or in PURIFY_PLUGINS")


def process(line: str, **given: Any) -> subprocess.CompletedProcess[str]:
    known = {name: str(path) for name, path in NAMES.items()}
    words = [known.get(word, word) for word in shlex.split(line)]
    command = [sys.executable, "-m", "purify_plugins", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **given)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("generate hi --llm LLM --slm ./nowhere", 1, "there is no model directory './nowhere'"),
        ("serve --llm LLM --slm SLM --port 99999", 2, "--port must be between 0"),
        ("run --config gone.toml app.py", 78, "there is no model directory"),
        ("generate", 2, "`purify generate` needs PROMPT"),
    ],
)
def test_a_process_says_it_in_one_line_and_imports_no_torch_for_it(line: str, code: int, words: str) -> None:
    done = process(line, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    lines = [each for each in done.stderr.splitlines() if not each.startswith("import time:")]
    assert (done.returncode, done.stdout, len(lines)) == (code, "", 1), lines
    assert words in lines[0]
    assert not any(each.split("|")[-1].strip() == "torch" for each in done.stderr.splitlines())
