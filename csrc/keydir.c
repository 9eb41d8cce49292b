/* keydir.c -- linear hashing in shared memory: one writer, any number of readers without a lock.
 *
 * A bucket and the nodes that hang from it are its chain:
 *
 *     bucket  [s s s s s s s L]      8 slots, one cache line
 *                            |
 *     node             [s s s L]     4 slots, half a line; a chain of n groups holds 5 + 3n slots
 *                             |
 *     node             [s s s s]     the last word of the last group is a slot, of others a link
 *
 * Chains are kept packed after each move (no empty slot before a full one, no node too many), which
 * is what the bound on memory rests on; a chain that fits its bucket may have holes.
 *
 * How readers and the writer agree. A slot word is one atomic store; where a key is added, replaced
 * or removed there is no more to it. Growth and packing move slots, in this order:
 *
 *     1. copy to the new place     2. count up `version`     3. overwrite the old place
 *
 * A reader notes `version`, looks through the chain, and, if it found nothing, looks at `version`
 * again. It can only have missed a slot that was there all the time by seeing the new place before
 * 1 and the old one after 3; but who sees 3 also sees 2, for the store of 3 is a release and the
 * load that sees it an acquire. So absence is proven if `version` stands still. And a reader that
 * notes `version` after 2 sees the new place. For the same reason a node that left a chain is given
 * to another only after one more step of `version`: who wanders off through it is found out.
 * Therefore all loads here are acquires and all stores releases: free on x86, cheap elsewhere.
 *
 * Death of the writer. At each moment every slot is in its old place, its new place or both, so
 * readers lose nothing. `moving` names the bucket whose chain may hold a slot twice, or slots that
 * a split has already copied to another bucket; keydir_repair() packs that chain. Two copies must
 * not be left alone: a later keydir_replace() would change one, and a reader meet the other.
 *
 * Damage. The memory is a file that anybody may have scribbled on, so each number found in it is
 * held against its bounds before it is followed, and chains are followed CHAIN_MAX groups far. */
#include "keydir.h"

#include <assert.h>

#include "area.h"
#include "error.h"

#define BUCKET_SIZE 64u                 /* bytes */
#define BUCKET_SLOTS 8u
#define BUCKETS_MIN (UINT64_C(1) << KEYDIR_LEVEL_MIN)
#define BUCKETS_MAX (UINT64_C(1) << KEYDIR_LEVEL_MAX)
#define NODE_SIZE 32u
#define NODE_SLOTS 4u                   /* half as many: words_compare() rests on it */

/* Slots to a bucket before the table grows, as a fraction. Over a cycle of growth, as the number of
 * buckets doubles, 6.4 costs 11.3 to 11.9 bytes a slot, and one lookup in seven leaves the first
 * line. By calculation, 6.0 costs 11.8 to 12.3 for one in nine, 6.8 costs 10.9 to 11.5 for one in
 * six; nodes of 2 slots cost 0.1 to 0.2 more than nodes of 4, nodes of 8 cost 0.7 to 0.8 more. */
#define LOAD_SLOTS 32u
#define LOAD_BUCKETS 5u

/* Full packed chains at that load need at most 0.056 nodes a slot; 1/16 is far beyond chance. */
#define NODE_SHARE 16u
#define NODES_SURE 1024u                /* up to here each insert is promised a node of its own */

/* Groups in a chain. Chance makes it a dozen in the largest table; the hash is keyed, so nobody can
 * make chains grow on purpose. */
#define CHAIN_MAX 256u
#define CHAIN_SLOTS_MAX (BUCKET_SLOTS + (CHAIN_MAX - 1) * (NODE_SLOTS - 1))

#define SLOT_TAG_SHIFT 41u
#define SLOT_DEAD (UINT64_C(1) << 40)
#define SLOT_LOCATION_MASK (SLOT_DEAD - 1)
#define LINK_SHIFT 28u
#define LINK_MARK ((uint64_t)KEYDIR_SEGMENT_SLOT_LINK << LINK_SHIFT)

