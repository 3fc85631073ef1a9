# --- the front door ------------------------------------------------------------------------
# `record.encode()` is the most frequent call of all: a method in C, without a Python frame that
# would only hand it on to `LAYOUT.pack`.

cdef extern from *:
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    int METH_NOARGS
    object PyDescr_NewMethod(PyTypeObject *, PyMethodDef *)
    PyObject *_PyType_Lookup(PyTypeObject *, PyObject *) noexcept  # borrowed, sets no exception


cdef str LAYOUT_NAME = "LAYOUT"

cdef PyMethodDef ENCODE = [
    b"encode", <PyCFunction>encode_record, METH_NOARGS,
    b"encode($self, /)\n--\n\n"
    b"The wire encoding. Raises EncodeError naming the field that cannot be encoded.",
]


cdef object encode_record(PyObject *record, PyObject *_):
    cdef PyObject *layout = _PyType_Lookup(Py_TYPE(record), <PyObject *>LAYOUT_NAME)
    if layout == NULL or Py_TYPE(layout) != <PyTypeObject *>Layout:
        return (<object>record).LAYOUT.pack(<object>record)
    return (<Layout>layout)._pack(record)


def encode_method(type cls, /):
    """A method `encode` for `cls`: what `cls.LAYOUT` packs of an object of it."""
    return PyDescr_NewMethod(<PyTypeObject *>cls, &ENCODE)
