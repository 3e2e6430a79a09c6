/* A launch of a program's CUDA graph, from its inputs to its results, with no code of Python between: what
 * `Replay` does, where no input is copied. Functions of Python and of the CUDA driver come as pointers. The
 * GIL must be held; it is let go of while the driver works. */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint64_t u64;

static struct {
  void *(*call)(void *, void *const *, u64, void *);  /* PyObject_Vectorcall; gives a reference, as all do ... */
  void *(*call_tuple)(void *, void *, void *);        /* PyObject_Call */
  void *(*attribute)(void *, void *);                 /* PyObject_GetAttr */
  void *(*list)(i64);                                 /* PyList_New */
  void *(*list_item)(void *, i64);                    /* PyList_GetItem: ... but these: borrowed */
  void *(*tuple_item)(void *, i64);                   /* PyTuple_GetItem */
  i64 (*list_size)(void *);
  int (*set_item)(void *, i64, void *);               /* PyList_SetItem: takes a reference */
  int (*append)(void *, void *);                      /* PyList_Append */
  i64 (*number)(void *);                              /* PyLong_AsLongLong: -1, with an error, for others */
  u64 (*unsigned_number)(void *);                     /* PyLong_AsUnsignedLongLong */
  void *(*address)(void *);                           /* PyLong_AsVoidPtr */
  void *(*from_number)(i64);                          /* PyLong_FromLongLong: a reference */
  void *(*error)(void);                               /* PyErr_Occurred: borrowed, or null */
  void (*clear)(void);                                /* PyErr_Clear */
  void *(*let_go)(void); void (*take)(void *);        /* PyEval_SaveThread, PyEval_RestoreThread */
  void (*hold)(void *), (*release)(void *);
  void *none, *no, *yes;                              /* None, False, True */
} python;

void sol_replay_python(const void *found) { memcpy(&python, found, sizeof python); }

typedef struct { u64 *word; i64 offset, node; } user;       /* who is told an address: a kernel's argument */
typedef struct { void *handle; const void *parameters; i64 told; } node;
typedef struct {                                            /* a tensor in the memory of another one: made by */
  void *make; i64 of; void *shape, *strides;                  /* a function of that and these, and how far behind */
  i64 offset; void *begins;                                   /* its start: of its memory, if a function tells where it is */
} part;

/* A call of a `Replay` by one `Recorded`. Objects are borrowed: who made it holds them. */
typedef struct {
  i64 index, stream;                                  /* the device and the stream that it is for */
  void *device_now, *stream_now, *index_object;       /* functions that tell those of a call */
  void *capturing;                                    /* whether that stream is recorded; null for the default one */
  void *device_of; i64 read;                          /* Tensor.get_device, and an input to ask it of, or -1 */
  void *data_ptr;                                     /* Tensor.data_ptr */
  void *free, *pop, *pool; i64 sizes[2];              /* scratch: a list, its pop; of this pool, or any; so large */
  i64 uses;                                           /* calls until Python is to look after memory; -1: none */
  void *take, *give;                                  /* the functions of a lock, of who else lends tensors; or null */
  const void *const *counts; i64 (*counted)(const void *);      /* that say whether somebody has what is lent; a list */
  void *empty; void *const *places;                   /* makes tensors: arguments for each */
  const part *part;                                   /* made of tensors before them */
  i64 inputs, lent, outputs, parts; void *const *lends; /* tensors of a call, in this order; those that are lent */
  i64 results; const i64 *result;                     /* what is returned: places of all, or -1 for None */
  i64 moving; const i64 *place, *slot;                /* whose addresses kernels are told, the scratch's in front; */
  void *copy, *made; i64 copies; const i64 *copied;   /* copies what the graph makes, a list, to these behind it */
  void *recorded, *weights, *acquire, *release;       /* ... which of its addresses that are; `_weights`, a lock's functions */
  u64 *addresses;                                     /* as they were told last */
  const i64 *first; const user *users; const char *still;     /* users by address; who must not change */
  node *nodes; i64 count;
  void *graph; int (*set)(void *, void *, const void *), (*launch)(void *, void *);
  void *otherwise;                                    /* for a call that is not like the ones before */
} replay;

enum { ALIGNED = 16, ADDRESSES = 2, SIZES = 3, POOL = 4 };    /* the fields of a `Scratch` */

static void *call(void *f, void *x) { return python.call(f, &x, x != 0, 0); }

/* Whether a function says what it should. */
static int says(void *f, void *x, i64 wanted) {
  void *made = call(f, x);
  if (!made) return 0;
  i64 found = python.number(made);
  python.release(made);
  return found == wanted;
}

static int is(void *found, const void *wanted) {
  if (found) python.release(found);
  return found == wanted;
}

static const u64 UNKNOWN = ~(u64)0;                           /* as in recorded.py: no address */

/* Tell the kernels what moved, and launch them. Whether that is done. Of what the driver refused to be
 * told nobody knows where it is: whoever tries next tells it again. */
static int launch(const replay *r, const u64 *now) {
  i64 failed = 0;
  for (i64 i = 0; i < r->moving; i++) {
    i64 k = r->slot[i];
    if (now[i] != r->addresses[k] && (r->still[k] || (now[i] % ALIGNED && r->first[k] < r->first[k + 1])))
      return 0;
  }
  void *thread = python.let_go();
  for (i64 i = 0; i < r->moving; i++) {
    i64 k = r->slot[i];
    if (now[i] != r->addresses[k])
      for (const user *u = r->users + r->first[k]; u < r->users + r->first[k + 1]; u++) {
        *u->word = now[i] + u->offset;
        r->nodes[u->node].told = 1;
      }
  }
  for (node *n = r->nodes; n < r->nodes + r->count; n++) {
    if (n->told && !failed) failed = r->set(r->graph, n->handle, n->parameters);
    n->told = 0;
  }
  for (i64 i = 0; i < r->moving; i++) {
    i64 k = r->slot[i];
    if (now[i] != r->addresses[k]) r->addresses[k] = failed ? UNKNOWN : now[i];
  }
  if (!failed) failed = r->launch(r->graph, (void *)r->stream);
  python.take(thread);
  return !failed;
}