typedef _Atomic uint64_t word;

_Static_assert(AREA_EXTENTS == KEYDIR_EXTENTS, "one offset in keydir_shared for each extent");
_Static_assert(AREA_SIZE_MAX == BUCKETS_MAX * BUCKET_SIZE, "an area holds all the buckets");

struct keydir {
    struct space space;
    struct keydir_shared *shared;
    struct area buckets, nodes;
};

static inline uint64_t load(const word *from)
{
    return atomic_load_explicit(from, memory_order_acquire);
}

static inline void store(word *to, uint64_t value)
{
    atomic_store_explicit(to, value, memory_order_release);
}

/* Only the writer changes these words, so adding needs no read-modify-write. */
static inline void add(word *to, uint64_t value) { store(to, load(to) + value); }

/* ---- Words ---- */

static inline uint64_t slot_make(uint64_t hash, uint64_t location, bool dead)
{
    return hash >> KEYDIR_LEVEL_MIN << SLOT_TAG_SHIFT | (dead ? SLOT_DEAD : 0) | location;
}

static inline bool word_is_link(uint64_t value) { return (value & LINK_MARK) == LINK_MARK; }

static inline bool word_is_slot(uint64_t value)
{
    return (value & SLOT_LOCATION_MASK) != 0 && !word_is_link(value);
}

static inline uint64_t link_make(uint64_t node)
{
    return node >> LINK_SHIFT << SLOT_TAG_SHIFT | LINK_MARK | (node & ((1u << LINK_SHIFT) - 1));
}

static inline uint64_t link_node(uint64_t link)
{
    return link >> SLOT_TAG_SHIFT << LINK_SHIFT | (link & ((1u << LINK_SHIFT) - 1));
}

/* ---- Geometry ---- */

static inline unsigned level_of(uint64_t count)     /* the largest l with 2^l <= count; count > 0 */
{
    return 63u - (unsigned)__builtin_clzll(count);
}

static inline uint64_t bucket_of(uint64_t hash, uint64_t bucket_count)
{
    uint64_t half = UINT64_C(1) << level_of(bucket_count);
    uint64_t bucket = hash & (2 * half - 1);
    return bucket < bucket_count ? bucket : bucket & (half - 1);    /* not split off yet */
}

static inline bool slot_belongs(uint64_t slot, uint64_t bucket, uint64_t bucket_count)
{
    return bucket_of(keydir_slot_hash(slot, bucket), bucket_count) == bucket;
}

/* The geometry of now. Zero if it cannot be. */
static inline uint64_t geometry(const struct keydir *keydir)
{
    uint64_t bucket_count = load(&keydir->shared->bucket_count);
    uint64_t reserved = load(&keydir->shared->bucket_reserved);     /* raised first: so read last */
    return bucket_count >= BUCKETS_MIN && bucket_count <= reserved && reserved <= BUCKETS_MAX
         ? bucket_count : 0;
}

static int damaged(const struct keydir *keydir, uint64_t offset, const char *what)
{
    error_corrupt(keydir->space.name, offset, what);
    return PYKV_CORRUPT;
}

/* A writer may be at work: so of two numbers the one that it raises last is read first. */
static int counts_check(const struct keydir *keydir)
{
    const struct keydir_shared *shared = keydir->shared;
    uint64_t slot_count = load(&shared->slot_count), moving = load(&shared->moving);
    uint64_t node_free = load(&shared->node_free), free_count = load(&shared->node_free_count);
    uint64_t bucket_count = geometry(keydir), node_count = load(&shared->node_count);
    bool sound = bucket_count != 0 && moving <= bucket_count
        && node_count <= load(&shared->node_reserved) && node_count <= AREA_SIZE_MAX / NODE_SIZE
        && node_free <= node_count && free_count <= node_count
        && slot_count <= bucket_count * BUCKET_SLOTS + node_count * NODE_SLOTS
        && load(&shared->space_end) <= INT64_MAX;
    return sound ? PYKV_OK : damaged(keydir, 0, "the counts of the keydir do not agree");
}

