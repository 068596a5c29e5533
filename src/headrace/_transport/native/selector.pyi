"""What Python code may use of a Selector."""

import selectors

class Selector(selectors.EpollSelector): ...
