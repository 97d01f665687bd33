"""What is done for a task before it may have a GPU: ``python -m sage_studio.preparing FOLDER``, a process of its own.

Fetches or unpacks the model, keeps the data file as a dataset, and checks the rows, reporting through the same files as
a trainer does. Its last act is to mark the task's orders as prepared, or to write ``result.json`` with what is wrong.
"""