/* A bucket of the geometry of now, or of one before. */
static inline int bucket_get(struct keydir *keydir, uint64_t bucket, word **out)
{
    void *address;
    int status = area_get(&keydir->buckets, bucket * BUCKET_SIZE, &address);
    if (status == PYKV_OK)
        *out = address;
    return status;
}

static inline int bucket_find(struct keydir *keydir, uint64_t hash, word **out)
{
    uint64_t bucket_count = geometry(keydir);
    if (bucket_count == 0)
        return damaged(keydir, 0, "the bucket count of the keydir is out of its bounds");
    return bucket_get(keydir, bucket_of(hash, bucket_count), out);
}

/* ---- Chains ---- */

/* All words of a chain that can hold a slot, in order, and what was in them. */
struct chain {
    size_t group_count, place_count;
    word *group[CHAIN_MAX];
    uint64_t node[CHAIN_MAX];           /* number of each group; of group 0, the bucket's */
    word *place[CHAIN_SLOTS_MAX];
    uint64_t value[CHAIN_SLOTS_MAX];
};

static inline uint32_t group_slots(size_t group) { return group == 0 ? BUCKET_SLOTS : NODE_SLOTS; }

/* How many slots the first `group_count` groups hold beside the link that ends them. */
static inline size_t slots_before_link(size_t group_count)
{
    return BUCKET_SLOTS - 1 + (group_count - 1) * (NODE_SLOTS - 1);
}

/* Where a link leads. PYKV_CORRUPT, without a message, if nowhere. */
static inline int link_follow(struct keydir *keydir, uint64_t link, word **out)
{
    void *address;
    uint64_t node = link_node(link);
    if (node >= load(&keydir->shared->node_reserved) || node >= AREA_SIZE_MAX / NODE_SIZE)
        return PYKV_CORRUPT;
    int status = area_get(&keydir->nodes, node * NODE_SIZE, &address);
    if (status == PYKV_OK)
        *out = address;
    return status;
}

static int chain_read(struct keydir *keydir, uint64_t bucket, struct chain *chain)
{
    word *group;
    int status = bucket_get(keydir, bucket, &group);
    uint64_t node = bucket;
    chain->place_count = 0;
    for (chain->group_count = 0; status == PYKV_OK && chain->group_count < CHAIN_MAX;) {
        uint64_t value = 0;
        uint32_t slots = group_slots(chain->group_count);
        chain->group[chain->group_count] = group;
        chain->node[chain->group_count++] = node;
        for (uint32_t i = 0; i < slots; i++) {
            value = load(&group[i]);
            chain->place[chain->place_count] = &group[i];
            chain->value[chain->place_count++] = word_is_slot(value) ? value : 0;
        }
        if (!word_is_link(value))
            return PYKV_OK;
        chain->place_count--;                       /* the link's own word holds no slot */
        node = link_node(value);
        status = link_follow(keydir, value, &group);
    }
    return status == PYKV_OK || status == PYKV_CORRUPT
        ? damaged(keydir, bucket, "a chain of the keydir is broken") : status;
}

/* Drop from `chain`, not from the table, what is there only because a move is half done: slots that
 * belong in another bucket, and the second of two equal ones. */
static void chain_sift(struct chain *chain, uint64_t bucket, uint64_t bucket_count)
{
    for (size_t i = 0; i < chain->place_count; i++) {
        uint64_t slot = chain->value[i];
        bool keep = slot != 0 && slot_belongs(slot, bucket, bucket_count);
        for (size_t j = 0; keep && j < i; j++)
            keep = chain->value[j] != slot;
        chain->value[i] = keep ? slot : 0;
    }
}

/* (W) A node: from the free list, else a new one. The free list runs through the first words of its
 * nodes, as links, which no stray reader takes for a slot. Dying on the way loses the node. */
