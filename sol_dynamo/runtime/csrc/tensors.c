/* Reads torch tensors in place: data pointers for a call, and whether weights are as they were.
 *
 * No header of Python or torch is used. Where things lie inside their objects is handed over in
 * `layout`, which tensors.py found by experiment and verified; what could not be verified never gets
 * here. Python's own two list functions come as pointers. All functions want the GIL to be held. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t i64;
typedef uint64_t u64;
typedef u64 words8 __attribute__((vector_size(64), aligned(8)));

static struct {
  i64 type, impl;                     /* in the Python object: its type, the TensorImpl */
  i64 storage, counter;               /* in TensorImpl: the StorageImpl, the VersionCounter */
  i64 ndim, sizes, strides;           /* in TensorImpl: both arrays inline for few dimensions, */
  i64 inline_dims;                    /* ... else one pointer to sizes, then strides */
  i64 offset, numel, dtype;           /* in TensorImpl; dtype: 2 bytes */
  i64 data, bytes;                    /* in StorageImpl */
  i64 version;                        /* in VersionCounter: 4 bytes */
  void *tensor, *parameter;           /* the types that are read; subclasses may differ inside */
  i64 (*list_size)(void *);
  char *(*list_item)(void *, i64);    /* borrowed */
  unsigned char item[256];            /* bytes of an element by dtype; 0: not read here */
} at;

void sol_layout(const void *found) { memcpy(&at, found, sizeof at); }

static inline u64 bytes_mask(i64 n) { return n >= 8 ? ~(u64)0 : ((u64)1 << 8 * n) - 1; }
static inline u64 word(const char *p) { u64 x; memcpy(&x, p, 8); return x; }
static inline char *pointer(const char *p) { return (char *)word(p); }
static inline u64 version(const char *counter) {    /* inference tensors have no counter */
  uint32_t v; if (!counter) return ~(u64)0; memcpy(&v, counter + at.version, 4); return v;
}
static inline unsigned dtype(const char *impl) { uint16_t d; memcpy(&d, impl + at.dtype, 2); return d; }
static inline const i64 *sizes(const char *impl) {
  return word(impl + at.ndim) <= (u64)at.inline_dims ? (const i64 *)(impl + at.sizes)
                                                     : (const i64 *)pointer(impl + at.sizes);
}
static inline const i64 *strides(const char *impl) {
  i64 n = word(impl + at.ndim);
  return n <= at.inline_dims ? (const i64 *)(impl + at.strides) : sizes(impl) + n;
}

/* The TensorImpl of an object, null for what is not plainly a tensor with memory: subclasses,
 * sparse tensors, wrappers of function transforms, unusual dtypes. */
static inline const char *readable(const char *object) {
  const void *type = pointer(object + at.type);
  if (type != at.tensor && type != at.parameter) return 0;
  const char *impl = pointer(object + at.impl);
  if (!impl || !pointer(impl + at.storage)) return 0;
  unsigned d = dtype(impl);
  return d < 256 && at.item[d] ? impl : 0;
}

/* Tensor.data_ptr(). */
static inline char *address(const char *impl) {
  char *data = pointer(pointer(impl + at.storage) + at.data);
  return word(impl + at.numel) ? data + word(impl + at.offset) * at.item[dtype(impl)] : 0;
}

/* out[i] = data pointer of list[i] for i >= first. Returns -1, or the first that is not readable here. */
i64 sol_pointers(void *list, i64 first, char **out) {
  i64 n = at.list_size(list);
  for (i64 i = first; i < n; i++) {
    const char *impl = readable(at.list_item(list, i));
    if (!impl) return i;
    out[i] = address(impl);
    if (!out[i] && word(impl + at.numel)) return i;   /* no memory yet: torch has to say */
  }
  return -1;
}

/* out = readable, data_ptr, version, numel, offset, storage, dtype, ndim, sizes ..., strides ...
 * For the verification of the layout. */
