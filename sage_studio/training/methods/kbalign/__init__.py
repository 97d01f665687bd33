"""A model that asks itself about a knowledge base and learns from its own answers: KBAlign.

After "KBAlign: Efficient Self Adaptation on Specific Textual Knowledge Bases", arXiv 2411.14790. Four stages, each with
a file of JSON lines in the task's folder that a person can open and edit and from which a stopped run goes on. This
package itself imports no torch: only `generation` and `method` do.
"""