static bool node_take(struct keydir *keydir, uint64_t *node, word **out)
{
    struct keydir_shared *shared = keydir->shared;
    uint64_t free = load(&shared->node_free);
    if (free != 0 && link_follow(keydir, link_make(free - 1), out) == PYKV_OK) {
        uint64_t next = load(&(*out)[0]);
        if (load(&shared->node_free_count) > 0)
            add(&shared->node_free_count, UINT64_MAX);
        store(&shared->node_free, word_is_link(next) ? link_node(next) + 1 : 0);
        *node = free - 1;
        return true;
    }
    *node = load(&shared->node_count);
    if (area_reserve(&keydir->nodes, *node + 1) != PYKV_OK ||   /* has been, but by ill chance */
        link_follow(keydir, link_make(*node), out) != PYKV_OK)
        return false;
    store(&shared->node_count, *node + 1);
    return true;
}

static void node_give(struct keydir *keydir, uint64_t node, word *group)
{
    struct keydir_shared *shared = keydir->shared;
    uint64_t free = load(&shared->node_free);
    store(&group[0], free == 0 ? 0 : link_make(free - 1));
    store(&shared->node_free, node + 1);
    add(&shared->node_free_count, 1);
}

/* (W) Make sure that node_take() can give `count` nodes. */
static int nodes_reserve(struct keydir *keydir, uint64_t count)
{
    uint64_t free = load(&keydir->shared->node_free_count);
    uint64_t used = load(&keydir->shared->node_count);
    return area_reserve(&keydir->nodes, count > free ? used + count - free : used);
}

/* (W) Write slots into a chain that no reader can reach yet: from `group`, a bucket, onwards. The
 * nodes it takes are published with the bucket. */
static bool chain_build(struct keydir *keydir, word *group, const uint64_t *slots, size_t count)
{
    uint64_t node;
    word *next = NULL;
    for (uint32_t size = BUCKET_SLOTS;; size = NODE_SLOTS, group = next) {
        for (uint32_t i = 0; i < size - 1; i++, count -= count > 0)
            store(&group[i], count > 0 ? *slots++ : 0);
        if (count <= 1) {
            store(&group[size - 1], count > 0 ? *slots : 0);
            return true;
        }
        if (!node_take(keydir, &node, &next))
            return false;
        store(&group[size - 1], link_make(node));
    }
}

/* (W) Keep the slots of `chain` whose value is not 0, close up the gaps, and let go of the nodes
 * that are then left over. Before and after, where x is to go:
 *
 *     [a x b c x d e L] -> [f g h x]          [a g b c f d e h]       h takes the link's place
 */
static void chain_pack(struct keydir *keydir, struct chain *chain)
{
    struct keydir_shared *shared = keydir->shared;
    size_t kept = 0, from = chain->place_count;
    bool copied = false;
    for (;; kept++) {
        while (kept < from && chain->value[kept] != 0)
            kept++;
        while (from > kept && chain->value[from - 1] == 0)
            from--;
        if (kept == from)
            break;
        chain->value[kept] = chain->value[--from];          /* step 1: copy */
        chain->value[from] = 0;
        store(chain->place[kept], chain->value[kept]);
        copied = true;
    }
    if (copied)
        add(&shared->version, 1);                           /* step 2 */

    size_t groups = 1;
    while (groups < chain->group_count && kept > slots_before_link(groups) + 1)
        groups++;
    size_t places = chain->place_count;
    if (groups < chain->group_count) {                      /* step 3: overwrite, first the link */
        places = slots_before_link(groups);
        store(&chain->group[groups - 1][group_slots(groups - 1) - 1],
              kept > places ? chain->value[places] : 0);
    }
    for (size_t i = kept; i < places; i++)
        if (load(chain->place[i]) != 0)
            store(chain->place[i], 0);

    if (groups < chain->group_count)
        add(&shared->version, 1);                           /* readers may still stand on them */
    for (; groups < chain->group_count; groups++)
        node_give(keydir, chain->node[groups], chain->group[groups]);
}