void sol_describe(const char *object, i64 *out) {
  const char *impl = readable(object);
  *out++ = impl != 0;
  if (!impl) return;
  i64 n = word(impl + at.ndim);
  *out++ = (i64)address(impl);
  *out++ = (i64)version(pointer(impl + at.counter));
  *out++ = word(impl + at.numel);
  *out++ = word(impl + at.offset);
  *out++ = word(pointer(impl + at.storage) + at.bytes);
  *out++ = dtype(impl);
  *out++ = n;
  memcpy(out, sizes(impl), n * 8);
  memcpy(out + n, strides(impl), n * 8);
}

/* ---- Snapshots ---------------------------------------------------------------------------------
 * Three kinds of evidence that weights are as they were:
 *   seen     of every weight, at every call: objects, pointers, version, and the words of TensorImpl
 *            from `ndim` to `dtype` (sizes, strides, offset, numel lie between);
 *   area     a hash of all bytes of a small weight, at every call;
 *   sample   a word of a larger weight: one of each at every call, 15 more of each in turn.
 * Samples are words that are not zero where there are such: p.data.mul_(2) leaves zeros alone. */
enum { SMALL = 64, SMALL_BYTES = 1024, SAMPLES = 16, TURNS = SAMPLES - 1, META = 16, AHEAD = 16 };
enum { WORDS_PER_CALL = 1024 };       /* a few weights have all their samples compared at each call */

typedef struct {
  const char *object, *impl, *storage, *counter;
  u64 data, bytes, version;
  i64 *shape;                         /* sizes and strides if they lie outside TensorImpl, else null */
  u64 meta[META];
} __attribute__((aligned(64))) seen;
typedef struct { const char *at; i64 bytes; u64 hash; i64 owner; } area;
typedef struct { const char *at; u64 was, mask; i64 owner; } sample;
typedef struct { void *p; i64 n, room; } vector;
typedef struct {
  i64 calls;                          /* checks that came to the elements; tensors.py reads it */
  i64 dead;                           /* a weight's object is gone: its address may be another's */
  i64 n, turns_per_call;
  i64 meta_words;                     /* 9 to META, the last of them under a mask */
  u64 last_mask;
  const i64 *positions;               /* where the weights stand in the list; null: 0, 1, ... */
  i64 needed;                         /* the list must be this long, or longer where positions are given */
  seen *seen;
  vector areas, fixed, turns[TURNS];
} snapshot;

static void *push(vector *v, i64 size) {
  if (v->n == v->room) v->p = realloc(v->p, (v->room = v->room ? 2 * v->room : 64) * size);
  return (char *)v->p + size * v->n++;
}

/* Four chains of x -> (h ^ x) * odd: a change of one word is always seen, others but for 2^-64. */
static u64 hash(const char *p, i64 bytes) {
  const u64 k = 0x9E3779B97F4A7C15u;
  u64 a = 1, b = 2, c = 3, d = 4, x = 0;
  i64 i = 0;
  for (; i + 32 <= bytes; i += 32) {
    a = (a ^ word(p + i)) * k;      a ^= a >> 32;
    b = (b ^ word(p + i + 8)) * k;  b ^= b >> 32;
    c = (c ^ word(p + i + 16)) * k; c ^= c >> 32;
    d = (d ^ word(p + i + 24)) * k; d ^= d >> 32;
  }
  for (; i + 8 <= bytes; i += 8) { a = (a ^ word(p + i)) * k; a ^= a >> 32; }
  memcpy(&x, p + i, bytes - i);
  a = (a ^ x) * k;
  return ((((a ^ a >> 29) * k + b) * k + c) * k) + d;
}

static inline i64 slot(const snapshot *s, i64 i) { return s->positions ? s->positions[i] : i; }

