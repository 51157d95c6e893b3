"""A LangChain chain around a local model: `python chain.py MODEL "a beginning"`."""

import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_huggingface import HuggingFacePipeline


def main(model: str, beginning: str) -> None:
    llm = HuggingFacePipeline.from_model_id(
        model, task="text-generation", pipeline_kwargs={"max_new_tokens": 48, "do_sample": False}
    )
    chain = PromptTemplate.from_template("{beginning}") | llm.bind(skip_prompt=True) | StrOutputParser()
    print(chain.invoke({"beginning": beginning}))


if __name__ == "__main__":
    main(*sys.argv[1:])
