/* Ints to and from big-endian bytes. Of objects only their digits are read, so that no method of
   a subclass runs and no exception is set. */

#ifndef MT_INTS_H
#define MT_INTS_H

#include <Python.h>
#include <stdint.h>

#if PY_VERSION_HEX >= 0x030C0000
#define MT_DIGITS(v) (((PyLongObject *)(v))->long_value.ob_digit)
#define MT_NEGATIVE(v) ((((PyLongObject *)(v))->long_value.lv_tag & 3) == 2)
#define MT_DIGIT_COUNT(v) ((Py_ssize_t)(((PyLongObject *)(v))->long_value.lv_tag >> 3))
#else
#define MT_DIGITS(v) (((PyLongObject *)(v))->ob_digit)
#define MT_NEGATIVE(v) (Py_SIZE(v) < 0)
#define MT_DIGIT_COUNT(v) Py_SIZE(v)
#endif

/* Each width on its own: so written, compilers make one load or store of it. */
static inline uint64_t mt_load(const unsigned char *p, int width) {
    switch (width) {
    case 1: return p[0];
    case 2: return (uint16_t)((p[0] << 8) | p[1]);
    case 4: return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16)
                 | ((uint32_t)p[2] << 8) | p[3];
    default: return ((uint64_t)p[0] << 56) | ((uint64_t)p[1] << 48)
                  | ((uint64_t)p[2] << 40) | ((uint64_t)p[3] << 32)
                  | ((uint64_t)p[4] << 24) | ((uint64_t)p[5] << 16)
                  | ((uint64_t)p[6] << 8) | p[7];
    }
}

static inline void mt_store(unsigned char *p, int width, uint64_t v) {
    switch (width) {
    case 1:
        p[0] = (unsigned char)v;
        break;
    case 2:
        p[0] = (unsigned char)(v >> 8); p[1] = (unsigned char)v;
        break;
    case 4:
        p[0] = (unsigned char)(v >> 24); p[1] = (unsigned char)(v >> 16);
        p[2] = (unsigned char)(v >> 8); p[3] = (unsigned char)v;
        break;
    default:
        p[0] = (unsigned char)(v >> 56); p[1] = (unsigned char)(v >> 48);
        p[2] = (unsigned char)(v >> 40); p[3] = (unsigned char)(v >> 32);
        p[4] = (unsigned char)(v >> 24); p[5] = (unsigned char)(v >> 16);
        p[6] = (unsigned char)(v >> 8); p[7] = (unsigned char)v;
    }
}

/* The value of an int (or of a subclass of it); -1 if it does not fit. */
static inline int mt_as_u128(PyObject *v, uint64_t *high, uint64_t *low) {
    Py_ssize_t i;
    *high = *low = 0;
    if (MT_NEGATIVE(v)) return -1;
    for (i = MT_DIGIT_COUNT(v) - 1; i >= 0; i--) {  /* the first is not zero */
        if (*high >> (64 - PyLong_SHIFT)) return -1;
        *high = (*high << PyLong_SHIFT) | (*low >> (64 - PyLong_SHIFT));
        *low = (*low << PyLong_SHIFT) | MT_DIGITS(v)[i];
    }
    return 0;
}

static inline int mt_as_u64(PyObject *v, uint64_t *out) {
    Py_ssize_t i = MT_DIGIT_COUNT(v);
    if (i == 1 && !MT_NEGATIVE(v)) {
        *out = MT_DIGITS(v)[0];
        return 0;
    }
    if (MT_NEGATIVE(v)) return -1;
    for (*out = 0; i > 0; i--) {
        if (*out >> (64 - PyLong_SHIFT)) return -1;
        *out = (*out << PyLong_SHIFT) | MT_DIGITS(v)[i - 1];
    }
    return 0;
}

/* The value of an int (or of a subclass of it, but bool) within 0..255; -1 for anything else. */
static inline int mt_as_byte(PyObject *v) {
    if (!PyLong_CheckExact(v) && (!PyLong_Check(v) || PyBool_Check(v))) return -1;
    if (MT_DIGIT_COUNT(v) == 1 && !MT_NEGATIVE(v))
        return MT_DIGITS(v)[0] < 256 ? (int)MT_DIGITS(v)[0] : -1;
    return MT_DIGIT_COUNT(v) == 0 ? 0 : -1;
}

static inline PyObject *mt_from_u64(uint64_t v) {
    return v < 0x40000000 ? PyLong_FromLong((long)v) : PyLong_FromUnsignedLongLong(v);
}

static inline PyObject *mt_from_u128(const unsigned char *p) {
    if (mt_load(p, 8) == 0) return mt_from_u64(mt_load(p + 8, 8));
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromUnsignedNativeBytes(p, 16, Py_ASNATIVEBYTES_BIG_ENDIAN);
#else
    return _PyLong_FromByteArray(p, 16, 0, 0);
#endif
}

#endif
