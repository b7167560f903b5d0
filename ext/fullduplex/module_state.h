/* Finds the state of a module at once, as long as one interpreter has ever imported it.
 *
 * Cython looks a module's state up by interpreter, whenever it needs a constant or a type: with two locked
 * instructions, some hundreds of times for each connection. Nearly always there is one interpreter, and so
 * one state. `sole` is that state; from the moment a second interpreter adds its own, or one takes its own away, it is
 * `many` for ever, and Cython's table is asked.
 *
 * Threads of the second interpreter get here only after its module was added, so none of them sees the first
 * one's state. `sole` is written with the module's import and end, never by what uses it.
 *
 * setup.py includes this in what Cython generates, in the place of Cython's own macro: it needs the names that are
 * defined there, and each module has a `sole` of its own. */
#ifndef FDX_MODULE_STATE_H
#define FDX_MODULE_STATE_H

#include "atomic.h"

static fdx_pointer fdx_sole;      /* NULL, the one state, or &fdx_many */
static const char fdx_many = 0;   /* only its address is of use */

static CYTHON_INLINE __pyx_mstatetype *fdx_module_state(void)
{
    void *state = fdx_pointer_peek(&fdx_sole);
    if (likely(state != NULL && state != (const void *)&fdx_many))
        return (__pyx_mstatetype *)state;
    return (__pyx_mstatetype *)__Pyx_PyModule_GetState(__Pyx_State_FindModule(&__pyx_moduledef));
}

/* For __Pyx_State_AddModule(), with what it returns. */
static int fdx_add_module(PyObject *module, void *definition)
{
    void *state = PyModule_GetState(module);
    if (fdx_pointer_swap_if(&fdx_sole, NULL, state) != NULL)
        fdx_pointer_swap(&fdx_sole, (void *)(uintptr_t)&fdx_many);
    return __Pyx_State_AddModule(module, definition);
}

/* For __Pyx_State_RemoveModule(), with what it returns. */
static int fdx_remove_module(void *definition)
{
    fdx_pointer_swap(&fdx_sole, (void *)(uintptr_t)&fdx_many);
    return __Pyx_State_RemoveModule(definition);
}

#define __pyx_mstate_global fdx_module_state()

#endif