/* (W) Split the next bucket: the slots of `bucket` whose next hash bit is set go to a new last one.
 * Crash note: until bucket_count is stored nothing refers to the new bucket, and the nodes it took
 * are lost. From then on its slots are found there, and are rubbish in the old chain, which
 * keydir_repair() clears away. */
static int split(struct keydir *keydir)
{
    struct keydir_shared *shared = keydir->shared;
    uint64_t bucket_count = load(&shared->bucket_count), slots[CHAIN_SLOTS_MAX];
    uint64_t bucket = bucket_count - (UINT64_C(1) << level_of(bucket_count));
    size_t count = 0;
    struct chain chain;
    word *target;
    int status;

    if ((status = chain_read(keydir, bucket, &chain)) != PYKV_OK ||
        (status = area_reserve(&keydir->buckets, bucket_count + 1)) != PYKV_OK ||
        (status = nodes_reserve(keydir, chain.group_count - 1)) != PYKV_OK ||
        (status = bucket_get(keydir, bucket_count, &target)) != PYKV_OK)
        return status;
    for (size_t i = 0; i < chain.place_count; i++)
        if (chain.value[i] != 0 && !slot_belongs(chain.value[i], bucket, bucket_count + 1)) {
            slots[count++] = chain.value[i];
            chain.value[i] = 0;
        }
    if (!chain_build(keydir, target, slots, count))
        return damaged(keydir, 0, "the free list of the keydir is broken");
    store(&shared->moving, bucket + 1);
    store(&shared->bucket_count, bucket_count + 1);
    add(&shared->version, 1);
    chain_pack(keydir, &chain);
    store(&shared->moving, 0);
    return PYKV_OK;
}

/* ---- Lookups ---- */

int keydir_probe(struct keydir *keydir, uint64_t hash, struct keydir_probe *probe)
{
    uint64_t version = load(&keydir->shared->version);      /* before all that it vouches for */
    word *group;
    int status = bucket_find(keydir, hash, &group);
    if (status == PYKV_OK)
        *probe = (struct keydir_probe){ .hash = hash, .version = version, .group = group,
                                        .slot_count = BUCKET_SLOTS, .steps = CHAIN_MAX };
    return status;
}

static inline uint32_t word_compare(const word *from, uint64_t wanted, uint64_t *value)
{
    *value = load(from);
    return (*value ^ wanted) < UINT64_C(1) << SLOT_TAG_SHIFT;
}

/* Load the words of a node or half a bucket, and tell by bits which have the tag of `wanted`. Written
 * out, as compilers unroll no loop of atomic loads. */
static inline uint32_t words_compare(const word *group, uint64_t wanted, uint64_t *value)
{
    return word_compare(&group[0], wanted, &value[0]) | word_compare(&group[1], wanted, &value[1]) << 1 |
           word_compare(&group[2], wanted, &value[2]) << 2 | word_compare(&group[3], wanted, &value[3]) << 3;
}

/* Go on to the node that the last word of a group leads to, if it is a link. Out of line: one lookup in
 * seven needs it. */
static __attribute__((noinline)) void probe_follow(struct keydir *keydir, struct keydir_probe *probe, uint64_t last)
{
    word *next;
    probe->group = NULL;
    if (!word_is_link(last) || --probe->steps == 0)
        return;
    int status = link_follow(keydir, last, &next);
    if (status == PYKV_OK)
        probe->group = next, probe->slot = 0, probe->slot_count = NODE_SLOTS;
    else if (status != PYKV_CORRUPT)
        probe->status = status;
}

/* A group's words are all compared before any is judged: a branch for each would be guessed wrong
 * once a lookup, which costs more (10 ns of 40) than the comparing. But each word is loaded once
 * only: the last one may be the slot looked for at first, and at the second look a link to it. */
