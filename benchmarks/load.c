/* The load generator: one thread, one epoll set, and every byte checked.
 *
 *     load MODE --port P [--tls] [--connections N] [--size S] [--depth D]
 *          [--seconds T | --messages M] [--warmup T]
 *
 * The conversation with the runner is what makes the figure exact. After a
 * warm-up the load lets every answer arrive, prints "ready" and waits for a line
 * on stdin; after the measured phase it again lets every answer arrive, and prints
 * one line of JSON. Whoever reads the server's CPU clock at those two moments sees
 * an idle server and a count of messages to which all of the difference belongs.
 *
 * What is sent is a ring of pseudo-random units, so that bytes lost, doubled or out
 * of order differ from what is expected at their place in the stream.
 *
 *     cc -O2 load.c -o load -lssl -lcrypto      or      cc -O2 -DNO_TLS load.c -o load
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <signal.h>
#include <time.h>

#include "latency.h"
#include "wire.h"

#define BUFFER_SIZE (256 * 1024)
#define EVENTS_PER_TURN 256
#define STALL_MS 20000 /* silence after which a server is called stuck */

struct conn {
    struct wire wire;
    uint32_t watched;         /* the epoll mask in force; 0: not in the set */
    uint64_t sent, received;  /* bytes, since the connection was opened */
    uint64_t allowed;         /* how far *sent* may go: units released x size */
    uint64_t released;        /* units */
    uint64_t *stamps;         /* when unit i was released, at i % depth */
    uint64_t opened_at;
};

static struct {
    enum { ECHO, LINE, FRAME, CHURN, BULK, MEMORY } mode;
    int port, connections, depth;
    size_t size; /* of one unit on the wire, header and newline included */
    bool tls, exchange, is_unix;
    double seconds, warmup;
    uint64_t messages;
} opt = {.connections = 10, .depth = 1, .size = 1024, .seconds = 2, .warmup = 0.3};

static int epoll_fd;
static SSL_CTX *tls_context;
static struct conn *conns;
static unsigned char *ring, *buffer;
static size_t ring_size; /* what repeats; *depth* more units follow it, so that any
                            stretch of outstanding bytes is contiguous */
static struct latency latencies;
static uint64_t done, phase_ends, phase_limit, released_in_phase;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void make_ring(void)
{
    size_t units = opt.size > 16384 ? 3 : 65536 / opt.size + 1;
    uint64_t x = 0x9E3779B97F4A7C15u;
    if (units < (size_t)opt.depth)
        units = (size_t)opt.depth;
    ring_size = units * opt.size;
    size_t total = ring_size + (size_t)opt.depth * opt.size;
    ring = malloc(total);
    buffer = malloc(BUFFER_SIZE);
    if (!ring || !buffer)
        die("out of memory");
    for (size_t i = 0; i < ring_size; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        ring[i] = opt.mode == LINE ? 'a' + x % 26 : (unsigned char)x;
    }
    for (size_t i = 0; i < units; i++) {
        unsigned char *unit = ring + i * opt.size;
        uint32_t length = htonl((uint32_t)opt.size - 4);
        if (opt.mode == LINE)
            unit[opt.size - 1] = '\n';
        else if (opt.mode == FRAME)
            memcpy(unit, &length, 4);
    }
    memcpy(ring + ring_size, ring, total - ring_size);
}

/* ---- connections ---- */

static void watch(struct conn *c, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.ptr = c};
    if (mask == c->watched)
        return;
    if (epoll_ctl(epoll_fd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->wire.fd, &event))
        die("epoll_ctl: %s", strerror(errno));
    c->watched = mask;
}

static void open_conn(struct conn *c)
{
    uint64_t *stamps = c->stamps;
    memset(c, 0, sizeof *c);
    c->stamps = stamps ? stamps : calloc((size_t)opt.depth, sizeof *stamps);
    c->opened_at = now_ns();
    wire_open(&c->wire, opt.port, opt.is_unix, tls_context);
    watch(c, EPOLLIN | (c->wire.wants_write ? EPOLLOUT : 0));
}

static void close_conn(struct conn *c)
{
    wire_close(&c->wire);
    c->watched = 0;
}

/* Wait for events; the whole program stands still only here. */
static int turn(struct epoll_event *events)
{
    int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, STALL_MS);
    if (n == 0)
        die("nothing happened for %d s: the server is stuck", STALL_MS / 1000);
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    return n < 0 ? 0 : n;
}

static bool may_release(uint64_t now)
{
    return phase_limit ? released_in_phase < phase_limit : now < phase_ends;
}

static void release(struct conn *c, uint64_t now)
{
    c->stamps[c->released++ % (uint64_t)opt.depth] = now;
    c->allowed += opt.size;
    released_in_phase++;
}

static void send_allowed(struct conn *c)
{
    bool blocked = false;
    while (c->sent < c->allowed && !blocked) {
        ssize_t n = wire_send(&c->wire, ring + c->sent % ring_size, c->allowed - c->sent);
        if (n == WIRE_EOF)
            die("the server closed a connection in use");
        c->sent += (uint64_t)n;
        blocked = n == WIRE_AGAIN;
    }
    watch(c, EPOLLIN | (blocked && c->wire.wants_write ? EPOLLOUT : 0));
}

