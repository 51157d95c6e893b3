"""A service in front of Text Generation Inference: `TGI=http://localhost:8080 uvicorn service:app`."""

import os

from fastapi import FastAPI
from huggingface_hub import AsyncInferenceClient

app = FastAPI()
client = AsyncInferenceClient(os.environ["TGI"])


@app.get("/story")
async def story(beginning: str) -> dict[str, str]:
    return {"story": await client.text_generation(beginning, max_new_tokens=48, do_sample=False)}
