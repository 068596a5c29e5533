/* A histogram of latencies with bounded relative error.
 *
 * Millions of messages pass in one run, so samples are not kept: each falls
 * into one of 64 steps per power of two, which bounds the error of a quantile
 * to about 1.6 % whatever the range, for 32 KiB of memory.
 */
#ifndef LATENCY_H
#define LATENCY_H

#include <stdint.h>
#include <string.h>

#define LATENCY_STEP_BITS 6
#define LATENCY_STEPS (1u << LATENCY_STEP_BITS)

struct latency {
    uint64_t count;
    uint64_t buckets[64 * LATENCY_STEPS];
};

static inline unsigned latency_bucket(uint64_t ns)
{
    if (ns < LATENCY_STEPS)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - LATENCY_STEP_BITS;
    return (shift + 1) * LATENCY_STEPS + (unsigned)((ns >> shift) & (LATENCY_STEPS - 1));
}

/* The middle of the bucket, so that rounding favours neither side. */
static inline double latency_of_bucket(unsigned bucket)
{
    if (bucket < LATENCY_STEPS)
        return bucket;
    unsigned shift = bucket / LATENCY_STEPS - 1;
    uint64_t low = (uint64_t)(LATENCY_STEPS + bucket % LATENCY_STEPS) << shift;
    return (double)low + (double)((uint64_t)1 << shift) / 2;
}

static inline void latency_reset(struct latency *h) { memset(h, 0, sizeof *h); }

static inline void latency_record(struct latency *h, uint64_t ns)
{
    h->count++;
    h->buckets[latency_bucket(ns)]++;
}

/* In microseconds; the smallest bucket below which *share* of the samples lie. */
static inline double latency_quantile_us(const struct latency *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->count * share), seen = 0;
    for (unsigned i = 0; i < 64 * LATENCY_STEPS; i++) {
        seen += h->buckets[i];
        if (seen > wanted)
            return latency_of_bucket(i) / 1000.0;
    }
    return 0;
}

#endif
