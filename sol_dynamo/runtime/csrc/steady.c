/* A call of a graph that is like the one before but for its inputs: what has to be looked at, then the
 * program, with no code of Python between. As modules.c, no header of Python is used: its functions come
 * as pointers. The GIL must be held. */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint64_t u64;

static struct {
  void *(*call)(void *, void *const *, u64, void *);  /* PyObject_Vectorcall; gives a reference, as all do ... */
  void *(*attribute)(void *, void *);                 /* PyObject_GetAttr */
  void *(*argument)(void *, i64);                     /* PyTuple_GetItem: ... but these: borrowed */
  void *(*list)(i64);                                 /* PyList_New */
  int (*set_item)(void *, i64, void *);               /* PyList_SetItem: takes a reference */
  i64 (*set_size)(void *);                            /* PySet_Size */
  void *(*address)(void *);                           /* PyLong_AsVoidPtr */
  void *(*error)(void);                               /* PyErr_Occurred: borrowed, or null */
  void (*hold)(void *), (*release)(void *);
  void *none, *no;                                    /* None, False */
} python;

void sol_steady_python(const void *found) { memcpy(&python, found, sizeof python); }

/* What a call is compared with, and what it does. Objects are borrowed: who made it holds them. */
typedef struct {
  const void *plan; i64 walk; void *snapshot;         /* as modules.c's sol_guard takes them */
  void *gradients;                                    /* torch.is_grad_enabled */
  void *sets, *entry;                                 /* `WeightSets`, and a weak reference to its `Entry` */
  void *executable;
  void *last, *stale, *prepared, *again;              /* names of attributes */
  i64 inputs; const i64 *input;                       /* which arguments the program takes, beside weights */
} steady;

i64 sol_guard(const void *plan, void *given, i64 walk, void *snapshot);

/* Whether an object that was asked for, which is let go of, is what it should be. */
static int is(void *found, const void *wanted) {
  if (found) python.release(found);
  return found == wanted;
}

static void *inputs(const steady *s, void *given) {
  void *list = python.list(s->inputs);
  for (i64 i = 0; list && i < s->inputs; i++) {
    void *x = python.argument(given, s->input[i]);
    if (!x) { python.release(list); return 0; }
    python.hold(x);
    python.set_item(list, i, x);
  }
  return list;
}

/* Null, without an error, for a call that is not like the one before. */
static void *with_entry(const steady *s, void *entry, void *given) {
  if (!is(python.attribute(s->sets, s->last), entry)) return 0;
  void *stale = python.attribute(entry, s->stale);
  i64 some = stale ? python.set_size(stale) : -1;
  if (stale) python.release(stale);
  if (some || !is(python.call(s->gradients, 0, 0, 0), python.no)) return 0;
  if (!sol_guard(s->plan, given, s->walk, s->snapshot)) return 0;
  void *args[2] = {inputs(s, given), python.attribute(entry, s->prepared)};
  void *again = python.attribute(s->executable, s->again);
  void *made = args[0] && args[1] && again ? python.call(again, args, 2, 0) : 0;
  for (int i = 0; i < 2; i++) if (args[i]) python.release(args[i]);
  if (again) python.release(again);
  return made;
}

/* What the call with a tuple of arguments gives; None, and nothing is done, for one that is not like the
 * one before. `self`: the address of a `steady`, as an int. */
void *sol_steady(void *self, void *given) {
  const steady *s = python.address(self);
  void *entry = python.call(s->entry, 0, 0, 0);
  if (!entry) return 0;
  void *made = entry == python.none ? 0 : with_entry(s, entry, given);
  python.release(entry);
  if (!made && !python.error()) python.hold(made = python.none);
  return made;
}