uint64_t keydir_probe_next(struct keydir *keydir, struct keydir_probe *probe)
{
    const uint64_t wanted = slot_make(probe->hash, 0, false);
    uint64_t value[BUCKET_SLOTS];
    while (probe->group != NULL) {
        uint32_t agree = words_compare(probe->group, wanted, value);
        if (probe->slot_count == BUCKET_SLOTS)
            agree |= words_compare(probe->group + NODE_SLOTS, wanted, value + NODE_SLOTS) << NODE_SLOTS;
        for (agree = agree >> probe->slot << probe->slot; agree != 0; agree &= agree - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(agree);
            if (word_is_slot(value[i])) {
                probe->slot = i + 1;
                probe->dead = keydir_slot_dead(value[i]);
                return keydir_slot_location(value[i]);
            }
        }
        probe_follow(keydir, probe, value[probe->slot_count - 1]);
    }
    return 0;
}

bool keydir_probe_moved(const struct keydir *keydir, const struct keydir_probe *probe)
{
    /* After the loads of the slots, as those are acquires. */
    return load(&keydir->shared->version) != probe->version;
}

bool keydir_holds(struct keydir *keydir, uint64_t hash, uint64_t location)
{
    struct keydir_probe probe;
    uint64_t found;
    do {
        if (keydir_probe(keydir, hash, &probe) != PYKV_OK)
            return false;
        while ((found = keydir_probe_next(keydir, &probe)) != 0)
            if (found == location)
                return true;
    } while (probe.status == PYKV_OK && keydir_probe_moved(keydir, &probe));
    return false;
}

void keydir_prefetch(struct keydir *keydir, uint64_t hash)
{
    uint64_t bucket_count = geometry(keydir);
    if (bucket_count != 0)      /* of an address that is not mapped it does nothing */
        __builtin_prefetch(area_at(&keydir->buckets, bucket_of(hash, bucket_count) * BUCKET_SIZE));
}

/* ---- Changes ---- */

/* (W) The word of the slot of `hash` that points at `location`, or NULL. */
static word *slot_find(struct keydir *keydir, uint64_t hash, uint64_t location)
{
    struct keydir_probe probe;
    uint64_t found;
    if (keydir_probe(keydir, hash, &probe) != PYKV_OK)
        return NULL;
    while ((found = keydir_probe_next(keydir, &probe)) != 0)
        if (found == location)
            return (word *)&probe.group[probe.slot - 1];
    return NULL;
}

int keydir_reserve(struct keydir *keydir, uint64_t count)
{
    struct keydir_shared *shared = keydir->shared;
    const uint64_t slots_max = BUCKETS_MAX / LOAD_BUCKETS * LOAD_SLOTS;
    uint64_t slots = load(&shared->slot_count);
    int status = counts_check(keydir);
    if (status != PYKV_OK)
        return status;
    if (slots > slots_max || count > slots_max - slots)
        return error_set(PYKV_FULL, 0, keydir->space.name, 0, "the keydir has reached its limit");
    slots += count;

    uint64_t buckets = (slots * LOAD_BUCKETS + LOAD_SLOTS - 1) / LOAD_SLOTS;
    if ((status = area_reserve(&keydir->buckets, buckets)) != PYKV_OK)
        return status;
    while (load(&shared->bucket_count) < buckets)
        if ((status = split(keydir)) != PYKV_OK)
            return status;

    /* A node for each of many inserts would be three times the table. It takes 9 slots in one
     * bucket to fill a node's place, and how rarely that happens is known: see NODE_SHARE. */
    uint64_t used = load(&shared->node_count) - load(&shared->node_free_count);
    uint64_t nodes = slots / NODE_SHARE > used ? slots / NODE_SHARE - used : 0;
    return nodes_reserve(keydir, count < nodes + NODES_SURE ? count : nodes + NODES_SURE);
}

