cpdef object begin_wait(object future)
cpdef object task_callback(object future)
cpdef object task_context(object future)
cpdef bint forget_task(object future) except -1