/* Is the object what was seen? It is dereferenced only if it is the object that was. */
static inline int same(const snapshot *s, i64 i, const char *object) {
  const seen *w = &s->seen[i];
  if (object != w->object) return 0;
  const char *impl = pointer(object + at.impl);
  if (impl != w->impl) return 0;
  const char *storage = pointer(impl + at.storage), *counter = pointer(impl + at.counter);
  if (storage != w->storage || counter != w->counter) return 0;
  u64 d = word(storage + at.data) ^ w->data;
  d |= word(storage + at.bytes) ^ w->bytes;
  d |= version(counter) ^ w->version;
  const char *meta = impl + at.ndim;
  i64 last = s->meta_words - 1;         /* at least 8 whole words come before the one with dtype */
  words8 x, y, u, v;
  memcpy(&x, meta, 64);
  memcpy(&y, meta + 8 * (last - 8), 64);
  memcpy(&u, w->meta, 64);
  memcpy(&v, w->meta + last - 8, 64);
  x = (x ^ u) | (y ^ v);
  d |= (x[0] | x[1] | x[2] | x[3]) | (x[4] | x[5] | x[6] | x[7]);
  d |= (word(meta + 8 * last) ^ w->meta[last]) & s->last_mask;
  if (d) return 0;
  return !w->shape || !memcmp(w->shape, sizes(impl), word(meta) * 16);
}

static inline void expect(const snapshot *s, i64 i) {   /* every address is known before its turn */
  if (i >= s->n) return;
  const seen *w = &s->seen[i];
  __builtin_prefetch(w->object + at.impl);
  __builtin_prefetch(w->impl + at.storage);
  __builtin_prefetch(w->impl + at.numel);
  __builtin_prefetch(w->storage + at.data);
  __builtin_prefetch(w->counter);
}

static inline int area_same(const area *a) { return hash(a->at, a->bytes) == a->hash; }
static inline int sample_same(const sample *x) { return !((word(x->at) ^ x->was) & x->mask); }

static i64 first_changed(const vector *v) {
  const sample *x = v->p;
  for (i64 i = 0; i < v->n; i++)
    if (!sample_same(&x[i])) return x[i].owner;
  return -1;
}

/* A weight whose elements changed, so far as this call looks, or -1. Its memory must be there. Not
 * asked for another set's weights: turns would be left out. The call that comes after one that saw a
 * change looks at the same. */
static i64 elements_changed(snapshot *s) {
  s->calls++;
  i64 found = first_changed(&s->fixed);
  for (i64 k = 0; found < 0 && k < s->turns_per_call; k++)
    found = first_changed(&s->turns[(s->calls * s->turns_per_call + k) % TURNS]);
  const area *a = s->areas.p;
  for (i64 i = 0; found < 0 && i < s->areas.n; i++)
    if (!area_same(&a[i])) found = a[i].owner;
  if (found >= 0) s->calls--;
  return found;
}

/* -1: as they were, so far as this call looks; else a weight that changed. */
i64 sol_changed(snapshot *s, void *list) {
  i64 n = at.list_size(list);
  if (s->dead || (s->positions ? n < s->needed : n != s->needed)) return 0;
  for (i64 i = 0; i < AHEAD; i++) expect(s, i);
  for (i64 i = 0; i < s->n; i++) {      /* first, since it says that the memory read below is there */
    expect(s, i + AHEAD);
    if (!same(s, i, at.list_item(list, slot(s, i)))) return i;
  }
  return elements_changed(s);
}

/* The same of the objects that were seen, which somebody must hold. */
i64 sol_held_changed(snapshot *s) {
  if (s->dead) return 0;
  for (i64 i = 0; i < AHEAD; i++) expect(s, i);
  for (i64 i = 0; i < s->n; i++) {
    expect(s, i + AHEAD);
    if (!same(s, i, s->seen[i].object)) return i;
  }
  return elements_changed(s);
}

static void mark_changed(const vector *v, char *flags) {
  const sample *x = v->p;
  for (i64 i = 0; i < v->n; i++)
    if (!flags[x[i].owner] && !sample_same(&x[i])) flags[x[i].owner] = 1;
}

/* flags[i] = 1 for every weight that changed, by all the evidence. The list must be as long as needed. */
void sol_changes(const snapshot *s, void *list, char *flags) {
  for (i64 i = 0; i < s->n; i++) flags[i] = !same(s, i, at.list_item(list, slot(s, i)));
  mark_changed(&s->fixed, flags);
  for (i64 k = 0; k < TURNS; k++) mark_changed(&s->turns[k], flags);
  const area *a = s->areas.p;
  for (i64 i = 0; i < s->areas.n; i++)
    if (!flags[a[i].owner] && !area_same(&a[i])) flags[a[i].owner] = 1;
}

