# cython: language_level=3
"""Types for the compiled `fullduplex.sync.connection`."""

from fullduplex.sync cimport sending


cdef class Connection(sending.SendingConnection):
    cdef public object socket
    cdef public object logger
    cdef public object request
    cdef public object response
    cdef object _local_address
    cdef object _remote_address