bool keydir_insert(struct keydir *keydir, uint64_t hash, uint64_t location, bool dead)
{
    uint64_t slot = slot_make(hash, location, dead), value = 0, node;
    word *group, *added;
    assert(location <= SLOT_LOCATION_MASK && word_is_slot(slot));
    if (bucket_find(keydir, hash, &group) != PYKV_OK)
        return false;
    uint32_t size = BUCKET_SLOTS;
    for (uint32_t steps = 1;; size = NODE_SLOTS, steps++) {
        for (uint32_t i = 0; i < size; i++)
            if ((value = load(&group[i])) == 0) {
                store(&group[i], slot);
                add(&keydir->shared->slot_count, 1);
                return true;
            }
        if (steps == CHAIN_MAX)
            return false;
        if (!word_is_link(value))
            break;
        if (link_follow(keydir, value, &group) != PYKV_OK)
            return false;
    }

    /* The last slot, which is `value`, makes room for a link and goes to the new node: the store of
     * the link takes it from one place to the other at once, so no reader can miss it. */
    if (!node_take(keydir, &node, &added))
        return false;
    store(&added[0], value);
    store(&added[1], slot);
    for (uint32_t i = 2; i < NODE_SLOTS; i++)
        store(&added[i], 0);
    store(&group[size - 1], link_make(node));
    add(&keydir->shared->slot_count, 1);
    return true;
}

bool keydir_replace(struct keydir *keydir, uint64_t hash, struct keydir_place place, uint64_t from, uint64_t to,
                    bool dead)
{
    word *found = (word *)place.word;
    assert(to <= SLOT_LOCATION_MASK && word_is_slot(to));
    /* After a move the place may lie in a node that was freed, and still look as it did; after an
     * insert, which is no move, it may be a link. */
    if ((found == NULL || load(&keydir->shared->version) != place.version ||
         (load(found) & ~SLOT_DEAD) != slot_make(hash, from, false)) &&
        (found = slot_find(keydir, hash, from)) == NULL)
        return false;
    store(found, slot_make(hash, to, dead));
    return true;
}

bool keydir_remove(struct keydir *keydir, uint64_t hash, uint64_t location)
{
    struct keydir_shared *shared = keydir->shared;
    struct chain chain;
    word *place = slot_find(keydir, hash, location);
    if (place == NULL)
        return false;
    uint64_t bucket = bucket_of(hash, load(&shared->bucket_count));
    store(place, 0);
    if (load(&shared->slot_count) > 0)
        add(&shared->slot_count, UINT64_MAX);
    if (chain_read(keydir, bucket, &chain) == PYKV_OK && chain.group_count > 1) {
        store(&shared->moving, bucket + 1);
        chain_pack(keydir, &chain);
        store(&shared->moving, 0);
    }
    return true;
}

int keydir_repair(struct keydir *keydir)
{
    struct keydir_shared *shared = keydir->shared;
    uint64_t bucket = load(&shared->moving) - 1, bucket_count = geometry(keydir);
    struct chain chain;
    int status = counts_check(keydir);
    if (status != PYKV_OK || bucket == UINT64_MAX ||
        (status = chain_read(keydir, bucket, &chain)) != PYKV_OK)
        return status;
    chain_sift(&chain, bucket, bucket_count);
    add(&shared->version, 1);       /* its step 2, if it died before */
    chain_pack(keydir, &chain);
    store(&shared->moving, 0);
    return PYKV_OK;
}

/* ---- Iteration ---- */

/* The next bucket of `bucket_count` that descends from `bucket` of a geometry of `old_count`, after
 * `previous`; `bucket_count` if there is none. They are `bucket` plus the multiples of what was the
 * reach of its hash bits. */
static uint64_t descendant_after(uint64_t previous, uint64_t bucket, uint64_t old_count,
                                 uint64_t bucket_count)
{
    uint64_t reach = UINT64_C(1) << level_of(old_count);
    if (bucket >= reach || bucket < old_count - reach)
        reach *= 2;                                         /* has been split in that round */
    return reach < bucket_count - previous ? previous + reach : bucket_count;
}

/* Append the slots that belong in `bucket` of the geometry of `bucket_count`. */
static int collect_chain(struct keydir *keydir, uint64_t bucket, uint64_t bucket_count,
                         uint64_t *slots, size_t capacity, size_t *count)
{
    struct chain chain;
    int status = chain_read(keydir, bucket, &chain);
    if (status == PYKV_OK)
        chain_sift(&chain, bucket, bucket_count);
    for (size_t i = 0; status == PYKV_OK && i < chain.place_count; i++)
        if (chain.value[i] != 0 && (*count)++ < capacity)
            slots[*count - 1] = chain.value[i];
    return status;
}