/* One read; checks the bytes and returns their count, 0 when there are none, or
 * WIRE_EOF. */
static ssize_t receive(struct conn *c)
{
    ssize_t n = wire_recv(&c->wire, buffer, BUFFER_SIZE);
    if (n <= 0)
        return n;
    if ((uint64_t)n > c->sent - c->received)
        die("the server sent back more than it was sent");
    if (memcmp(buffer, ring + c->received % ring_size, (size_t)n) != 0)
        die("the server sent back other bytes after %llu", (unsigned long long)c->received);
    c->received += (uint64_t)n;
    return n;
}

/* ---- echo, line, frame: units there and back, *depth* in flight ---- */

static int settled; /* connections with nothing outstanding */

static void exchange_event(struct conn *c)
{
    ssize_t n;
    do {
        uint64_t before = c->received / opt.size;
        n = receive(c);
        if (n == WIRE_EOF)
            die("the server closed a connection in use");
        uint64_t after = c->received / opt.size, now = now_ns();
        for (uint64_t unit = before; unit < after; unit++) {
            latency_record(&latencies, now - c->stamps[unit % (uint64_t)opt.depth]);
            done++;
            if (may_release(now))
                release(c, now);
        }
        if (n > 0 && c->received == c->allowed)
            settled++;
    } while (n > 0 && (c->wire.ssl || n == BUFFER_SIZE)); /* TLS keeps bytes epoll cannot see */
    send_allowed(c);
}

static void exchange_phase(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    settled = 0;
    for (int i = 0; i < opt.connections; i++) {
        uint64_t now = now_ns();
        int units = opt.depth;
        while (units-- && (may_release(now) || units == opt.depth - 1))
            release(&conns[i], now);
        send_allowed(&conns[i]);
    }
    while (settled < opt.connections)
        for (int i = 0, n = turn(events); i < n; i++)
            exchange_event(events[i].data.ptr);
}

/* Open conns[0..count) and wait until each can carry bytes. At most *at_once* are
 * on their way, since a full accept queue costs a second of retransmission. */
static void open_all(int count, int at_once)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int opened = 0, up = 0;
    while (up < count) {
        while (opened < count && opened - up < at_once)
            open_conn(&conns[opened++]);
        for (int i = 0, n = turn(events); i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c->wire.ready && wire_establish(&c->wire))
                up++;
            else if (c->wire.ready && !(events[i].events & EPOLLOUT))
                while (receive(c) > 0) /* TLS session tickets */
                    ;
            watch(c, EPOLLIN | (c->wire.ready || !c->wire.wants_write ? 0 : EPOLLOUT));
        }
        if (up % at_once == 0)
            usleep(2000);
    }
}

/* ---- churn: connect, one unit there and back, close ---- */

static int slots_open;

static void churn_event(struct conn *c)
{
    if (!wire_establish(&c->wire)) {
        watch(c, EPOLLIN | (c->wire.wants_write ? EPOLLOUT : 0));
        return;
    }
    if (!c->allowed)
        c->allowed = opt.size;
    if (c->sent < c->allowed)
        send_allowed(c);
    else
        watch(c, EPOLLIN);
    ssize_t n;
    while ((n = receive(c)) > 0)
        if (c->received == opt.size && !c->wire.closing && !wire_half_close(&c->wire))
            die("no room for a goodbye");
    if (n == WIRE_EOF) {
        uint64_t now = now_ns();
        if (c->received < opt.size)
            die("the server closed before it answered");
        latency_record(&latencies, now - c->opened_at);
        done++;
        close_conn(c);
        if (may_release(now)) {
            released_in_phase++;
            open_conn(c);
        } else
            slots_open--;
    }
}

static void churn_phase(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    for (slots_open = 0; slots_open < opt.connections; slots_open++) {
        released_in_phase++;
        open_conn(&conns[slots_open]);
    }
    while (slots_open)
        for (int i = 0, n = turn(events); i < n; i++)
            churn_event(events[i].data.ptr);
}

/* ---- bulk: send until the time is up, then wait for the server to close ---- */

static void bulk_phase(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    struct conn *c = &conns[0];
    uint64_t limit = phase_limit * opt.size;
    for (bool over = false, said = false;;) {
        uint32_t mask = EPOLLIN;
        while (!over) {
            size_t offset = c->sent % ring_size;
            ssize_t n = wire_send(&c->wire, ring + offset, ring_size - offset);
            if (n == WIRE_EOF)
                die("the server closed before the end");
            if (n == WIRE_AGAIN) { /* a TLS record half out must be finished first */
                mask |= EPOLLOUT;
                break;
            }
            c->sent += (uint64_t)n;
            over = limit ? c->sent >= limit : now_ns() >= phase_ends;
        }
        if (over && !said) {
            said = wire_half_close(&c->wire);
            /* With the FIN as well: there are servers that, at a close_notify alone,
             * wait for it for ever, and then there is no figure. */
            if (said)
                shutdown(c->wire.fd, SHUT_WR);
            else
                mask |= EPOLLOUT;
        }
        watch(c, mask);
        int n = turn(events);
        if (n && (events[0].events & ~(uint32_t)EPOLLOUT)) {
            ssize_t got = wire_recv(&c->wire, buffer, BUFFER_SIZE);
            if (got > 0)
                die("the server answered a load that wants no answer");
            if (got == WIRE_EOF && !said)
                die("the server closed before the end");
            if (got == WIRE_EOF)
                break;
        }
    }
    done += c->sent / opt.size;
    close_conn(c);
}

