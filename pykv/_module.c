/* _module.c -- what is called a million times a second, without cffi in between: `store[key]`, `get`,
 * `key in store` and `store[key] = value`. A call through cffi from a method in Python takes some 250 ns beside
 * the 60 that a lookup takes, so these four are slots of two base classes here, from which those of _reader.py
 * and _store.py inherit. They know the usual case: keys and values that are bytes, and success. Anything else
 * goes to a method in Python, which goes through cffi, as all other calls do; of those for many keys only the loop over
 * the keys is here.
 *
 * cffi makes the module; _build.py gives its initialization another name, so that it can be called here. */
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED         /* such a Python has no limited API */
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

#include "pykv.h"

#define SMALL_SIZE 4096         /* bytes of a value that is found and copied in one call of the engine */
#define ABSENT (-1000 + PYKV_NOT_FOUND)
#define UNUSUAL INT64_MIN       /* the key is no bytes object */

struct reads {
    PyObject_HEAD
    PyObject *handle;           /* of cffi: what its calls take for `store`, or NULL */
    struct pykv_store *store;
    struct pykv_snapshot *snapshot;     /* ours. NULL: we read the newest of everything */
    _Atomic uint32_t slowness;  /* of its calls: see below */
};

/* ---- The GIL ----
 *
 * A read in memory takes 150 ns, and waits for nobody. To give the GIL away for it wakes a thread that waits for it, which
 * takes longer, and comes too late; and where another thread computes, to get it back takes that thread's five
 * milliseconds. A read that the disk has part in takes 60 us and more, in which others could compute. So a call keeps the
 * GIL as long as of those before it less than one in 64 took long. Puts keep it, too, where they can be done at once. */
#define SLOW_MORE 64u           /* for a call that took long; for any other one less */
#define SLOW_MAX 1024u          /* so many short ones, at most, are needed to forget the long ones */

#if defined __x86_64__
#define LONG_TICKS 50000u       /* 15 to 25 us */
static inline uint64_t ticks(void) { return __builtin_ia32_rdtsc(); }
#else                           /* each call is long: all give it away */
#define LONG_TICKS 0u
static inline uint64_t ticks(void) { return 0; }
#endif

struct gil {
    PyThreadState *thread;      /* that gave it away; NULL: we keep it */
    uint64_t start;
    bool large;                 /* the call copies much, and tells nothing of others */
};

static inline void give_away(struct gil *gil)
{
    if (gil->thread == NULL)
        gil->thread = PyEval_SaveThread();
}

/* An old snapshot may have to go back over any number of versions. */
static inline struct gil begin_call(struct reads *reads, bool large)
{
    struct gil gil = { .large = large };
    uint32_t slowness = atomic_load_explicit(&reads->slowness, memory_order_relaxed);
    if (slowness > SLOW_MORE || LONG_TICKS == 0 || large ||
        (reads->snapshot != NULL && !pykv_snapshot_young(reads->snapshot)))
        give_away(&gil);
    gil.start = ticks();
    return gil;
}

static inline void end_call(struct reads *reads, struct gil gil)
{
    uint32_t slowness = atomic_load_explicit(&reads->slowness, memory_order_relaxed), before = slowness;
    if (ticks() - gil.start > LONG_TICKS)
        slowness = slowness + SLOW_MORE < SLOW_MAX ? slowness + SLOW_MORE : SLOW_MAX;
    else if (slowness != 0)
        slowness--;
    if (slowness != before && !gil.large)
        atomic_store_explicit(&reads->slowness, slowness, memory_order_relaxed);
    if (gil.thread != NULL)
        PyEval_RestoreThread(gil.thread);
}

/* ---- Reads ---- */

static int64_t find(struct reads *reads, const char *key, Py_ssize_t key_size, void *buffer, size_t capacity)
{
    int64_t size;
    struct gil gil = begin_call(reads, capacity > SMALL_SIZE);
    if (reads->snapshot != NULL)
        size = pykv_snapshot_get(reads->snapshot, (const uint8_t *)key, (size_t)key_size, buffer, capacity, NULL);
    else
        size = pykv_get(reads->store, (const uint8_t *)key, (size_t)key_size, buffer, capacity, NULL);
    end_call(reads, gil);
    return size;
}

/* The value of `key`, or NULL: then *size is negative and tells why, or Python has an error. */
static PyObject *lookup(PyObject *self, PyObject *key, int64_t *size)
{
    char small[SMALL_SIZE];
    struct reads *reads = (struct reads *)self;
    *size = UNUSUAL;
    if (!PyBytes_CheckExact(key))
        return NULL;
    const char *bytes = PyBytes_AsString(key);
    Py_ssize_t key_size = PyBytes_Size(key);
    *size = find(reads, bytes, key_size, small, sizeof small);
    if (*size >= 0 && *size <= SMALL_SIZE)
        return PyBytes_FromStringAndSize(small, (Py_ssize_t)*size);
    while (*size >= 0) {        /* again, with all the room it needs; it may have been replaced meanwhile */
        int64_t capacity = *size;
        PyObject *value = capacity > PY_SSIZE_T_MAX ? PyErr_NoMemory()
                                                    : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
        if (value == NULL)
            return NULL;
        *size = find(reads, bytes, key_size, PyBytes_AsString(value), (size_t)capacity);
        if (*size == capacity)
            return value;
        Py_DECREF(value);
    }
    return NULL;
}

