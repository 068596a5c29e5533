"""Who waits for a future: as the twin in Python says it, and what only this one tells."""

from headrace._transport.future_py import begin_wait as begin_wait
from headrace._transport.future_py import is_awaited_by as is_awaited_by
from headrace._transport.future_py import wake_up as wake_up

def is_known() -> bool: ...