/* Whether the graph was told of these weights last. */
static int knows(const replay *r, const void *weights) {
  void *weak = python.attribute(r->recorded, r->weights);
  int known = weak && is(call(weak, 0), weights);
  if (weak) python.release(weak);
  return known;
}

/* With its lock, which another thread may have. */
static int alone(const replay *r, const u64 *now, const void *weights) {
  if (!is(call(r->acquire, python.no), python.yes)) return 0;
  int done = knows(r, weights) && launch(r, now);
  is(call(r->release, 0), python.none);
  return done;
}

static int fits(const replay *r, void *scratch, u64 *addresses) {
  if (r->pool && python.tuple_item(scratch, POOL) != r->pool) return 0;
  void *sizes = python.tuple_item(scratch, SIZES), *at = python.tuple_item(scratch, ADDRESSES);
  for (i64 i = 0; i < 2; i++) {
    if (python.number(python.tuple_item(sizes, i)) < r->sizes[i]) return 0;
    addresses[i] = python.unsigned_number(python.tuple_item(at, i));
    if (addresses[i] == UNKNOWN) return 0;
  }
  return 1;
}

static int address(const replay *r, void *tensor, u64 *out) {
  void *made = call(r->data_ptr, tensor);
  if (!made) return 0;
  *out = python.unsigned_number(made);
  python.release(made);
  return *out != UNKNOWN;                             /* which is said with an error, of what is no address */
}

/* Hold what is lent, if nobody has it. */
static int lend(const replay *r, void **to) {
  if (r->take && !is(call(r->take, python.no), python.yes)) return 0;
  int free = 1;
  for (const void *const *c = r->counts; free && *c; c++) free = r->counted(*c) != 0;
  for (i64 i = 0; free && i < r->lent; i++) python.hold(to[i] = r->lends[i]);
  if (r->take) is(call(r->give, 0), python.none);
  return free;
}

static void *part_of(const part *p, void **every) {
  void *of = every[p->of], *begins = p->begins ? call(p->begins, of) : 0;
  if (p->begins && !begins) return 0;
  void *offset = python.from_number((begins ? python.number(begins) : 0) + p->offset);
  if (begins) python.release(begins);
  void *args[] = {of, p->shape, p->strides, offset}, *made = offset ? python.call(p->make, args, 4, 0) : 0;
  if (offset) python.release(offset);
  return made;
}

/* Results of ATen's calls, to where the caller gets them. Who has the scratch has the graphs of its pool. */
static int copied(const replay *r, void **every) {
  void *to = r->copies ? python.list(r->copies) : 0;
  if (!to) return !r->copies;
  for (i64 i = 0; i < r->copies; i++) {
    python.hold(every[r->copied[i]]);
    python.set_item(to, i, every[r->copied[i]]);
  }
  void *args[] = {to, r->made}, *done = python.call(r->copy, args, 2, 0);
  python.release(to);
  if (done) python.release(done);
  return done != 0;
}

/* `every`: the inputs; what else there is comes behind them. */
static void *with_scratch(const replay *r, void **every, void *scratch, const void *weights) {
  u64 now[r->moving];
  void **made = every + r->inputs, *list = 0;
  if (!fits(r, scratch, now) || !lend(r, made)) return 0;
  i64 n = r->lent, whole = n + r->outputs, all = whole + r->parts, ready = 1;
  while (n < whole && (made[n] = python.call_tuple(r->empty, r->places[n - r->lent], 0))) n++;
  while (n >= whole && n < all && (made[n] = part_of(&r->part[n - whole], every))) n++;
  for (i64 i = 2; n == all && ready && i < r->moving; i++) ready = address(r, every[r->place[i]], &now[i]);
  if (n == all && ready && alone(r, now, weights) && copied(r, every) && (list = python.list(r->results)))
    for (i64 i = 0; i < r->results; i++) {
      void *x = r->result[i] < 0 ? python.none : every[r->result[i]];
      python.hold(x);
      python.set_item(list, i, x);
    }
  while (n) python.release(made[--n]);
  return list;
}

static void *attempt(replay *r, void *inputs, const void *weights) {
  void *every[r->inputs + r->lent + r->outputs + r->parts + 1];
  if (!r->uses || python.list_size(inputs) != r->inputs || !knows(r, weights)) return 0;
  if (!says(r->device_now, 0, r->index) || !says(r->stream_now, r->index_object, r->stream)) return 0;
  for (i64 i = 0; i < r->inputs; i++) every[i] = python.list_item(inputs, i);
  if (r->read >= 0 && !says(r->device_of, every[r->read], r->index)) return 0;
  if (r->capturing && !is(call(r->capturing, 0), python.no)) return 0;
  void *scratch = call(r->pop, 0);
  if (!scratch) { python.clear(); return 0; }   /* others have all there is */
  void *made = with_scratch(r, every, scratch, weights);
  if (python.append(r->free, scratch)) python.clear();
  python.release(scratch);
  if (made && r->uses > 0) r->uses--;
  return made;
}

/* What a list of inputs and prepared weights give; `self`: the address of a `replay`, as an int. */
void *sol_replay(void *self, void *const *args, i64 count) {
  replay *r = python.address(self);
  void *made = count == 2 ? attempt(r, args[0], args[1]) : 0;
  return made || python.error() ? made : python.call(r->otherwise, args, count, 0);
}