/* self.method(first), or self.method(first, second): what is unusual. */
static PyObject *call(PyObject *self, const char *method, PyObject *first, PyObject *second)
{
    PyObject *name = PyUnicode_FromString(method);
    PyObject *result = name == NULL ? NULL : PyObject_CallMethodObjArgs(self, name, first, second, NULL);
    Py_XDECREF(name);
    return result;
}

static int call_for_nothing(PyObject *self, const char *method, PyObject *first, PyObject *second)
{
    PyObject *result = call(self, method, first, second);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *reads_get(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    int64_t size;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_get(key, default)");
        return NULL;
    }
    PyObject *value = lookup(self, arguments[0], &size);
    if (value != NULL || size >= 0)
        return value;
    if (size != ABSENT)
        return call(self, "_get_rarely", arguments[0], arguments[1]);
    Py_INCREF(arguments[1]);
    return arguments[1];
}

static PyObject *reads_subscript(PyObject *self, PyObject *key)
{
    int64_t size;
    PyObject *value = lookup(self, key, &size);
    if (value != NULL || size >= 0)
        return value;
    if (size != ABSENT)
        return call(self, "_getitem_rarely", key, NULL);
    PyErr_SetObject(PyExc_KeyError, key);
    return NULL;
}

static int reads_contains(PyObject *self, PyObject *key)
{
    struct reads *reads = (struct reads *)self;
    if (PyBytes_CheckExact(key)) {
        const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(key);
        size_t key_size = (size_t)PyBytes_Size(key);
        struct gil gil = begin_call(reads, false);
        int status = reads->snapshot != NULL ? pykv_snapshot_contains(reads->snapshot, bytes, key_size, NULL)
                                             : pykv_contains(reads->store, bytes, key_size, NULL);
        end_call(reads, gil);
        if (status == PYKV_OK || status == PYKV_NOT_FOUND)
            return status == PYKV_OK;
    }
    PyObject *answer = call(self, "_contains_rarely", key, NULL);
    int found = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return found;
}

/* The store that is read: `handle` of cffi, and its address; 0: none, which is a closed one. */
static PyObject *reads_attach(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct reads *reads = (struct reads *)self;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_attach(handle, its address or 0)");
        return NULL;
    }
    void *store = PyLong_AsVoidPtr(arguments[1]);
    if (PyErr_Occurred() != NULL)
        return NULL;
    PyObject *before = reads->handle;
    Py_INCREF(arguments[0]);
    reads->handle = arguments[0];
    reads->store = store;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* Become the reader of a snapshot, of the store at that address, and its owner. A status. */
static PyObject *reads_take(PyObject *self, PyObject *address)
{
    struct reads *reads = (struct reads *)self;
    struct pykv_store *store = PyLong_AsVoidPtr(address);
    struct pykv_snapshot *taken = NULL, *before = reads->snapshot;
    int status;
    if (PyErr_Occurred() != NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = pykv_snapshot_open(store, &taken);
    Py_END_ALLOW_THREADS
    reads->snapshot = taken;
    pykv_snapshot_free(before);
    return PyLong_FromLong(status);
}

static PyObject *reads_release(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    pykv_snapshot_close(((struct reads *)self)->snapshot);
    Py_RETURN_NONE;
}

static PyObject *reads_address(PyObject *self, void *nothing)
{
    const struct reads *reads = (struct reads *)self;
    (void)nothing;
    return PyLong_FromVoidPtr(reads->snapshot != NULL ? (void *)reads->snapshot : (void *)reads->store);
}

static void reads_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct reads *reads = (struct reads *)self;
    pykv_snapshot_free(reads->snapshot);
    Py_XDECREF(reads->handle);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int writes_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    if (value == NULL)
        return call_for_nothing(self, "_remove", key, NULL);
    if (!PyBytes_CheckExact(key) || !PyBytes_CheckExact(value))
        return call_for_nothing(self, "_put_rarely", key, value);
    struct pykv_store *store = ((struct reads *)self)->store;
    const uint8_t *key_bytes = (const uint8_t *)PyBytes_AsString(key);
    const uint8_t *value_bytes = (const uint8_t *)PyBytes_AsString(value);
    size_t key_size = (size_t)PyBytes_Size(key), value_size = (size_t)PyBytes_Size(value);
    int status = PYKV_OK;
    struct gil gil = begin_call((struct reads *)self, value_size > SMALL_SIZE);
    if (gil.thread != NULL || !pykv_put_at_once(store, key_bytes, key_size, value_bytes, value_size)) {
        give_away(&gil);
        status = pykv_put(store, key_bytes, key_size, value_bytes, value_size, 0, PYKV_DURABILITY_DEFAULT, NULL);
    }
    end_call((struct reads *)self, gil);
    if (status == PYKV_OK)
        return 0;
    PyObject *number = PyLong_FromLong(status);
    int result = number == NULL ? -1 : call_for_nothing(self, "_refused", key, number);
    Py_XDECREF(number);
    return result;
}