/* What lies in `bucket` of the geometry of `old_count`, which is at most moments old: so there are
 * hardly more than one or two chains to read between two looks at the version, and a busy writer
 * cannot keep a reader from getting through. */
static int collect_bucket(struct keydir *keydir, uint64_t bucket, uint64_t old_count,
                          uint64_t *slots, size_t capacity, size_t *count)
{
    const size_t count_before = *count;
    uint64_t version;
    int status;
    do {
        version = load(&keydir->shared->version);
        uint64_t bucket_count = geometry(keydir);
        *count = count_before;
        status = bucket_count < old_count ? damaged(keydir, 0, "the keydir has shrunk") : PYKV_OK;
        for (uint64_t i = bucket; status == PYKV_OK && i < bucket_count;
             i = descendant_after(i, bucket, old_count, bucket_count))
            status = collect_chain(keydir, i, bucket_count, slots, capacity, count);
    } while (load(&keydir->shared->version) != version);
    return status;
}

int keydir_collect(struct keydir *keydir, uint64_t bucket_count, uint64_t bucket, uint64_t *slots,
                   size_t capacity, size_t *count)
{
    uint64_t count_now = geometry(keydir);
    assert(bucket_count >= BUCKETS_MIN && bucket < bucket_count);
    int status = count_now < bucket_count ? damaged(keydir, 0, "the keydir has shrunk") : PYKV_OK;
    *count = 0;
    for (uint64_t i = bucket; status == PYKV_OK && i < count_now;
         i = descendant_after(i, bucket, bucket_count, count_now))
        status = collect_bucket(keydir, i, count_now, slots, capacity, count);
    return status == PYKV_OK && *count > capacity ? PYKV_NO_MEMORY : status;
}

uint64_t keydir_memory_size(const struct keydir *keydir)
{
    return load(&keydir->shared->bucket_reserved) * BUCKET_SIZE
         + load(&keydir->shared->node_reserved) * NODE_SIZE;
}

/* ---- Open and close ---- */

int keydir_open(const struct os *os, const struct space *space, struct keydir_shared *shared,
                struct keydir **out)
{
    int status;
    struct keydir *keydir = os->alloc(os, sizeof *keydir);
    if (keydir == NULL)
        return error_no_memory(sizeof *keydir);
    keydir->space = *space;
    keydir->shared = shared;
    keydir->buckets = (struct area){
        .space = &keydir->space, .space_end = &shared->space_end, .offset = shared->bucket_extent,
        .reserved = &shared->bucket_reserved, .element_size = BUCKET_SIZE };
    keydir->nodes = (struct area){
        .space = &keydir->space, .space_end = &shared->space_end, .offset = shared->node_extent,
        .reserved = &shared->node_reserved, .element_size = NODE_SIZE };

    if (load(&shared->bucket_count) == 0) {     /* new, or whoever made it died on the way */
        if ((status = area_reserve(&keydir->buckets, BUCKETS_MIN)) != PYKV_OK)
            goto fail;
        store(&shared->bucket_count, BUCKETS_MIN);
    }
    if ((status = counts_check(keydir)) != PYKV_OK ||
        (status = area_check(&keydir->buckets, &keydir->nodes)) != PYKV_OK ||
        (status = area_check(&keydir->nodes, &keydir->buckets)) != PYKV_OK)
        goto fail;
    *out = keydir;
    return PYKV_OK;
fail:
    keydir_close(keydir);
    return status;
}

void keydir_close(struct keydir *keydir)
{
    if (keydir == NULL)
        return;
    area_unmap(&keydir->buckets);
    area_unmap(&keydir->nodes);
    keydir->space.os->release(keydir->space.os, keydir);
}
