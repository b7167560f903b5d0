/* Pieces: the cheaper way is found, whichever it is, kept in spite of single bad values, and left when it is not
 * the cheaper one any more; and the memory is never given to two threads. */
#include "fdx_test.h"
#include "pieces.h"

#include <pthread.h>

#define SIZE 1000000
#define ROUNDS 200000
#define THREADS 4

/* How many of `count` messages went at once, when a message takes `cost` in each way; noise of up to `noise` percent. */
static int at_once(struct pieces *pieces, int count, const double cost[2], unsigned noise, uint64_t *seed)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        const int way = pieces_next(pieces);
        const double extra = noise ? (double)(test_random(seed) % noise) / 100.0 : 0.0;
        found += way == PIECES_AT_ONCE;
        pieces_note(pieces, SIZE, cost[way] * (1.0 + extra));
    }
    return found;
}

static void finds_the_cheaper_way(void)
{
    static const double costs[][2] = {{100e3, 150e3}, {150e3, 100e3}};
    uint64_t seed = 1;

    for (size_t i = 0; i < 2; i++)
        for (unsigned noise = 0; noise <= 60; noise += 20) {
            struct pieces pieces;
            pieces_init(&pieces);
            CHECK(pieces_next(&pieces) == PIECES_AT_ONCE, "what is tried first");
            at_once(&pieces, 200, costs[i], noise, &seed);
            const int found = at_once(&pieces, 10000, costs[i], noise, &seed);
            CHECK(i == 0 ? found > 9500 : found < 500, "case %zu, noise %u: %d at once", i, noise, found);
        }
}

static void follows_a_change(void)
{
    static const double before[2] = {100e3, 150e3}, after[2] = {200e3, 150e3};
    struct pieces pieces;
    uint64_t seed = 2;

    pieces_init(&pieces);
    CHECK(at_once(&pieces, 20000, before, 10, &seed) > 19500, "at once was cheaper");
    at_once(&pieces, PIECES_SELDOM + 100, after, 10, &seed);
    CHECK(at_once(&pieces, 10000, after, 10, &seed) < 500, "pieces have become cheaper");
    at_once(&pieces, PIECES_SELDOM + 100, before, 10, &seed);
    CHECK(at_once(&pieces, 10000, before, 10, &seed) > 9500, "at once has become cheaper again");
}

static void single_values_count_little(void)
{
    struct pieces pieces;

    pieces_init(&pieces);
    for (int i = 0; i < PIECES_SOON + PIECES_TRIAL; i++)
        pieces_note(&pieces, SIZE, pieces_next(&pieces) == PIECES_AT_ONCE ? 100e3 : 110e3);
    CHECK(pieces.way == PIECES_AT_ONCE && !pieces.trial, "the trial failed");
    pieces_note(&pieces, SIZE, 1e9); /* the thread was interrupted for a second */
    CHECK(pieces.cost[PIECES_AT_ONCE] < 120e3 * 1024 / SIZE, "cost %g", pieces.cost[PIECES_AT_ONCE]);
}

static void equal_ways_stay(void)
{
    static const double equal[2] = {0.0, 0.0}; /* as without a clock */
    struct pieces pieces;
    uint64_t seed = 3;

    pieces_init(&pieces);
    CHECK(at_once(&pieces, 10000, equal, 0, &seed) > 9500, "nothing to choose between");
    CHECK(pieces.rest == PIECES_SELDOM, "trials become seldom: %u", pieces.rest);
}

static int users; /* of the memory, at the moment */

/* Counts how often it had the memory, or makes it negative if it was not the only one. */
static void *take_and_give(void *taken)
{
    int count = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t *memory = pieces_take();
        if (memory == NULL)
            continue;
        count++;
        if (__atomic_add_fetch(&users, 1, __ATOMIC_SEQ_CST) != 1) {
            *(int *)taken = -1;
            return NULL;
        }
        memset(memory + i % PIECES_WHOLE, i, PIECES_LEAD); /* for ThreadSanitizer */
        __atomic_sub_fetch(&users, 1, __ATOMIC_SEQ_CST);
        pieces_give(memory);
    }
    *(int *)taken = count;
    return NULL;
}

static void memory_is_one_threads(void)
{
    pthread_t threads[THREADS];
    int taken[THREADS] = {0};

    uint8_t *memory = pieces_take();
    CHECK(memory != NULL && (uintptr_t)memory % PIECES_LEAD == 0, "aligned");
    CHECK(pieces_take() == NULL, "there is one");
    pieces_forked(); /* in the child of a process whose other thread had it */
    uint8_t *another = pieces_take();
    CHECK(another != NULL && another != memory, "a new one");
    free(memory);
    pieces_give(another);
    pieces_forked(); /* nobody had it */
    CHECK(pieces_take() == another, "the same");
    CHECK(pieces_take() == NULL, "there is one");
    pieces_give(another);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, take_and_give, &taken[i]) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(taken[i] >= 0, "thread %d was not the only one", i);
    }
}

static void the_clock_is_of_the_thread(void)
{
    const double start = pieces_clock();
    CHECK(start > 0.0, "no clock");
    usleep(50000);
    CHECK(pieces_clock() - start < 25e6, "sleeping does not count");
}

int main(void)
{
    finds_the_cheaper_way();
    follows_a_change();
    single_values_count_little();
    equal_ways_stay();
    memory_is_one_threads();
    the_clock_is_of_the_thread();
    puts("pieces: ok");
    return 0;
}