/* As `self[key] = value`, whatever a subclass makes of that. */
static PyObject *writes_put(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_put(key, value)");
        return NULL;
    }
    if (writes_ass_subscript(self, arguments[0], arguments[1]) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef writes_methods[] = {
    { "_put", (PyCFunction)(void (*)(void))writes_put, METH_FASTCALL, NULL },
    { NULL, NULL, 0, NULL },
};
static PyMethodDef reads_methods[] = {
    { "_attach", (PyCFunction)(void (*)(void))reads_attach, METH_FASTCALL, NULL },
    { "_get", (PyCFunction)(void (*)(void))reads_get, METH_FASTCALL, NULL },
    { "_take", reads_take, METH_O, NULL },
    { "_release", reads_release, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};
static PyMemberDef reads_members[] = {
    { "_handle", T_OBJECT_EX, offsetof(struct reads, handle), READONLY, NULL },
    { NULL, 0, 0, 0, NULL },
};
static PyGetSetDef reads_getset[] = {
    { "_address", reads_address, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};
static PyType_Slot reads_slots[] = {
    { Py_tp_doc, (void *)"What is read a million times a second. See _module.c." },
    { Py_tp_dealloc, (void *)reads_dealloc },
    { Py_tp_methods, reads_methods },
    { Py_tp_members, reads_members },
    { Py_tp_getset, reads_getset },
    { Py_mp_subscript, (void *)reads_subscript },
    { Py_sq_contains, (void *)reads_contains },
    { 0, NULL },
};
static PyType_Slot writes_slots[] = {
    { Py_tp_doc, (void *)"`Reads`, and what is written as often." },
    { Py_tp_methods, writes_methods },
    { Py_mp_ass_subscript, (void *)writes_ass_subscript },
    { 0, NULL },
};
static PyType_Spec reads_spec = { "pykv._core.Reads", sizeof(struct reads), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                                  reads_slots };
static PyType_Spec writes_spec = { "pykv._core.Writes", sizeof(struct reads), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                                   writes_slots };

/* Items of a list laid end to end, and their sizes as uint32_t, as the calls for many keys want them; None if one is
 * no bytes object, or too long. */
static PyObject *column(PyObject *module, PyObject *items)
{
    Py_ssize_t count = PyList_Check(items) ? PyList_Size(items) : -1, total = 0;
    (void)module;
    if (count < 0 || count > PY_SSIZE_T_MAX / (Py_ssize_t)sizeof(uint32_t))
        Py_RETURN_NONE;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyList_GetItem(items, i);
        Py_ssize_t size = PyBytes_CheckExact(item) ? PyBytes_Size(item) : -1;
        if (size < 0 || (uint64_t)size > UINT32_MAX || size > PY_SSIZE_T_MAX - total)
            Py_RETURN_NONE;
        total += size;
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    PyObject *sizes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    PyObject *both = joined == NULL || sizes == NULL ? NULL : PyTuple_Pack(2, joined, sizes);
    if (both != NULL) {
        char *to = PyBytes_AsString(joined), *size_to = PyBytes_AsString(sizes);
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *item = PyList_GetItem(items, i);
            uint32_t size = (uint32_t)PyBytes_Size(item);
            memcpy(to, PyBytes_AsString(item), size);
            memcpy(size_to, &size, sizeof size);
            to += size;
            size_to += sizeof size;
        }
    }
    Py_XDECREF(joined);
    Py_XDECREF(sizes);
    return both;
}

static PyMethodDef functions[] = {
    { "column", column, METH_O, NULL },
    { NULL, NULL, 0, NULL },
};

static int add_types(PyObject *module)
{
    PyObject *reads = PyType_FromSpec(&reads_spec), *writes = NULL;
    if (reads != NULL && (writes = PyType_FromSpecWithBases(&writes_spec, reads)) != NULL) {
        int status = PyModule_AddObjectRef(module, "Reads", reads);
        if (status == 0)
            status = PyModule_AddObjectRef(module, "Writes", writes);
        if (status == 0) {
            Py_DECREF(reads);
            Py_DECREF(writes);
            return 0;
        }
    }
    Py_XDECREF(reads);
    Py_XDECREF(writes);
    return -1;
}

PyObject *pykv_cffi_module(void);

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = pykv_cffi_module();
    if (module != NULL && (add_types(module) != 0 || PyModule_AddFunctions(module, functions) != 0))
        Py_CLEAR(module);
    return module;
}