/* The `item` bytes at p, read as a word that lies within start..end. */
static sample sampled(const char *p, i64 item, const char *end, i64 owner) {
  const char *from = p + 8 <= end ? p : end - 8;
  return (sample){from, word(from), bytes_mask(item) << 8 * (p - from), owner};
}

/* Is anything in it other than zeros of either sign? */
static int telling(const sample *x, i64 item) {
  const u64 magnitude = item >= 8 ? ~(u64)0 >> 1 : item >= 4 ? 0x7fffffff7fffffff
                      : item >= 2 ? 0x7fff7fff7fff7fff : 0x7f7f7f7f7f7f7f7f;
  return ((x->was & x->mask) >> __builtin_ctzll(x->mask) & magnitude) != 0;
}

/* A weight as candidates for samples: words of a dense one, whatever the order of its dimensions;
 * elements of others, where memory between them is not theirs. */
typedef struct {
  const char *start, *end;
  i64 item, nd, count, owner;
  const i64 *size, *step;
  int dense;
} candidates;

static sample candidate(const candidates *c, i64 q) {
  if (c->dense) return sampled(q < c->count - 1 ? c->start + 8 * q : c->end - 8, 8, c->end, c->owner);
  i64 where = 0;
  for (i64 d = c->nd - 1; d >= 0; d--) { where += q % c->size[d] * c->step[d]; q /= c->size[d]; }
  return sampled(c->start + where * c->item, c->item, c->end, c->owner);
}

/* The first telling candidate of from..to-1, else the first. An element costs some divisions: the
 * search among them is short. */
static sample search(const candidates *c, i64 from, i64 to) {
  if (!c->dense && to > from + 4096) to = from + 4096;
  for (i64 q = from; q < to; q++) {
    sample x = candidate(c, q);
    if (telling(&x, c->item)) return x;
  }
  return candidate(c, from);
}

static void watch(snapshot *s, i64 owner, const char *impl, int entirely) {
  i64 numel = word(impl + at.numel), nd = word(impl + at.ndim), item = at.item[dtype(impl)];
  const i64 *size = sizes(impl), *step = strides(impl);
  const char *start = address(impl);
  if (!start) return;
  i64 reach = 1;                        /* elements from the first to the last in memory */
  for (i64 d = 0; d < nd; d++) reach += (size[d] - 1) * step[d];
  i64 bytes = reach * item;
  if (entirely || bytes < 8 || (numel <= SMALL && bytes <= SMALL_BYTES)) {
    *(area *)push(&s->areas, sizeof(area)) = (area){start, bytes, hash(start, bytes), owner};
    return;
  }
  int dense = reach == numel;
  candidates c = {start, start + bytes, item, nd, dense ? bytes / 8 : numel, owner, size, step, dense};
  if (numel <= SMALL) {                 /* few and far apart: each, at every call */
    for (i64 q = 0; q < numel; q++) *(sample *)push(&s->fixed, sizeof(sample)) = candidate(&c, q);
    return;
  }
  sample found[SAMPLES];
  i64 shown = 0;                        /* the one to compare at every call */
  for (i64 k = SAMPLES - 1; k >= 0; k--) {
    i64 q = (c.count - 1) * k / (SAMPLES - 1), next = (c.count - 1) * (k + 1) / (SAMPLES - 1);
    found[k] = search(&c, q, next < c.count ? next : c.count);
    if (telling(&found[k], item)) shown = k;
  }
  *(sample *)push(&s->fixed, sizeof(sample)) = found[shown];
  for (i64 k = 0, turn = 0; k < SAMPLES; k++)
    if (k != shown) *(sample *)push(&s->turns[turn++], sizeof(sample)) = found[k];
}

void sol_forget(snapshot *s) {
  if (!s) return;
  for (i64 i = 0; i < s->n; i++) free(s->seen[i].shape);
  for (i64 k = 0; k < TURNS; k++) free(s->turns[k].p);
  free(s->areas.p), free(s->fixed.p), free(s->seen), free(s);
}

/* What is there now. list: the weights alone; memory[i]: may their elements be read (CPU)?
 * positions: where they will stand in the lists to come, or null; it is kept, not copied.
 * Null: one of them is not readable here. */
