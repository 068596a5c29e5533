"""The C leaf, as its twin in Python says it."""

from headrace._core.cprims_py import allocate as allocate
from headrace._core.cprims_py import bound_to as bound_to
from headrace._core.cprims_py import clipped as clipped
from headrace._core.cprims_py import enter as enter
from headrace._core.cprims_py import find as find
from headrace._core.cprims_py import front as front
from headrace._core.cprims_py import hide_vtable as hide_vtable
from headrace._core.cprims_py import piece as piece
from headrace._core.cprims_py import put as put
from headrace._core.cprims_py import put_front as put_front
from headrace._core.cprims_py import references as references
from headrace._core.cprims_py import referent as referent
from headrace._core.cprims_py import seconds as seconds
from headrace._core.cprims_py import set_attribute as set_attribute
from headrace._core.cprims_py import version_of as version_of