/* ---- the conversation ---- */

static void begin_phase(double seconds, uint64_t messages)
{
    latency_reset(&latencies);
    done = released_in_phase = 0;
    phase_limit = messages;
    phase_ends = now_ns() + (uint64_t)(seconds * 1e9);
}

static void run_phase(void)
{
    switch (opt.mode) {
    case CHURN:
        churn_phase();
        break;
    case BULK:
        bulk_phase();
        break;
    case MEMORY:
        open_all(opt.connections, 20);
        if (opt.exchange) {
            begin_phase(0, 1); /* one unit for each, and no more */
            exchange_phase();
        }
        done = (uint64_t)opt.connections;
        break;
    default:
        exchange_phase();
    }
}

static void wait_for_line(void)
{
    int c;
    while ((c = getchar()) != '\n')
        if (c == EOF)
            exit(0); /* the runner is gone */
}

/* Memory is measured as a difference, so what the first connections alone make a
 * server load must be there before: a few come, speak, and leave. */
static void memory_warmup(void)
{
    int wanted = opt.connections;
    opt.connections = wanted < 20 ? wanted : 20;
    open_all(opt.connections, 20);
    exchange_phase();
    for (int i = 0; i < opt.connections; i++)
        if (!wire_half_close(&conns[i].wire))
            die("no room for a goodbye");
    struct epoll_event events[EVENTS_PER_TURN];
    for (int left = opt.connections; left;)
        for (int i = 0, n = turn(events); i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (receive(c) == WIRE_EOF) {
                close_conn(c);
                left--;
            }
        }
    opt.connections = wanted;
}

static void parse(int argc, char **argv)
{
    static const char *const modes[] = {"echo", "line", "frame", "churn", "bulk", "memory"};
    static const struct option options[] = {
        {"port", required_argument, 0, 'p'},   {"connections", required_argument, 0, 'c'},
        {"size", required_argument, 0, 's'},   {"depth", required_argument, 0, 'd'},
        {"seconds", required_argument, 0, 't'}, {"messages", required_argument, 0, 'm'},
        {"warmup", required_argument, 0, 'w'}, {"tls", no_argument, 0, 'S'},
        {"exchange", no_argument, 0, 'x'},     {"unix", no_argument, 0, 'u'},
        {0, 0, 0, 0}};
    int found = -1;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 's': opt.size = (size_t)atol(optarg); break;
        case 'd': opt.depth = atoi(optarg); break;
        case 't': opt.seconds = atof(optarg); break;
        case 'm': opt.messages = (uint64_t)atoll(optarg); break;
        case 'w': opt.warmup = atof(optarg); break;
        case 'S': opt.tls = true; break;
        case 'x': opt.exchange = true; break;
        case 'u': opt.is_unix = true; break;
        default: exit(2);
        }
    for (size_t i = 0; optind < argc && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(argv[optind], modes[i]) == 0)
            found = (int)i;
    if (found < 0 || opt.port < 1 || opt.connections < 1 || opt.depth < 1 || opt.size < 5)
        die("want a mode (echo, line, frame, churn, bulk, memory), --port, and sizes above 4");
    opt.mode = found;
    if (opt.mode == BULK)
        opt.connections = 1;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    parse(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc((size_t)opt.connections, sizeof *conns);
    tls_context = opt.tls ? wire_tls_context() : NULL;
    make_ring();

    bool standing = opt.mode != CHURN && opt.mode != MEMORY;
    if (standing)
        open_all(opt.connections, 50);
    begin_phase(opt.warmup, 0);
    if (opt.mode == MEMORY)
        memory_warmup();
    else
        run_phase();
    if (opt.mode == BULK) /* the warm-up's connection is used up */
        open_all(1, 1);

    puts("ready");
    fflush(stdout);
    wait_for_line();
    begin_phase(opt.seconds, opt.messages);
    uint64_t started = now_ns();
    run_phase();
    double elapsed = (double)(now_ns() - started) / 1e9;
    printf("{\"messages\": %llu, \"bytes\": %llu, \"seconds\": %.6f, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           (unsigned long long)done, (unsigned long long)done * opt.size, elapsed,
           latency_quantile_us(&latencies, 0.50), latency_quantile_us(&latencies, 0.99));
    fflush(stdout);
    wait_for_line(); /* hold the connections while the server is weighed */
    return 0;
}
