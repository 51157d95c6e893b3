"""LiteLLM's proxy with its Presidio guardrail, which puts values back, and its content filter for answers.

Presidio's two servers are this process, over the same engines and the same routes as Presidio's own.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any

from blank import analyzer
from flask import Flask, Response, request
from openai import OpenAI
from presidio_analyzer import PatternRecognizer
from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig, RecognizerResult
from talk import Heard, serve, settings
from werkzeug.serving import make_server

GIVEN = settings()
ENTITIES = ("EMAIL_ADDRESS", "CREDIT_CARD", "IP_ADDRESS", "CUSTOMER")
FAULT = ""
KEY = f"sk-{secrets.token_hex(32)}"
app = Flask("presidio")
engine, anonymizer = analyzer(GIVEN.own), AnonymizerEngine()


@app.post("/analyze")
def analyze() -> Response:
    if FAULT.endswith("raises"):
        return Response("the analyzer is down", 500)
    if FAULT:
        time.sleep(60)
    asked: dict[str, Any] = request.get_json()
    extra = [PatternRecognizer.from_dict(each) for each in asked.get("ad_hoc_recognizers") or []]
    found = engine.analyze(
        asked["text"], "en", entities=asked.get("entities") or list(ENTITIES), ad_hoc_recognizers=extra
    )
    return Response(json.dumps([each.to_dict() for each in found]), content_type="application/json")


@app.post("/anonymize")
def anonymize() -> Response:
    asked: dict[str, Any] = request.get_json()
    spans = [RecognizerResult.from_json(each) for each in asked["analyzer_results"]]
    operators = {
        name: OperatorConfig.from_json(each) for name, each in (asked.get("anonymizers") or {}).items()
    }
    return Response(
        anonymizer.anonymize(asked["text"], spans, operators).to_json(), content_type="application/json"
    )


presidio = make_server("127.0.0.1", 0, app, threaded=True)
Thread(target=presidio.serve_forever, daemon=True).start()
BASE = f"http://127.0.0.1:{presidio.port}/"
FOLDER = Path(tempfile.mkdtemp())
CONFIG = {
    "model_list": [
        {
            "model_name": "fake",
            "litellm_params": {"model": "openai/fake", "api_base": GIVEN.host, "api_key": "none"},
        }
    ],
    "guardrails": [
        {
            "guardrail_name": "pii",
            "litellm_params": {
                "guardrail": "presidio",
                "mode": "pre_call",
                "output_parse_pii": True,
                "presidio_filter_scope": "input",  # with its default, answers are masked again once restored
                "default_on": True,
                "presidio_analyzer_api_base": BASE,
                "presidio_anonymizer_api_base": BASE,
                "pii_entities_config": dict.fromkeys(ENTITIES, "MASK"),
            },
        },
        {
            "guardrail_name": "filter",
            "litellm_params": {
                "guardrail": "litellm_content_filter",
                "mode": "post_call",
                "default_on": True,
                "blocked_words": [{"keyword": text, "action": "BLOCK"} for text in GIVEN.forbidden],
            },
        },
    ],
    "litellm_settings": {"num_retries": 0},
}
(FOLDER / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML


def started() -> tuple[subprocess.Popen[bytes], str]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "litellm"), "--config", str(FOLDER / "config.yaml")]
    told = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
    command += ["--port", str(port), "--host", "127.0.0.1", "--telemetry", "False"]
    proxy = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr, env=told)
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2)
            break
        except OSError:
            time.sleep(1)
    return proxy, f"http://127.0.0.1:{port}/v1"


proxy, url = started()
client = OpenAI(base_url=url, api_key=KEY, max_retries=0)


def answer(asked: dict[str, Any], heard: Heard) -> None:
    global FAULT
    FAULT = asked["fault"]
    given = {"tools": asked["tools"]} if asked["tools"] else {}
    if not asked["stream"]:
        message = (
            client.chat.completions.create(model="fake", messages=asked["messages"], **given)
            .choices[0]
            .message
        )
        heard.add(message.content)
        heard.arguments = "".join(call.function.arguments for call in message.tool_calls or [])
        return
    for event in client.chat.completions.create(
        model="fake", messages=asked["messages"], stream=True, **given
    ):
        for choice in event.choices:
            heard.add(choice.delta.content)
            heard.arguments += "".join(
                call.function.arguments or "" for call in choice.delta.tool_calls or []
            )


try:
    serve(["litellm", "presidio-analyzer"], answer)
finally:
    proxy.terminate()
