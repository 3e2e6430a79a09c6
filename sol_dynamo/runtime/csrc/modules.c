/* Fetches tensors of modules by where they stand in them, many in one call.
 *
 * Dictionaries of CPython, up to 3.12, have a version: a number that no other has, and another one after
 * each change. Those that the last call went through are compared first; where all are as they were,
 * so is what was found. No header of Python is used: its functions come as pointers, and where the
 * version is was found by experiment (modules.py). The GIL must be held. */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint64_t u64;

static struct {
  i64 version;                          /* in a dictionary; 0: not known */
  void *(*attributes)(void *, void *);  /* PyObject_GenericGetDict: a new reference, or an error */
  void *(*item)(void *, void *);        /* PyDict_GetItemWithError: borrowed; null, with an error or not */
  void *(*argument)(void *, i64);       /* PyTuple_GetItem: borrowed */
  int (*set_item)(void *, i64, void *); /* takes a reference */
  void (*hold)(void *), (*release)(void *);
  void (*clear)(void);                  /* PyErr_Clear */
} python;

void sol_python(const void *found) { memcpy(&python, found, sizeof python); }

typedef struct { i64 dict, to, out; void *key; } look;       /* out: where in the results, or -1 */
typedef struct { i64 of, attribute; char *at; u64 version; } dictionary;

/* What a call goes through. Places hold what is found: first the arguments, then by looks. Dictionaries
 * are in places themselves or, with `attribute`, what objects there hold; those that others are found
 * through come first. `found` is borrowed, from memory that may be gone unless `unchanged` says yes. It is
 * that of walk `known`, if the versions are, else of none. */
typedef struct {
  i64 arguments, looks, dictionaries, known, walks;
  look *look;
  dictionary *dict;
  void **found;
} plan;

static inline u64 version(const char *dict) { u64 v; memcpy(&v, dict + python.version, 8); return v; }

/* The dictionary, borrowed: its object goes on to hold it. */
static inline char *dictionary_of(const plan *p, const dictionary *d) {
  if (!d->attribute) return p->found[d->of];
  char *own = python.attributes(p->found[d->of], 0);
  if (own) python.release(own);
  return own;
}

/* Each dictionary is read only when those before have shown that it is still there. */
static int unchanged(const plan *p, void *given) {
  if (!p->known) return 0;
  for (i64 i = 0; i < p->arguments; i++)
    if (p->found[i] != python.argument(given, i)) return 0;
  for (const dictionary *d = p->dict; d < p->dict + p->dictionaries; d++)
    if (dictionary_of(p, d) != d->at || version(d->at) != d->version) return 0;
  return 1;
}

static int walk(plan *p, void *given) {
  i64 n = 0;
  p->known = 0;
  for (i64 i = 0; i < p->arguments; i++) p->found[i] = python.argument(given, i);
  for (const look *l = p->look; l < p->look + p->looks; l++) {
    for (; n <= l->dict; n++) {
      dictionary *d = &p->dict[n];
      d->at = dictionary_of(p, d);
      if (!d->at) return 0;
    }
    dictionary *d = &p->dict[l->dict];
    void *x = python.item(d->at, l->key);
    if (!x) return 0;
    if (python.version) d->version = version(d->at);      /* not before: it is one */
    p->found[l->to] = x;
  }
  p->walks++;
  if (python.version) p->known = p->walks;
  return 1;
}

i64 sol_held_changed(void *snapshot);

/* Whether a call's arguments lead to what they led to in a walk, of which the tensors that a snapshot was
 * taken of, found there, are as they were. */
i64 sol_guard(const plan *p, void *given, i64 walk, void *snapshot) {
  return p->known == walk && unchanged(p, given) && sol_held_changed(snapshot) < 0;
}

/* out[.] = what the looks find, from the arguments in `given` on. Returns 0; -1 where one finds
 * nothing, or no dictionary. Nothing that is looked into changes meanwhile, since keys are strings: no
 * code of Python runs. */
i64 sol_fetch(plan *p, void *given, void *out) {
  if (!unchanged(p, given) && !walk(p, given)) { python.clear(); return -1; }
  for (const look *l = p->look; l < p->look + p->looks; l++)
    if (l->out >= 0) {
      python.hold(p->found[l->to]);
      python.set_item(out, l->out, p->found[l->to]);
    }
  return 0;
}
