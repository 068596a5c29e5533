cpdef bytes piece(bytes data, Py_ssize_t start, Py_ssize_t size)
cpdef bytes front(bytearray data, Py_ssize_t size)
cpdef Py_ssize_t find(bytes data, bytes needle, Py_ssize_t start, Py_ssize_t end) noexcept
cpdef Py_ssize_t clipped(object number) except? -1
cpdef bytes allocate(Py_ssize_t size)
cpdef void put(bytes storage, Py_ssize_t at, bytes data, Py_ssize_t start, Py_ssize_t size) noexcept
cpdef void put_front(bytes storage, Py_ssize_t at, bytearray data, Py_ssize_t size) noexcept
cpdef Py_ssize_t number_at(bytes data, Py_ssize_t at, int size, bint big) noexcept
cpdef void put_number(
    bytes storage, Py_ssize_t at, long long number, int size, bint big
) noexcept
cpdef Py_ssize_t references(object data) noexcept
cpdef double seconds() noexcept
cpdef object bound_to(object callback)
cpdef object referent(object reference)
cpdef unsigned int version_of(object cls) noexcept
cpdef object set_attribute(object target, str name, object value)
cpdef bint enter(object context, object callback, object argument) except -1
cpdef void hide_vtable(object cls) except *