snapshot *sol_take(void *list, const char *memory, const i64 *positions) {
  snapshot *s = calloc(1, sizeof *s);
  i64 n = at.list_size(list), larger = 0;
  s->seen = aligned_alloc(64, (n + 1) * sizeof(seen));
  s->positions = positions;
  s->needed = positions ? 0 : n;
  s->meta_words = (at.dtype + 2 - at.ndim + 7) / 8;
  s->last_mask = bytes_mask(at.dtype + 2 - at.ndim - 8 * (s->meta_words - 1));
  for (i64 i = 0; i < n; i++) {
    const char *object = at.list_item(list, i), *impl = readable(object);
    if (!impl) { sol_forget(s); return 0; }
    seen *w = &s->seen[s->n++];
    const char *storage = pointer(impl + at.storage), *counter = pointer(impl + at.counter);
    *w = (seen){object, impl, storage, counter, word(storage + at.data), word(storage + at.bytes), version(counter)};
    memcpy(w->meta, impl + at.ndim, 8 * s->meta_words);
    i64 nd = word(impl + at.ndim);
    if (nd > at.inline_dims) memcpy(w->shape = malloc(nd * 16), sizes(impl), nd * 16);
    if (positions && positions[i] >= s->needed) s->needed = positions[i] + 1;
    if (memory[i]) watch(s, i, impl, counter == 0);
  }
  for (i64 k = 0; k < TURNS; k++) larger += s->turns[k].n;
  larger = larger / TURNS + 1;
  s->turns_per_call = WORDS_PER_CALL / larger;
  if (s->turns_per_call < 1) s->turns_per_call = 1;
  if (s->turns_per_call > TURNS) s->turns_per_call = TURNS;
  return s;
}

/* ---- Counts ------------------------------------------------------------------------------------
 * Whether somebody has come to hold a tensor or its memory, or a tensor has become another one: what is
 * compared are the counts of Python objects, TensorImpl from its counts to its dtype, and StorageImpl from
 * its counts to its size. */
enum { COUNTS = 8 };                  /* where these begin: behind a pointer to a table of functions */

typedef struct { const char *at; i64 bytes; } stretch;
typedef struct { i64 n; stretch *stretch; char *was; } counts;

void sol_uncount(counts *c) { free(c->stretch), free(c->was), free(c); }

/* Of tensors and of the objects of their storages, which must all stay. Null: one of them is not readable
 * here. */
counts *sol_counts(void *tensors, void *storages) {
  i64 n = at.list_size(tensors), m = at.list_size(storages), bytes = 0;
  counts *c = calloc(1, sizeof *c);
  stretch *to = c->stretch = malloc((3 * n + m + 1) * sizeof(stretch));
  const char *last = 0;
  for (i64 i = 0; i < n; i++) {
    const char *object = at.list_item(tensors, i), *impl = readable(object);
    if (!impl) { sol_uncount(c); return 0; }
    const char *storage = pointer(impl + at.storage);
    *to++ = (stretch){object, 8};
    *to++ = (stretch){impl + COUNTS, at.dtype - COUNTS};
    if (storage != last) *to++ = (stretch){storage + COUNTS, at.bytes + 8 - COUNTS};
    last = storage;
  }
  for (i64 i = 0; i < m; i++) *to++ = (stretch){at.list_item(storages, i), 8};
  c->n = to - c->stretch;
  for (i64 i = 0; i < c->n; i++) bytes += c->stretch[i].bytes;
  c->was = malloc(bytes + 1);
  return c;
}

/* How things are now. */
void sol_count(counts *c) {
  char *was = c->was;
  for (i64 i = 0; i < c->n; was += c->stretch[i++].bytes) memcpy(was, c->stretch[i].at, c->stretch[i].bytes);
}

/* Whether they are as they were counted last. */
i64 sol_counted(const counts *c) {
  const char *was = c->was;
  for (i64 i = 0; i < c->n; was += c->stretch[i++].bytes)
    if (memcmp(was, c->stretch[i].at, c->stretch[i].bytes)) return 0;
  return 1;
}
