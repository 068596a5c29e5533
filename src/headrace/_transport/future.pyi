"""Who waits for a future: as the twin in Python says it, and what only this one tells."""

from headrace._transport.future_py import begin_wait as begin_wait
from headrace._transport.future_py import forget_task as forget_task
from headrace._transport.future_py import task_callback as task_callback
from headrace._transport.future_py import task_context as task_context

def is_known() -> bool: ...
