"""Retrieval and a local model with LlamaIndex: `python rag.py MODEL "a beginning"`."""

import sys

from llama_index.core import Document, PromptTemplate, get_response_synthesizer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.llms.huggingface import HuggingFaceLLM
from llama_index.retrievers.bm25 import BM25Retriever
from transformers import AutoModelForCausalLM, AutoTokenizer

LIBRARY = [
    "The Caterpillar smokes a hookah and asks riddles of whoever passes.",
    "A rabbit-hole is how one comes to Wonderland; it goes down a long way.",
    "The Queen plays croquet, with flamingoes.",
]


def main(model: str, beginning: str) -> None:
    llm = HuggingFaceLLM(
        model=AutoModelForCausalLM.from_pretrained(model),
        tokenizer=AutoTokenizer.from_pretrained(model),
        context_window=512,
        max_new_tokens=48,
        generate_kwargs={"do_sample": False},
    )
    nodes = SentenceSplitter().get_nodes_from_documents([Document(text=text) for text in LIBRARY])
    answer = get_response_synthesizer(
        llm=llm,
        text_qa_template=PromptTemplate("{context_str}\n\n{query_str}"),
        response_mode="simple_summarize",
    )
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=1)
    print(RetrieverQueryEngine(retriever, answer).query(beginning))


if __name__ == "__main__":
    main(*sys.argv[1:])
